"""Pictures of causal trials: what remains as more is taken away, and how often a test speaks up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from course_utils.plots.figures import MARKERS, PALETTE, describe, error_bars, new_axes, not_empty, places, tidy, words


def ladders(steps: Collection, series: Mapping[str, Sequence], *, ax: Axes | None = None,
            half: float | int | None = 0.5, xlabel: str = "latents off", ylabel: str = "share that remains",
            title: str = "", alt: str = "") -> Axes:
    """Draw what remains at every step, a line each, steps doubling from one tick to the next.

    Parameters
    ----------
    steps
        Such as how many latents are off, in ascending order.
    series
        Name → a number or an Estimate a step.
    half
        A dashed line; None: none.
    ax, xlabel, ylabel, title, alt
        Where and how to draw.
    """
    not_empty("series", series)
    ax = new_axes(ax)
    for i, (name, estimates) in zip(places([*series]), series.items(), strict=True):
        value, bars = error_bars(estimates)
        ax.errorbar(steps, value, yerr=bars if bars.any() else None, color=PALETTE[i % len(PALETTE)], capsize=2,
                    marker=MARKERS[i % len(MARKERS)], markersize=4, label=name)
    if half is not None:
        ax.axhline(half, color="black", linestyle="--", linewidth=1)
    ax.set_xscale("log")
    ax.set_xticks(list(steps), [f"{step:g}" for step in steps])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=8)
    tidy(ax, title=title, xlabel=xlabel, ylabel=ylabel)
    return describe(ax, alt or _said(ylabel, xlabel, series))


def power(curves: Mapping[str, Mapping[float, Any]], *, ax: Axes | None = None, alpha: float | int = 0.05,
          xlabel: str = "planted effect", ylabel: str = "share of tests that speak up", title: str = "",
          alt: str = "") -> Axes:
    """Draw how often a test speaks up against the planted effect, from `evidence.calibrate`; dashed: the level.

    Parameters
    ----------
    curves
        Test → size → rate, an Estimate. At size 0 it is the false-positive rate.
    alpha
        The level that was asked for.
    ax, xlabel, ylabel, title, alt
        Where and how to draw.
    """
    not_empty("curves", curves)
    ax = new_axes(ax)
    for i, (name, rates) in enumerate(curves.items()):
        value, bars = error_bars(list(rates.values()))
        ax.errorbar(list(rates), value, yerr=bars, color=PALETTE[i % len(PALETTE)], marker=MARKERS[i % len(MARKERS)],
                    markersize=4, capsize=2, label=name)
    ax.axhline(alpha, color="black", linestyle="--", linewidth=1)
    ax.set_ylim(0, 1.02)
    ax.legend(frameon=False, fontsize=8)
    tidy(ax, title=title, xlabel=xlabel, ylabel=ylabel)
    return describe(ax, alt or _said(ylabel, xlabel, {name: list(rates.values()) for name, rates in curves.items()}))


def _said(what: str, by: str, series: Mapping[str, Sequence]) -> str:
    told = "; ".join(f"{name}: {', '.join(words(e) for e in estimates)}" for name, estimates in series.items())
    return f"{what} by {by}. {told}."
