"""Mentions: where a text names something of a class, so that a latent can be tried on the near neighbours of a thing.

On a labelled text a mention is a run of tokens of one entity, and its class the entity's kind ("landmark"). On other
text it is a word of a word list, and its class the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csc_array

from course_utils.activations import Activations
from course_utils.errors import CourseError, one_of
from course_utils.lab import Lab
from course_utils.raters.passages import active


class Mentions(NamedTuple):
    """Every mention in a harvest, ``k`` in all; rows are usable ones, BOS left out."""

    kind: np.ndarray
    """Class of each, ``[k]`` strings."""
    name: np.ndarray
    """What is mentioned, ``[k]`` strings."""
    first: Int[np.ndarray, " k"]
    last: Int[np.ndarray, " k"]
    """Rows of its first and last token."""
    token: Int[np.ndarray, " k"]
    """Id of its last token."""
    doc: Int[np.ndarray, " k"]

    def select(self, keep: np.ndarray) -> Mentions:
        """Keep some of them, by a mask or indices."""
        return Mentions(*(part[keep] for part in self))


def mentions(lab: Lab, acts: Activations, column: str) -> Mentions:
    """Find every mention.

    Parameters
    ----------
    lab
        Gives the text of tokens.
    acts
        A harvest with labels.
    column
        Column of the labels that names things: ``"entity"`` on the organism, ``"word_list"`` elsewhere. Where a value
        does not say which thing ("animals"), its text does.
    """
    if acts.labels is None:
        raise CourseError("this harvest has no labels; harvest with labels=True.")
    labels = acts.labels[acts.usable]
    if column not in labels.columns:
        raise one_of("column", column, labels.columns)
    usable = acts.usable.numpy()
    codes, tokens, doc = labels.columns[column], acts.tokens.numpy()[usable], acts.doc.numpy()[usable]
    strings = lab.token_strings
    starts_word = np.array([s[:1] in (" ", "\n") for s in strings])[tokens]
    new = np.concatenate([[True], (np.diff(codes) != 0) | (np.diff(usable) > 1)])
    if not any(":" in value for value in labels.names[column]):
        new |= starts_word  # two words of one list in a row are two things
    first = np.flatnonzero(new & (codes >= 0))
    ends = np.append(np.flatnonzero(new), len(codes))
    last = ends[np.searchsorted(ends, first, side="right")] - 1
    values = np.array(labels.names[column], dtype=object)[codes[first]]
    kind = np.array([value.partition(":")[0] for value in values], dtype=object)
    name = np.array([value.partition(":")[2] or "".join(strings[t] for t in tokens[a : b + 1]).strip().lower()
                     for value, a, b in zip(values, first, last, strict=True)], dtype=object)
    return Mentions(kind, name, first, last, tokens[last], doc[first])


def peaks(latents: csc_array, unit: int, found: Mentions, whole: bool = True) -> Float[np.ndarray, " k"]:
    """Return how active a unit is on each mention: on its strongest token, or (``whole=False``) on its last."""
    column = active(latents, unit)
    dense = np.zeros(latents.shape[0])
    dense[column.rows] = column.values
    if not whole or not len(found.first):
        return dense[found.last]
    best = dense[found.first]
    for step in range(1, int((found.last - found.first).max(initial=0)) + 1):
        best = np.maximum(best, dense[np.minimum(found.first + step, found.last)])
    return best


def best_for(latents: csc_array, found: Mentions, things: Sequence[tuple[str, str]]) -> Int[np.ndarray, " t"]:
    """Return, for each thing, the latent with the best F1 of "active" for the tokens that name it, against all text.

    So would somebody choose it who wants a name for it: nobody looked at the thing's neighbours.

    Parameters
    ----------
    latents
        ``[n m]``, of the text that chooses.
    found
        The mentions of that text.
    things
        ``(class, name)`` of each.
    """
    place = {thing: j for j, thing in enumerate(things)}
    spans = [(range(a, b + 1), place[k, n]) for k, n, a, b in zip(found.kind, found.name, found.first, found.last,
                                                                  strict=True) if (k, n) in place]
    at = np.array([(row, j) for rows, j in spans for row in rows], dtype=int).reshape(-1, 2).T
    on = csc_array((np.ones(at.shape[1], np.float32), tuple(at)), shape=(latents.shape[0], len(things)))
    fires, count = (np.asarray(m.sum(0)).ravel() for m in (latents > 0, on))
    both = ((latents > 0).astype(np.float32).T @ on).toarray()
    return (2 * both / np.maximum(fires[:, None] + count, 1)).argmax(0)
