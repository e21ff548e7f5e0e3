"""Labels for text without an answer key: by lists of words, and by the word itself."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int
from torch import Tensor

from course_utils.concepts.labels import Labels
from course_utils.errors import CourseError
from course_utils.paths import DATA

if TYPE_CHECKING:
    from course_utils.lab import Lab


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
    names = sorted(set(concept_of.values()))
    code = {name: i for i, name in enumerate(names)}
    pieces = [lab.token_strings[i] for i in tokens.flatten().tolist()]
    column = np.full(len(pieces), -1, dtype=np.int32)
    found = [(match.start(), match.end() - 1, code[concept]) for match in re.finditer(r"[A-Za-z]+", "".join(pieces))
             if (concept := _concept(match.group().lower(), concept_of))]
    if found:
        first, last, codes = np.array(found).T
        ends = np.cumsum([len(piece) for piece in pieces])
        first, last = np.searchsorted(ends, [first, last], side="right")
        for a, b, c in zip(first.tolist(), last.tolist(), codes.tolist(), strict=True):
            column[a : b + 1] = c
    return Labels({"word_list": column}, {"word_list": names})


def word_labels(lab: Lab, tokens: Int[Tensor, "..."]) -> Labels:
    """Label each token by its own text, in the one column ``"word"``: what a unit can know without any context."""
    ids, codes = np.unique(tokens.flatten().cpu().numpy(), return_inverse=True)
    texts = [lab.token_strings[i] for i in ids.tolist()]
    names = list(dict.fromkeys(texts))
    place = {text: i for i, text in enumerate(names)}  # two tokens may have one text, e.g. broken bytes
    table = np.array([-1 if text == "\n" else place[text] for text in texts], dtype=np.int32)
    return Labels({"word": table[codes]}, {"word": names})
