"""Grade one notebook: every exercise right, wrong, empty, in error, missing or not reached, and what to say of it."""

from __future__ import annotations

import hashlib
import time
from typing import NamedTuple

from course_utils.errors import CourseError
from course_utils.exercises.book import Exercise, everything
from course_utils.exercises.check import LIMIT, examine, parameters
from course_utils.exercises.lessons import LESSONS
from course_utils.exercises.sandbox import TimeUp
from course_utils.exercises.source import text_of
from course_utils.grading.remote import Limits, Remote
from course_utils.grading.submissions import Submission, read

_SAID = 300  # characters kept of a sentence


class Mark(NamedTuple):
    """Of one exercise: right, wrong, empty, error, missing (not in the notebook) or not reached; and why."""

    state: str
    says: str = ""


class Grade(NamedTuple):
    """Of one notebook; `problem` is what keeps it from being graded as a whole, in a sentence."""

    student: str
    notebook: str
    marks: dict[str, Mark]
    predictions: int
    seconds: float
    problem: str = ""


def digest(work: Submission) -> str:
    """Return what a submission is known by; empty where there is nothing to read."""
    try:
        return hashlib.sha256(read(work.path)).hexdigest()
    except CourseError:
        return ""


def grade(work: Submission, limits: Limits) -> Grade:
    """Grade a submission; whatever is wrong with it is said in the grade.

    Parameters
    ----------
    work
        The submission.
    limits
        For its process.
    """
    begun = time.monotonic()
    marks: dict[str, Mark] = {}
    notebook, predictions, problem = work.notebook, 0, ""
    try:
        with Remote(read(work.path), limits) as remote:
            found = remote.open()
            if "unreadable" in found:
                raise CourseError(f"the file {found['unreadable']}.")
            there = {**dict.fromkeys(found["broken"], "broken"), **found["answers"]}
            notebook, predictions = _which(notebook, there), int(found["predictions"])
            for ex in everything(notebook):
                marks[ex.id] = _mark(ex, remote, found, begun + limits.seconds)
    except CourseError as error:
        problem = _clean(str(error))
    except Exception as error:  # what it sends back can be of any shape
        problem = _clean(f"its process answers what cannot be used ({type(error).__name__}: {error}).")
    if notebook in LESSONS:
        marks = {ex.id: marks.get(ex.id, Mark("not reached")) for ex in everything(notebook)}
    return Grade(work.student, notebook, marks, predictions, time.monotonic() - begun, problem)


def _which(named: str, there: dict) -> str:
    """Return which notebook this is: the one it is named after, else the one that most of its exercises are of."""
    held = [str(id)[:2] for id in there]
    known = sorted({number for number in held if number in LESSONS}, key=held.count)
    if not known:
        raise CourseError("the notebook holds no exercise of this course.")
    if named and named not in known:
        raise CourseError(f"this is notebook {known[-1]}, not {named}.")
    return named or known[-1]


def _mark(ex: Exercise, remote: Remote, found: dict, deadline: float) -> Mark:
    if ex.id not in found["answers"]:
        said = found["broken"].get(ex.id)
        return Mark("error", _clean(str(said))) if said else Mark("missing")
    if found["answers"][ex.id] is True:
        return Mark("empty")
    if time.monotonic() > deadline:
        return Mark("not reached", "the submission's time was over")
    try:
        return _examined(ex, remote, found["answers"])
    except (CourseError, OSError) as error:
        return Mark("error", _clean(str(error)))
    except Exception as error:  # a result that the comparison cannot bear
        return Mark("error", _clean(f"its result cannot be compared ({type(error).__name__}: {error})"))


def _examined(ex: Exercise, remote: Remote, answers: dict) -> Mark:
    blank = {other.id: text_of(other.answer) for other in everything(ex.notebook) if answers.get(other.id) is True}
    wanted = f"{ex.answer.__name__}({', '.join(parameters(ex.answer))})"
    for limit in (LIMIT, 10 * LIMIT):
        told = remote.load(ex.id, blank)
        if told.get("given") != wanted:
            return _not_loaded(told, wanted)
        fault = examine(ex, remote.function(), limit)
        if not (fault and isinstance(fault.outcome.error, TimeUp) and remote.used < LIMIT / 2):
            break  # else it did not get the processor, because the machine has other things to do: once more
    if fault is None:
        return Mark("right")
    if fault.known:
        return Mark("wrong", fault.known.name)
    where = f" (line: {remote.line.strip()})" if remote.line.strip() else ""
    return Mark("error" if fault.outcome.error else "wrong", _clean(fault.sentence + where))


def _not_loaded(told: dict, wanted: str) -> Mark:
    if "error" in told:
        where = f" in the line '{told['line'].strip()}'" if told.get("line") else ""
        said = f"{told['error']}: {told['text']}" if told.get("text") else told["error"]
        return Mark("error", _clean(f"what the answer needs of its notebook stops{where} with {said}"))
    return Mark("error", _clean(f"the function must be {wanted}, not {told['given']}"))


def _clean(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _SAID else line[: _SAID - 1] + "…"
