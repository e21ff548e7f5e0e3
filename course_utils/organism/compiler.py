"""From templates to token ids: every value that a segment can print, tokenized once.

The vocabulary falls out of it: it is the set of pieces that some template can print.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from course_utils.errors import CourseError, one_of
from course_utils.organism.grammar import Alternatives, Literal, Slot, indefinite, parse
from course_utils.organism.spec import Draw, Topic, WordList, cumulative
from course_utils.organism.tokenizer import END_OF_TEXT, pre_tokenizer

if TYPE_CHECKING:
    from course_utils.organism.world import World

Value = int | str | tuple[str, ...]


class Segment(NamedTuple):
    """A compiled segment: for every value its surface forms as token ids (literals have the one value 0)."""

    table: dict[Value, list[tuple[int, ...]]]
    slot: Slot | None = None
    list: WordList | None = None
    column: int = 0
    fresh: dict[str, tuple[list[float], list[int]]] | None = None  # group value → cumulative weights, rows


class Compiler:
    """A world's templates as segments, and the vocabulary that they need."""

    def __init__(self, world: World) -> None:
        self.world, self._cut, self._cuts = world, pre_tokenizer(), {}
        parsed = {
            t.name: [
                (
                    f"{t.name}/{part}{i + 1}",
                    parse((t.join if part != "begin" else "") + line, f"topic {t.name}, {part} {i + 1}"),
                )
                for part in ("begin", "then", "end")
                for i, line in enumerate(getattr(t, part))
            ]
            for t in world.topics.values()
        }
        tables = {
            name: [(label, [self._table(world.topics[name], s, label) for s in segments]) for label, segments in lines]
            for name, lines in parsed.items()
        }
        words = {
            piece
            for lines in tables.values()
            for _, segments in lines
            for table, *_ in segments
            for forms in table.values()
            for form in forms
            for piece in self._pieces(form)
        }
        self.vocabulary = self._order(words)
        self.id_of = {piece: i for i, piece in enumerate(self.vocabulary)}
        self.text_of = [_decode(piece) for piece in self.vocabulary]
        self.sentences = {
            name: {label: [self._compile(s) for s in segments] for label, segments in lines}
            for name, lines in tables.items()
        }
        for topic in world.topics.values():
            self._check_length(topic)

    def compile_text(self, topic: Topic, template: str, where: str) -> list[Segment]:
        """Compile a template outside the topic's own (exam prompts); raises CourseError on a word the world lacks."""
        raw = [self._table(topic, segment, where) for segment in parse(template, where)]
        for table, *_ in raw:
            for piece in (p for forms in table.values() for form in forms for p in self._pieces(form)):
                if piece not in self.id_of:
                    raise CourseError(
                        f"{where}: {_decode(piece)!r} is no word of this world; use words of its templates."
                    )
        return [self._compile(segment) for segment in raw]

    def _pieces(self, text: str) -> list[str]:
        if text not in self._cuts:
            self._cuts[text] = [piece for piece, _ in self._cut.pre_tokenize_str(text)]
        return self._cuts[text]

    @staticmethod
    def _order(words: set[str]) -> list[str]:
        from tokenizers.pre_tokenizers import ByteLevel

        alphabet = sorted(ByteLevel.alphabet())
        return [END_OF_TEXT, *alphabet, *sorted(words - set(alphabet))]

    def _compile(self, raw: tuple[Any, ...]) -> Segment:
        table, *rest = raw
        return Segment(
            {
                value: [tuple(self.id_of[p] for p in self._pieces(form)) for form in forms]
                for value, forms in table.items()
            },
            *rest,
        )

    def _table(self, topic: Topic, segment: Literal | Alternatives | Slot, where: str) -> tuple[Any, ...]:
        if isinstance(segment, Literal):
            return ({0: [segment.text]},)
        if isinstance(segment, Alternatives):
            return ({0: [segment.prefix + text for text in segment.texts]},)
        if segment.name in topic.derive:
            return self._derived_table(topic, segment, where)
        if segment.name in topic.draws:
            return self._draw_table(topic.draws[segment.name], segment, where)
        if segment.name not in self.world.lists:
            raise one_of(f"{where}: slot", segment.name, [*topic.draws, *topic.derive, *self.world.lists])
        words = self.world.lists[segment.name]
        if segment.group is not None and (
            segment.group not in topic.draws or topic.draws[segment.group].kind != "choice"
        ):
            raise one_of(
                f"{where}: choice after /",
                segment.group,
                [v for v, d in topic.draws.items() if d.kind == "choice"],
            )
        return (*self._row_table(words, segment, where), self._fresh(topic, words, segment, where))

    def _draw_table(self, draw: Draw, slot: Slot, where: str) -> tuple[Any, ...]:
        if draw.kind == "int":
            return self._int_table(draw.low, draw.high, slot, where)
        if draw.kind == "chain":
            words = sorted({w for row in self.world.chains[draw.chain].values() for w in row})
            return ({w: [slot.prefix + w] for w in words}, slot)
        if draw.list is not None:
            return self._row_table(draw.list, slot, where)
        return ({value: [_print(slot, value)] for value in draw.values}, slot)

    def _derived_table(self, topic: Topic, slot: Slot, where: str) -> tuple[Any, ...]:
        left, op, right = topic.derive[slot.name]
        a = topic.draws[left]
        if op == "shift":
            return self._row_table(a.list, slot, where)
        b = topic.draws[right] if right in topic.draws else Draw("int", low=int(right), high=int(right))
        corners = [arithmetic(x, op, y) for x in (a.low, a.high) for y in (b.low, b.high)]
        return self._int_table(min(corners), max(corners), slot, where)

    def _int_table(self, low: int, high: int, slot: Slot, where: str) -> tuple[Any, ...]:
        if slot.column is None:
            return ({n: [_print(slot, str(n))] for n in range(low, high + 1)}, slot)
        words = self.world.lists.get("number_word")
        if slot.column != "word" or words is None or not 1 <= low <= high <= len(words.rows):
            raise CourseError(
                f"{where}: {{{slot.name}.{slot.column}}} is not printable; a number has only the column 'word', "
                "from one on, as far as the list number_word goes."
            )
        return ({n: [_print(slot, words.rows[n - 1][0][0])] for n in range(low, high + 1)}, slot)

    def _row_table(self, words: WordList, slot: Slot, where: str) -> tuple[Any, ...]:
        column = words.column(slot.column, where)
        return (
            {i: [_print(slot, form) for form in row[column]] for i, row in enumerate(words.rows)},
            slot,
            words,
            column,
        )

    def _fresh(self, topic: Topic, words: WordList, slot: Slot, where: str) -> dict[str, tuple[list[float], list[int]]]:
        if slot.group is None:
            groups = {"": list(range(len(words.rows)))}
        else:
            values = topic.draws[slot.group].values
            own = {value: words.rows_with(value) for value in values}
            groups = {
                v: (own[v] if not slot.negated else [r for w in values if w != v for r in own[w]]) for v in values
            }
        for value, rows in groups.items():
            if not rows:
                raise CourseError(f"{where}: list {words.name} has no row with the value {value!r}.")
        return {value: (cumulative([words.weights[r] for r in rows]), rows) for value, rows in groups.items()}

    def _check_length(self, topic: Topic) -> None:
        from course_utils.organism.world import LONGEST

        longest = {
            label: sum(_longest(topic, s) for s in segments) for label, segments in self.sentences[topic.name].items()
        }
        by_part = [
            sorted((n for label, n in longest.items() if label.startswith(f"{topic.name}/{part}")), reverse=True)
            for part in ("begin", "then", "end")
        ]
        worst = by_part[0][0] + sum(by_part[1][: topic.length[1]]) + sum(by_part[2][:1])
        if worst > LONGEST:
            raise CourseError(
                f"topic {topic.name} can write {worst} tokens, more than {LONGEST}; shorten it or its length."
            )


def arithmetic(a: int, op: str, b: int) -> int:
    """Return ``a op b`` for ``+``, ``-`` or ``*``."""
    return a + b if op == "+" else a - b if op == "-" else a * b


def _print(slot: Slot, form: str) -> str:
    text = f"{indefinite(form)} {form}" if slot.article else form
    return slot.prefix + (text[:1].upper() + text[1:] if slot.capital else text)


def _longest(topic: Topic, segment: Segment) -> int:
    longest = max(len(ids) for forms in segment.table.values() for ids in forms)
    draw = topic.draws.get(segment.slot.name) if segment.slot is not None else None
    return longest * draw.high if draw is not None and draw.kind == "chain" else longest


def _decode(piece: str) -> str:
    if piece == END_OF_TEXT:
        return piece
    return bytes(_BYTE[c] for c in piece).decode("utf-8", errors="replace")


def _byte_table() -> dict[str, int]:
    # GPT-2's stand-ins for bytes: printable Latin-1 characters stand for themselves, the others follow from 256 on.
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in own]
    return {chr(b): b for b in own} | {chr(256 + i): b for i, b in enumerate(rest)}


_BYTE = _byte_table()
