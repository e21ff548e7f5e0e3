"""Effects: differences of two samples, raw and standardised, each with its interval.

Notebooks import these names from :mod:`course_utils.evidence`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from course_utils.evidence.estimates import (
    Estimate,
    bootstrap,
    bootstrap_sums,
    interval,
    mean,
    moments,
    numbers,
    resampled,
    same_length,
    std,
)


def paired_difference(a: Collection, b: Collection, groups: Collection | None = None, *, n_boot: int = 1000,
                      seed: int = 0, level: float | int = 0.95) -> Estimate:
    """Bootstrap the mean of a − b over groups, where a[i] and b[i] measure the same thing i."""
    x, y = numbers("a", a), numbers("b", b)
    same_length(a=x, b=y)
    return bootstrap(x - y, groups, n_boot=n_boot, seed=seed, level=level)


def _two_samples(a: Collection, b: Collection, statistic: Callable, n_boot: int, seed: int,
                 level: float | int) -> Estimate:
    x, y = numbers("a", a), numbers("b", b)
    tables = [moments(x - x.mean()), moments(y - x.mean())]  # one centre for both, so that differences stay
    streams = np.random.default_rng(seed).spawn(2)
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = statistic(*(resampled(t, n_boot, rng) for t, rng in zip(tables, streams, strict=True)))
        value = float(statistic(*(t.sum(0) for t in tables)))
    return interval(value, replicates, level, min(len(x), len(y)))


def difference(a: Collection, b: Collection, *, n_boot: int = 1000, seed: int = 0,
               level: float | int = 0.95) -> Estimate:
    """Bootstrap mean(a) − mean(b) of two independent samples; ``n`` is the smaller one's size."""
    return _two_samples(a, b, lambda s, t: mean(s) - mean(t), n_boot, seed, level)


def _pooled_d(s: np.ndarray, t: np.ndarray) -> Any:
    n, m = s[..., 0], t[..., 0]
    return (mean(s) - mean(t)) / np.sqrt(((n - 1) * std(s) ** 2 + (m - 1) * std(t) ** 2) / (n + m - 2))


def cohen_d(a: Collection, b: Collection, *, paired: bool = False, n_boot: int = 1000, seed: int = 0,
            level: float | int = 0.95) -> Estimate:
    """Bootstrap Cohen's standardised difference of means.

    Parameters
    ----------
    a, b
        Two samples; equally long when paired.
    paired
        False: (mean a − mean b) / pooled standard deviation. True: mean / standard deviation of a − b.
    n_boot, seed, level
        As in :func:`bootstrap_sums`.
    """
    if not paired:
        return _two_samples(a, b, _pooled_d, n_boot, seed, level)
    x, y = numbers("a", a), numbers("b", b)
    same_length(a=x, b=y)
    return bootstrap_sums(moments(x - y), lambda s: mean(s) / std(s),
                          n_boot=n_boot, seed=seed, level=level)
