"""Drawing documents, and saying afterwards what each token meant and what each choice cost.

Drawing leaves a *trace*: for every piece of text, which segment printed it and with which value. Labels and entropy are
read off the trace, so they cost nothing when nobody asks.
"""

from __future__ import annotations

import math
import random
import zlib
from bisect import bisect
from typing import TYPE_CHECKING, Any, NamedTuple

from course_utils.errors import CourseError, one_of
from course_utils.organism.compiler import Compiler, Segment, Value, arithmetic
from course_utils.organism.spec import Draw, Topic, cumulative

if TYPE_CHECKING:
    from course_utils.organism.world import Document, World

COLUMNS = (
    "topic",
    "template",
    "entity",
    "subject",
    "attribute",
    "word_sentiment",
    "doc_sentiment",
    "trait",
    "digit",
    "sentence_pos",
    "frequency",
)


class Piece(NamedTuple):
    """What one segment printed in one document."""

    ids: tuple[int, ...]
    segment: Segment
    value: Value


class Trace(NamedTuple):
    """How one document came about."""

    topic: Topic
    env: dict[str, Value]
    sentences: list[tuple[str, list[Piece]]]


class Sampler:
    """Draws documents from a world's compiled templates."""

    def __init__(self, world: World) -> None:
        self.world, self.compiler = world, Compiler(world)
        self.sentences, self.text_of = self.compiler.sentences, self.compiler.text_of
        self._group_cache: dict[Any, Any] = {}
        self._cost_cache: dict[Any, float] = {}

    def document(self, rng: random.Random, topics: tuple[str, ...], *, labels: bool, entropy: bool) -> Document:
        """Draw one document about one of these topics (see :meth:`World.documents`)."""
        from course_utils.organism.answer_key import entropy as cost
        from course_utils.organism.answer_key import label
        from course_utils.organism.world import Document

        if topics not in self._group_cache:
            self._group_cache[topics] = cumulative([self.world.topics[name].weight for name in topics])
        sums = self._group_cache[topics]
        chosen = bisect(sums, rng.random())
        topic = self.world.topics[topics[chosen]]
        trace = self.trace(topic, rng)
        ids = [i for _, pieces in trace.sentences for piece in pieces for i in piece.ids]
        share = sums[chosen] - (sums[chosen - 1] if chosen else 0.0)
        nats = cost(self, trace) - math.log(share) if entropy else None
        text = "".join([self.text_of[i] for i in ids])
        return Document(ids, text, topic.name, label(self, trace) if labels else None, nats)

    def trace(self, topic: Topic, rng: random.Random, fixed: dict[str, Value] | None = None) -> Trace:
        """Draw the document's draws, then its sentences."""
        env = self.draws(topic, rng, fixed)
        begin = _pick(len(topic.begin), rng)
        low, high = topic.length
        order = list(range(len(topic.then)))
        rng.shuffle(order)
        chosen = [f"begin{begin + 1}", *(f"then{i + 1}" for i in order[: low + _pick(high - low + 1, rng)])]
        if topic.end:
            chosen.append(f"end{_pick(len(topic.end), rng) + 1}")
        compiled = self.sentences[topic.name]
        names = [f"{topic.name}/{c}" for c in chosen]
        return Trace(topic, env, [(n, self.fill(compiled[n], env, rng)) for n in names])

    def draws(self, topic: Topic, rng: random.Random, fixed: dict[str, Value] | None = None) -> dict[str, Value]:
        """Draw a document's persistent values; combinations held out of all documents are drawn again."""
        while True:
            env: dict[str, Value] = {}
            for var, draw in topic.draws.items():
                env[var] = fixed[var] if fixed and var in fixed else self._draw(topic, var, draw, env, rng)
            if fixed or not any(is_held_out(h, env) for h in topic.held_out):
                break
        for var, (left, op, right) in topic.derive.items():
            a, b = env[left], env[right] if right in env else int(right)
            env[var] = (a + b) % len(topic.draws[left].list.rows) if op == "shift" else arithmetic(a, op, b)
        return env

    def _draw(self, topic: Topic, var: str, draw: Draw, env: dict[str, Value], rng: random.Random) -> Value:
        if draw.kind == "int" and not draw.zipf:
            return draw.low + _pick(draw.high - draw.low + 1, rng)
        if draw.kind == "chain":
            return self._chain(draw, rng)
        values, sums, _ = self.distribution(topic, var, draw, env)
        return values[bisect(sums, rng.random())] if len(values) > 1 else values[0]

    def _chain(self, draw: Draw, rng: random.Random) -> tuple[str, ...]:
        table, words = self.world.chains[draw.chain], []
        for _ in range(draw.low + _pick(draw.high - draw.low + 1, rng)):
            row = table[words[-1] if words else "start"]
            words.append(list(row)[bisect(cumulative(list(row.values())), rng.random())])
        return tuple(words)

    def distribution(
        self, topic: Topic, var: str, draw: Draw, env: dict[str, Value]
    ) -> tuple[list[Value], list[float], Any]:
        """Values that a row or a choice can take given the draws before it: values, cumulative weights, cache key."""
        if draw.kind == "int":
            key = (topic.name, var)
        elif draw.kind == "choice":
            given = self.given(topic, draw, env)
            key = (topic.name, var, given)
        else:
            taken = tuple(
                sorted(env[v] for v, d in topic.draws.items() if v in env and d.list is draw.list and d.kind == "row")
            )
            key = (
                topic.name,
                var,
                taken,
                tuple(self._wanted(topic, column, value, env) for column, value in draw.where),
            )
        if key not in self._group_cache:
            if draw.kind == "int":
                self._group_cache[key] = list(range(draw.low, draw.high + 1)), cumulative(draw.weights)
            elif draw.kind == "choice":
                self._group_cache[key] = self._choice(draw, given)
            else:
                self._group_cache[key] = self._rows(f"topic {topic.name}, draw {var}", draw, *key[2:])
        return (*self._group_cache[key], key)

    def _choice(self, draw: Draw, given: str) -> tuple[list[Value], list[float]]:
        table = draw.options[given]
        values = [draw.list.rows_with(v)[0] if draw.list is not None else v for v in table]
        return values, cumulative(list(table.values()))

    @staticmethod
    def _rows(
        where: str, draw: Draw, taken: tuple[int, ...], wanted: tuple[str, ...]
    ) -> tuple[list[Value], list[float]]:
        words = draw.list
        columns = [words.column(column, where) for column, _ in draw.where]
        rows = [
            i
            for i, row in enumerate(words.rows)
            if i not in taken and all(row[c] == (w,) for c, w in zip(columns, wanted, strict=True))
        ]
        if not rows:
            raise CourseError(
                f"{where}: no row of list {words.name} is left where "
                f"{', '.join(f'{c}={w}' for (c, _), w in zip(draw.where, wanted, strict=True)) or 'all are taken'}."
            )
        return rows, cumulative([words.weights[i] for i in rows])

    def _wanted(self, topic: Topic, column: str, value: str, env: dict[str, Value]) -> str:
        if not value.startswith("="):
            return value
        other, _, field = value[1:].partition(".")
        draw = topic.draws.get(other)
        if draw is None or other not in env:
            raise one_of(f"topic {topic.name}: where {column}", value, [f"={v}" for v in env])
        if draw.kind == "choice" and draw.list is None:
            return str(env[other])
        return draw.list.rows[env[other]][draw.list.column(field or column, f"topic {topic.name}")][0]

    @staticmethod
    def given(topic: Topic, draw: Draw, env: dict[str, Value]) -> str:
        """Return the value that decides which probabilities a choice has; empty if it depends on nothing."""
        if draw.given is None:
            return ""
        var, *column = draw.given
        other = topic.draws[var]
        value = (
            env[var]
            if other.list is None
            else other.list.rows[env[var]][other.list.column(*column or [None], topic.name)][0]
        )
        if value not in draw.options:
            raise one_of(f"topic {topic.name}: given {'.'.join(draw.given)}", value, draw.options)
        return str(value)

    @staticmethod
    def fill(segments: list[Segment], env: dict[str, Value], rng: random.Random) -> list[Piece]:
        """Print one sentence: look the values up, draw the fresh ones."""
        pieces = []
        for segment in segments:
            slot, value = segment.slot, 0
            if segment.fresh is not None:
                sums, rows = segment.fresh[env[slot.group] if slot.group else ""]
                value = rows[bisect(sums, rng.random())] if len(rows) > 1 else rows[0]
            elif slot is not None:
                value = env[slot.name]
            if type(value) is tuple:
                pieces += [Piece(segment.table[word][0], segment, word) for word in value]
                continue
            forms = segment.table[value]
            pieces.append(Piece(forms[_pick(len(forms), rng)] if len(forms) > 1 else forms[0], segment, value))
        return pieces


def is_held_out(rule: tuple[tuple[str, ...], float], env: dict[str, Value]) -> bool:
    """Whether these values form a combination kept out of all documents (a fixed share, by hash)."""
    names, fraction = rule
    return zlib.crc32(repr([env[name] for name in names]).encode()) % 10_000 < fraction * 10_000


def _pick(n: int, rng: random.Random) -> int:
    return int(rng.random() * n) if n > 1 else 0
