"""The exercises: what one is made of, and where they are found.

An exercise is declared in a lesson module (``lessons/``), in the order in which a reader wants it::

    ex = Exercise("02.1", "the reconstruction", stars=1, minutes=8, lines=2, hints=("…", "…"))

    @ex.reference                                   # the answer; `course solved` puts it into the notebook
    def reconstruct(W, b, x):
        return torch.relu(x @ W.T @ W + b)

    @ex.right                                       # at least two others that must pass
    def _(W, b, x): ...

    @ex.wrong("ReLU before the bias", "The bias comes in before the ReLU: …")       # at least three that must not
    def _(W, b, x): ...

    @ex.cases                                       # argument tuples, smallest first
    def _(rng): yield W, b, x
"""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch

from course_utils.errors import CourseError, one_of
from course_utils.exercises import lessons

_BOOK: dict[str, Exercise] = {}


class Wrong(NamedTuple):
    """A plausible wrong answer: what the mistake is called, what to tell who makes it, and the mistake itself."""

    name: str
    text: str
    answer: Callable


@dataclass(eq=False)
class Exercise:
    """One exercise; see the head of this module for how it is declared."""

    id: str
    """Notebook and number, e.g. ``"02.1"``."""
    title: str
    """What is built, in a few words."""
    stars: int
    """How hard: 1 to 3."""
    minutes: int
    """How long it should take."""
    lines: int
    """About how many lines the answer has."""
    hints: tuple[str, str]
    """Two hints, the second nearly the answer; Markdown."""
    rtol: float | int = 1e-4
    """Relative tolerance of the comparison."""
    atol: float | int = 1e-5
    """Absolute tolerance of the comparison."""
    compare: Callable | None = None
    """``compare(got, want, *args)`` → None or a sentence, for answers that are not unique."""
    answer: Callable = field(init=False)
    """The reference answer."""
    rights: list[Callable] = field(default_factory=list, init=False)
    """Other right answers."""
    wrongs: list[Wrong] = field(default_factory=list, init=False)
    """Known wrong answers."""
    _cases: Callable | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Refuse what a notebook could not show."""
        if not re.fullmatch(r"\d\d\.\d+", self.id):
            raise CourseError(f"id={self.id!r} must be notebook.number, e.g. '02.1'.")
        if self.stars not in (1, 2, 3) or self.minutes < 1 or self.lines < 1 or len(self.hints) != 2:
            raise CourseError(f"exercise {self.id} needs 1 to 3 stars, minutes and lines from 1 up, and two hints.")

    @property
    def notebook(self) -> str:
        """The notebook's two digits."""
        return self.id[:2]

    @property
    def header(self) -> str:
        """The heading that stands above it in the notebook."""
        stars = "★" * self.stars + "☆" * (3 - self.stars)
        lines = f"about {self.lines} line{'s' * (self.lines > 1)}"
        return f"### Exercise {self.id} · {self.title} · {stars} · {self.minutes} min · {lines}"

    def reference(self, answer: Callable) -> Callable:
        """Take the reference answer, and enter the exercise in the book."""
        self.answer = inspect.unwrap(answer)
        old = _BOOK.get(self.id)
        if old is not None and _place(old.answer) != _place(self.answer):  # the same place: the module was reloaded
            raise CourseError(f"exercise {self.id} is there twice: in {_place(old.answer)} and {_place(self.answer)}.")
        _BOOK[self.id] = self
        return answer

    def right(self, answer: Callable) -> Callable:
        """Take another right answer, which must pass."""
        self.rights.append(inspect.unwrap(answer))
        return answer

    def wrong(self, name: str, text: str) -> Callable[[Callable], Callable]:
        """Take a plausible wrong answer: whoever answers the same is told `name` and `text`."""
        def take(answer: Callable) -> Callable:
            self.wrongs.append(Wrong(name, text, inspect.unwrap(answer)))
            return answer

        return take

    def cases(self, generate: Callable) -> Callable:
        """Take the generator of argument tuples, smallest first; it is given a seeded ``np.random.Generator``."""
        self._cases = inspect.unwrap(generate)
        return generate

    def arguments(self, rng: Any) -> list[tuple]:
        """Return the argument tuples of all cases; what is no tuple is one argument."""
        made = [()] if self._cases is None else list(self._cases(rng))
        return [case if type(case) is tuple else (case,) for case in made]


def draw(rng: Any, *shape: int, scale: float | int = 1.0) -> torch.Tensor:
    """Return normal numbers for a case."""
    return torch.from_numpy(rng.normal(0, scale, shape)).float()


def _place(answer: Callable) -> str:
    return f"{answer.__module__}.{answer.__name__}"


@cache
def _modules() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(lessons.__path__)))


def _open(notebook: str) -> None:
    """Load the lesson modules of a notebook; a notebook may have none yet."""
    stem = lessons.LESSONS.get(notebook)
    for name in _modules():
        if stem is not None and (name == stem or name.startswith(f"{stem}_")):
            import_module(f"{lessons.__name__}.{name}")


def find(id: object) -> Exercise:
    """Return the exercise with this id; only its notebook's lesson is loaded.

    Raises
    ------
    CourseError
        If there is none; it names the nearest.
    """
    if not isinstance(id, str):
        raise CourseError(f"an exercise is named by its number in quotes, such as '02.1'; given {type(id).__name__}.")
    _open(id[:2])
    if id not in _BOOK:
        raise one_of("exercise", id, [ex.id for ex in everything()])
    return _BOOK[id]


def everything(notebook: str | None = None) -> list[Exercise]:
    """Return all exercises, or those of one notebook, in order."""
    for number in lessons.LESSONS if notebook is None else [notebook]:
        _open(number)
    chosen = [ex for ex in _BOOK.values() if ex.id.startswith(f"{notebook}." if notebook else "")]
    return sorted(chosen, key=lambda ex: (ex.notebook, int(ex.id[3:])))
