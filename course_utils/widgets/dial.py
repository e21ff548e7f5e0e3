"""A slider that makes the model write anew: one dose at a time, or a table of a few doses where no widget runs."""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any, NamedTuple

from course_utils.errors import CourseError, one_of
from course_utils.widgets import show

_STILL = 4  # doses in the table that stands where no widget runs
# Text and ground are the page's own, which suits light and dark notebooks; marks are see-through, and bold besides.
_STYLE = """<style>.uth-dial{max-width:60rem;line-height:1.5;text-align:left;overflow-wrap:anywhere;color:inherit}
.uth-dial table{border-collapse:collapse;table-layout:auto;width:100%}
.uth-dial th,.uth-dial td,.uth-dial caption{text-align:left;vertical-align:top;white-space:normal;padding:.25rem .5rem}
.uth-dial th{border-top:1px solid #8888;padding-top:.6rem}.uth-dial tbody tr:nth-child(n){background:transparent}
.uth-dial .t{white-space:pre-wrap;unicode-bidi:isolate}.uth-dial i{opacity:.7}
.uth-dial mark{background:rgba(230,159,0,.35);color:inherit;border-radius:.15rem}
.uth-dial .n{text-align:right;white-space:nowrap;opacity:.75;font-size:.85em;font-variant-numeric:tabular-nums}
</style>"""


class Text(NamedTuple):
    """What the model wrote, once."""

    before: str
    """The prompt."""
    after: str
    """What came after it."""
    hits: list[tuple[int, int]]
    """Where in `after` the feature's words stand, from and to."""
    cost: float
    """Nats a token under the model as it is, not steered; NaN if nothing was written."""


def dial(write: Callable[..., Sequence[Text]], doses: Sequence[float | int], start: float | int = 0.0, *,
         marks: tuple[float | int, float | int] | None = None, name: str = "dose",
         prompts: Sequence[str] | None = None) -> None:
    """Show what the model writes with a slider that makes it write anew, and a table where there is no front end.

    Parameters
    ----------
    write
        ``write(dose)``, or ``write(dose, prompt)`` if there are prompts, returns Texts. Each is asked for once.
    doses
        The slider's values, in order.
    start
        Where the slider stands at first; one of the doses.
    marks
        Lowest and highest useful dose.
    name
        What the slider says.
    prompts
        To choose among; the table has the first.

    Raises
    ------
    CourseError
        If there are no doses or prompts, `start` is none of the doses, or `write` returns what is no text.
    """
    doses = list(dict.fromkeys(map(float, doses)))
    if not doses:
        raise CourseError("doses is empty; the slider has nowhere to go.")
    near = min(doses, key=lambda dose: abs(dose - start))  # numpy's 3 * 0.1 is not quite 0.3
    if not math.isclose(near, start, abs_tol=1e-9):
        raise one_of("start", start, [f"{dose:g}" for dose in doses])
    if prompts is not None and not len(prompts):
        raise CourseError("prompts is empty; leave it out if `write` needs none.")
    if marks is not None and not marks[0] <= marks[1]:
        raise CourseError(f"marks={marks} must be (lowest, highest) useful dose.")
    writer = _Writer(write, name, marks, prompts)
    few = _spread(doses, doses.index(near))
    said = f"What the model writes at {len(few)} of {len(doses)} values of {name}, the feature's words marked; in a " \
           f"running notebook, a slider goes from {doses[0]:g} to {doses[-1]:g}."
    show(_still(writer, few, said), lambda: _controls(writer, doses, near))


class _Writer:
    """Asks for texts, keeps them, and sums them up in a line."""

    def __init__(self, write: Callable, name: str, marks: tuple | None, prompts: Sequence[str] | None):
        self.write, self.name, self.marks, self.prompts = write, name, marks, prompts
        self.kept: dict[tuple[float, int], list[Text]] = {}

    def texts(self, dose: float, prompt: int = 0) -> list[Text]:
        """Return the texts at a dose, written now or before."""
        if (dose, prompt) not in self.kept:
            asked = () if self.prompts is None else (self.prompts[prompt],)
            texts = [Text(*text) for text in self.write(dose, *asked)]
            if not texts:
                raise CourseError(f"write({dose:g}) returned no texts; there is nothing to show.")
            for _, after, hits, _ in texts:
                if not all(0 <= low < high <= len(after) for low, high in hits):
                    raise CourseError(f"hits {hits} must be (from, to) within {len(after)} characters.")
            self.kept[dose, prompt] = texts
        return self.kept[dose, prompt]

    def line(self, dose: float, prompt: int = 0) -> str:
        """Say how many words are the feature's, what the texts cost, and where the dose lies."""
        texts = self.texts(dose, prompt)
        hits, words = map(sum, zip(*map(_counted, texts), strict=True))
        costs = [text.cost for text in texts if not math.isnan(text.cost)]
        cost = f"{sum(costs) / len(costs):.1f} nats a token" if costs else "nothing written"
        said = f"{self.name} {dose:g} · {hits} of {words} words · {cost}"
        if self.marks is None:
            return said
        low, high = self.marks
        where = "below" if dose < low else "above" if dose > high else "inside"
        return f"{said} · {where} the useful window ({low:g} to {high:g})"


def _counted(text: Text) -> tuple[int, int]:
    """Count the words that a hit touches, and all words."""
    words = [match.span() for match in re.finditer(r"\w+(?:['’]\w+)*", text.after)]
    return sum(any(low < end and start < high for low, high in text.hits) for start, end in words), len(words)


def _spread(doses: list[float], start: int) -> list[float]:
    """Choose a few doses that lie apart, the start among them."""
    if len(doses) <= _STILL:
        return doses
    places = [round(i * (len(doses) - 1) / (_STILL - 1)) for i in range(_STILL)]
    places[min(range(_STILL), key=lambda i: abs(places[i] - start))] = start
    return [doses[i] for i in places]


def _pieces(text: Text) -> list[tuple[bool, str]]:
    """Cut what was written into stretches that are hits or not, with signs for what could not be seen."""
    runs = groupby(enumerate(text.after), lambda place: any(low <= place[0] < high for low, high in text.hits))
    return [(hit, _shown("".join(c for _, c in run))) for hit, run in runs]


def _shown(text: str) -> str:
    return "".join("↵" if c == "\n" else c if c.isprintable() else "·" for c in text)


def _nats(text: Text) -> str:
    return "–" if math.isnan(text.cost) else f"{text.cost:.1f} nats"


def _rows(texts: Sequence[Text]) -> str:
    rows = ""
    for text in texts:
        after = "".join(f"<mark><b>{escape(p)}</b></mark>" if hit else escape(p) for hit, p in _pieces(text))
        before = f"<i>{escape(_shown(text.before))}</i>"
        rows += f'<tr><td class="t">{before}{after}</td><td class="n">{_nats(text)}</td></tr>'
    return rows


def _still(writer: _Writer, doses: Sequence[float], said: str) -> dict[str, str]:
    """Return the table, and the same as plain text with hits in brackets."""
    body, plain = "", said
    for dose in doses:
        line, texts = writer.line(dose), writer.texts(dose)
        body += f'<tbody><tr><th scope="rowgroup" colspan="2">{escape(line)}</th></tr>{_rows(texts)}</tbody>'
        plain += f"\n{line}"
        for text in texts:
            after = "".join(f"[{piece}]" if hit else piece for hit, piece in _pieces(text))
            plain += f"\n  {_shown(text.before)} ▸ {after} ({_nats(text)})"
    table = f'<div class="uth-dial">{_STYLE}<table><caption>{escape(said)}</caption>{body}</table></div>'
    return {"text/html": table, "text/plain": plain}


def _controls(writer: _Writer, doses: list[float], start: float) -> Any:
    """Make the widget: a slider, a choice of prompts, a line that is read out, and the texts."""
    import ipywidgets as w

    wide = {"style": {"description_width": "initial"}, "layout": {"width": "min(100%, 36em)"}}
    slider = w.SelectionSlider(options=[(f"{dose:g}", dose) for dose in doses], value=start, description=writer.name,
                               continuous_update=False, **wide)
    options = [(_shown(p), i) for i, p in enumerate([""] if writer.prompts is None else writer.prompts)]
    chosen = w.Dropdown(options=options, value=0, description="prompt", **wide)
    line, shown = w.HTML(), w.HTML()

    def say(text: str) -> None:
        line.value = f'<div role="status" aria-live="polite"><b>{escape(text)}</b></div>'

    def turn(_: Mapping[str, Any] | None) -> None:
        dose, prompt = slider.value, chosen.value
        if (dose, prompt) not in writer.kept:
            say(f"{writer.name} {dose:g} · writing…")
            shown.value = f'<div aria-busy="true" style="opacity:.4">{shown.value}</div>'
        try:
            rows, said = _rows(writer.texts(dose, prompt)), writer.line(dose, prompt)
            label = escape(f"Texts at {writer.name} {dose:g}")
            shown.value = f'<div class="uth-dial">{_STYLE}<table aria-label="{label}">{rows}</table></div>'
        except Exception:  # shown where the student looks; a widget's errors go to a log that nobody reads
            said, why = f"{writer.name} {dose:g} · nothing written", escape(traceback.format_exc(limit=-2))
            shown.value = f'<pre role="alert" style="color:#D55E00">{why}</pre>'
        say(said)

    turn(None)
    slider.observe(turn, "value")
    chosen.observe(turn, "value")
    return w.VBox([slider, *([] if writer.prompts is None else [chosen]), line, shown])
