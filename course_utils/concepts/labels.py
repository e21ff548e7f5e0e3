"""Labels: concepts of tokens column by column, masks and matrices of them, and which are unrelated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int32
from torch import Tensor

from course_utils.errors import CourseError, one_of
from course_utils.paths import DATA

# Columns that say how a text is written rather than what it is about.
FORM = ("template", "sentence_pos", "frequency", "word")
# Columns whose concepts the taxonomy knows, in the order in which `Labels.domains` looks for one.
GROUPED = ("word_list", "topic", "entity", "subject")


class Concepts(NamedTuple):
    """Which of several concepts each token carries."""

    names: tuple[str, ...]
    """As `Labels.mask` takes them, or names of domains."""
    on: Bool[Tensor, "n concepts"]
    """True where the token carries the concept."""


@dataclass
class Labels:
    """Concepts of ``n`` tokens, column by column.

    A concept is written ``"<column>:<value>"``, e.g. ``"topic:animals"`` or ``"entity:animal:tiger"``; a value that
    begins with its kind may be cut off behind it, ``"entity:animal"``: any animal.

    Examples
    --------
    >>> labels = Labels.from_documents([{"topic": ["sea", "sea"], "digit": [None, 7]}])
    >>> labels.concepts()
    ['topic:sea', 'digit:7']
    >>> labels.mask("digit:7").tolist()
    [False, True]
    """

    columns: dict[str, Int32[np.ndarray, " n"]]  # code of each token; -1 where the column says nothing
    names: dict[str, list[str]]  # code → value

    def __len__(self) -> int:
        """Count the tokens."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    @classmethod
    def from_documents(cls, documents: Sequence[dict[str, list]], bos: bool = False) -> Labels:
        """Put the label lists of documents end to end; ``bos=True`` puts an unlabelled token before each."""
        columns, names = {}, {}
        for column in documents[0] if documents else ():
            values: list[Any] = []
            for document in documents:
                if bos:
                    values.append(None)
                values += document[column]
            codes: dict[Any, int] = {None: -1}
            columns[column] = np.array([codes.setdefault(v, len(codes) - 1) for v in values], dtype=np.int32)
            names[column] = [str(v) for v in codes if v is not None]
        return cls(columns, names)

    @classmethod
    def concat(cls, parts: Sequence[Labels]) -> Labels:
        """Join labels whose value names may differ; codes are given anew in order of first appearance."""
        columns, names = {}, {}
        for column in parts[0].columns if parts else ():
            codes: dict[str, int] = {}
            pieces = []
            for part in parts:
                # The extra last entry is where code -1 points: it stays -1.
                table = np.array(
                    [*(codes.setdefault(v, len(codes)) for v in part.names[column]), -1], dtype=np.int32
                )
                pieces.append(table[part.columns[column]])
            columns[column], names[column] = np.concatenate(pieces), list(codes)
        return cls(columns, names)

    def __getitem__(self, rows: Any) -> Labels:
        """Select tokens by slice, mask or indices (an array or a tensor)."""
        rows = rows if isinstance(rows, slice) else np.atleast_1d(np.asarray(rows))
        return Labels({name: column[rows] for name, column in self.columns.items()}, self.names)

    def concepts(self) -> list[str]:
        """List every concept that can be asked for."""
        return [f"{column}:{value}" for column, values in self.names.items() for value in values]

    def mask(self, concept: str) -> Bool[np.ndarray, " n"]:
        """Say for each token whether it carries a concept.

        Raises
        ------
        CourseError
            If no token can carry that concept; the nearest concepts are named.
        """
        column, _, value = concept.partition(":")
        values = self.names.get(column, [])
        if value in values:
            return self.columns[column] == values.index(value)
        kind = [i for i, name in enumerate(values) if value and name.startswith(value + ":")]
        if not kind:
            raise one_of("concept", concept, self.concepts())
        return np.isin(self.columns[column], kind)

    def __or__(self, other: Labels) -> Labels:
        """Put the columns of two labellings of the same tokens side by side."""
        if len(self) != len(other):
            raise CourseError(f"the labels are for {len(self)} and for {len(other)} tokens; they must be for the same.")
        return Labels(self.columns | other.columns, self.names | other.names)

    def matrix(self, concepts: Sequence[str] | None = None, *, columns: Sequence[str] | None = None,
               min_count: int = 1) -> Concepts:
        """Lay concepts side by side.

        Parameters
        ----------
        concepts
            These, in this order; None: all of ``columns`` that are frequent enough, by column and then by name.
        columns
            None: those that say what a token is about (not its template, position, frequency or the word itself).
        min_count
            On how many tokens a concept must stand to be taken.

        Raises
        ------
        CourseError
            If a concept or column is unknown, or nothing is frequent enough.
        """
        if concepts is None:
            columns = [c for c in self.columns if c not in FORM] if columns is None else columns
            concepts = [f"{column}:{value}" for column in columns for value in self._frequent(column, min_count)]
        if not concepts:
            raise CourseError(f"no concept stands on min_count={min_count} of {len(self)} tokens; take more tokens.")
        on = np.stack([self.mask(concept) for concept in concepts], axis=1)
        return Concepts(tuple(concepts), torch.from_numpy(on))

    def _frequent(self, column: str, min_count: int) -> list[str]:
        if column not in self.columns:
            raise one_of("column", column, self.columns)
        codes = self.columns[column]
        counts = np.bincount(codes[codes >= 0], minlength=len(self.names[column]))
        return sorted(v for v, n in zip(self.names[column], counts, strict=True) if n >= max(min_count, 1))

    def domains(self, columns: Sequence[str] | None = None) -> Concepts:
        """Join concepts into domains (``data/taxonomy.yaml``): two that share none are unrelated.

        Parameters
        ----------
        columns
            Whose concepts count; None: the word lists, else the topics. ``["entity"]``: what a word names.
        """
        columns = [c for c in GROUPED if c in self.columns][:1] if columns is None else columns
        groups: dict[str, Any] = {}
        for concept in (f"{column}:{value}" for column in columns for value in self._frequent(column, 1)):
            if domain := domain_of(concept):
                groups[domain] = groups.get(domain, False) | self.mask(concept)
        if not groups:
            raise CourseError(f"columns={columns} hold no concept of a domain; give {', '.join(GROUPED)}.")
        names = sorted(groups)
        return Concepts(tuple(names), torch.from_numpy(np.stack([groups[name] for name in names], axis=1)))


@cache
def _taxonomy() -> dict[str, str]:
    import yaml

    domains = yaml.safe_load((DATA / "taxonomy.yaml").read_text(encoding="utf-8"))
    return {name: domain for domain, names in domains.items() for name in names}


def domain_of(concept: str) -> str | None:
    """Name a concept's domain, or None if the taxonomy gives it none.

    Examples
    --------
    >>> domain_of("entity:fruit:banana"), domain_of("topic:pets"), domain_of("digit:7")
    ('plants_and_food', 'animals', None)
    """
    column, _, value = concept.partition(":")
    return _taxonomy().get(value.partition(":")[0]) if column in GROUPED else None
