"""Exercises: what a notebook says to a student, and what happens to the answer.

An exercise in a notebook is a function to fill, decorated by :func:`exercise`. Not attempted: one line, and the
reference answer takes its place. Right: one line, and the student's own function is used. Wrong: `ExerciseError`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType

from course_utils import widgets
from course_utils.errors import CourseError
from course_utils.exercises import progress
from course_utils.exercises.book import Exercise, everything, find
from course_utils.exercises.check import ExerciseError, examine, parameters, without_engine
from course_utils.exercises.predictions import Guess, predict, recall
from course_utils.exercises.source import is_blank, text_of

__all__ = [
    "Exercise", "ExerciseError", "Guess", "everything", "exercise", "find", "hint", "predict", "recall", "reveal",
]


def exercise(id: object) -> Callable[[object], Callable]:
    """Mark a function as the answer to an exercise, and check it.

    Parameters
    ----------
    id
        The exercise's number, e.g. ``"02.1"``.

    Returns
    -------
    Callable
        A decorator: it hands on the student's function if that is right, the reference answer if it is empty.

    Raises
    ------
    ExerciseError
        If the answer is wrong.
    CourseError
        If there is no such exercise.
    """
    ex = find(id)

    def decide(answer: object) -> Callable:
        if not isinstance(answer, FunctionType):
            raise CourseError(f'@exercise("{ex.id}") goes above a function; given {type(answer).__name__}.')
        return _decide(ex, answer)

    return decide


def _decide(ex: Exercise, answer: FunctionType) -> Callable:
    wanted, given = (f"{f.__name__}({', '.join(parameters(f))})" for f in (ex.answer, answer))
    if given != wanted:
        raise ExerciseError(ex, f"The function must be {wanted}, not {given}: name and parameters stay as they are.")
    if is_blank(answer):
        print(f'○ {ex.id} {ex.title}: not attempted yet, so the reference answer is used. hint("{ex.id}") helps.')
        return ex.answer
    fault = examine(ex, answer)
    _note(ex, fault is None)
    if fault is None:
        print(f"✓ {ex.id} {ex.title}: right; your function is used from here on.")
        return answer
    cause = fault.outcome.error
    raise ExerciseError(ex, fault) from (cause and without_engine(cause))


def _note(ex: Exercise, right: bool) -> None:
    def edit(entry: dict) -> None:
        entry["tries"] = entry.get("tries", 0) + 1
        if right:
            entry.setdefault("right", progress.now())

    progress.change("exercises", ex.id, edit)


def hint(id: str) -> None:
    """Show the next hint to an exercise; after the second, how to see the answer.

    Parameters
    ----------
    id
        The exercise's number, e.g. ``"02.1"``.
    """
    ex = find(id)
    entry = progress.change("exercises", id, lambda entry: entry.update(hints=entry.get("hints", 0) + 1))
    given = entry["hints"]
    if given > len(ex.hints):
        text = f'Both hints to {id} are given; they are folded under the exercise. `reveal("{id}")` shows the answer.'
    else:
        text = f"**Hint {given} of {len(ex.hints)}.** {ex.hints[given - 1]}"
    widgets.show({"text/markdown": text, "text/plain": text})


def reveal(id: str) -> None:
    """Show the reference answer to an exercise.

    Parameters
    ----------
    id
        The exercise's number, e.g. ``"02.1"``.
    """
    ex = find(id)
    progress.change("exercises", id, lambda entry: entry.update(revealed=True))
    answer = text_of(ex.answer)
    widgets.show({"text/markdown": f"```python\n{answer}\n```", "text/plain": answer})
