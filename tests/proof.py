"""Is an exercise fit for students? Its right answers must pass, and every known mistake be caught by its own name."""

from __future__ import annotations

from course_utils.exercises.book import Exercise
from course_utils.exercises.check import ExerciseError, examine
from course_utils.exercises.source import is_blank


def complaints(ex: Exercise) -> list[str]:
    """Return what is wrong with an exercise, a sentence each; nothing if it is fit.

    Parameters
    ----------
    ex
        The exercise. Its reference, its right and its wrong answers are run through the very check that students meet.
    """
    found = [] if len(ex.rights) > 1 else [f"has {len(ex.rights)} other right answers; it needs two"]
    found += [] if len(ex.wrongs) > 2 else [f"has {len(ex.wrongs)} known wrong answers; it needs three"]
    if len({wrong.name for wrong in ex.wrongs}) < len(ex.wrongs):
        found.append("has two mistakes of one name")
    for number, answer in enumerate([ex.answer, *ex.rights]):
        name = f"right answer {number}" if number else "the reference answer"
        fault = examine(ex, answer)
        if fault is not None:
            found.append(f"{name} does not pass: {fault.sentence}")
        if is_blank(answer):
            found.append(f"{name} looks like an empty stub")
    for wrong in ex.wrongs:
        fault = examine(ex, wrong.answer)
        if fault is None:
            found.append(f"the mistake {wrong.name!r} passes")
        elif fault.known is not wrong:
            instead = fault.known.name if fault.known else f"not recognised ({fault.sentence})"
            found.append(f"the mistake {wrong.name!r} is taken for another: {instead}")
        elif wrong.text not in str(ExerciseError(ex, fault)):
            found.append(f"the mistake {wrong.name!r} does not show its text")
    return found
