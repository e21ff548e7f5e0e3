"""Controls: a slider over a picture, a form with one question; each with a still that stands where no widget runs.

What a control shows goes out as one display with several representations. A front end that can run widgets takes the
widget; GitHub, nbconvert and a notebook that was only executed take the still. Only core ipywidgets are used, because
hosted notebooks have old ones.
"""

from __future__ import annotations

import os
import time
import traceback
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Any

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.errors import CourseError, one_of
from course_utils.plots.figures import alt_text, kernel_shell

__all__ = ["choice_field", "explore", "form", "live", "number_field", "show"]

_VIEW = "application/vnd.jupyter.widget-view+json"
_QUICK = 0.15  # seconds a drawing may take to be redrawn while the slider moves, rather than when it is let go


def live() -> bool:
    """Tell whether somebody may be there to move a control: a kernel that `course run` did not start."""
    return kernel_shell() is not None and "COURSE_NOTEBOOK" not in os.environ


def show(still: Mapping[str, str], control: Callable[[], Any] | None = None, *, alt: str = "") -> None:
    """Display a control, or its still where no control can run.

    Parameters
    ----------
    still
        MIME type → representation; its ``text/plain`` is printed outside of a kernel.
    control
        Makes the widget; called only if there is a front end for it.
    alt
        Alternative text of an ``image/png``.
    """
    if kernel_shell() is None:
        print(still["text/plain"])
        return
    from IPython.display import display

    bundle: dict[str, Any] = dict(still)
    if control is not None and live():
        bundle[_VIEW] = {"version_major": 2, "version_minor": 0, "model_id": control().model_id}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}} if alt else {})


# --- a slider over a picture ----------------------------------------------------------------------------------------


def explore(draw: Callable[[Any], Any], name: str, values: Sequence, *, start: Any = None) -> None:
    """Show a figure with a slider that redraws it, and the figure alone where there is no front end.

    Parameters
    ----------
    draw
        ``draw(value)`` returns a figure or Axes, or draws with pyplot. Anything slow belongs in front of it.
    name
        What the slider says.
    values
        The slider's values, in order.
    start
        The value of the still; the first if None.

    Raises
    ------
    CourseError
        If there are no values, or `start` is none of them.
    """
    values = list(values)
    if not values:
        raise CourseError("values is empty; the slider has nowhere to go.")
    start = values[0] if start is None else start
    if start not in values:
        raise one_of("start", start, values)
    begun = time.monotonic()
    png, alt = _picture(draw, name, start)
    quick = time.monotonic() - begun < _QUICK
    said = f"{name} = {_label(start)}; in a running notebook, a slider goes from {_label(values[0])} to " \
           f"{_label(values[-1])}."
    show({"image/png": png, "text/plain": alt}, lambda: _slider(draw, name, values, start, (png, alt), quick), alt=alt)
    if not live():
        show({"text/html": f"<p><small>{escape(said)}</small></p>", "text/plain": said})


def _slider(draw: Callable, name: str, values: Sequence, start: Any, first: tuple[str, str], quick: bool) -> Any:
    import ipywidgets

    options = [(_label(value), i) for i, value in enumerate(values)]  # places, because values may be arrays
    slider = ipywidgets.SelectionSlider(options=options, value=values.index(start), description=name,
                                        continuous_update=quick, style={"description_width": "initial"},
                                        layout={"width": "min(100%, 36em)"})
    picture = ipywidgets.HTML(_image(*first))

    def redraw(change: Mapping[str, Any]) -> None:
        try:
            picture.value = _image(*_picture(draw, name, values[change["new"]]))
        except Exception:  # shown where the student looks; a widget's errors go to a log that nobody reads
            said = escape(traceback.format_exc(limit=-2))
            picture.value = f'<pre role="alert" style="color:#D55E00">{said}</pre>'

    slider.observe(redraw, "value")
    return ipywidgets.VBox([slider, picture])


def _picture(draw: Callable[[Any], Any], name: str, value: Any) -> tuple[str, str]:
    """Draw, and return the picture as base64 with its alternative text; nothing of it stays open."""
    try:
        drawn = draw(value)
        figure = pyplot.gcf() if drawn is None else drawn if isinstance(drawn, Figure) else drawn.figure
        png = BytesIO()
        figure.savefig(png, format="png", dpi=96, bbox_inches="tight")
        alt = alt_text(figure) or f"{name} = {_label(value)}"
    finally:
        pyplot.close("all")
    return b64encode(png.getvalue()).decode(), alt


def _image(png: str, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{png}">'


def _label(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# --- a form with one question ---------------------------------------------------------------------------------------


def number_field(low: float | int, high: float | int, value: float | int | None = None) -> Any:
    """Make a slider for a number: whole ones if both ends are, else in a hundred steps."""
    import ipywidgets

    whole = isinstance(low, int) and isinstance(high, int)
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    middle = (low + high) // 2 if whole else (low + high) / 2
    step = 1 if whole else (high - low) / 100
    shown = {} if whole else {"readout_format": ".3g"}
    return kind(value=middle if value is None else value, min=low, max=high, step=step, description="Your guess",
                layout={"width": "min(100%, 34em)"}, **shown)


def choice_field(choices: Sequence[str], chosen: int | None = None) -> Any:
    """Make radio buttons; their value is the place of the choice."""
    import ipywidgets

    options = [(choice, i) for i, choice in enumerate(choices)]
    return ipywidgets.RadioButtons(options=options, index=chosen, layout={"width": "max-content"})


def form(question: str, field: Any, button: str, answer: Callable[[Any], str], said: str = "") -> Any:
    """Make a form: a question, a field, a button, and a line of reply.

    Parameters
    ----------
    question
        Above the field, HTML.
    field
        A widget with a ``value``; None means nothing chosen.
    button
        The button's text.
    answer
        Called with the value when the button is pressed; returns the reply, HTML.
    said
        The reply that stands there at first.
    """
    import ipywidgets

    press = ipywidgets.Button(description=button)
    reply = ipywidgets.HTML(said)

    def pressed(_: object) -> None:
        try:
            reply.value = "Choose first." if field.value is None else answer(field.value)
        except Exception as error:  # shown where the student looks
            said = escape(f"{type(error).__name__}: {error}")
            reply.value = f'<span role="alert" style="color:#D55E00">{said}</span>'

    press.on_click(pressed)
    return ipywidgets.VBox([ipywidgets.HTML(question), field, press, reply])
