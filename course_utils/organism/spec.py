"""What the YAML files may say, read once and checked: word lists, draws and topics."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from course_utils.errors import CourseError, one_of

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)$")
_DERIVED = re.compile(r"(\w+) (\+|-|\*|shift) (\w+|-\d+)$")
_TOPIC_KEYS = (
    "weight",
    "draws",
    "derive",
    "subject",
    "sentiment",
    "trait",
    "length",
    "join",
    "begin",
    "then",
    "end",
    "held_out",
    "early",
)


@dataclass(frozen=True)
class WordList:
    """Things of one kind with their facts; row order is frequency order (Zipf)."""

    name: str
    columns: tuple[str, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], ...], ...]  # row → column → surface forms
    weights: tuple[float, ...]
    sentiment: str | None

    def column(self, name: str | None, where: str) -> int:
        """Index of a column (None: the key); raises :class:`CourseError` for an unknown one."""
        if name is None:
            return 0
        if name not in self.columns:
            raise one_of(f"{where}: column of list {self.name}", name, self.columns)
        return self.columns.index(name)

    def rows_with(self, value: str) -> list[int]:
        """Rows in which some column has exactly this value."""
        return [i for i, row in enumerate(self.rows) if (value,) in row]

    def key(self, row: int) -> str:
        """Name of a row in labels, e.g. ``"animal:tiger"``."""
        return f"{self.name}:{self.rows[row][0][0]}"


@dataclass(frozen=True)
class Draw:
    """One thing drawn once a document: a row of a list, an integer, a choice, or a chain of words."""

    kind: str  # "row" | "int" | "choice" | "chain"
    list: WordList | None = None
    where: tuple[tuple[str, str], ...] = ()
    low: int = 0
    high: int = 0
    zipf: float | int = 0
    chain: str = ""
    given: tuple[str, str] | None = None
    options: dict[str, dict[str, float]] = field(default_factory=dict)  # value of `given` (or "") → value → probability

    @property
    def weights(self) -> list[float]:
        """Probabilities of an integer's values, the lowest first."""
        raw = [(i + 1) ** -self.zipf for i in range(self.high - self.low + 1)]
        return [w / sum(raw) for w in raw]

    @property
    def values(self) -> list[str]:
        """All values that a choice can take."""
        return list(dict.fromkeys(v for table in self.options.values() for v in table))


@dataclass(frozen=True)
class Topic:
    """One kind of document."""

    name: str
    weight: float
    draws: dict[str, Draw]
    derive: dict[str, tuple[str, str, str]]
    subject: str | None
    sentiment: str | None
    trait: str | None
    length: tuple[int, int]
    join: str
    begin: tuple[str, ...]
    then: tuple[str, ...]
    end: tuple[str, ...]
    held_out: tuple[tuple[tuple[str, ...], float], ...]
    early: bool


def read_lists(source: dict[str, Any]) -> dict[str, WordList]:
    """Check and freeze the word lists."""
    return {name: _read_list(name, spec) for name, spec in source.items()}


def _read_list(name: str, spec: dict[str, Any]) -> WordList:
    columns, rows = tuple(spec["columns"]), spec.get("rows") or []
    for i, row in enumerate(rows):
        if len(row) != len(columns) or not all(
            isinstance(cell, str | int) and not isinstance(cell, bool) for cell in row
        ):
            raise CourseError(
                f"list {name}, row {i + 1}: {row!r} must hold {len(columns)} words ({', '.join(columns)}); "
                "quote words such as no, yes, on, off."
            )
    if not rows:
        raise CourseError(f"list {name} has no rows; give it at least one.")
    keys = [str(row[0]).split("|")[0] for row in rows]
    if len(set(keys)) < len(keys):
        twice = next(k for k in keys if keys.count(k) > 1)
        raise CourseError(f"list {name}: {twice!r} stands in two rows; the first column must be unique.")
    for column in (*spec.get("names", ()), *filter(None, [spec.get("sentiment")])):
        if column not in columns:
            raise one_of(f"list {name}: column", column, columns)
    zipf = float(spec.get("zipf", 1.0))
    total = sum((i + 1) ** -zipf for i in range(len(rows)))
    cells = tuple(tuple(tuple(str(cell).split("|")) for cell in row) for row in rows)
    return WordList(
        name,
        columns,
        tuple(spec.get("names", columns[:1])),
        cells,
        tuple((i + 1) ** -zipf / total for i in range(len(rows))),
        spec.get("sentiment"),
    )


def read_topic(name: str, spec: dict[str, Any], lists: dict[str, WordList], chains: dict[str, Any]) -> Topic:
    """Check and freeze one topic; its templates are checked when they are compiled."""
    for key in spec:
        if key not in _TOPIC_KEYS:
            raise one_of(f"topic {name}: key", key, _TOPIC_KEYS)
    draws = {
        var: _read_draw(f"topic {name}, draw {var}", d, lists, chains) for var, d in (spec.get("draws") or {}).items()
    }
    derive = {
        var: _read_derived(f"topic {name}, derive {var}", str(d), draws)
        for var, d in (spec.get("derive") or {}).items()
    }
    for role in ("subject", "sentiment", "trait"):
        if spec.get(role) is not None and spec[role] not in draws:
            raise one_of(f"topic {name}: {role}", spec[role], draws)
    held_out = spec.get("held_out") or []
    held_out = [held_out] if isinstance(held_out, dict) else held_out
    begin, then, end = (tuple(spec.get(part) or ()) for part in ("begin", "then", "end"))
    low, high = spec.get("length", (0, 0) if not then else (min(2, len(then)), min(4, len(then))))
    if not begin or not 0 <= low <= high <= len(then):
        raise CourseError(
            f"topic {name}: needs a sentence in 'begin' and a 'length' [low, high] within 0..{len(then)}, "
            f"got length [{low}, {high}] and {len(begin)} opening sentences."
        )
    return Topic(
        name,
        float(spec.get("weight", 1.0)),
        draws,
        derive,
        spec.get("subject"),
        spec.get("sentiment"),
        spec.get("trait"),
        (low, high),
        spec.get("join", " "),
        begin,
        then,
        end,
        tuple((tuple(h["vars"]), float(h["fraction"])) for h in held_out),
        bool(spec.get("early", False)),
    )


def _read_draw(where: str, spec: object, lists: dict[str, WordList], chains: dict[str, Any]) -> Draw:
    if isinstance(spec, str):
        if match := _RANGE.match(spec):
            return Draw("int", low=int(match[1]), high=int(match[2]))
        if spec not in lists:
            raise one_of(where, spec, lists)
        return Draw("row", list=lists[spec])
    if not isinstance(spec, dict):
        raise CourseError(f"{where}: {spec!r} is neither a list's name, a range such as 0..99, nor a mapping.")
    if "range" in spec:
        match = _RANGE.match(str(spec["range"]))
        if match is None or not set(spec) <= {"range", "zipf"}:
            raise CourseError(f"{where}: {spec!r} must be {{range: 0..99, zipf: 0.8}}.")
        return Draw("int", low=int(match[1]), high=int(match[2]), zipf=spec.get("zipf", 0))
    if "chain" in spec:
        if spec["chain"] not in chains:
            raise one_of(f"{where}: chain", spec["chain"], chains)
        low, high = spec.get("length", (8, 16))
        return Draw("chain", chain=spec["chain"], low=low, high=high)
    if "list" in spec and spec["list"] not in lists:
        raise one_of(f"{where}: list", spec["list"], lists)
    rows = lists.get(spec.get("list", ""))
    if rows is not None and set(spec) <= {"list", "where"}:
        where_ = tuple((column, str(value)) for column, value in (spec.get("where") or {}).items())
        for column, _ in where_:
            rows.column(column, where)
        return Draw("row", list=rows, where=where_)
    given = tuple(spec["given"].split(".")) if "given" in spec else None
    tables = {k: v for k, v in spec.items() if k not in ("list", "given")}
    options = {str(k): _normalised(where, v) for k, v in tables.items()} if given else {"": _normalised(where, tables)}
    return Draw("choice", list=rows, given=given, options=options)


def _normalised(where: str, table: object) -> dict[str, float]:
    if not isinstance(table, dict) or not table or any(not isinstance(p, int | float) or p < 0 for p in table.values()):
        raise CourseError(f"{where}: {table!r} must map each value to its probability, e.g. {{she: 0.8, he: 0.2}}.")
    total = sum(table.values())
    return {str(k): p / total for k, p in table.items()}


def _read_derived(where: str, spec: str, draws: dict[str, Draw]) -> tuple[str, str, str]:
    match = _DERIVED.match(spec)
    if match is None or match[1] not in draws or not (match[3] in draws or match[3].lstrip("-").isdigit()):
        raise CourseError(
            f"{where}: {spec!r} must be 'x + y', 'x - y', 'x * y' or 'x shift y'; x is a draw, y a draw or a number."
        )
    return match[1], match[2], match[3]


def cumulative(weights: list[float]) -> list[float]:
    """Return running sums scaled to end at 1, for bisection with a uniform number."""
    sums = list(accumulate(weights))
    return [s / sums[-1] for s in sums]
