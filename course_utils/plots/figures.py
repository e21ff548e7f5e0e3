"""What every picture shares: colours, Axes, error bars, and an alternative text that reaches the page.

Colours are Okabe and Ito's, told apart by colour-blind readers, and never carry a meaning alone: markers,
dashes and labels repeat it. :func:`describe` keeps the alternative text with the Axes and makes Jupyter store
it beside the PNG (output metadata ``image/png`` → ``alt``), where nbconvert and the report read it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils.errors import CourseError

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
# What the notebooks compare again and again looks the same everywhere, by whichever of its names.
_KNOWN = (("latents", "latents, seed 0", "latent, by output", "latents by what hangs on them"),
          ("latent, by input", "latents by what they fire on"), ("DiffMean", "difference of means"),
          ("probe", "linear probe"), ("neurons", "neuron"), ("random directions", "random axes"), ("LEACE",))
_ALT: WeakKeyDictionary[Axes, str] = WeakKeyDictionary()


def describe(ax: Axes, alt: str) -> Axes:
    """Give the Axes an alternative text, which Jupyter then stores beside the picture."""
    _ALT[ax] = alt
    shell = kernel_shell()
    if shell is not None:
        _send_alt_with(shell.display_formatter.formatters["image/png"])
    return ax


def alt_text(figure: Figure) -> str:
    """Return the figure's alternative text: that of its panels, in order."""
    return " ".join(_ALT[ax] for ax in figure.axes if ax in _ALT)


def kernel_shell() -> Any:
    """Return the shell of the Jupyter kernel that we run in, or None (script, terminal)."""
    if "IPython" not in sys.modules:
        return None
    shell = sys.modules["IPython"].get_ipython()
    return shell if hasattr(shell, "kernel") else None


def _send_alt_with(formatter: Any) -> None:
    # The inline backend registers a plain function for Figure, and may do so again: wrap whatever is there.
    try:
        draw = formatter.lookup_by_type(Figure)
    except KeyError:
        return
    if getattr(draw, "sends_alt", False):
        return

    def draw_with_alt(figure: Figure) -> Any:
        png = draw(figure)
        data, metadata = png if isinstance(png, tuple) else (png, {})
        return (data, {**metadata, "alt": alt_text(figure)}) if data and alt_text(figure) else png

    draw_with_alt.sends_alt = True
    formatter.for_type(Figure, draw_with_alt)


def new_axes(ax: Axes | None, width: float = 6.0, height: float = 3.6) -> Axes:
    """Return the Axes given, or one of a new figure."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def places(names: Sequence[str]) -> list[int]:
    """Return each name's place in `PALETTE` and `MARKERS`: known rivals their own, the others what is left, in order.

    >>> places(["neurons", "trained", "latents"])
    [4, 1, 0]
    """
    own = {name: i for i, same in enumerate(_KNOWN) for name in same}
    found: dict[str, int] = {}
    for name in names:
        if name in own and own[name] not in found.values():
            found[name] = own[name]
    left = iter(i for i in range(len(names) + len(PALETTE)) if i not in found.values())
    return [found[name] if name in found else next(left) for name in names]


def tidy(ax: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Name the axes and take away what carries no data."""
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)


def span(estimate: Any) -> tuple[float, float, float]:
    """Return value, low, high of an Estimate, or of a bare number."""
    if hasattr(estimate, "low"):
        return float(estimate.value), float(estimate.low), float(estimate.high)
    return (float(estimate),) * 3


def error_bars(estimates: Collection) -> tuple[np.ndarray, np.ndarray]:
    """Return values ``[n]`` and matplotlib's error bars ``[2, n]``."""
    table = np.array([span(e) for e in estimates], dtype=float).reshape(-1, 3)
    value, low, high = table.T
    # A percentile interval can miss its own value; matplotlib refuses the negative bar that this would give.
    return value, np.clip([value - low, high - value], 0, None)


def not_empty(name: str, data: Collection) -> None:
    """Refuse to draw nothing."""
    if len(data) == 0:
        raise CourseError(f"{name} is empty; there is nothing to draw.")


def matching(**columns: Sequence) -> None:
    """Refuse columns of unequal length, and empty ones."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise CourseError(f"these must be equally long: {listed}.")
    not_empty(next(iter(columns)), next(iter(columns.values())))


def words(estimate: Any) -> str:
    """Return an Estimate or a number in words for an alternative text."""
    return str(estimate) if hasattr(estimate, "low") else f"{estimate:.3g}"
