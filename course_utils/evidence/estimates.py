"""Estimates: a number with its interval, found by resampling whole documents (tokens are not independent).

1. Sum what is needed per document: a matrix ``[n_groups, k]``.
2. Draw documents with replacement ``n_boot`` times. A draw is a row of counts, so all resampled sums are one
   matrix product ``[n_boot, n_groups] @ [n_groups, k]``.
3. Compute the statistic on every row of sums; its percentiles are the interval.

Notebooks import these names from :mod:`course_utils.evidence`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from course_utils.errors import CourseError, one_of

_CHUNK = 2_000_000  # resampling counts held at once: 16 MB


class Estimate(NamedTuple):
    """A number with its interval.

    Examples
    --------
    >>> print(Estimate(0.92134, 0.9151, 0.9272, n=80))
    0.921 [0.915, 0.927]
    >>> f"{Estimate(0.92134, 0.9151, 0.9272, n=80):.1%}"
    '92.1% [91.5%, 92.7%]'
    """

    value: float
    """The statistic on the data themselves."""
    low: float
    """Lower end of the interval (95 % unless told otherwise)."""
    high: float
    """Upper end of the interval."""
    n: int
    """Number of independent units (documents, latents, seeds) that were resampled."""

    def __format__(self, spec: str) -> str:
        """Format all three numbers alike; without a spec, show two digits of the interval's width."""
        spec = spec or _digits(self.high - self.low)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        """Return ``value [low, high]``."""
        return format(self, "")


def _digits(width: float | int) -> str:
    if not (math.isfinite(width) and width > 0):
        return ".4g"
    decimals = 1 - math.floor(math.log10(width))
    return ".3g" if decimals > 6 else f"z.{max(decimals, 0)}f"


def numbers(name: str, values: Collection, ndim: tuple[int, ...] = (1,)) -> Float[np.ndarray, "..."]:
    """Return values as a float64 array, refusing what no statistic should see.

    Raises
    ------
    CourseError
        If they are not numbers, have another number of dimensions, are empty, or hold NaN or infinity.
    """
    if hasattr(values, "detach"):  # a torch tensor, perhaps bfloat16 on a GPU, which numpy cannot read
        values = values.detach().cpu().double().numpy()
    shape = " or ".join(map(str, ndim))
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise CourseError(f"{name} must be numbers in {shape} dimension(s), all rows equally long.") from None
    if array.ndim not in ndim:
        raise CourseError(f"{name} must have {shape} dimension(s); given shape {array.shape}.")
    if array.size == 0:
        raise CourseError(f"{name} is empty; a statistic needs at least one value.")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise CourseError(f"{name} holds {bad} NaN or infinite among {array.size} values; find out why.")
    return array


def same_length(**columns: Collection) -> None:
    """Refuse columns of unequal length, naming each."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise CourseError(f"these must be equally long, one entry a row: {listed}.")


def group_index(groups: Collection | None, n: int) -> np.ndarray:
    """Return the row number of each value's group, ``[n]``; without groups each value is its own."""
    if groups is None:
        return np.arange(n)
    same_length(values=range(n), groups=groups)
    if hasattr(groups, "detach"):
        groups = groups.detach().cpu().numpy()
    return np.unique(np.asarray(groups), return_inverse=True)[1].ravel()


def group_sums(columns: Float[np.ndarray, "n k"], index: np.ndarray) -> Float[np.ndarray, "n_groups k"]:
    """Sum each column within each group."""
    return np.stack([np.bincount(index, weights=column) for column in columns.T], axis=1)


def _draws(n_groups: int, n_boot: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield ``[b, n_groups]`` multinomial counts, by counting uniform picks: faster than multinomial()."""
    if n_groups < 2:
        raise CourseError(f"{n_groups} group gives no interval; give 2 or more independent ones (documents).")
    if n_boot < 1:
        raise CourseError(f"n_boot={n_boot} must be at least 1 (1000 is usual).")
    step = max(1, _CHUNK // n_groups)
    for start in range(0, n_boot, step):
        b = min(step, n_boot - start)
        picks = rng.integers(n_groups, size=(b, n_groups)) + n_groups * np.arange(b)[:, None]
        yield np.bincount(picks.ravel(), minlength=b * n_groups).reshape(b, n_groups)


def resampled(sums: Float[np.ndarray, "n_groups k"], n_boot: int,
              rng: np.random.Generator) -> Float[np.ndarray, "n_boot k"]:
    """Return the sums of n_boot draws of as many groups, with replacement."""
    chunks = [counts.astype(float) @ sums for counts in _draws(len(sums), n_boot, rng)]
    return np.concatenate(chunks)


def interval(value: float, replicates: Float[np.ndarray, " n_boot"], level: float | int, n: int) -> Estimate:
    """Return the value with the percentile interval of its replicates, refusing any that is not finite."""
    if not 0 < level < 1:
        raise CourseError(f"level={level} must lie between 0 and 1, e.g. 0.95.")
    bad = int((~np.isfinite(replicates)).sum())
    if bad or not math.isfinite(value):
        raise CourseError(f"the statistic is NaN or infinite in {bad} of {len(replicates)} resamples (a zero "
                          "denominator?); use more documents or another statistic.")
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(value), float(low), float(high), int(n))


def bootstrap_sums(sums: Collection, statistic: Callable[[np.ndarray], np.ndarray], *, n_boot: int = 1000,
                   seed: int = 0, level: float | int = 0.95) -> Estimate:
    """Bootstrap any function of sums over groups.

    Parameters
    ----------
    sums
        ``[n_groups, k]``: k sums for each group (document).
    statistic
        Maps summed columns ``[..., k]`` to ``[...]``; called on ``[n_boot, k]`` and on ``[k]``.
    n_boot, seed, level
        Number of resamples, seed, coverage of the percentile interval. One seed draws the same documents in
        every call with as many groups.

    Raises
    ------
    CourseError
        On NaN, fewer than two groups, or a statistic that is not finite in some resample.

    Examples
    --------
    Explained variance from residual and total sums of squares of three documents:

    >>> sums = [[1.0, 10.0], [2.0, 10.0], [3.0, 10.0]]
    >>> bootstrap_sums(sums, lambda s: 1 - s[..., 0] / s[..., 1]).value
    0.8
    """
    table = numbers("sums", sums, ndim=(2,))
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = statistic(resampled(table, n_boot, np.random.default_rng(seed)))
        value = statistic(table.sum(0))
    if np.shape(replicates) != (n_boot,) or np.shape(value) != ():
        raise CourseError(f"statistic must map sums [{n_boot}, k] to [{n_boot}] and [k] to one number (write "
                          f"s[..., i]); it returned shapes {np.shape(replicates)} and {np.shape(value)}.")
    return interval(float(value), replicates, level, len(table))


def bootstrap_ratio(num_per_group: Collection, den_per_group: Collection, *, n_boot: int = 1000,
                    seed: int = 0, level: float | int = 0.95) -> Estimate:
    """Bootstrap sum(num) / sum(den) over groups, e.g. loss per token from loss and token sums."""
    num, den = numbers("num_per_group", num_per_group), numbers("den_per_group", den_per_group)
    same_length(num_per_group=num, den_per_group=den)
    return bootstrap_sums(np.stack([num, den], axis=1), lambda s: s[..., 0] / s[..., 1],
                          n_boot=n_boot, seed=seed, level=level)


def moments(centred: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 3"]:
    """Return count, value and square; values centred first, or large ones would lose the variance's digits."""
    return np.stack([np.ones_like(centred), centred, centred * centred], axis=1)


def mean(s: Float[np.ndarray, "*draws 3"]) -> Any:
    """Mean from summed moments."""
    return s[..., 1] / s[..., 0]


def std(s: Float[np.ndarray, "*draws 3"]) -> Any:
    """Sample standard deviation (n − 1) from summed moments."""
    return np.sqrt(np.maximum(s[..., 2] - s[..., 1] ** 2 / s[..., 0], 0) / (s[..., 0] - 1))


def _resampled_rows(index: np.ndarray, n_boot: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    for counts in _draws(len(members), n_boot, rng):
        for count in counts:
            yield np.concatenate([members[g] for g in np.repeat(np.arange(len(members)), count)])


def bootstrap(values: Collection, groups: Collection | None = None, statistic: str | Callable = "mean", *,
              n_boot: int = 1000, seed: int = 0, level: float | int = 0.95) -> Estimate:
    """Bootstrap a statistic of values, drawing whole groups.

    Parameters
    ----------
    values
        ``[n]``; or ``[n, k]`` rows for a function that needs pairs (a correlation, an AUROC).
    groups
        ``[n]`` document of each value; None takes every value as independent, which tokens are not.
    statistic
        ``"mean"``, ``"std"`` (both vectorised), or a function of the resampled values returning one number.
    n_boot, seed, level
        As in :func:`bootstrap_sums`. The result's ``n`` counts groups.

    Raises
    ------
    CourseError
        On NaN, empty or unequal columns, an unknown statistic, or fewer than two groups.

    Examples
    --------
    >>> bootstrap([1, 2, 3, 4, 5, 6], groups=["a", "a", "b", "b", "c", "c"]).value
    3.5
    """
    x = numbers("values", values, ndim=(1, 2) if callable(statistic) else (1,))
    index = group_index(groups, len(x))
    if callable(statistic):
        rows = _resampled_rows(index, n_boot, np.random.default_rng(seed))
        replicates = np.array([float(statistic(x[r])) for r in rows])
        return interval(float(statistic(x)), replicates, level, int(index.max()) + 1)
    if statistic not in ("mean", "std"):
        raise one_of("statistic", statistic, ("mean", "std", "a function"))
    centre = x.mean()
    compute = std if statistic == "std" else lambda s: centre + mean(s)
    sums = group_sums(moments(x - centre), index)
    return bootstrap_sums(sums, compute, n_boot=n_boot, seed=seed, level=level)
