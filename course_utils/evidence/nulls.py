"""Nulls: how large an effect is without the thing claimed, and the p-values that follow.

Permutations come from scipy, Holm's correction from statsmodels; :func:`calibrate` measures on planted data
how often a whole procedure errs. Notebooks import these names from :mod:`course_utils.evidence`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from course_utils.errors import CourseError, one_of
from course_utils.evidence.estimates import Estimate, group_index, group_sums, numbers, same_length

ALTERNATIVES = ("two-sided", "greater", "less")
_CHUNK = 2_000_000  # permuted values held at once: 16 MB
_Z95 = 1.959963984540054


def _permuted(x: np.ndarray, y: np.ndarray, paired: bool, alternative: str, n: int, seed: int) -> Any:
    from scipy.stats import permutation_test as scipy_test  # lazy: scipy.stats takes a second to import

    if alternative not in ALTERNATIVES:
        raise one_of("alternative", alternative, ALTERNATIVES)
    if n < 1:
        raise CourseError(f"n={n} must be at least 1 permutation (9999 is usual).")
    return scipy_test((x, y), lambda p, q, axis=-1: p.mean(axis) - q.mean(axis), vectorized=True,
                      permutation_type="samples" if paired else "independent", alternative=alternative,
                      n_resamples=n, batch=max(1, _CHUNK // (len(x) + len(y))),
                      rng=np.random.default_rng(seed))


def _exchangeable(a: Collection, b: Collection, paired: bool,
                  groups: Collection | None) -> tuple[np.ndarray, np.ndarray]:
    x, y = numbers("a", a), numbers("b", b)
    if paired:
        same_length(a=x, b=y)
    if groups is None:
        return x, y
    if not paired:
        raise CourseError("groups needs paired=True; for independent samples give one value per document.")
    sums = group_sums(np.stack([x, y], axis=1), group_index(groups, len(x)))
    sums *= len(sums) / len(x)  # so that the mean over documents is the mean over values
    return sums[:, 0], sums[:, 1]


def permutation_test(a: Collection, b: Collection, *, paired: bool = True, groups: Collection | None = None,
                     alternative: str = "two-sided", n: int = 9999, seed: int = 0) -> float:
    """Return the p-value of mean(a) − mean(b) under exchanged labels.

    Parameters
    ----------
    a, b
        Samples; equally long when paired.
    paired
        True: a[i] and b[i] change places (a sign flip). False: values move freely between the samples.
    groups
        ``[n]`` document of each pair: the pairs of one document change places together (paired only).
    alternative
        ``"two-sided"``, ``"greater"`` (a above b) or ``"less"``.
    n, seed
        Random permutations, with the +1 correction; every permutation once if there are no more than n.

    Raises
    ------
    CourseError
        On NaN, empty or unequally long input, or an unknown alternative.

    Examples
    --------
    >>> permutation_test([2, 3, 4], [1, 1, 1], alternative="greater")
    0.125
    """
    return float(_permuted(*_exchangeable(a, b, paired, groups), paired, alternative, n, seed).pvalue)


def permutation_null(a: Collection, b: Collection, *, paired: bool = True, groups: Collection | None = None,
                     n: int = 9999, seed: int = 0) -> Float[np.ndarray, " draws"]:
    """Return mean(a) − mean(b) under exchanged labels: the null of :func:`permutation_test`, for a card."""
    result = _permuted(*_exchangeable(a, b, paired, groups), paired, "two-sided", n, seed)
    return np.asarray(result.null_distribution, dtype=float)


def null_p(effect: Estimate, null: Estimate | Collection, alternative: str = "greater") -> float:
    """Return the p-value of an effect against one null.

    Parameters
    ----------
    effect
        The measured effect.
    null
        Values of the same statistic under the null: p = (1 + as extreme) / (1 + k), so that k values never
        give less than 1 / (k + 1). Or an Estimate: a normal test of the difference, taking both as
        independent with 95 % intervals.
    alternative
        ``"greater"``, ``"less"``, or ``"two-sided"`` (twice the smaller tail).

    Examples
    --------
    >>> null_p(Estimate(9.0, 8.0, 10.0, n=50), null=range(9))
    0.1
    """
    if alternative not in ALTERNATIVES:
        raise one_of("alternative", alternative, ALTERNATIVES)
    if isinstance(null, Estimate):
        gap = effect.value - null.value
        se = math.hypot(effect.high - effect.low, null.high - null.low) / (2 * _Z95)
        z = gap / se if se else math.copysign(math.inf, gap) if gap else 0.0
        above, below = 0.5 * math.erfc(z / math.sqrt(2)), 0.5 * math.erfc(-z / math.sqrt(2))
    else:
        draws = numbers("null", null)
        above = (1 + int((draws >= effect.value).sum())) / (1 + len(draws))
        below = (1 + int((draws <= effect.value).sum())) / (1 + len(draws))
    return {"greater": above, "less": below, "two-sided": min(1.0, 2 * min(above, below))}[alternative]


def holm(pvalues: Mapping[str, float] | Collection) -> dict[str, float] | Float[np.ndarray, " n"]:
    """Correct p-values for their number (Holm 1979); a mapping keeps its names.

    Examples
    --------
    >>> holm({"shuffled": 0.01, "random": 0.04})
    {'shuffled': 0.02, 'random': 0.04}
    """
    from statsmodels.stats.multitest import multipletests  # lazy: takes half a second to import

    named = isinstance(pvalues, Mapping)
    p = numbers("pvalues", list(pvalues.values()) if named else pvalues)
    if p.min() < 0 or p.max() > 1:
        raise CourseError(f"pvalues must lie between 0 and 1; given {p.min():g} to {p.max():g}.")
    corrected = multipletests(p, method="holm")[1]
    return dict(zip(pvalues, corrected.tolist(), strict=True)) if named else corrected


def calibrate(test: Callable[[np.random.Generator, float], float], effects: Collection = (0.0,), *,
              draws: int = 1000, alpha: float = 0.05, seed: int = 0) -> dict[float, Estimate]:
    """Measure a test's own error rates on planted data.

    Parameters
    ----------
    test
        ``test(rng, effect)`` plants data with this effect, runs the whole procedure and returns its p-value.
    effects
        Planted sizes: at 0 the rate is the false-positive rate, elsewhere the power.
    draws, alpha, seed
        Planted data sets per size, significance level, seed (the same noise at every size).

    Returns
    -------
    dict
        Size → rate of p ≤ alpha, with Wilson's 95 % interval.
    """
    from scipy.stats import binomtest
    from tqdm.auto import tqdm

    if draws < 1:
        raise CourseError(f"draws={draws} must be at least 1 (1000 is usual).")
    rates = {}
    for effect in numbers("effects", effects).tolist():
        rng = np.random.default_rng(seed)
        bar = tqdm(range(draws), f"effect {effect:g}", delay=2, leave=False)
        rejected = sum(bool(test(rng, effect) <= alpha) for _ in bar)
        interval = binomtest(rejected, draws).proportion_ci(method="wilson")
        rates[effect] = Estimate(rejected / draws, float(interval.low), float(interval.high), draws)
    return rates
