"""What scores are made of: the values of units (neurons, directions, latents), and which concepts stood where.

A split is a matrix of units ``[n units]`` and a `Table` of the same ``n`` rows, BOS left out. Units are a dense tensor
or, for latents that are mostly zero, a sparse ``scipy.sparse.csc_array``; every function of this package takes either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array, vstack
from torch import Tensor

from course_utils.activations import Activations
from course_utils.dictionaries.reading import encode
from course_utils.errors import CourseError

Units = Float[Tensor, "_ _"] | csc_array  # [n units]; two splits have different n
_LATENTS = 2**25  # latents encoded at a time, zeros included: 128 MB
_COLUMNS = 64  # columns of a tensor are copied so many at a time: one by one, each would cost a cache miss a row


class Table(NamedTuple):
    """Which concepts each of ``n`` tokens carries, and the document that it stands in."""

    names: tuple[str, ...]
    """Concepts, or domains."""
    on: Bool[Tensor, "n concepts"]
    """True where the token carries the concept."""
    doc: Int[Tensor, " n"]
    """The unit to resample: tokens of one document are not independent."""


def _labels(acts: Activations) -> Any:
    if acts.labels is None:
        raise CourseError("this harvest has no labels; harvest with labels=True.")
    return acts.labels[acts.usable]


def concept_tables(train: Activations, heldout: Activations, concepts: Sequence[str] | None = None, *,
                   columns: Sequence[str] | None = None, min_count: int = 20,
                   min_docs: int = 3) -> tuple[Table, Table]:
    """Lay the same concepts side by side for two harvests, BOS left out.

    Parameters
    ----------
    train, heldout
        Two harvests with labels.
    concepts
        These, in this order; None: all of ``columns`` that are frequent enough on both.
    columns
        As in `Labels.matrix`: by default those that say what a token is about.
    min_count
        Training tokens on which a concept must stand; a quarter of them (at least 5) on the held-out ones.
    min_docs
        Documents of each harvest in which it must stand: fewer say little about any other text.

    Raises
    ------
    CourseError
        If a harvest has no labels, or nothing is frequent enough on both.
    """
    labels = _labels(train), _labels(heldout)
    if concepts is None:
        least = min_count, max(5, min_count // 4)
        found = [set(_spread(Table(*part.matrix(columns=columns, min_count=n), acts.doc[acts.usable]), min_docs))
                 for part, acts, n in zip(labels, (train, heldout), least, strict=True)]
        concepts = [c for c in labels[0].matrix(columns=columns, min_count=min_count).names if c in found[0] & found[1]]
        if not concepts:
            raise CourseError(f"no concept is on min_count={min_count} tokens in min_docs={min_docs} documents of each "
                              "harvest; take more tokens.")
    first, second = (Table(*part.matrix(concepts), acts.doc[acts.usable])
                     for part, acts in zip(labels, (train, heldout), strict=True))
    return first, second


def _spread(table: Table, min_docs: int) -> list[str]:
    """Name the concepts that stand in enough documents."""
    concept, row = table.on.T.nonzero(as_tuple=True)
    pairs = torch.stack([concept, table.doc.cpu()[row]]).unique(dim=1)
    count = torch.bincount(pairs[0], minlength=len(table.names))
    return [name for name, n in zip(table.names, count.tolist(), strict=True) if n >= min_docs]


def domain_table(acts: Activations, columns: Sequence[str] | None = None) -> Table:
    """Say which domain each token belongs to (`Labels.domains`), BOS left out."""
    return Table(*_labels(acts).domains(columns), acts.doc[acts.usable])


def chunk(sae: Any) -> int:
    """Return how many rows to encode at a time."""
    return max(64, _LATENTS // sae.cfg.d_sae)


def sae_latents(sae: Any, acts: Activations) -> csc_array:
    """Encode the usable rows of a harvest, keeping only what is not zero.

    Parameters
    ----------
    sae
        Any sae-lens SAE of the harvest's width.
    acts
        A harvest.

    Returns
    -------
    scipy.sparse.csc_array
        ``[n d_sae]`` in float32.
    """
    parts = []
    with torch.no_grad():
        for rows in acts.usable.split(chunk(sae)):
            parts.append(csr_array(encode(sae, acts.x[rows].to(sae.W_dec)).float().cpu().numpy()))
    return vstack(parts).tocsc()


def columns_of(units: Units) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
    """Yield each unit's rows that are not zero, and its values there; rows None: all rows, in order."""
    if isinstance(units, Tensor):
        for part in units.detach().float().cpu().split(_COLUMNS, dim=1):
            yield from ((None, column) for column in part.T.contiguous().numpy())
        return
    for start, end in zip(units.indptr[:-1], units.indptr[1:], strict=True):
        rows, values = units.indices[start:end], units.data[start:end]
        yield (rows[values != 0], values[values != 0]) if (values == 0).any() else (rows, values)


def column(units: Units, unit: int) -> Float[np.ndarray, " n"]:
    """Return one unit's value on every row."""
    if isinstance(units, Tensor):
        return units[:, unit].detach().float().cpu().numpy()
    return units[:, [unit]].toarray()[:, 0]


def density(units: Units) -> Float[Tensor, " units"]:
    """Return the share of tokens on which each unit is above zero."""
    return torch.tensor([float((values > 0).sum()) / units.shape[0] for _, values in columns_of(units)])


def shuffled_table(table: Table, seed: int = 0) -> Table:
    """Give every document the labels of another, position by position: the null of labels that do not belong.

    A document longer than its donor reads the donor again from its start. So labels keep their runs, and nearly their
    places in a document, and lose only their tie to the text.
    """
    return table._replace(on=table.on[donor_rows(table.doc, np.random.default_rng(seed))])


def donor_rows(doc: Int[Tensor, " n"], rng: np.random.Generator) -> Int[Tensor, " n"]:
    """Return for each row the row of another document whose labels it gets."""
    d = doc.cpu().numpy()
    starts = np.concatenate([[0], np.flatnonzero(d[1:] != d[:-1]) + 1])
    lengths = np.diff(np.append(starts, len(d)))
    if len(starts) < 2:
        raise CourseError("1 document cannot be shuffled; give 2 or more.")
    donor = rng.permutation(len(starts))
    run = np.repeat(np.arange(len(starts)), lengths)
    within = np.arange(len(d)) - starts[run]
    return torch.from_numpy(starts[donor[run]] + within % lengths[donor[run]])


def rows_of(x: Units, rows: Tensor) -> Units:
    """Return some rows of dense or sparse units."""
    return x[rows] if isinstance(x, Tensor) else x.tocsr()[rows.numpy()].tocsc()
