"""Pictures of toy models: where features lie, how they overlap, how much room each has, which arrangement wins.

Notebooks import these from :mod:`course_utils.plots`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from course_utils.errors import CourseError
from course_utils.plots.figures import MARKERS, PALETTE, describe, matching, new_axes, not_empty, tidy

SHARES = {"one each": 1.0, "triangle": 2 / 3, "digon": 1 / 2, "pentagon": 2 / 5}
HATCHES = ("", "///", "...", "xx")


def _array(name: str, data: Any, ndim: int) -> np.ndarray:
    """Return data as an array of ndim dimensions without NaN."""
    array = np.asarray(data.detach().cpu() if hasattr(data, "detach") else data, dtype=float)
    if array.ndim != ndim or not np.isfinite(array).all():
        raise CourseError(f"{name} must have {ndim} dimension(s) and no NaN; given shape {array.shape}.")
    not_empty(name, array)
    return array


def arrows(W: Any, *, ax: Axes | None = None, groups: Sequence[int] | None = None, title: str = "",
           size: float | int = 1.45, alt: str = "") -> Axes:
    """Draw each feature as an arrow in a hidden space of two dimensions, inside the unit circle.

    Parameters
    ----------
    W
        ``[2 f]``, feature i in column i.
    ax, title, alt
        Where and how to draw.
    groups
        ``[f]`` number of each feature's group: features of one group share colour and marker.
    size
        Half the width of the picture, in units of the hidden space.
    """
    points = _array("W", W, 2).T
    if points.shape[1] != 2:
        raise CourseError(f"W has {points.shape[1]} rows; a picture in the plane needs 2 hidden dimensions.")
    groups = range(len(points)) if groups is None else groups
    matching(groups=list(groups), features=list(points))
    ax = new_axes(ax, width=3.0, height=3.0)
    turn = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(turn), np.sin(turn), color="0.8", linewidth=1)
    for number, ((x, y), group) in enumerate(zip(points, groups, strict=True)):
        style = {"color": PALETTE[group % len(PALETTE)], "marker": MARKERS[group % len(MARKERS)]}
        ax.plot([0, x], [0, y], linewidth=2, markevery=[1], **style)
        reach = np.hypot(x, y)
        if reach > 0.1:
            ax.annotate(str(number), (x * (1 + 0.17 / reach), y * (1 + 0.17 / reach)), ha="center", va="center")
    ax.set(xlim=(-size, size), ylim=(-size, size), aspect="equal", xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    angles = np.degrees(np.arctan2(points[:, 1], points[:, 0])).round()
    said = ", ".join(f"{i} at {angle:.0f}° length {np.hypot(*point):.2f}"
                     for i, (angle, point) in enumerate(zip(angles, points, strict=True)))
    return describe(ax, alt or f"{title or 'Features'} as arrows in the hidden plane: {said}.")


def feature_bars(length: Collection, interference: Collection, *, ax: Axes | None = None, title: str = "",
                 threshold: float | int = 0.5, alt: str = "") -> Axes:
    """Draw one bar a feature: how long its column of W is; dark without interference, lightest from 2 up."""
    from matplotlib import colormaps

    height, shade = _array("length", length, 1), _array("interference", interference, 1)
    matching(length=list(height), interference=list(shade))
    ax = new_axes(ax, height=1.8)
    ax.bar(range(len(height)), height, color=colormaps["viridis"](np.clip(shade / 2, 0, 0.95)))
    ax.axhline(threshold, color="black", linestyle=":", linewidth=1)
    tidy(ax, title=title, xlabel="feature", ylabel="length")
    ax.set_ylim(0, 1.3)
    kept = int((height > threshold).sum())
    alone = int(((height > threshold) & (shade < 0.1)).sum())
    return describe(ax, alt or f"{title or 'Features'}: {kept} of {len(height)} columns are longer than {threshold:g}, "
                               f"{alone} of them hardly overlap with any other.")


def overlaps(W: Any, *, ax: Axes | None = None, title: str = "", alt: str = "") -> Axes:
    """Draw WᵀW ``[f f]``, purple above 0 and orange below: which features are kept, and which of them overlap."""
    columns = _array("W", W, 2)
    gram = columns.T @ columns
    ax = new_axes(ax, width=2.6, height=2.6)
    ax.imshow(gram, cmap="PuOr", vmin=-1, vmax=1)
    ax.set(title=title, xticks=[], yticks=[])
    off = np.abs(gram - np.diag(np.diag(gram))).max()
    low, high = np.diag(gram).min(), np.diag(gram).max()
    return describe(ax, alt or f"{title or 'WᵀW'}: diagonal from {low:.2f} to {high:.2f}; the strongest overlap of two "
                               f"features is {off:.2f}.")


def shares(x: Sequence, D: Sequence, *, ax: Axes | None = None, lines: Mapping[str, float] = SHARES, xlabel: str = "",
           title: str = "", alt: str = "") -> Axes:
    """Draw feature dimensionalities: for each x a column of points, one a feature, with named shares as lines.

    Parameters
    ----------
    x
        Position of each column, on a logarithmic axis.
    D
        As many collections of dimensionalities.
    ax, xlabel, title, alt
        Where and how to draw.
    lines
        Name → share, drawn across.
    """
    matching(x=x, D=D)
    ax, spread = new_axes(ax), np.random.default_rng(0)
    for name, share in lines.items():
        ax.axhline(share, color=PALETTE[1], linewidth=1, linestyle="--")
        ax.annotate(name, (1, share), (3, -3), xycoords=("axes fraction", "data"), textcoords="offset points")
    for at, column in zip(x, D, strict=True):
        jitter = np.exp(spread.uniform(-0.03, 0.03, len(column)))
        ax.scatter(at * jitter, column, s=12, alpha=0.4, color=PALETTE[0], linewidths=0)
    ax.set_xscale("log")
    tidy(ax, title=title, xlabel=xlabel, ylabel="share of a dimension")
    ax.set_ylim(0, 1.08)
    said = "; ".join(f"{name} {np.mean([np.mean(np.abs(np.asarray(c) - share) < 0.03) for c in D]):.0%}"
                     for name, share in lines.items())
    return describe(ax, alt or f"{title or 'Dimensionality of features'}: share of points within 0.03 of {said}.")


def phase_map(x: Collection, y: Collection, phase: Any, names: Sequence[str], *, ax: Axes | None = None,
              border: Sequence[tuple] = (), xlabel: str = "", ylabel: str = "", title: str = "", alt: str = "") -> Axes:
    """Draw which of several phases each cell is in, on two logarithmic axes.

    Parameters
    ----------
    x, y
        Centres of the columns ``[nx]`` and of the rows ``[ny]``, evenly spaced on a logarithmic scale.
    phase
        ``[nx ny]`` number of each cell's phase.
    names
        What the phases are called.
    ax, xlabel, ylabel, title, alt
        Where and how to draw.
    border
        Curves ``(x, y)`` drawn on top: where theory puts the borders.
    """
    from matplotlib.patches import Patch

    cells, x, y = _array("phase", phase, 2), _array("x", x, 1), _array("y", y, 1)
    if cells.shape != (len(x), len(y)):
        raise CourseError(f"phase has shape {cells.shape}; x and y ask for {(len(x), len(y))}.")
    colors = ["0.9", PALETTE[5], PALETTE[4], PALETTE[2]][: len(names)]
    ax = new_axes(ax, width=6.5)
    ax.pcolormesh(x, y, cells.T, cmap=ListedColormap(colors), vmin=-0.5, vmax=len(names) - 0.5, shading="nearest",
                  edgecolors="white", linewidth=0.15)
    for curve in border:
        ax.plot(*curve, color="black", linewidth=2)
    limits = {"xlim": ax.get_xlim(), "ylim": ax.get_ylim()} if not border else \
        {"xlim": (min(x), max(x)), "ylim": (min(y), max(y))}
    ax.set(xscale="log", yscale="log", **limits)
    handles = [Patch(color=c, label=name) for c, name in zip(colors, names, strict=True)]
    handles += [ax.lines[0]] if border else []
    labels = [*names, "theory"] if border else list(names)
    ax.legend(handles, labels, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    tidy(ax, title=title, xlabel=xlabel, ylabel=ylabel)
    ax.grid(False)
    said = ", ".join(f"{name} in {int((cells == i).sum())}" for i, name in enumerate(names))
    return describe(ax, alt or f"{title or 'Phases'}: of {cells.size} cells, {said}.")


def stacked(weights: Any, *, ax: Axes | None = None, title: str = "", xlabel: str = "neuron", ylabel: str = "weight",
            alt: str = "") -> Axes:
    """Draw what each unit is made of: one bar a unit, stacked from its positive weights up and its negative ones down.

    Parameters
    ----------
    weights
        ``[units f]``; each feature keeps its colour and hatching.
    ax, title, xlabel, ylabel, alt
        Where and how to draw.
    """
    table = _array("weights", weights, 2)
    ax = new_axes(ax, height=2.6)
    up, down = np.zeros(len(table)), np.zeros(len(table))
    for i, column in enumerate(table.T):
        base = np.where(column > 0, up, down)
        ax.bar(range(len(table)), column, bottom=base, color=PALETTE[i % 6], edgecolor="black", linewidth=0.4,
               hatch=HATCHES[i // 6 % len(HATCHES)])
        up, down = up + np.maximum(column, 0), down + np.minimum(column, 0)
    ax.axhline(0, color="black", linewidth=0.8)
    tidy(ax, title=title, xlabel=xlabel, ylabel=ylabel)
    size = np.abs(table)
    several = int(((size > 0.25 * size.max(1, keepdims=True)).sum(1) > 1).sum())
    return describe(ax, alt or f"{title or 'Weights'}: {several} of {len(table)} units have more than one feature "
                               "above a quarter of their largest weight.")
