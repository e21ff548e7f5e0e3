"""A unit's values in order, and which labels they carry: what `scores` counts with."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from torch import Tensor


class Column:
    """One unit's values and their order; what a sparse unit does not store is zero and below all that it stores."""

    def __init__(self, rows: np.ndarray | None, values: np.ndarray, n: int) -> None:
        if rows is not None and (values < 0).any():  # then zeros lie in between, and are stored
            full = np.zeros(n, values.dtype)
            full[rows] = values
            rows, values = None, full
        self.n, self.rows, self.values = n, rows, values
        self.zeros = n - len(values)
        self.order = np.argsort(values)
        self.sorted = values[self.order]

    def ranks(self) -> tuple[np.ndarray, np.ndarray]:
        """Return for every stored value how many rows are at least as high, and twice its midrank."""
        s = self.sorted
        new = np.flatnonzero(s[1:] != s[:-1]) + 1
        starts, ends = (np.concatenate([[0], new]), np.append(new, len(s))) if len(s) else (new, new)
        at_least, twice = np.empty((2, len(s)), np.int64)
        at_least[self.order] = np.repeat(self.n - self.zeros - starts, ends - starts)
        twice[self.order] = np.repeat(starts + ends + 1 + 2 * self.zeros, ends - starts)
        return at_least, twice

    def value_of(self, k: np.ndarray) -> np.ndarray:
        """Return the k-th highest value."""
        place = self.n - k - self.zeros
        return np.where(place < 0, 0.0, self.sorted[np.maximum(place, 0)]) if len(self.sorted) else 0.0 * k

    def count_from(self, threshold: np.ndarray) -> np.ndarray:
        """Count the rows at or above each threshold."""
        below = np.searchsorted(self.sorted, threshold.astype(self.sorted.dtype))
        return len(self.sorted) - below + self.zeros * (threshold <= 0)


class Marks:
    """The labels of the tokens that a unit stores, concept behind concept."""

    def __init__(self, place: np.ndarray, concept: np.ndarray, where: Where) -> None:
        self.place = place  # among the unit's values
        self.count = np.bincount(concept, minlength=len(where.count))
        self.some = np.flatnonzero(self.count)
        self.first = np.cumsum(self.count)[self.some] - self.count[self.some]
        self.concept, self.positives = concept, where.count[concept]
        self.hits = np.arange(1, len(place) + 1) - self.spread(self.first)
        wide = len(where.count) * (where.n + 1) >= 2**31
        self.base = (concept * (where.n + 1)).astype(np.int64 if wide else np.int32)

    def spread(self, each: np.ndarray) -> np.ndarray:
        """Repeat what belongs to each concept of `some` for its labels."""
        return np.repeat(each, self.count[self.some])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over the labels of each concept, [c]; exact for integers."""
        total = np.zeros(len(self.count), np.int64)
        if len(values):
            total[self.some] = np.add.reduceat(values, self.first, dtype=np.int64)
        return total


class Where:
    """The tokens of each concept."""

    def __init__(self, on: Bool[Tensor, "n c"]) -> None:
        concept, rows = (index.numpy() for index in on.T.nonzero(as_tuple=True))
        self.n, self.count = len(on), on.sum(0).numpy()
        self.all = Marks(rows, concept, self)
        self.of_row = on.nonzero()[:, 1].numpy()  # the concepts of row 0, of row 1, ...
        self.ends = np.cumsum(on.sum(1).numpy())

    def stored(self, unit: Column) -> Marks:
        """Find the labels of the tokens that a unit stores."""
        if unit.rows is None:
            return self.all
        ends = self.ends[unit.rows]
        sizes = ends - np.where(unit.rows > 0, self.ends[unit.rows - 1], 0)
        place = np.repeat(np.arange(len(sizes)), sizes)
        concept = self.of_row[np.repeat(ends - np.cumsum(sizes), sizes) + np.arange(len(place))]
        order = np.argsort(concept, kind="stable")
        return Marks(place[order], concept[order], self)
