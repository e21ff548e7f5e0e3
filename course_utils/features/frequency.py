"""How well a concept is detected, against how often it stands in the text.

1. `rate`: tokens per million that carry each concept.
2. `rank_correlation`: Spearman's, with an interval over concepts; within kinds of concepts, "other things equal".
3. `fit_curve`: recall = top / (1 + (half / rate) ** slope), a logistic in the logarithm of the rate.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from course_utils.concepts import Labels
from course_utils.errors import CourseError, one_of
from course_utils.evidence.estimates import Estimate, group_index, interval, numbers, same_length
from course_utils.features.units import Table

LEAST = 5  # concepts below which no correlation or curve is tried


def rate(table: Table) -> Float[np.ndarray, " concepts"]:
    """Return how many of a million tokens carry each concept."""
    return 1e6 * table.on.double().mean(0).numpy()


def kinds_of(names: Sequence[str]) -> list[str]:
    """Return the column of each concept: ``"entity"`` for ``"entity:animal:tiger"``."""
    return [name.partition(":")[0] for name in names]


def class_names(labels: Labels, column: str, least: int = 1) -> set[str]:
    """Name the classes of a column that stand on enough tokens: ``"entity:fruit"`` for ``"entity:fruit:apple"``."""
    names = {":".join(name.split(":")[:2]) for name in labels.concepts() if name.startswith(f"{column}:")}
    if not names:
        raise one_of("column", column, labels.columns)
    return {name for name in names if labels.mask(name).sum() >= least}


def _ranks(values: Float[np.ndarray, "draws c"], kind: np.ndarray) -> np.ndarray:
    """Rank within each kind, as shares from 0 to 1 around the kind's middle; ties get their mean rank."""
    from scipy.stats import rankdata  # lazy: scipy.stats takes a second to import

    if not kind.any():
        found = rankdata(values, axis=1)
        return found - found.mean(1, keepdims=True)
    # A kind's number added to values between 0 and 1 keeps kinds apart in one sort, also where a draw mixes them.
    span = values.max() - values.min()
    scaled = (values - values.min()) / (2 * span if span else 1.0) + kind
    ranks = rankdata(scaled, axis=1)
    for g in np.unique(kind):
        here = kind == g
        n = here.sum(1, keepdims=True)
        middle = np.where(here, ranks, 0).sum(1, keepdims=True) / np.maximum(n, 1)
        ranks = np.where(here, (ranks - middle) / np.maximum(n, 1), ranks)
    return ranks


def _rho(x: np.ndarray, y: np.ndarray, kind: np.ndarray) -> np.ndarray:
    a, b = _ranks(x, kind), _ranks(y, kind)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def _columns(x: Collection, y: Collection, groups: Collection | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, b = numbers("x", x), numbers("y", y)
    same_length(x=a, y=b)
    if len(a) < LEAST:
        raise CourseError(f"{len(a)} concepts are too few for a correlation; give {LEAST} or more.")
    if a.min() == a.max() or b.min() == b.max():
        raise CourseError("all values of x or y are equal; there is nothing to rank.")
    return a, b, np.zeros(len(a), int) if groups is None else group_index(groups, len(a))


def rank_correlation(x: Collection, y: Collection, groups: Collection | None = None, *, n_boot: int = 1000,
                     seed: int = 0) -> Estimate:
    """Return Spearman's rank correlation, with an interval over concepts.

    Parameters
    ----------
    x, y
        One value a concept, e.g. its rate and the F1 of its best latent.
    groups
        Kind of each concept: ranks are taken within each kind, as shares, and only they are compared, so that kinds
        which are frequent and easy say nothing. None: all concepts together.
    n_boot, seed
        Resamples of concepts.

    Raises
    ------
    CourseError
        On fewer than five concepts, unequal columns, or values that are all equal.
    """
    a, b, kind = _columns(x, y, groups)
    picks = np.random.default_rng(seed).integers(len(a), size=(n_boot, len(a)))
    draws = _rho(a[picks], b[picks], kind[picks])
    value = _rho(a[None], b[None], kind[None])[0]
    return interval(float(value), draws[np.isfinite(draws)], 0.95, len(a))


def shuffled_correlations(x: Collection, y: Collection, groups: Collection | None = None, *, n: int = 999,
                          seed: int = 0) -> Float[np.ndarray, " draws"]:
    """Return the correlation of `rank_correlation` with x dealt out anew, within kinds if there are groups."""
    a, b, kind = _columns(x, y, groups)
    rng, order = np.random.default_rng(seed), np.argsort(kind, kind="stable")
    dealt = np.empty((n, len(a)))
    for rows in np.split(order, np.flatnonzero(np.diff(kind[order])) + 1):
        dealt[:, rows] = rng.permuted(np.tile(a[rows], (n, 1)), axis=1)
    fixed = np.broadcast_to
    return _rho(dealt, fixed(b, dealt.shape), fixed(kind, dealt.shape))


class Curve(NamedTuple):
    """A logistic curve in the logarithm of the rate."""

    top: float
    """What it rises to."""
    half: float
    """The rate at which it is half of that."""
    slope: float
    """How steep it is there, a tenfold rate multiplying the odds by 10 ** slope; negative: it falls."""

    def values(self, rates: Collection) -> Float[np.ndarray, " n"]:
        """Return the curve's height at each rate."""
        return self.top / (1 + np.exp(-self.slope * (np.log(rates) - np.log(self.half))))


def fit_curve(rates: Collection, recall: Collection) -> Curve:
    """Fit the curve by least squares; its top lies between 0 and 1, its half within a hundredfold of the rates.

    Raises
    ------
    CourseError
        On fewer than five concepts, a rate that is not positive, or values that are all equal.
    """
    from scipy.optimize import curve_fit

    x, y, _ = _columns(rates, recall, None)
    if x.min() <= 0:
        raise CourseError("every rate must be positive; leave out concepts that stand nowhere.")
    low, high = np.log(x.min()), np.log(x.max())

    def height(log_rate: np.ndarray, top: float, half: float, slope: float) -> np.ndarray:
        return top / (1 + np.exp(-slope * (log_rate - half)))

    start = [min(1.0, max(0.05, float(np.quantile(y, 0.9)))), (low + high) / 2, 0.5]
    bounds = ([1e-3, low - np.log(100), -5], [1, high + np.log(100), 5])
    top, half, slope = curve_fit(height, np.log(x), y, p0=start, bounds=bounds)[0]
    return Curve(float(top), float(np.exp(half)), float(slope))


def curve_band(rates: Collection, recall: Collection, at: Collection, *, n_boot: int = 200,
               seed: int = 0) -> tuple[Curve, Float[np.ndarray, "2 n"], Estimate]:
    """Fit the curve, with what it is uncertain about; concepts are resampled.

    Parameters
    ----------
    rates, recall
        One value a concept.
    at
        Rates, rising, at which the band is wanted.
    n_boot, seed
        Resamples of concepts.

    Returns
    -------
    curve
        Fitted to all concepts.
    band
        95 % band of its height at each rate.
    rise
        Its height at the last rate less that at the first. (A slope is steep and uncertain where the curve is flat at
        both ends; this is not.)
    """
    x, y, _ = _columns(rates, recall, None)
    curve, rng, drawn = fit_curve(x, y), np.random.default_rng(seed), []
    for picks in rng.integers(len(x), size=(n_boot, len(x))):
        if np.ptp(x[picks]) and np.ptp(y[picks]):
            drawn.append(fit_curve(x[picks], y[picks]).values(at))
    band = np.quantile(drawn, [0.025, 0.975], axis=0)
    rises = np.array([heights[-1] - heights[0] for heights in drawn])
    heights = curve.values(at)
    return curve, band, interval(float(heights[-1] - heights[0]), rises, 0.95, len(x))
