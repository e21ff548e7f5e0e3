"""Estimates in groups: rivals side by side, group under group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from course_utils.errors import CourseError
from course_utils.plots.figures import MARKERS, PALETTE, describe, error_bars, new_axes, not_empty, places, tidy, words


def grouped_intervals(
    groups: Mapping[str, Mapping[str, Any]], *, ax: Axes | None = None, xlabel: str = "", title: str = "",
    legend: bool = True, alt: str = "",
) -> Axes:
    """Draw estimates with their intervals, a band of lines for each group, one marker a rival.

    Parameters
    ----------
    groups
        Group → rival → Estimate (or number); every group has the same rivals in the same order.
    ax, xlabel, title, alt
        Where and how to draw.
    legend
        Name the rivals below the figure; only in one of its panels.

    Raises
    ------
    CourseError
        If there is nothing to draw, or the groups have different rivals.
    """
    not_empty("groups", groups)
    rivals = list(next(iter(groups.values())))
    not_empty("rivals", rivals)
    for name, estimates in groups.items():
        if list(estimates) != rivals:
            raise CourseError(f"group {name!r} has the rivals {list(estimates)}; all must have {rivals}.")
    ax = new_axes(ax, width=7.0, height=1.1 + (0.2 + 0.14 * len(rivals)) * len(groups))
    rows = np.arange(len(groups))[::-1]
    offsets = np.linspace(0.3, -0.3, len(rivals)) if len(rivals) > 1 else np.zeros(1)
    for rival, offset, i in zip(rivals, offsets, places(rivals), strict=True):
        value, whiskers = error_bars([estimates[rival] for estimates in groups.values()])
        ax.errorbar(value, rows + offset, xerr=whiskers, fmt=MARKERS[i % len(MARKERS)], markersize=4.5,
                    color=PALETTE[i % len(PALETTE)], capsize=2, linewidth=1.2, label=rival)
    for row in rows[1::2]:
        ax.axhspan(row - 0.5, row + 0.5, color="0.5", alpha=0.08, linewidth=0)
    ax.set_yticks(rows, list(groups))
    ax.set_ylim(-0.5, len(groups) - 0.5)
    tidy(ax, title=title, xlabel=xlabel)
    if legend:
        ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(rivals), 5),
                         frameon=False)
    said = "; ".join(f"{name}: " + ", ".join(f"{rival} {words(e)}" for rival, e in estimates.items())
                     for name, estimates in groups.items())
    return describe(ax, alt or f"{title or xlabel or 'Estimates'}. {said}.")
