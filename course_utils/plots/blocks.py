"""Pictures of what happens from block to block: a grid of numbers, curves with bands, bars in groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from course_utils.plots.figures import (
    MARKERS,
    PALETTE,
    describe,
    error_bars,
    matching,
    new_axes,
    not_empty,
    tidy,
    words,
)


def grid(values: Collection, rows: Sequence, columns: Sequence, *, texts: Collection | None = None,
         limits: tuple[float | int, float | int] = (0, 1), ax: Axes | None = None, title: str = "", xlabel: str = "",
         ylabel: str = "", label: str = "", upwards: bool = False, alt: str = "") -> Axes:
    """Draw numbers as colours, one cell each, with a text in it.

    Parameters
    ----------
    values
        ``[rows columns]``.
    rows, columns
        Their names.
    texts
        ``[rows columns]`` what to write; by default the numbers, or nothing if there are many.
    limits
        Ends of the colour scale; if the lower is negative, the scale has its own colour for each sign.
    ax, title, xlabel, ylabel
        Where to draw, and names.
    label
        Of the colour bar; no bar if empty.
    upwards
        The first row at the bottom.
    alt
        What it shows; by default all numbers.
    """
    table = np.asarray(values, dtype=float)
    ax = new_axes(ax, width=1.8 + 0.75 * len(columns), height=1.1 + 0.36 * len(rows))
    signed = limits[0] < 0
    image = ax.imshow(table, cmap="PuOr" if signed else "cividis", vmin=limits[0], vmax=limits[1], aspect="auto",
                      origin="lower" if upwards else "upper")
    named = texts is not None
    if not named:
        texts = [[f"{value:z.2f}" if table.size <= 64 else "" for value in row] for row in table]
    for (row, column), value in np.ndenumerate(table):
        place = (value - limits[0]) / (limits[1] - limits[0])
        dark = abs(place - 0.5) > 0.3 if signed else place < 0.5
        said = str(np.asarray(texts, dtype=object)[row, column]).replace("\n", "↵").replace("$", r"\$")
        ax.text(column, row, said, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    tidy(ax, title=title, xlabel=xlabel, ylabel=ylabel)
    ax.grid(False)
    ax.set_xticks(range(len(columns)), [str(c).replace("\n", "↵").replace("$", r"\$") for c in columns])
    ax.set_yticks(range(len(rows)), list(map(str, rows)))
    if label:
        ax.figure.colorbar(image, ax=ax, label=label)
    told = [[f"{v:z.2f}" if not named else f"{str(text).strip()!r} {v:z.2f}" for text, v in zip(*pair, strict=True)]
            for pair in zip(texts, table, strict=True)]
    said = "; ".join(f"{name} {', '.join(row)}" for name, row in zip(rows, told, strict=True))
    return describe(ax, alt or f"{title or 'Numbers'}: {said}.")


def curves(series: Mapping[str, Sequence], *, ax: Axes | None = None, title: str = "",
           xlabel: str = "blocks that have run", ylabel: str = "", alt: str = "") -> Axes:
    """Draw estimates from block to block, each curve with the band of its intervals."""
    not_empty("series", series)
    ax = new_axes(ax, width=7.0, height=3.0)
    for (name, estimates), color, marker in zip(series.items(), cycle(PALETTE), cycle(MARKERS), strict=False):
        value, bars = error_bars(estimates)
        ax.plot(value, marker=marker, color=color, label=name)
        ax.fill_between(range(len(value)), value - bars[0], value + bars[1], color=color, alpha=0.2)
    tidy(ax, title=title, xlabel=xlabel, ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    said = "; ".join(f"{name} {', '.join(words(e) for e in estimates)}" for name, estimates in series.items())
    return describe(ax, alt or f"{ylabel or 'Estimates'} by {xlabel}: {said}.")


def bars(series: Mapping[str, Sequence], names: Sequence[str], *, dots: Mapping[str, Sequence] | None = None,
         ax: Axes | None = None, title: str = "", xlabel: str = "", ylabel: str = "", alt: str = "") -> Axes:
    """Draw groups of bars, one group a name and one bar a series; ``dots`` are drawn over them."""
    not_empty("series", series)
    ax = new_axes(ax, width=max(7.0, 0.42 * len(names)), height=3.0)
    width, at = 0.8 / len(series), np.arange(len(names))
    for i, (label, estimates) in enumerate(series.items()):
        matching(**{label: estimates, "names": names})
        value, whiskers = error_bars(estimates)
        ax.bar(at + (i + 0.5) * width - 0.4, value, width, yerr=whiskers if whiskers.any() else None,
               color=PALETTE[2 * i % len(PALETTE)], label=label, error_kw={"lw": 1})
    for marker, color, (label, estimates) in zip(MARKERS[1:], PALETTE[1:], (dots or {}).items(), strict=False):
        value, whiskers = error_bars(estimates)
        ax.errorbar(at, value, whiskers, fmt=marker, color=color, capsize=3, label=label)
    tidy(ax, title=title, xlabel=xlabel, ylabel=ylabel)
    many = sum(map(len, names)) > 50
    ax.set_xticks(at, [name.replace("$", r"\$") for name in names], rotation=60 if many else 0)
    if len(series) + len(dots or {}) > 1:
        ax.legend()
    said = "; ".join(f"{label}: " + ", ".join(f"{name} {words(e)}" for name, e in zip(names, estimates, strict=True))
                     for label, estimates in {**series, **(dots or {})}.items())
    return describe(ax, alt or f"{title or ylabel}. {said}.")
