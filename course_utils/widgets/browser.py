"""A browser for feature cards: step through latents, jump to one, search, sort; the first card where no widget runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any, Protocol, runtime_checkable

from course_utils.errors import CourseError
from course_utils.widgets import live, show


@runtime_checkable
class Cards(Protocol):
    """Whatever can be browsed; `cards.CardIndex` is one."""

    def __len__(self) -> int:
        """Count the latents."""

    def search(self, text: str = "", sort: str = "number") -> list[int]:
        """Return the latents that a text is found in, in some order."""


def browse(cards: Cards, card: Callable[[int], Any], start: int | None = None,
           sorts: Sequence[str] = ("number", "density", "score", "strength")) -> None:
    """Show a card with controls that turn to others, and the first card alone where there is no front end.

    Parameters
    ----------
    cards
        Says which latents there are and finds them.
    card
        ``card(latent)`` returns something with ``_repr_html_``.
    start
        The first card; None: the first latent that is not silent.
    sorts
        Orders that ``cards.search`` knows.

    Raises
    ------
    CourseError
        If there is no such latent.
    """
    start = cards.search()[0] if start is None else start
    if not 0 <= start < len(cards):
        raise CourseError(f"start={start} must lie in 0 to {len(cards) - 1}.")
    first = card(start)
    show({"text/html": first._repr_html_(), "text/plain": repr(first)}, lambda: controls(cards, card, start, sorts))
    if not live():
        said = f"latent {start}; in a running notebook, controls turn to the other {len(cards) - 1:,}."
        show({"text/html": f"<p><small>{escape(said)}</small></p>", "text/plain": said})


def controls(cards: Cards, card: Callable[[int], Any], start: int, sorts: Sequence[str]) -> Any:
    """Make the widget."""
    import ipywidgets as w

    number = w.BoundedIntText(value=start, min=0, max=len(cards) - 1, description="latent", layout={"width": "11em"})
    query = w.Text(placeholder="a word or a concept", description="search", continuous_update=False,
                   layout={"width": "min(100%, 20em)"})
    order = w.Dropdown(options=list(sorts), description="order", layout={"width": "14em"})
    back, on = w.Button(description="◀ previous", layout={"width": "8em"}), w.Button(description="next ▶",
                                                                                    layout={"width": "8em"})
    said, shown = w.HTML(), w.HTML(card(start)._repr_html_())
    found = cards.search("", sorts[0])

    def turn(change: Any) -> None:
        try:
            shown.value = card(change["new"])._repr_html_()
        except Exception as error:  # shown where the student looks; a widget's errors go to a log that nobody reads
            shown.value = f'<pre role="alert" style="color:#D55E00">{escape(f"{type(error).__name__}: {error}")}</pre>'

    def look(_: Any) -> None:
        found[:] = cards.search(query.value, order.value)
        said.value = f"{len(found):,} latents" if found else "nothing found"
        if found:
            number.value = found[0]

    def step(by: int) -> None:
        if found:
            place = found.index(number.value) + by if number.value in found else 0
            number.value = found[place % len(found)]

    number.observe(turn, "value")
    query.observe(look, "value")
    order.observe(look, "value")
    back.on_click(lambda _: step(-1))
    on.on_click(lambda _: step(1))
    return w.VBox([w.HBox([back, on, number]), w.HBox([query, order, said], layout={"flex_flow": "row wrap"}), shown])
