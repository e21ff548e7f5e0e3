"""Pictures of steering: what an effect costs, what a dose does, and whether what was chosen here works there.

Notebooks import these from :mod:`course_utils.plots`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from course_utils.errors import CourseError
from course_utils.plots.figures import (
    DASHES,
    MARKERS,
    PALETTE,
    describe,
    error_bars,
    matching,
    new_axes,
    not_empty,
    places,
    tidy,
    words,
)


def trade_off(curves: Mapping[str, tuple[Sequence, Sequence]], *, most: float | int | None = None,
              ax: Axes | None = None, xlabel: str = "cost (nats a token under the unsteered model)",
              ylabel: str = "effect", title: str = "", legend: bool = True, alt: str = "") -> Axes:
    """Draw what each method's effect costs, a line a method, its markers growing with the dose.

    Parameters
    ----------
    curves
        Method → (costs, effects), numbers or Estimates in order of dose.
    most
        The cost from which a text counts as too broken.
    ax, xlabel, ylabel, title, alt
        Where and how to draw.
    legend
        Name the methods at the right of the picture; only in one of its panels.

    Raises
    ------
    CourseError
        If there is nothing to draw, or costs and effects of a method are not equally many.
    """
    not_empty("curves", curves)
    for cost, effect in curves.values():
        matching(cost=cost, effect=effect)
    ax, handles = new_axes(ax, width=7.0, height=3.8), []
    for i, (name, (cost, effect)) in zip(places([*curves]), curves.items(), strict=True):
        style = {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i // len(PALETTE) % len(DASHES)]}
        (x, across), (y, up) = error_bars(cost), error_bars(effect)
        ax.errorbar(x, y, xerr=across, yerr=up, elinewidth=0.8, linewidth=1.4, label=name, **style)
        ax.scatter(x, y, s=np.linspace(18, 70, len(x)), color=style["color"], marker=MARKERS[i % len(MARKERS)],
                   edgecolor="white", linewidth=0.4, zorder=3)
        handles.append(Line2D([], [], marker=MARKERS[i % len(MARKERS)], label=name, **style))
    tidy(ax, title=title, xlabel=xlabel, ylabel=ylabel)
    if most is not None:
        _too_broken(ax, most)
    if legend:
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False,
                  title="larger marker:\nlarger dose", title_fontsize="small", alignment="left")
    said = "; ".join(f"{name}: " + ", ".join(f"{words(e)} for {words(c)}" for c, e in zip(*pair, strict=True))
                     for name, pair in curves.items())
    bound = f" From a cost of {most:g}, texts count as too broken." if most is not None else ""
    return describe(ax, alt or f"{title or 'Trade-off'}: {ylabel} for {xlabel}, in order of dose. {said}.{bound}")


def _too_broken(ax: Axes, most: float | int) -> None:
    """Shade what costs too much, and say so above the picture, where no data are."""
    left, right = ax.get_xlim()
    right = max(right, most + 0.06 * (most - left))
    ax.axvspan(most, right, color="0.5", alpha=0.15, linewidth=0, zorder=0)
    ax.axvline(most, color="0.3", linestyle="--", linewidth=1)
    ax.set_xlim(left, right)
    _above(ax, most, "too broken →", "left")


def _above(ax: Axes, x: float | int, text: str, align: str) -> None:
    ax.annotate(text, (x, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize="small",
                color="0.25", ha=align, va="bottom", annotation_clip=False)
    ax.set_title(ax.get_title(), pad=20)  # the text stands between the picture and its title


def dose_response(doses: Collection, effect: Sequence, cost: Sequence, *,
                  window: tuple[float | int, float | int] | None = None, null: Sequence[Collection] | None = None,
                  most: float | int | None = None, ax: Sequence[Axes] | np.ndarray | None = None, xlabel: str = "dose",
                  ylabel: str = "effect", costlabel: str = "nats a token", title: str = "",
                  alt: str = "") -> np.ndarray:
    """Draw what a dose does and, in a panel below, what it costs.

    Parameters
    ----------
    doses
        In increasing order.
    effect, cost
        A number or an Estimate a dose.
    window
        The useful doses, lowest and highest.
    null
        Lowest and highest effect of random directions, ``(low, high)`` at every dose, or ``(doses, low, high)``.
    most
        The cost from which a text counts as too broken, a dashed line in the lower panel.
    ax
        Two Axes, the upper and the lower.
    xlabel, ylabel, costlabel, title, alt
        How to draw.

    Returns
    -------
    np.ndarray
        The two Axes.

    Raises
    ------
    CourseError
        If there is nothing to draw, or lengths do not fit.
    """
    doses = list(doses)
    matching(doses=doses, effect=effect, cost=cost)
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots(2, 1, figsize=(6.5, 4.6), layout="constrained", sharex=True, height_ratios=(3, 2))[1]
    panels = np.asarray(ax, dtype=object).ravel()
    if len(panels) != 2:
        raise CourseError(f"ax has {len(panels)} Axes; give two, for effect and cost.")
    for i, (panel, estimates) in enumerate(zip(panels, (effect, cost), strict=True)):
        value, (down, up) = error_bars(estimates)
        panel.plot(doses, value, color=PALETTE[i], marker=MARKERS[i], markersize=5)
        panel.fill_between(doses, value - down, value + up, color=PALETTE[i], alpha=0.2, linewidth=0)
        if window is not None:
            panel.axvspan(*window, color=PALETTE[2], alpha=0.13, linewidth=0, zorder=0)
    tidy(panels[0], title=title, ylabel=ylabel)
    tidy(panels[1], xlabel=xlabel, ylabel=costlabel)
    if null is not None:
        _random(panels[0], *(null if len(null) == 3 else (doses, *null)))
    if most is not None:
        panels[1].axhline(most, color="0.3", linestyle="--", linewidth=1)
        panels[1].annotate("too broken ↑", (1, most), (4, 0), xycoords=("axes fraction", "data"), va="center",
                           textcoords="offset points", fontsize="small", color="0.25", annotation_clip=False)
    if window is not None:
        _above(panels[0], sum(window) / 2, "useful window", "center")
    told = [", ".join(f"{words(e)} at {dose:g}" for dose, e in zip(doses, column, strict=True))
            for column in (effect, cost)]
    useful = f" Useful window: {window[0]:g} to {window[1]:g}." if window is not None else ""
    bound = f" From {most:g}, texts count as too broken." if most is not None else ""
    describe(panels[0], alt or f"{title or 'Dose and response'}. {ylabel} by {xlabel}: {told[0]}.{useful}")
    describe(panels[1], "" if alt else f"{costlabel}: {told[1]}.{bound}")
    return panels


def _random(ax: Axes, doses: Collection, low: Collection, high: Collection) -> None:
    """Draw where random directions end, named at the right of the picture, where no data are."""
    doses, low, high = ([float(number) for number in row] for row in (doses, low, high))
    matching(doses=doses, low=low, high=high)
    band = ax.fill_between(doses, low, high, facecolor="0.5", alpha=0.25, edgecolor="0.4", linewidth=0.8, hatch="///",
                           zorder=1, label="random\ndirections")
    ax.legend(handles=[band], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small",
              handlelength=1.2)


def matrix(values: Collection, rows: Sequence[Any], columns: Sequence[Any], *, ax: Axes | None = None,
           fmt: str = "{:z.2f}", diagonal: bool = True, xlabel: str = "used in", ylabel: str = "chosen in",
           label: str = "", title: str = "", alt: str = "") -> Axes:
    """Draw numbers as colours with the numbers on top; what was used where it was chosen has an outline.

    Parameters
    ----------
    values
        ``[rows columns]``; NaN was not measured.
    rows, columns
        Their names.
    ax, xlabel, ylabel, title, alt
        Where and how to draw.
    fmt
        How to write a number.
    diagonal
        Outline the cells of the diagonal.
    label
        Of the colour bar.

    Raises
    ------
    CourseError
        If there are not as many rows and columns as names, or no numbers.
    """
    table = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=float)
    if table.shape != (len(rows), len(columns)) or not np.isfinite(table).any():
        raise CourseError(f"values of shape {table.shape} must be numbers, [{len(rows)} {len(columns)}] as named.")
    ax = new_axes(ax, width=min(7.0, 3.0 + 0.75 * len(columns)), height=1.6 + 0.45 * len(rows))
    signed, most = np.nanmin(table) < 0, np.nanmax(np.abs(table))
    image = ax.imshow(table, aspect="auto", cmap="PuOr_r" if signed else "cividis",
                      vmin=-most if signed else min(0.0, np.nanmin(table)), vmax=most or 1.0)
    told = [["not measured" if np.isnan(value) else fmt.format(value) for value in row] for row in table]
    for (i, j), value in np.ndenumerate(table):
        same = diagonal and i == j
        light = np.isnan(value) or np.dot(image.to_rgba(value)[:3], (0.299, 0.587, 0.114)) > 0.5
        ax.text(j, i, "–" if np.isnan(value) else told[i][j], ha="center", va="center", fontsize=9,
                color="black" if light else "white", fontweight="bold" if same else "normal")
        if same:
            ax.add_patch(Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, fill=False, edgecolor="black", linewidth=1.6,
                                   path_effects=[withStroke(linewidth=4, foreground="white")]))  # seen on any colour
    names = [[str(name).replace("\n", "↵").replace("$", r"\$") for name in side] for side in (rows, columns)]
    tidy(ax, title=title, xlabel=xlabel, ylabel=ylabel)
    ax.grid(False)
    ax.set_yticks(range(len(rows)), names[0])
    slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names[1])) > 8 else {}
    ax.set_xticks(range(len(columns)), names[1], **slanted)
    ax.figure.colorbar(image, ax=ax, label=label)
    said = "; ".join(f"{ylabel} {row}: " + ", ".join(f"{c} {v}" for c, v in zip(columns, line, strict=True))
                     for row, line in zip(rows, told, strict=True))
    return describe(ax, alt or f"{title or label or 'Numbers'}, by where {xlabel}. {said}.")
