"""What a token is about: exact on the organism, from word lists elsewhere; both give the same `Labels`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int, Int32
from torch import Tensor

from course_utils.errors import CourseError, one_of
from course_utils.paths import DATA

if TYPE_CHECKING:
    from course_utils.lab import Lab


@dataclass
class Labels:
    """Concepts of ``n`` tokens, column by column.

    A concept is written ``"<column>:<value>"``, e.g. ``"topic:animals"`` or ``"entity:animal:tiger"``.

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
        if value not in self.names.get(column, ()):
            raise one_of("concept", concept, self.concepts())
        return self.columns[column] == self.names[column].index(value)


@cache
def word_lists(directory: Path = DATA / "concepts") -> dict[str, str]:
    """Read ``data/concepts/*.yaml`` (concept → words) as word → concept.

    Raises
    ------
    CourseError
        If a file is not a mapping of lists of words, or a word stands in two lists.
    """
    import yaml

    concept_of: dict[str, str] = {}
    for file in sorted(directory.glob("*.yaml")):
        lists = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(lists, dict) or not all(isinstance(words, list) for words in lists.values()):
            raise CourseError(f"{file.name} must map concept names to lists of words.")
        for concept, words in lists.items():
            for word in words:
                # YAML reads a bare 'yes', 'no' or number as something that is not a string.
                if not isinstance(word, str) or not re.fullmatch(r"[a-z]+", word):
                    raise CourseError(
                        f"{file.name}: {word!r} under {concept!r} must be one word in small letters."
                    )
                if concept_of.setdefault(word, concept) != concept:
                    raise CourseError(
                        f"{file.name}: {word!r} stands under {concept_of[word]!r} and {concept!r}; "
                        "a word can have one concept only."
                    )
    return concept_of


def _concept(word: str, concept_of: dict[str, str]) -> str | None:
    return concept_of.get(word) or (concept_of.get(word[:-1]) if word.endswith("s") else None)


def word_list_labels(lab: Lab, tokens: Int[Tensor, "..."]) -> Labels:
    """Label tokens by the words they belong to, for text that has no answer key.

    A word counts in any capitalisation and with a plural "s"; all tokens of a word carry its concept. Word
    lists know nothing of meaning ("bat" is an animal in every game of baseball): that is a limit to keep in
    mind, not a detail.

    Parameters
    ----------
    lab
        Gives the text of each token.
    tokens
        Token ids of any shape, read in order; BOS separates rows.

    Returns
    -------
    Labels
        The one column ``"word_list"``, for the flattened tokens.
    """
    concept_of = word_lists()
    names = list(dict.fromkeys(concept_of.values()))
    code = {name: i for i, name in enumerate(names)}
    pieces = [lab.token_strings[i] for i in tokens.flatten().tolist()]
    ends = np.cumsum([len(piece) for piece in pieces])
    column = np.full(len(pieces), -1, dtype=np.int32)
    for match in re.finditer(r"[A-Za-z]+", "".join(pieces)):
        concept = _concept(match.group().lower(), concept_of)
        if concept:
            first, last = np.searchsorted(ends, [match.start(), match.end() - 1], side="right")
            column[first : last + 1] = code[concept]
    return Labels({"word_list": column}, {"word_list": names})
