"""Effects: differences of two samples, each with its interval.

Notebooks import these names from :mod:`course_utils.evidence`.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from course_utils.evidence.estimates import (
    Estimate,
    bootstrap,
    interval,
    mean,
    moments,
    numbers,
    resampled,
    same_length,
)


def paired_difference(a: Collection, b: Collection, groups: Collection | None = None, *, n_boot: int = 1000,
                      seed: int = 0, level: float | int = 0.95) -> Estimate:
    """Bootstrap the mean of a − b over groups, where a[i] and b[i] measure the same thing i."""
    x, y = numbers("a", a), numbers("b", b)
    same_length(a=x, b=y)
    return bootstrap(x - y, groups, n_boot=n_boot, seed=seed, level=level)


def difference(a: Collection, b: Collection, *, n_boot: int = 1000, seed: int = 0,
               level: float | int = 0.95) -> Estimate:
    """Bootstrap mean(a) − mean(b) of two independent samples; ``n`` is the smaller one's size."""
    x, y = numbers("a", a), numbers("b", b)
    tables = [moments(x - x.mean()), moments(y - x.mean())]  # one centre for both, so that differences stay
    streams = np.random.default_rng(seed).spawn(2)
    first, second = (mean(resampled(t, n_boot, rng)) for t, rng in zip(tables, streams, strict=True))
    value = float(mean(tables[0].sum(0)) - mean(tables[1].sum(0)))
    return interval(value, first - second, level, min(len(x), len(y)))
