"""Pictures: data first, options by keyword, ``ax=None``, and the Axes come back; nothing is computed here.

Colours, Axes and alternative texts come from ``figures``, the pictures of training from ``training``, those of toy
models from ``geometry``, those of steering from ``steering``; this room hands on their public names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from course_utils.errors import CourseError
from course_utils.plots.figures import (
    MARKERS,
    PALETTE,
    alt_text,
    describe,
    error_bars,
    matching,
    new_axes,
    not_empty,
    places,
    span,
    tidy,
    words,
)
from course_utils.plots.geometry import arrows, feature_bars, overlaps, phase_map, shares, stacked
from course_utils.plots.steering import dose_response, matrix, trade_off
from course_utils.plots.training import LiveTraining, training_curves

__all__ = [
    "LiveTraining", "PALETTE", "alt_text", "arrows", "density_histogram", "describe", "dose_response", "feature_bars",
    "frontier", "intervals", "loss_bars", "matrix", "null_distributions", "overlaps", "phase_map", "places", "shares",
    "stacked", "trade_off", "training_curves",
]


def density_histogram(density: Collection, *, ax: Axes | None = None, bins: int = 50, label: str = "",
                      color: str = PALETTE[0], alt: str = "") -> Axes:
    """Draw how often latents fire: share of tokens on a logarithmic axis; those that never fire in the title.

    Parameters
    ----------
    density
        ``[d_sae]`` share of tokens on which each latent is active, 0 to 1.
    ax, bins, label, color, alt
        Where and how to draw; label names the autoencoder.
    """
    shares = density.detach().cpu() if hasattr(density, "detach") else density
    shares = np.asarray(shares, dtype=float).ravel()
    not_empty("density", shares)
    if not ((shares >= 0) & (shares <= 1)).all():
        raise CourseError("density must be shares of tokens between 0 and 1, without NaN.")
    ax, fired = new_axes(ax), shares[shares > 0]
    edges = np.geomspace(min(fired.min(initial=1), 0.5), 1, bins + 1)
    ax.hist(fired, bins=edges, color=color, alpha=0.8, label=label or None)
    ax.set_xscale("log")
    silent = len(shares) - len(fired)
    never = f"{silent} of {len(shares)} latents never fire{'s' if silent == 1 else ''}"
    tidy(ax, title=f"{label}: {never}" if label else never, xlabel="share of tokens", ylabel="latents")
    middle = f"; half of the others fire on more than {np.median(fired):.2g} of tokens" if len(fired) else ""
    return describe(ax, alt or f"Histogram of firing shares, {label or 'one autoencoder'}: {never}{middle}.")


def intervals(labels: Sequence[str], estimates: Sequence, *, ax: Axes | None = None,
              reference: float | int | None = None, title: str = "", xlabel: str = "", alt: str = "") -> Axes:
    """Draw estimates with their intervals, one a line, the first on top; ``reference`` is a dashed line."""
    matching(labels=labels, estimates=estimates)
    ax = new_axes(ax, height=0.9 + 0.35 * len(labels))
    value, whiskers = error_bars(estimates)
    rows = np.arange(len(labels))[::-1]
    ax.errorbar(value, rows, xerr=whiskers, fmt="o", color=PALETTE[0], capsize=3)
    if reference is not None:
        ax.axvline(reference, color=PALETTE[-1], linestyle="--", linewidth=1)
    ax.set_yticks(rows, list(labels))
    ax.set_ylim(-0.7, len(labels) - 0.3)
    tidy(ax, title=title, xlabel=xlabel)
    said = "; ".join(f"{name} {words(e)}" for name, e in zip(labels, estimates, strict=True))
    return describe(ax, alt or f"{title or 'Estimates'} with intervals: {said}.")


def loss_bars(evaluation: Any, *, ax: Axes | None = None, title: str = "What the reconstruction costs",
              alt: str = "") -> Axes:
    """Draw the cross-entropy (nats a token) clean, spliced, mean- and zero-ablated, from :func:`evaluate`."""
    bars = {"clean": "ce_clean", "spliced": "ce_spliced",
            "mean ablated": "ce_mean", "zero ablated": "ce_zero"}
    estimates = [getattr(evaluation, field) for field in bars.values()]
    ax = new_axes(ax)
    value, whiskers = error_bars(estimates)
    ax.bar(list(bars), value, yerr=whiskers, capsize=4, color=PALETTE[: len(bars)])
    for i, (name, top) in enumerate(zip(bars, value + whiskers[1], strict=True)):
        ax.annotate(f"{value[i]:.2f}", (name, top), (0, 3), textcoords="offset points", ha="center")
    tidy(ax, title=title, ylabel="cross-entropy (nats a token)")
    said = ", ".join(f"{name} {words(e)}" for name, e in zip(bars, estimates, strict=True))
    return describe(ax, alt or f"{title}, in nats a token: {said}.")


def frontier(x: Sequence, y: Sequence, labels: Sequence[str], *, ax: Axes | None = None, xlabel: str = "L0",
             ylabel: str = "explained variance", title: str = "", logx: bool = False, alt: str = "") -> Axes:
    """Draw what is paid against what is got; points (numbers or Estimates) of one label form a line."""
    matching(x=x, y=y, labels=labels)
    ax = new_axes(ax)
    xs, xbars = error_bars(x)
    ys, ybars = error_bars(y)
    names = list(dict.fromkeys(labels))
    for name, color, marker in zip(names, cycle(PALETTE), cycle(MARKERS), strict=False):
        chosen = [i for i, label in enumerate(labels) if label == name]
        chosen.sort(key=xs.__getitem__)
        ax.errorbar(xs[chosen], ys[chosen], xerr=xbars[:, chosen], yerr=ybars[:, chosen], color=color,
                    marker=marker, capsize=2, label=name)
    ax.set_xscale("log" if logx else "linear")
    ax.legend(frameon=False)
    tidy(ax, title=title, xlabel=xlabel, ylabel=ylabel)
    said = "; ".join(f"{n} ({a:.3g}, {b:.3g})" for n, a, b in zip(labels, xs, ys, strict=True))
    return describe(ax, alt or f"{title or 'Frontier'}, {ylabel} against {xlabel}: {said}.")


def null_distributions(nulls: Mapping[str, Any], effect: Any, *, ax: Axes | None = None, xlabel: str = "",
                       title: str = "", alt: str = "") -> Axes:
    """Draw every null (its values, or its Estimate) on a line of its own, and the effect as a band across."""
    not_empty("nulls", nulls)
    ax = new_axes(ax, height=1.2 + 0.5 * len(nulls))
    value, low, high = span(effect)
    ax.axvspan(low, high, color=PALETTE[1], alpha=0.2)
    ax.axvline(value, color=PALETTE[1], label="effect")
    rows = np.arange(len(nulls))[::-1]
    for row, null in zip(rows, nulls.values(), strict=True):
        if hasattr(null, "low"):
            middle, whiskers = error_bars([null])
            ax.errorbar(middle, [row], xerr=whiskers, fmt="s", color=PALETTE[0], capsize=3)
        else:
            # Bars of a hundredth of the picture at least, or values that lie close together would not be seen.
            start, end = float(np.min(null)), float(np.max(null))
            least = 0.01 * (max(high, end) - min(low, start))
            spare = max(0.0, least - (end - start)) / 2
            bins = int(np.clip((end - start) / least, 1, 40)) if least else 1
            counts, edges = np.histogram(null, bins=bins, range=(start - spare, end + spare))
            ax.stairs(row + 0.8 * counts / counts.max(), edges, baseline=row, fill=True, color=PALETTE[0])
    ax.set_yticks(rows, list(nulls))
    ax.legend(frameon=False)
    tidy(ax, title=title, xlabel=xlabel)
    return describe(ax, alt or f"{title or 'Nulls'}: effect {words(effect)} against {', '.join(nulls)}.")
