"""Training, watched: curves of a log, and a figure that follows it while it grows.

Notebooks import both from :mod:`course_utils.plots`.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils.errors import CourseError
from course_utils.plots.figures import DASHES, PALETTE, alt_text, describe, kernel_shell, not_empty, tidy

PANELS = {"loss": "loss", "l0": "latents active (L0)", "explained_variance": "explained variance",
          "dead": "dead latents"}
HELDOUT = {"heldout_l0": "L0, held out", "heldout_explained_variance": "explained variance, held out"}
WIDE = 30  # loss and L0 get a logarithmic axis if their values differ by more
Rows = Sequence[Mapping[str, Any]]


def training_curves(log: Rows | Mapping[str, Rows], *, ax: Sequence[Axes] | np.ndarray | None = None,
                    keys: Sequence[str] = tuple(PANELS), alt: str = "") -> np.ndarray:
    """Draw how training went, one panel a quantity.

    Parameters
    ----------
    log
        Rows with ``step`` (or ``samples``) and the keys; or name → rows, to compare runs.
    ax
        As many Axes as keys.
    keys
        Columns of the rows to draw.
    alt
        Alternative text; by default first and last value of every curve.

    Returns
    -------
    np.ndarray
        The Axes, ``[len(keys)]``.
    """
    runs = dict(log) if isinstance(log, Mapping) else {"": log}
    not_empty("log", runs)
    for name, rows in runs.items():
        not_empty(f"log {name}".strip(), rows)
    if ax is None:
        from matplotlib import pyplot

        size = (3 * len(keys), 2.7)
        ax = pyplot.subplots(1, len(keys), figsize=size, layout="constrained", squeeze=False)[1]
    panels = np.asarray(ax, dtype=object).ravel()
    if len(panels) != len(keys):
        raise CourseError(f"ax has {len(panels)} Axes; give one for each of {', '.join(keys)}.")
    for panel, key in zip(panels, keys, strict=True):
        _panel(panel, key, runs)
    if alt:
        for panel in panels:
            describe(panel, alt if panel is panels[0] else "")
    if len(runs) > 1:
        panels[0].legend(fontsize="small", frameon=False)
    return panels


def _panel(ax: Axes, key: str, runs: Mapping[str, Rows]) -> None:
    x_key = "step" if all("step" in rows[0] for rows in runs.values()) else "samples"
    name_of, said, values = (PANELS | HELDOUT).get(key, key), [], []
    for i, (name, rows) in enumerate(runs.items()):
        points = [(row[x_key], row[key]) for row in rows if row.get(key) is not None]
        if points:
            ax.plot(*zip(*points, strict=True), marker="." if len(points) < 3 else None, label=name,
                    color=PALETTE[i % len(PALETTE)], linestyle=DASHES[i % len(DASHES)])
        ends = f"from {points[0][1]:.3g} to {points[-1][1]:.3g}" if points else "not logged"
        said.append(f"{name} {ends}".strip())
        values += [y for _, y in points]
    if "explained" in key and min(values, default=0) < -1:  # a wrong hook may give -100, and nothing else would be seen
        ax.set_ylim(-1, 1.05)
        name_of += " (cut at −1)"
    elif key in ("loss", "mse", "l0", "heldout_l0") and min(values, default=0) > 0 and max(values) > WIDE * min(values):
        ax.set_yscale("log")
    tidy(ax, title=name_of, xlabel=x_key)
    describe(ax, f"{name_of}: {', '.join(said)}.")


class LiveTraining:
    """One figure that follows a training run in a notebook, and stays as a static picture.

    At most two redraws a second, and never more than a tenth of the time; silent outside a notebook.

    Parameters
    ----------
    keys
        Columns of the log to draw.
    interval
        Least time between redraws, in seconds.

    Examples
    --------
    >>> with LiveTraining() as live:
    ...     live.update({"step": 1, "loss": 2.0, "l0": 16.0, "explained_variance": 0.1, "dead": 0.0})
    >>> len(live.rows)
    1
    """

    def __init__(self, keys: Sequence[str] = tuple(PANELS), interval: float | int = 0.5):
        self.keys, self.interval = tuple(keys), interval
        self.rows: list[Mapping[str, Any]] = []
        self.redraws = 0
        self._handle: Any = None
        self._stale, self._next = False, 0.0

    def update(self, rows: Rows | Mapping[str, Any]) -> None:
        """Take the whole log so far, or one more row of it: what ``train_sae`` gives to ``on_log``."""
        self.rows = [*self.rows, rows] if isinstance(rows, Mapping) else list(rows)
        self._stale = bool(self.rows)
        if kernel_shell() is not None and time.monotonic() >= self._next:
            self.finish()

    def finish(self, *_: Any) -> None:
        """Draw what is still missing; called at the end of ``with``, and of the notebook cell."""
        shell = kernel_shell()
        if shell is None or not self._stale:
            return
        start = time.monotonic()
        if self._handle is None:  # a run without "with" must not keep an old picture
            shell.events.register("post_run_cell", self._leave)
        self._show()
        self._stale, self.redraws = False, self.redraws + 1
        self._next = time.monotonic() + max(self.interval, 9 * (time.monotonic() - start))

    def _leave(self, *_: Any) -> None:
        self.finish()
        kernel_shell().events.unregister("post_run_cell", self._leave)

    def _show(self) -> None:
        from IPython.display import display

        figure = Figure(figsize=(3 * len(self.keys), 2.7), layout="constrained", dpi=96)
        training_curves(self.rows, ax=figure.subplots(1, len(self.keys), squeeze=False), keys=self.keys)
        png = BytesIO()
        figure.savefig(png, format="png")
        alt = alt_text(figure)
        # Raw, because IPython 7, which hosted notebooks still have, knows no Image(alt=...).
        picture = {"image/png": b64encode(png.getvalue()).decode(), "text/plain": alt}
        metadata = {"image/png": {"alt": alt}}
        if self._handle is None:
            self._handle = display(picture, metadata=metadata, raw=True, display_id=True)
        else:
            self._handle.update(picture, metadata=metadata, raw=True)

    def __enter__(self) -> LiveTraining:
        """Return self."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Draw the last state, also after an error."""
        self.finish()
