"""Occasions: places of real text where a model ought to say a word because of a concept, and text without it.

1. A *mention* is a run of tokens that carry a concept (`mentions` says how concepts are called).
2. An *occasion* is the place right before a mention of what has been mentioned before: who has read on can know. At
   most one is taken from a document, so that places are independent.
3. ``knowable`` keeps those where the model does say the word; ``elsewhere`` is text in which nobody says it.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from course_utils.causality.mentions import Marks, again, marks_of, numbered, things
from course_utils.errors import CourseError
from course_utils.lab import Lab
from course_utils.lab.questions import at, padded

WINDOW = 128  # positions of a row at most: a place far into a long document is asked with the text just before it
LEAST = 8  # places below which nothing can be said about a concept
LOGITS = 2**26  # at a time: 256 MB
TIGERS = ("entity:animal:tiger", "word: tiger")


class Occasions(NamedTuple):
    """Places where a word of the concept comes next, and has come before."""

    tokens: Int[Tensor, "n pos"]
    """BOS in front; each row ends with the word's first token and is padded behind, which no token before it sees."""
    places: Int[Tensor, " n"]
    """The position whose next token begins the word; never BOS."""
    target: Int[Tensor, " n"]
    """That next token."""
    doc: Int[Tensor, " n"]
    """Number of the document among those that were read, each its own: the unit of a bootstrap."""
    concept: str
    """Whose word it is."""


def occasions(lab: Lab, concept: str, n: int, split: str = "heldout", seed: int = 0, least: int = LEAST) -> Occasions:
    """Find places where a concept that has been mentioned is mentioned again: there a model can know.

    Parameters
    ----------
    lab
        The opened model and its text.
    concept
        ``"entity:animal:tiger"``, ``"word_list:animals"``, ``"word: tiger"``; what labels whole texts is refused.
    n
        At most so many, no two from one document, and no two alike up to the word.
    split
        ``"train"`` or ``"heldout"``.
    seed
        Draws a place in each document; on a world also chooses the documents.
    least
        Fewer places than this are an error (or than ``n``, if that is less).

    Returns
    -------
    Occasions
        Rows of at most 128 positions, or the model's context.

    Raises
    ------
    CourseError
        If the concept or split is unknown, ``n`` is below 1, or too few places are found.
    """
    marks, window, found = marks_of(lab, concept), min(WINDOW, lab.n_ctx) - 1, {}
    if n < 1:
        raise CourseError(f"n={n} must be at least 1 place.")
    with tqdm(total=n, desc=concept, unit="place", delay=2, leave=False) as bar:
        for number, document in numbered(lab, split, seed, concept):
            if places := again(marks(document), window).get(concept):
                place = random.Random(f"{seed} {number}").choice(places)
                row = tuple(document.ids[max(0, place + 1 - window) : place + 1])
                bar.update(row not in found)
                found.setdefault(row, number)
            if len(found) == n:
                break
    if len(found) < min(n, least):
        raise CourseError(f"concept={concept!r}: {len(found)} documents of the {split} text mention it again, and "
                          f"{min(n, least)} are needed; take a more frequent concept or more text.")
    tokens, ends = padded(lab, [[lab.bos, *row] for row in found])
    target, doc = torch.tensor([row[-1] for row in found]), torch.tensor(list(found.values()))
    return Occasions(tokens, ends - 1, target, doc, concept)


def says(lab: Lab, occ: Occasions) -> Float[Tensor, " n"]:
    """Return the probability with which the model says the word at each place; whatever is in force applies."""
    parts, rows = [], max(1, LOGITS // (occ.tokens.shape[1] * lab.d_vocab))
    for tokens, places, target in zip(*(field.split(rows) for field in occ[:3]), strict=True):
        logits = at(lab.logits(tokens[:, : int(places.max()) + 1]), places)
        parts.append(logits.softmax(-1).gather(1, target[:, None])[:, 0])
    return torch.cat(parts)


def knowable(lab: Lab, occ: Occasions, least: float | int = 0.5) -> Occasions:
    """Keep the places where the model does say the word: only there can turning something off be seen.

    Parameters
    ----------
    lab
        The opened model; nothing may be in force.
    occ
        From `occasions`.
    least
        Probability of the word's first token.

    Raises
    ------
    CourseError
        If ``least`` is no probability, or no place is left.
    """
    if not 0 <= least <= 1:
        raise CourseError(f"least={least} must be a probability, 0 to 1.")
    keep = says(lab, occ) >= least
    if not keep.any():
        raise CourseError(f"concept={occ.concept!r}: {lab.name} says the word with a probability of least={least} at "
                          f"none of {len(keep)} places; ask for less, or take another concept.")
    return Occasions(occ.tokens[keep.to(occ.tokens.device)], *(field[keep] for field in occ[1:4]), occ.concept)


def elsewhere(lab: Lab, concept: str, n_tokens: int, split: str = "heldout",
              seed: int = 1) -> tuple[Int[Tensor, "rows pos"], Bool[Tensor, "rows pos"]]:
    """Return text that never mentions a concept: what an intervention changes there is collateral damage.

    Parameters
    ----------
    lab, concept, split, seed
        As in `occasions`.
    n_tokens
        How many, BOS and padding not counted.

    Returns
    -------
    tuple
        The tokens, a row for each document's beginning, BOS in front; and True for each real token, BOS included.

    Raises
    ------
    CourseError
        If the concept or split is unknown, ``n_tokens`` is below 1, or the text ends before.
    """
    marks, rows, left = marks_of(lab, concept), [], n_tokens
    if n_tokens < 1:
        raise CourseError(f"n_tokens={n_tokens} must be at least 1.")
    for _, document in numbered(lab, split, seed):
        row = document.ids[: min(WINDOW - 1, lab.n_ctx - 1, left)]
        if not any(marks(document)[: len(row)]):
            rows.append(row)
            left -= len(row)
        if not left:
            break
    if left:
        raise CourseError(f"n_tokens={n_tokens}: the {split} text has only {n_tokens - left} tokens without "
                          f"{concept!r}; ask for fewer.")
    tokens, ends = padded(lab, [[lab.bos, *row] for row in rows])
    return tokens, (torch.arange(tokens.shape[1]) <= ends[:, None]).to(tokens.device)


def concept_list(lab: Lab, n: int, split: str = "heldout", least: int = LEAST) -> list[str]:
    """Name concepts that the text gives occasions for.

    On a world these are things, at most a fifth of one kind, and none of two names. On other text they are nouns of the
    word lists that are one token, and if there are too few, whole lists.

    Parameters
    ----------
    lab, split
        As in `occasions`.
    n
        How many.
    least
        In how many documents each is mentioned again.

    Returns
    -------
    list
        The most frequent first, but the tiger before them all where it is one of them.

    Raises
    ------
    CourseError
        If the split is unknown, ``n`` is below 1, or the text has fewer such concepts.
    """
    if n < 1:
        raise CourseError(f"n={n} must be at least 1 concept.")
    chosen: list[str] = []
    for names in things(lab):
        if len(chosen) < n:
            chosen += _frequent(lab, names, n - len(chosen), split, least)
    if len(chosen) < n:
        raise CourseError(f"n={n}: only {len(chosen)} concepts are mentioned again in {least} documents of the {split} "
                          "text; ask for fewer, or give more text.")
    return chosen


def _frequent(lab: Lab, names: Marks, n: int, split: str, least: int) -> list[str]:
    """Count occasions until there are enough of enough things."""
    counts: dict[str, int] = {}
    for number, document in numbered(lab, split, 0):
        for concept in again(names(document), min(WINDOW, lab.n_ctx) - 1):
            counts[concept] = counts.get(concept, 0) + 1
        if number % 500 == 499 and len(_best(lab, counts, n, least)) == n:
            break
    return _best(lab, counts, n, least)


def _best(lab: Lab, counts: dict[str, int], n: int, least: int) -> list[str]:
    names = sorted((c for c in counts if counts[c] >= least), key=lambda c: (c not in TIGERS, -counts[c], c))
    kinds = [name.split(":")[1] if lab.world is not None else i for i, name in enumerate(names)]
    return [name for i, name in enumerate(names) if kinds[:i].count(kinds[i]) < -(-n // 5)][:n]
