"""Scores of every unit for every concept: AUROC, and F1 with the threshold chosen on one split and scored on another.

Where k tokens reach a threshold, T of them among the P that carry a concept, F1 is 2T / (k + P). For a given T it is
best at the smallest k, so that only the values of tokens that carry the concept need to be tried:

1. Sort the unit's values once. For every token know k, how many tokens are at least as high, and its midrank.
2. AUROC from the sum of the positives' midranks (Mann and Whitney 1947); ties count half, as they must.
3. Sort the positives' k, concept by concept; the i-th has T = i. (Of tied ones the last, which is the true one, wins.)

Step 3 costs one sort of as many numbers as there are labels, for all concepts at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from course_utils.errors import CourseError
from course_utils.features.ranks import Column, Where
from course_utils.features.units import Table, Units, columns_of


class Cells(NamedTuple):
    """Scores of every unit for every concept on one split."""

    auroc: Float[Tensor, "units concepts"]
    """Chance that a token of the concept has a higher value than another token; NaN where there is none of either."""
    precision: Float[Tensor, "units concepts"]
    """Of the tokens at or above the threshold, the share that carries the concept; 0 if there are none."""
    recall: Float[Tensor, "units concepts"]
    """Of the concept's tokens, the share at or above the threshold."""
    f1: Float[Tensor, "units concepts"]
    """Harmonic mean of both."""


class UnitScores(NamedTuple):
    """How well each unit stands for each concept."""

    names: tuple[str, ...]
    """Concepts."""
    threshold: Float[Tensor, "units concepts"]
    """The unit says "on" at or above this value; it has the best F1 on the training split."""
    train: Cells
    """Where the thresholds were chosen: for choosing units, not for reporting."""
    heldout: Cells
    """The same thresholds on text that chose nothing."""


def _cells(where: Where, ranks: np.ndarray, both: np.ndarray, says: np.ndarray) -> np.ndarray:
    """Return the four scores, [4 c], from the sum of twice the midranks and the counts at the threshold."""
    p, n = where.count.astype(float), where.n
    with np.errstate(divide="ignore", invalid="ignore"):
        auroc = (ranks / 2 - p * (p + 1) / 2) / (p * (n - p))
    return np.stack([auroc, both / np.maximum(says, 1), both / np.maximum(p, 1), 2 * both / np.maximum(says + p, 1)])


def _fit(unit: Column, where: Where) -> tuple[np.ndarray, np.ndarray]:
    """Choose the threshold with the best F1 for each concept; return thresholds [c] and scores [4 c]."""
    at_least, twice = unit.ranks()
    marks = where.stored(unit)
    # Under one key concepts stay apart, and as each keeps its size, so does the place where it begins.
    k = marks.base + at_least[marks.place].astype(marks.base.dtype)
    k.sort()
    k -= marks.base
    f1 = 2 * marks.hits / (k + marks.positives)
    best = np.flatnonzero(f1 == marks.spread(np.maximum.reduceat(f1, marks.first))) if len(k) else marks.first
    best = best[np.searchsorted(marks.concept[best], marks.some)]  # of equally good thresholds, the highest
    both, says = where.count.copy(), np.full(len(where.count), unit.n)  # always on, unless a threshold is better
    better = f1[best] >= 2 * both[marks.some] / (unit.n + both[marks.some])
    both[marks.some[better]], says[marks.some[better]] = marks.hits[best[better]], k[best[better]]
    threshold = np.where(where.count > 0, unit.value_of(says), np.inf)
    ranks = marks.sums(twice[marks.place]) + (where.count - marks.count) * (unit.zeros + 1)
    return threshold, _cells(where, ranks, both, np.where(where.count > 0, says, 0))


def _apply(unit: Column, where: Where, threshold: np.ndarray) -> np.ndarray:
    """Score given thresholds on other rows, [4 c]."""
    marks = where.stored(unit)
    said = unit.values[marks.place] >= marks.spread(threshold[marks.some].astype(np.float32))
    both = marks.sums(said.view(np.int8)) + (where.count - marks.count) * (threshold <= 0)
    ranks = marks.sums(unit.ranks()[1][marks.place]) + (where.count - marks.count) * (unit.zeros + 1)
    return _cells(where, ranks, both, unit.count_from(threshold))


def check(units: Units, table: Table, name: str) -> None:
    """Refuse units that do not belong to the table, or that are not finite."""
    if units.shape[0] != len(table.on):
        raise CourseError(f"{name} units have {units.shape[0]} rows, its table {len(table.on)}; give the same rows, "
                          "BOS left out (acts.x[acts.usable], or sae_latents).")
    values = units if isinstance(units, Tensor) else torch.from_numpy(units.data)
    if not torch.isfinite(values).all():
        raise CourseError(f"{name} units hold NaN or infinity; find out why before they are scored.")


def score_units(train: Units, concepts: Table, heldout: Units, heldout_concepts: Table, *,
                threads: int | None = None) -> UnitScores:
    """Score every unit as a detector of every concept.

    Parameters
    ----------
    train, concepts
        Units and concepts (`concept_tables`) of the split on which thresholds are chosen.
    heldout, heldout_concepts
        The same of the split on which they are scored.
    threads
        Units scored at a time; None: as many as torch uses.

    Returns
    -------
    UnitScores
        Every number ``[units concepts]``. A concept that stands nowhere on a split scores 0, its AUROC is NaN.

    Raises
    ------
    CourseError
        If rows, units or concepts of the splits do not fit together, or a value is not finite.

    Notes
    -----
    A threshold below all values is allowed (the unit is then always on), so that every unit reaches the F1 of
    saying "on" always, 2P / (n + P), on the training split.
    """
    check(train, concepts, "training"), check(heldout, heldout_concepts, "held-out")
    if concepts.names != heldout_concepts.names or train.shape[1] != heldout.shape[1]:
        raise CourseError("both splits must have the same concepts and units; make the tables with concept_tables.")
    wheres = Where(concepts.on), Where(heldout_concepts.on)
    both = (wheres for _ in range(train.shape[1]))
    return _score(train, heldout, both, concepts.names, threads)


def score_pairs(train: Units, concepts: Table, heldout: Units, heldout_concepts: Table) -> UnitScores:
    """Score unit j as a detector of concept j only; every number is ``[1 concepts]``."""
    check(train, concepts, "training"), check(heldout, heldout_concepts, "held-out")
    if not train.shape[1] == heldout.shape[1] == len(concepts.names) or concepts.names != heldout_concepts.names:
        raise CourseError(f"there must be one detector a concept: {len(concepts.names)} concepts, {train.shape[1]} and "
                          f"{heldout.shape[1]} columns of values.")
    one = ((Where(concepts.on[:, [j]]), Where(heldout_concepts.on[:, [j]])) for j in range(train.shape[1]))
    found = _score(train, heldout, one, concepts.names, None)
    return UnitScores(found.names, found.threshold.T, Cells(*(c.T for c in found.train)),
                      Cells(*(c.T for c in found.heldout)))


def _score(train: Units, heldout: Units, wheres: Iterator[tuple[Where, Where]], names: tuple[str, ...],
           threads: int | None) -> UnitScores:
    def one(job: tuple) -> np.ndarray:
        here, there, (chosen, scored) = job
        threshold, cells = _fit(Column(*here, train.shape[0]), chosen)
        return np.concatenate([threshold[None], cells, _apply(Column(*there, heldout.shape[0]), scored, threshold)]
                              ).astype(np.float32)

    jobs = zip(columns_of(train), columns_of(heldout), wheres, strict=True)
    found = []
    with (ThreadPoolExecutor(threads or torch.get_num_threads()) as pool,
          tqdm(total=train.shape[1], desc="score units", delay=2, leave=False) as bar):
        while block := list(islice(jobs, 64)):  # in blocks, or all columns would be copied before the first is scored
            found += pool.map(one, block)
            bar.update(len(block))
    table = torch.from_numpy(np.stack(found)).unbind(1)  # 9 of [units c]
    return UnitScores(names, table[0], Cells(*table[1:5]), Cells(*table[5:9]))
