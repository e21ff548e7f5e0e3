"""Predict before you look, and recall afterwards: forms with a plain-Python way in, kept in the progress file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from course_utils import widgets
from course_utils.errors import CourseError, one_of
from course_utils.exercises import progress

_MINE, _FOUND = "#D55E00", "#0072B2"  # told apart by shape and words too


class Scale(NamedTuple):
    """Numbers that may be predicted."""

    low: float | int
    high: float | int
    unit: str = ""

    def show(self, value: Any) -> str:
        """Return a number, or an estimate with its interval, with the unit."""
        text = f"{value:,.4g}" if isinstance(value, float | int) else str(value)
        return f"{text} {self.unit}".strip()


class Guess:
    """A prediction: committed (or not) before the measurement, and revealed beside it; made by :func:`predict`."""

    def __init__(self, key: str, question: str, over: Scale | list[str]):
        self.key, self.question, self.over = _keyed(key), question, over

    @property
    def committed(self) -> Any:
        """What was predicted; None if nothing was."""
        kept = progress.read().get("predictions", {}).get(self.key, {}).get("guess")
        return kept if kept is not None and self._allowed(kept) else None

    def _allowed(self, value: Any) -> bool:
        if isinstance(self.over, list):
            return value in self.over
        return isinstance(value, int | float) and self.over.low <= value <= self.over.high

    def _show(self, value: Any) -> str:
        return str(value) if isinstance(self.over, list) else self.over.show(value)

    def commit(self, value: Any) -> str:
        """Keep a prediction, unless one was revealed already; return what to say about it."""
        if not self._allowed(value):
            if isinstance(self.over, list):
                raise one_of("mine", value, self.over)
            raise CourseError(f"mine={value!r} must be a number from {self.over.low:g} to {self.over.high:g}.")

        def keep(entry: dict) -> None:
            if not entry.get("revealed"):
                entry.update(guess=value, when=progress.now())

        entry = progress.change("predictions", self.key, keep)
        kept = self._show(entry["guess"])
        if entry["guess"] != value:
            return f"Your prediction was revealed already, so it stays: {kept}."
        late = "though the measurement had been shown before" if "seen" in entry else "before the measurement"
        return f"Committed: {kept}, {late}. Run the cell that reveals it."

    def show(self, said: str = "") -> None:
        """Display the question, as a form where one can run, and what is `said` about the answer so far."""
        before = self.committed
        said = said or ("" if before is None else f"Committed: {self._show(before)}.")
        if isinstance(self.over, list):
            what = "one of: " + " · ".join(self.over)
        else:
            what = f"a number from {self.over.low:,.4g} to {self.over.show(self.over.high)}"
        way = said or "Commit before you run on: with the form in a running notebook, or with mine=… in Python."
        html, plain = f"<p><b>Predict.</b> {_html(self.question)}</p>", f"Predict. {self.question} ({what})\n{way}"
        still = f"{html}<p>{escape(what[0].upper() + what[1:])}.</p><p><small>{escape(way)}</small></p>"
        widgets.show({"text/html": _framed("A prediction", still), "text/plain": plain},
                     lambda: self._form(html, before, said))

    def _form(self, html: str, before: Any, said: str) -> Any:
        if isinstance(self.over, list):
            field = widgets.choice_field(self.over, None if before is None else self.over.index(before))
            return widgets.form(html, field, "Commit", lambda i: escape(self.commit(self.over[i])), said)
        field = widgets.number_field(self.over.low, self.over.high, before)
        return widgets.form(html, field, "Commit", lambda value: escape(self.commit(value)), said)

    def reveal(self, measured: Any) -> None:
        """Show the prediction beside what was measured; it cannot be changed from then on.

        Parameters
        ----------
        measured
            A number, an estimate with its interval, or one of the choices.
        """
        other = f"This is prediction {self.key}: if the cell reveals another one, first run the cell that asks for it."
        if isinstance(self.over, list) and measured not in self.over:
            raise CourseError(f"{one_of('measured', measured, self.over)} {other}")
        if not isinstance(self.over, list) and not hasattr(measured, "low"):
            try:
                measured = float(measured)
            except (TypeError, ValueError):
                raise CourseError(f"measured={measured!r} must be a number. {other}") from None
        mine = self.settle(measured)
        said = "No prediction was committed." if mine is None else f"You predicted {self._show(mine)}."
        said += f" Measured: {self._show(measured)}.{self._verdict(mine, measured)}"
        picture = _choices(self.over, mine, measured) if isinstance(self.over, list) else \
            _line(self.over, mine, measured, said)
        widgets.show({"text/html": _framed("Prediction and measurement", f"{picture}<p>{escape(said)}</p>"),
                      "text/plain": said})

    def settle(self, measured: Any) -> Any:
        """Close the prediction without showing it, and return it; None if nothing was committed."""
        mine, value = self.committed, getattr(measured, "value", measured)
        news = {"seen": progress.now()} if mine is None else {"revealed": True, "measured": value}
        progress.change("predictions", self.key, lambda entry: entry.update(news))
        return mine

    def _verdict(self, mine: Any, measured: Any) -> str:
        if mine is None or isinstance(self.over, list):
            return "" if mine is None else " You were right." if mine == measured else " They differ."
        if not hasattr(measured, "low"):
            return f" You were off by {self.over.show(abs(mine - measured))}."
        inside = measured.low <= mine <= measured.high
        return " That is inside the interval." if inside else " That is outside of the interval."

    def __repr__(self) -> str:
        """Return what was predicted."""
        return f"Guess({self.key!r}: {'not committed' if self.committed is None else self._show(self.committed)})"


def predict(key: str, question: str, low: float | int | Sequence[str], high: float | int | None = None, *,
            unit: str = "", mine: Any = None) -> Guess:
    """Ask for a prediction before a measurement.

    Parameters
    ----------
    key
        Notebook and name, e.g. ``"02.sparsity"``; what was committed is kept under it.
    question
        What to predict, in a sentence.
    low, high
        The range of a number; or, as `low` alone, the choices.
    unit
        Of the number.
    mine
        The prediction, where no form can be used.

    Returns
    -------
    Guess
        Its ``reveal(measured)`` shows both.

    Raises
    ------
    CourseError
        If `mine` is outside of the range, or none of the choices.
    """
    if isinstance(low, int | float):
        if high is None or not low < high:
            raise CourseError(f"low={low!r}, high={high!r}: give a range, or a list of choices.")
        over: Scale | list[str] = Scale(low, high, unit)
    else:
        over = [str(choice) for choice in low]
    guess = Guess(key, question, over)
    guess.show("" if mine is None else guess.commit(mine))
    return guess


def recall(key: str, question: str, answers: Sequence[str], right: int, why: str, *, mine: int | None = None) -> None:
    """Ask a question about what was read; the answer is folded where no form can run.

    Parameters
    ----------
    key
        Notebook and letter, e.g. ``"02.a"``.
    question
        In a sentence.
    answers
        To choose from; shown with their places, from 0.
    right
        Place of the right one, from 0.
    why
        Why it is right, and the others are not.
    mine
        Place of the chosen answer, where no form can be used.
    """
    _keyed(key)
    if right not in range(len(answers)):
        raise CourseError(f"right={right!r} must be the place of an answer, from 0 to {len(answers) - 1}.")

    def answer(i: int) -> str:
        if i not in range(len(answers)):
            raise CourseError(f"mine={i!r} must be the number of an answer, from 0 to {len(answers) - 1}.")
        progress.change("recall", key, lambda entry: entry.update(chosen=i, right=i == right, when=progress.now()))
        return f"✓ Right. {why}" if i == right else f"✗ Not that one: {answers[i]}. Try again, or read once more."

    told = "" if mine is None else answer(mine)
    html = f"<p><b>Recall.</b> {_html(question)}</p>"
    listed = "".join(f"<li>{_html(text)}</li>" for text in answers)
    folded = f"<details><summary>Answer</summary><p>{right} · {_html(answers[right])}. {_html(why)}</p></details>"
    plain = "\n".join([f"Recall. {question}", *(f"  {i} · {text}" for i, text in enumerate(answers)), told]).rstrip()
    still = f'{html}<ol start="0">{listed}</ol><p>{_html(told)}</p>{folded}'
    widgets.show({"text/html": _framed("A recall question", still), "text/plain": plain}, lambda: widgets.form(
        html, widgets.choice_field(answers, mine), "Check", lambda i: _html(answer(i)), _html(told)))


def _keyed(key: str) -> str:
    if not re.fullmatch(r"\d\d\.\w+", key):
        raise CourseError(f"key={key!r} must be notebook.name, such as '02.sparsity'.")
    return key


def _html(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _framed(label: str, html: str) -> str:
    style = f"border-left:.4em solid {_FOUND};padding:.1em 1em"
    return f'<div role="group" aria-label="{label}" style="{style}">{html}</div>'


def _choices(choices: list[str], mine: Any, measured: Any) -> str:
    marks = {choice: ["● measured"] * (choice == measured) + ["▼ yours"] * (choice == mine) for choice in choices}
    return "<ul>" + "".join(f"<li>{escape(choice)}{' &nbsp; <b>' + ', '.join(said) + '</b>' if said else ''}</li>"
                            for choice, said in marks.items()) + "</ul>"


def _line(scale: Scale, mine: Any, measured: Any, said: str) -> str:
    """Draw a number line with the prediction above and the measurement, with its interval, below."""
    value, low, high = (getattr(measured, name, measured) for name in ("value", "low", "high"))
    ends = [scale.low, scale.high, low, high]
    left, right = min(ends), max(ends)

    def x(number: float | int) -> float:
        return 40 + 520 * (number - left) / (right - left)

    style = 'y="42" text-anchor="middle" font-size="11" fill="currentColor"'
    ticks = "".join(f'<text x="{x(n):.1f}" {style}>{n:,.4g}</text>' for n in (left, right))
    parts = [f'<line x1="40" y1="26" x2="560" y2="26" stroke="currentColor"/>{ticks}',
             f'<line x1="{x(low):.1f}" y1="26" x2="{x(high):.1f}" y2="26" stroke="{_FOUND}" stroke-width="5"/>',
             f'<circle cx="{x(value):.1f}" cy="26" r="5" fill="{_FOUND}"/>']
    legend = "● measured"
    if mine is not None:
        parts.append(f'<path d="M{x(mine):.1f} 20 l-6 -10 h12 z" fill="{_MINE}"/>')
        legend = f"▼ yours &nbsp; {legend}"
    return (f'<svg role="img" aria-label="{escape(said)}" viewBox="0 0 600 48" width="600" style="max-width:100%">'
            f'{"".join(parts)}</svg><p><small>{legend}</small></p>')
