"""The answer key: what every token of a document means, and what the document cost the generator.

Entropy. The cost of a document is the sum of -log p over its choices *as far as its text shows them*: a draw is paid
for where a column of it is first printed, and then only for what that column tells; a later column of the same draw
costs what it still adds. So the sum is the cost of the text, and its mean is the entropy that bounds every model's
loss (up to choices that print the same text, which templates avoid).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from course_utils.organism.spec import Draw, Topic, WordList

if TYPE_CHECKING:
    from course_utils.organism.sampler import Piece, Sampler, Trace


def label(sampler: Sampler, trace: Trace) -> dict[str, list[Any]]:
    """Return one value a token for every column of ``sampler.COLUMNS`` (None where it does not apply)."""
    from course_utils.organism.sampler import COLUMNS

    topic, columns = trace.topic, {name: [] for name in COLUMNS}
    doc = {
        "topic": topic.name,
        "doc_sentiment": trace.env[topic.sentiment] if topic.sentiment else None,
        "trait": f"{topic.name}.{topic.trait}:{_shown(topic, trace)}" if topic.trait else None,
    }
    subject = None
    for template, pieces in trace.sentences:
        position = 0
        for piece in pieces:
            own = _meaning(piece)
            # Known from context: from the token after the first mention on.
            known, subject = subject, subject or _names_subject(topic, piece)
            for i, token in enumerate(piece.ids):
                text = sampler.text_of[token].strip()
                values = {
                    **doc,
                    **(own if i >= _article(piece) else {}),
                    "template": template,
                    "sentence_pos": position,
                    "subject": known,
                    "digit": int(text) if len(text) == 1 and text in "0123456789" else None,
                    "frequency": sampler.world.frequency_class[token],
                }
                for name, column in columns.items():
                    column.append(values.get(name))
                position += 1
    return columns


def _shown(topic: Topic, trace: Trace) -> str:
    draw, value = topic.draws[topic.trait], trace.env[topic.trait]
    return draw.list.rows[value][0][0] if draw.list is not None else str(value)


def _article(piece: Piece) -> int:
    return 1 if piece.segment.slot is not None and piece.segment.slot.article else 0


def _meaning(piece: Piece) -> dict[str, str]:
    words: WordList | None = piece.segment.list
    if words is None:
        return {}
    row, name = words.rows[piece.value], words.columns[piece.segment.column]
    found = (
        {"entity": words.key(piece.value)}
        if name in words.names
        else {"attribute": f"{name}:{row[piece.segment.column][0]}"}
    )
    if words.sentiment is not None:
        found["word_sentiment"] = row[words.columns.index(words.sentiment)][0]
    return found


def _names_subject(topic: Topic, piece: Piece) -> str | None:
    slot, words = piece.segment.slot, piece.segment.list
    if (
        slot is None
        or words is None
        or slot.name != topic.subject
        or words.columns[piece.segment.column] not in words.names
    ):
        return None
    return words.key(piece.value)


def entropy(sampler: Sampler, trace: Trace) -> float:
    """Cost of a document in nats, given its topic."""
    topic, (low, high) = trace.topic, trace.topic.length
    n = len(trace.sentences) - 1 - bool(topic.end)
    nats = math.log(len(topic.begin)) + math.log(high - low + 1) + math.log(max(len(topic.end), 1))
    nats += math.lgamma(len(topic.then) + 1) - math.lgamma(len(topic.then) - n + 1)  # n of them in this order
    shown: dict[str, tuple[int, ...]] = {}
    for _, pieces in trace.sentences:
        chains = set()
        for piece in pieces:
            forms = piece.segment.table[piece.value]
            nats += math.log(len(forms))
            slot = piece.segment.slot
            if slot is None or slot.name in chains:
                continue
            if piece.segment.fresh is not None:
                nats += _fresh(trace, piece) + (_reveal(sampler, trace, slot.group, 0, shown) if slot.group else 0.0)
            elif slot.name in topic.draws:
                nats += _reveal(sampler, trace, slot.name, piece.segment.column, shown)
                chains |= {slot.name} if topic.draws[slot.name].kind == "chain" else set()
    # Held-out combinations never occur, so the others are a little likelier than the product of their parts.
    return nats + sum(math.log1p(-fraction) for names, fraction in topic.held_out if set(names) <= set(shown))


def _fresh(trace: Trace, piece: Piece) -> float:
    segment = piece.segment
    sums, rows = segment.fresh[trace.env[segment.slot.group] if segment.slot.group else ""]
    cells = [segment.list.rows[r][segment.column] for r in rows]
    weights = [b - a for a, b in zip([0.0, *sums], sums, strict=False)]
    cell = segment.list.rows[piece.value][segment.column]
    return -math.log(sum(w for w, c in zip(weights, cells, strict=True) if c == cell))


def _reveal(sampler: Sampler, trace: Trace, var: str, column: int, shown: dict[str, tuple[int, ...]]) -> float:
    before = shown.get(var, ())
    if column in before:
        return 0.0
    shown[var] = (*before, column)
    draw, value = trace.topic.draws[var], trace.env[var]
    if draw.kind == "int":
        return 0.0 if before else -math.log(draw.weights[value - draw.low])
    if draw.kind == "chain":
        return _chain(sampler, draw, value)
    earlier = {v: trace.env[v] for v in list(trace.topic.draws)[: list(trace.topic.draws).index(var)]}
    values, sums, key = sampler.distribution(trace.topic, var, draw, earlier)
    cached = (key, before, column, value)
    if cached not in sampler._cost_cache:
        sampler._cost_cache[cached] = _column_cost(draw, values, sums, value, before, column)
    return sampler._cost_cache[cached]


def _column_cost(
    draw: Draw, values: list[Any], sums: list[float], value: Any, before: tuple[int, ...], column: int
) -> float:
    weights = [b - a for a, b in zip([0.0, *sums], sums, strict=False)]

    def cell(v: Any, c: int) -> Any:
        return draw.list.rows[v][c] if draw.list is not None else v

    alike = [(w, v) for w, v in zip(weights, values, strict=True) if all(cell(v, c) == cell(value, c) for c in before)]
    same = sum(w for w, v in alike if cell(v, column) == cell(value, column))
    return -math.log(same / sum(w for w, _ in alike))


def _chain(sampler: Sampler, draw: Draw, words: tuple[str, ...]) -> float:
    table, nats = sampler.world.chains[draw.chain], math.log(draw.high - draw.low + 1)
    for before, word in zip(("start", *words), words, strict=False):
        nats -= math.log(table[before][word] / sum(table[before].values()))
    return nats
