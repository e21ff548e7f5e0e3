"""A rating session: a student labels items one by one, some under the impression of a label that was put forward.

Answers are kept in the progress file, so that a session can be left and taken up again. What was shown with an item,
and which label had been drawn for it whether shown or not, stays with the item: `priming_items` draws both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from course_utils import widgets
from course_utils.errors import CourseError, one_of
from course_utils.exercises import progress


class Item(NamedTuple):
    """One thing to be labelled."""

    html: str
    """What is looked at."""
    options: tuple[str, ...]
    """The labels to choose from, in the order shown."""
    right: str
    """The label that the answer key gives."""
    prime: str
    """A wrong label, drawn for this item."""
    shown: bool
    """Whether the wrong label is put forward."""


def priming_items(pages: Mapping[str, str] | Sequence[tuple[str, str]], n_options: int = 5,
                  seed: int = 0) -> list[Item]:
    """Draw the options and the prime of each item; primes are shown on half of them, in an order drawn too.

    Parameters
    ----------
    pages
        ``(right label, HTML)`` of each item.
    n_options
        Labels to choose from; the wrong ones are right ones of other items.
    seed
        Draws everything.

    Raises
    ------
    CourseError
        If there are fewer different labels than options.
    """
    pages = list(pages.items()) if isinstance(pages, Mapping) else list(pages)
    labels = sorted({right for right, _ in pages})
    if not 2 <= n_options <= len(labels):
        raise CourseError(f"n_options={n_options} must lie in 2 to {len(labels)}, the number of different labels.")
    rng = np.random.default_rng(seed)
    shown = rng.permutation(np.arange(len(pages)) % 2 == 0)
    found = []
    for (right, html), show in zip(pages, shown.tolist(), strict=True):
        wrong = rng.permutation([label for label in labels if label != right])[: n_options - 1].tolist()
        found.append(Item(html, tuple(rng.permutation([right, *wrong]).tolist()), right, wrong[0], show))
    return found


class Session:
    """A student's answers to some items, under a key such as ``"06.priming"``."""

    def __init__(self, key: str, items: Sequence[Item]) -> None:
        if not items:
            raise CourseError("items is empty; there is nothing to rate.")
        self.key, self.items = key, list(items)

    @property
    def chosen(self) -> list[str | None]:
        """The label chosen for each item; None where there is none yet."""
        kept = progress.read().get("ratings", {}).get(self.key, {})
        return [label if (label := kept.get(str(i))) in item.options else None for i, item in enumerate(self.items)]

    @property
    def done(self) -> bool:
        """Whether every item has an answer."""
        return None not in self.chosen

    def answer(self, i: int, label: str) -> None:
        """Keep the label chosen for item ``i``; the first answer stays."""
        if not 0 <= i < len(self.items):
            raise CourseError(f"i={i} must lie in 0 to {len(self.items) - 1}.")
        if label not in self.items[i].options:
            raise one_of("label", label, self.items[i].options)
        progress.change("ratings", self.key, lambda entry: entry.setdefault(str(i), label))

    def page(self, i: int) -> str:
        """Return what is shown of an item."""
        item = self.items[i]
        told = f"<p>An earlier rater wrote: <b>{escape(item.prime)}</b></p>" if item.shown else ""
        return f"<p><b>{i + 1} of {len(self.items)}.</b> What does this latent stand for?</p>{item.html}{told}"

    def show(self) -> None:
        """Display the session as a form, and its first item where no form can run."""
        way = f"In a running notebook, a form leads through all {len(self.items)} items."
        listed = escape(" · ".join(self.items[0].options))
        still = f'<div>{self.page(0)}<p>{listed}</p><p><small>{escape(way)}</small></p></div>'
        plain = f"{len(self.items)} latents to label. {way} Or: session.answer(0, one of its options)."
        widgets.show({"text/html": still, "text/plain": plain}, self._form)

    def _form(self) -> Any:
        import ipywidgets as w

        page, choice, said = w.HTML(), w.RadioButtons(layout={"width": "max-content"}), w.HTML()
        press = w.Button(description="Next")

        def turn() -> None:
            left = [i for i, label in enumerate(self.chosen) if label is None]
            if left:
                page.value, choice.options, choice.index = self.page(left[0]), list(self.items[left[0]].options), None
            else:
                page.value, choice.options = "<p>All are rated. Run the next cells.</p>", []
            press.disabled, said.value = not left, ""

        def pressed(_: object) -> None:
            if choice.value is None:
                said.value = "Choose first."
                return
            self.answer(self.chosen.index(None), choice.value)
            turn()

        turn()
        press.on_click(pressed)
        return w.VBox([page, choice, press, said])
