"""Agreement of raters beyond chance: Cohen's kappa for two, Krippendorff's alpha for any number, gaps allowed.

Both are one minus a ratio, disagreement seen over disagreement expected if the same labels were dealt out blindly: 1 is
full agreement, 0 is chance. The values come from scikit-learn and nltk; the intervals resample *items*, because raters
are few and the question is what they would do with other items of the kind. Everything needed is a sum over items, so
that a resample is a row of counts (`estimates`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from jaxtyping import Float

from course_utils.errors import CourseError, one_of
from course_utils.evidence.estimates import Estimate, interval, resampled, same_length

LEVELS = ("nominal", "interval")
WEIGHTS = (None, "linear", "quadratic")
_DEGENERATE = 0.05  # share of resamples that may hold one label only, where agreement is not defined


def _missing(label: Any) -> bool:
    return label is None or isinstance(label, float | np.floating) and math.isnan(label)


def _categories(labels: Collection) -> list:
    """Return the different labels: numbers in their order, others by name."""
    found = set(labels)
    numeric = all(isinstance(v, int | float | np.number) for v in found)
    return sorted(found) if numeric else sorted(found, key=str)


def _estimate(value: float, sums: Float[np.ndarray, "items k"], statistic: Callable, n_boot: int, seed: int,
              level: float | int) -> Estimate:
    """Give a value the interval of the same statistic on resampled items, leaving out the few that hold one label."""
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = statistic(resampled(sums, n_boot, np.random.default_rng(seed)))
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < (1 - _DEGENERATE) * n_boot:
        raise CourseError(f"{n_boot - len(defined)} of {n_boot} resamples hold one label only, where agreement is not "
                          "defined; give more items, or labels that are used more evenly.")
    return interval(value, defined, level, len(sums))


def cohen_kappa(a: Collection, b: Collection, *, weights: str | None = None, n_boot: int = 1000,
                seed: int = 0, level: float | int = 0.95) -> Estimate:
    """Return Cohen's kappa of two raters, with an interval over items.

    Parameters
    ----------
    a, b
        What each said about the same items, in the same order; items that one of them left out (None or NaN) are
        dropped.
    weights
        None: any two labels differ alike. ``"linear"`` or ``"quadratic"``: ratings on a scale, by their distance in
        ranks of the labels that were used.
    n_boot, seed, level
        Resamples of items, seed, coverage.

    Raises
    ------
    CourseError
        If the raters did not rate the same items, or used one label only.

    References
    ----------
    Cohen 1960; the value is scikit-learn's ``cohen_kappa_score``.

    Examples
    --------
    >>> cohen_kappa(["x", "x", "y", "y", "x", "y"], ["x", "x", "y", "x", "x", "y"]).value.__round__(3)
    0.667
    """
    if weights not in WEIGHTS:
        raise one_of("weights", weights, [w for w in WEIGHTS if w])
    same_length(a=a, b=b)
    pairs = [(p, q) for p, q in zip(list(a), list(b), strict=True) if not (_missing(p) or _missing(q))]
    names = _categories([label for pair in pairs for label in pair])
    if len(names) < 2:
        raise CourseError(f"the raters used {len(names)} label(s) on {len(pairs)} items that both rated; agreement "
                          "beyond chance needs at least two labels.")
    from sklearn.metrics import cohen_kappa_score  # lazy: takes a second to import

    k, place = len(names), {name: i for i, name in enumerate(names)}
    codes = np.array([(place[p], place[q]) for p, q in pairs])
    table = np.eye(k * k)[codes[:, 0] * k + codes[:, 1]]  # an item is one cell of the table of both
    distance = np.abs(np.subtract.outer(np.arange(k), np.arange(k))) ** {None: 0, "linear": 1, "quadratic": 2}[weights]
    distance = distance * (1 - np.eye(k))

    def kappa(sums: np.ndarray) -> Any:
        cells = sums.reshape(*sums.shape[:-1], k, k)
        dealt = cells.sum(-1)[..., :, None] * cells.sum(-2)[..., None, :] / cells.sum((-1, -2))[..., None, None]
        return 1 - (distance * cells).sum((-1, -2)) / (distance * dealt).sum((-1, -2))

    value = float(cohen_kappa_score(*codes.T, weights=weights, labels=range(k)))
    return _estimate(value, table, kappa, n_boot, seed, level)


def krippendorff_alpha(ratings: Collection, *, kind: str = "nominal", n_boot: int = 1000, seed: int = 0,
                       level: float | int = 0.95) -> Estimate:
    """Return Krippendorff's alpha of any number of raters, with an interval over items.

    Parameters
    ----------
    ratings
        ``[raters items]``, one row a rater; None or NaN where a rater left an item out.
    kind
        ``"nominal"``: any two labels differ alike. ``"interval"``: numbers, by their squared distance.
    n_boot, seed, level
        Resamples of items, seed, coverage.

    Raises
    ------
    CourseError
        If rows are not equally long, fewer than two items have two ratings, or one label only was used.

    References
    ----------
    Krippendorff 2004, Content Analysis; the value is nltk's ``AnnotationTask.alpha``.

    Examples
    --------
    >>> krippendorff_alpha([[1, 1, 2, 2, 1, 2], [1, 1, 2, 1, 1, 2], [1, 1, 2, 2, None, 2]]).value.__round__(3)
    0.778
    """
    if kind not in LEVELS:
        raise one_of("kind", kind, LEVELS)
    rows = [list(row) for row in ratings]
    if len(rows) < 2:
        raise CourseError(f"ratings has {len(rows)} row(s); agreement needs two raters or more, one row each.")
    same_length(**{f"rater {i}": row for i, row in enumerate(rows)})
    items = [[label for label in column if not _missing(label)] for column in zip(*rows, strict=True)]
    items = [labels for labels in items if len(labels) > 1]  # one rating agrees with nothing
    names = _categories([label for labels in items for label in labels])
    if len(items) < 2 or len(names) < 2:
        raise CourseError(f"{len(items)} items have two ratings or more, with {len(names)} different label(s); "
                          "agreement beyond chance needs at least two of each.")
    if kind == "interval" and not all(isinstance(name, int | float | np.number) for name in names):
        raise CourseError("kind='interval' needs numbers as ratings; give kind='nominal' for names.")
    from nltk.metrics.agreement import AnnotationTask  # lazy: takes a second to import
    from nltk.metrics.distance import binary_distance, interval_distance

    told = [(str(r), str(i), label) for i, labels in enumerate(items) for r, label in enumerate(labels)]
    value = AnnotationTask(told, distance=binary_distance if kind == "nominal" else interval_distance).alpha()
    counts = np.array([[labels.count(name) for name in names] for labels in items], dtype=float)
    distance = 1 - np.eye(len(names)) if kind == "nominal" else np.square(np.subtract.outer(names, names))
    within = np.einsum("uc,ck,uk->u", counts, distance, counts) / (counts.sum(1) - 1)

    def alpha(sums: np.ndarray) -> Any:
        n = sums[..., 1:].sum(-1)
        dealt = np.einsum("...c,ck,...k->...", sums[..., 1:], distance, sums[..., 1:]) / (n - 1)
        return 1 - sums[..., 0] / dealt

    return _estimate(float(value), np.column_stack([within, counts]), alpha, n_boot, seed, level)
