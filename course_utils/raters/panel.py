"""A panel of raters who follow one rule and were shown different passages: what they disagree about, the choice did."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from scipy.sparse import csc_array

from course_utils.concepts import domain_of, word_lists
from course_utils.raters.passages import Column, Passage, Reader, active
from course_utils.raters.scoring import examples
from course_utils.raters.words import WordRater

NOTHING = "nothing in particular"


class Panel(NamedTuple):
    """What four raters say of some latents.

    A and B saw the strongest passages, C and D passages over the whole range; A and C read even documents, B and D odd.
    """

    labels: list[list[str]]
    """``[4 n]``: which of the options each latent is about."""
    clarity: list[list[int]]
    """``[4 n]``: from 1 to 5, how clearly the passages show one thing."""


def domain_words() -> dict[str, set[str]]:
    """Return each domain of the taxonomy with the words of its word lists: what a latent may be about."""
    found: dict[str, set[str]] = {}
    for word, listed in word_lists().items():
        if domain := domain_of(f"word_list:{listed}"):
            found.setdefault(domain, set()).add(word)
    return found


def shown_to(reader: Reader, latents: csc_array, unit: int, half: int, strongest: bool, n: int = 10) -> list[Passage]:
    """Return ``n`` passages of a latent from even (0) or odd (1) documents: the strongest, or over its range.

    There are fewer where it fires in too few documents.
    """
    column = active(latents, unit)
    kept = reader.doc[column.rows] % 2 == half
    part = Column(column.rows[kept], column.values[kept])
    return examples(reader, part, n=n, strongest=True) if strongest else examples(reader, part, 5, max(n // 5, 1))


def panel(rater: WordRater, reader: Reader, latents: csc_array, units: Sequence[int],
          options: Mapping[str, Collection[str]], n: int = 10) -> Panel:
    """Let four raters say what latents are about, and how clearly.

    Parameters
    ----------
    rater
        The rule that all four follow.
    reader, latents
        The text, and the latents on it.
    units
        Which latents.
    options
        Label → words, e.g. `domain_words`.
    n
        Passages that each rater sees of each latent.
    """
    sets = [[shown_to(reader, latents, int(i), half, strongest, n) for i in units]
            for strongest in (True, False) for half in (0, 1)]
    return Panel([[rater.choose(s, options) or NOTHING for s in said] for said in sets],
                 [[rater.rate(s) for s in said] for said in sets])
