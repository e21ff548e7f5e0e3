"""Pictures of what a dictionary is made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.axes import Axes

from course_utils.errors import CourseError
from course_utils.plots.figures import PALETTE, describe, matching, new_axes, tidy

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
