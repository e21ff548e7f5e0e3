"""Pictures of detectors: two curves of the same values, bars by name, and a table of numbers in colour."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils.errors import CourseError
from course_utils.plots.figures import DASHES, PALETTE, describe, matching, new_axes, not_empty, tidy


def roc_and_precision(values: Mapping[str, Collection], on: Collection, *, title: str = "") -> Figure:
    """Draw ROC, and precision against recall, of several detectors of one concept.

    Parameters
    ----------
    values
        Name → its value on every token ``[n]``.
    on
        ``[n]`` whether the token carries the concept.
    title
        The concept.
    """
    from matplotlib import pyplot
    from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve  # lazy: takes a second to import

    not_empty("values", values)
    on = np.asarray(on, dtype=bool)
    if not 0 < on.sum() < len(on):
        raise CourseError("the concept stands on no token or on all; there is no curve to draw.")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3), layout="constrained")
    said = []
    for i, (name, v) in enumerate(values.items()):
        style = {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i % len(DASHES)]}
        left.plot(*roc_curve(on, v)[:2], label=f"{name}: AUROC {roc_auc_score(on, v):.2f}", **style)
        precision, recall, _ = precision_recall_curve(on, v)
        f1 = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
        right.plot(recall, precision, label=f"{name}: best F1 {f1:.2f}", **style)
        said.append(f"{name}: AUROC {roc_auc_score(on, v):.2f}, best F1 {f1:.2f}")
    tidy(left, title=title, xlabel="share of other tokens above the threshold", ylabel="share of its tokens above it")
    tidy(right, title=f"{on.sum():,} of {len(on):,} tokens", xlabel="recall", ylabel="precision")
    left.legend(loc="lower right", frameon=False)
    right.legend(frameon=False)
    describe(left, f"{title}, ROC and precision against recall. {'; '.join(said)}.")
    return figure


def named_bars(names: Sequence[str], values: Sequence, *, ax: Axes | None = None, reference: float | None = None,
               xlabel: str = "", title: str = "") -> Axes:
    """Draw shares from 0 to 1 as bars, the first on top; ``reference`` is a dashed line."""
    matching(names=names, values=values)
    ax = new_axes(ax, width=6.5, height=1.2 + 0.18 * len(names))
    ax.barh(list(names), list(values), color=PALETTE[0])
    if reference is not None:
        ax.axvline(reference, color=PALETTE[-1], linestyle="--", linewidth=1)
    ax.invert_yaxis()
    ax.set_xlim(0, min(1, 1.1 * max(*values, 0.1)))
    tidy(ax, title=title, xlabel=xlabel)
    return describe(ax, f"{title}: " + ", ".join(f"{n} {v:.0%}" for n, v in zip(names, values, strict=True)) + ".")


def number_table(grid: Collection, rows: Sequence[str], columns: Sequence[str], *, ax: Axes | None = None,
                 xlabel: str = "", ylabel: str = "", title: str = "") -> Axes:
    """Draw a table of numbers, the higher the darker.

    Raises
    ------
    CourseError
        If the grid does not have as many rows and columns as there are names.
    """
    grid = np.asarray(grid, dtype=float)
    if grid.shape != (len(rows), len(columns)):
        raise CourseError(f"grid has shape {grid.shape}; {len(rows)} rows and {len(columns)} columns are named.")
    ax = new_axes(ax, width=1.8 + 1.1 * len(columns), height=1 + 0.42 * len(rows))
    ax.imshow(grid, cmap="Blues", aspect="auto")
    for (i, j), value in np.ndenumerate(grid):
        dark = value > grid.min() + 0.6 * np.ptp(grid)
        ax.annotate(f"{value:z.2f}", (j, i), ha="center", va="center", color="white" if dark else "black")
    ax.set(xticks=range(len(columns)), yticks=range(len(rows)), xticklabels=columns, yticklabels=rows, title=title,
           xlabel=xlabel, ylabel=ylabel)
    said = "; ".join(f"{name} " + ", ".join(f"{c} {v:z.2f}" for c, v in zip(columns, line, strict=True))
                     for name, line in zip(rows, grid, strict=True))
    return describe(ax, f"{title or xlabel}. {said}.")
