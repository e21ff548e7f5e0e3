"""Pictures of what a dictionary is made of, and of how much it recovers from seed to seed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.axes import Axes

from course_utils.errors import CourseError
from course_utils.plots.figures import PALETTE, describe, error_bars, matching, new_axes, tidy, words

HATCHES = ("", "//", "..", "xx", "\\\\", "")


def parts(shares: Collection, rows: Sequence[str], names: Sequence[str], *, ax: Axes | None = None, title: str = "",
          xlabel: str = "share of all latents", legend: bool = True, alt: str = "") -> Axes:
    """Draw what wholes are made of, one bar a whole, the first on top.

    Parameters
    ----------
    shares
        ``[rows names]``, none negative.
    rows, names
        The wholes and their parts; the last part is drawn in white.
    ax, title, xlabel, legend, alt
        Where and how to draw.
    """
    table = np.asarray(shares, dtype=float)
    matching(shares=list(table), rows=list(rows))
    if table.ndim != 2 or table.shape[1] != len(names) or not (table >= 0).all():
        raise CourseError(f"shares of shape {table.shape} must be [rows {len(names)}], a column a name, none negative.")
    ax = new_axes(ax, width=7.0, height=0.9 + 0.35 * len(rows))
    at, left = np.arange(len(rows))[::-1], np.zeros(len(rows))
    for i, (name, column) in enumerate(zip(names, table.T, strict=True)):
        color = "white" if i == len(names) - 1 else PALETTE[i % len(PALETTE)]
        ax.barh(at, column, left=left, color=color, edgecolor="black", linewidth=0.5, label=name,
                hatch=HATCHES[i % len(HATCHES)])
        left += column
    ax.set_yticks(at, list(rows))
    tidy(ax, title=title, xlabel=xlabel)
    ax.grid(False)
    if legend:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    said = "; ".join(
        f"{row}: " + ", ".join(f"{name} {v:.0%}" for name, v in zip(names, line, strict=True) if v >= 0.005)
        for row, line in zip(rows, table, strict=True))
    return describe(ax, alt or f"{title or 'Parts'}. {said}.")


def seed_curves(x: Sequence, runs: Collection, means: Sequence, *, ax: Axes | None = None, title: str = "",
                xlabel: str = "", ylabel: str = "", alt: str = "") -> Axes:
    """Draw what every seed did as a thin line, and over these the means with their intervals.

    Parameters
    ----------
    x
        The setting that varies, ``[points]``.
    runs
        ``[seeds points]``.
    means
        A number or an Estimate a point.
    ax, title, xlabel, ylabel, alt
        Where and how to draw.
    """
    matching(x=x, means=means)
    table = np.asarray(runs, dtype=float)
    if table.ndim != 2 or table.shape[1] != len(x):
        raise CourseError(f"runs of shape {table.shape} must be [seeds {len(x)}], a column a point.")
    ax = new_axes(ax)
    ax.plot(x, table.T, color=PALETTE[0], linewidth=0.8, alpha=0.5)
    middle, whiskers = error_bars(means)
    ax.errorbar(x, middle, yerr=whiskers, color=PALETTE[-1], marker="o", markersize=4, capsize=2)
    tidy(ax, title=title, xlabel=xlabel, ylabel=ylabel)
    said = "; ".join(f"{at:g}: {words(mean)}" for at, mean in zip(x, means, strict=True))
    return describe(ax, alt or f"{title or 'Seeds'}, {ylabel or 'value'} against {xlabel or 'setting'}: {said}.")
