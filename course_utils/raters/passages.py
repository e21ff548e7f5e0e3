"""Passages: a token in its text, with how active a unit is on each token. Cards show them, and raters read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csc_array

from course_utils.activations import Activations
from course_utils.errors import CourseError
from course_utils.lab import Lab


class Passage(NamedTuple):
    """A piece of text, token by token, and one token of it that is pointed at."""

    tokens: tuple[str, ...]
    """Their texts, leading spaces included."""
    at: int
    """Place of the token that is pointed at."""
    values: tuple[float, ...] = ()
    """How active the unit is on each; empty if that is not told."""

    @property
    def token(self) -> str:
        """The token that is pointed at."""
        return self.tokens[self.at]

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.tokens)

    @property
    def value(self) -> float:
        """How active the unit is on the token that is pointed at; 0 if that is not told."""
        return self.values[self.at] if self.values else 0.0

    def blind(self) -> Passage:
        """Hide how active the unit is: what is given to whoever has to say so."""
        return self._replace(values=())

    def marked(self) -> str:
        """Return the text with the token pointed at put into << and >>, its leading space outside."""
        before, after = "".join(self.tokens[: self.at]), "".join(self.tokens[self.at + 1 :])
        space = self.token[: len(self.token) - len(self.token.lstrip(" "))]
        return f"{before}{space}<<{self.token[len(space):]}>>{after}"


class Column(NamedTuple):
    """One unit on the usable rows of a harvest: where it is active, and how much."""

    rows: Int[np.ndarray, " k"]
    """In increasing order."""
    values: Float[np.ndarray, " k"]
    """Above zero."""

    def at(self, rows: Int[np.ndarray, " j"]) -> Float[np.ndarray, " j"]:
        """Return its values on some rows, 0 where it is not active."""
        if not len(self.rows):
            return np.zeros(len(rows))
        place = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        return np.where(self.rows[place] == rows, self.values[place], 0.0)


def active(latents: csc_array, unit: int) -> Column:
    """Return where one column of sparse latents is above zero.

    Raises
    ------
    CourseError
        If there is no such column.
    """
    if not 0 <= unit < latents.shape[1]:
        raise CourseError(f"latent={unit} must lie in 0 to {latents.shape[1] - 1}.")
    part = slice(latents.indptr[unit], latents.indptr[unit + 1])
    rows, values = latents.indices[part], latents.data[part]
    order = np.argsort(rows, kind="stable")
    rows, values = rows[order], values[order].astype(float)
    return Column(rows[values > 0], values[values > 0])


class Reader:
    """Cuts passages out of a harvest; its rows are the usable ones, BOS left out, as those of `sae_latents` are.

    Parameters
    ----------
    lab
        Gives the text of tokens.
    acts
        The harvest.
    context
        Tokens at most on each side, within the same row of text.
    """

    def __init__(self, lab: Lab, acts: Activations, context: int = 8) -> None:
        if context < 0:
            raise CourseError(f"context={context} must be at least 0.")
        usable = acts.usable.numpy()
        self.context, self.strings = context, lab.token_strings
        self.tokens, self.doc, pos = (column.numpy()[usable] for column in (acts.tokens, acts.doc, acts.pos))
        starts = np.flatnonzero(np.concatenate([[True], np.diff(usable) > 1])) if len(usable) else usable
        self.first = np.repeat(starts, np.diff(np.append(starts, len(usable))))
        self.end = np.repeat(np.append(starts[1:], len(usable)), np.diff(np.append(starts, len(usable))))
        self.pos = pos

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.tokens)

    def span(self, row: int) -> tuple[int, int]:
        """Return the first row of the passage around a row, and the one behind its last."""
        return (max(int(self.first[row]), row - self.context), min(int(self.end[row]), row + self.context + 1))

    def passage(self, row: int, column: Column | None = None) -> Passage:
        """Cut out the passage around a row, with a unit's values on it if a column is given."""
        low, high = self.span(row)
        values = () if column is None else tuple(column.at(np.arange(low, high)).tolist())
        return Passage(tuple(self.strings[t] for t in self.tokens[low:high].tolist()), row - low, values)

    def passages(self, rows: Sequence[int] | np.ndarray, column: Column | None = None) -> list[Passage]:
        """Cut out several."""
        return [self.passage(int(row), column) for row in rows]


def one_a_document(rows: np.ndarray, doc: np.ndarray, n: int) -> list[int]:
    """Return the first ``n`` of some rows that lie in different documents; fewer if there are not so many."""
    found: dict[int, int] = {}
    for row in rows.tolist():
        if len(found) == n:
            break
        found.setdefault(int(doc[row]), row)
    return list(found.values())


def bands(column: Column, n: int) -> list[Column]:
    """Cut the rows on which a unit is active into ``n`` bands, equally many in each, the strongest band first."""
    if n < 1:
        raise CourseError(f"bands={n} must be at least 1.")
    order = np.argsort(-column.values, kind="stable")
    return [Column(column.rows[part], column.values[part]) for part in np.array_split(order, n) if len(part)]


def band_rows(column: Column, doc: np.ndarray, n_bands: int = 5, n: int = 3, seed: int = 0) -> list[list[int]]:
    """Draw rows from the whole range of a unit's activity, one a document in each band, as `quantile_examples` does.

    Returns
    -------
    list of list of int
        At most ``n`` rows for each band, strongest band and row first.
    """
    generator, found = torch.Generator().manual_seed(seed), []
    for band in bands(column, n_bands):
        drawn = one_a_document(band.rows[torch.randperm(len(band.rows), generator=generator).numpy()], doc, n)
        found.append(sorted(drawn, key=lambda row: -float(column.at(np.array([row]))[0])))
    return found


def quiet_rows(column: Column, reader: Reader, n: int, rng: np.random.Generator) -> list[int]:
    """Draw rows in different documents whose whole passages leave a unit silent.

    Raises
    ------
    CourseError
        If it is active nearly everywhere.
    """
    edges = np.concatenate([[0], np.cumsum(np.bincount(column.rows, minlength=len(reader)))])

    def silent() -> Iterator[int]:
        for row in rng.permutation(len(reader)).tolist():
            low, high = reader.span(row)
            if edges[high] == edges[low]:
                yield row

    found: dict[int, int] = {}
    for row in silent():
        found.setdefault(int(reader.doc[row]), row)
        if len(found) == n:
            return list(found.values())
    raise CourseError(f"only {len(found)} documents hold a passage on which the unit is silent; {n} are needed.")
