"""The check: run an answer on the cases, say what is wrong with it, and name the mistake if it is a known one.

1. call the answer on copies of each case's arguments, smallest first, 2 s in all; 2. compare with the reference's
result; 3. call it on the first case once more, because an answer that remembers or draws lots may be right only once;
4. at the first fault, see whether it behaves on *all* cases as a known wrong answer does.
"""

from __future__ import annotations

import copy
import inspect
import os
import traceback
from collections.abc import Callable
from functools import cache
from itertools import zip_longest
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from course_utils.errors import CourseError
from course_utils.exercises.book import Exercise, Wrong
from course_utils.exercises.compare import brief, difference
from course_utils.exercises.sandbox import Outcome, TimeUp, call, own_random_numbers

LIMIT = 2.0  # seconds that a whole check may take
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Trial(NamedTuple):
    """The arguments of one case, and what the reference answers."""

    args: tuple
    want: Any


class Fault(NamedTuple):
    """What is wrong: a sentence, the case (from 0) that shows it, what came of it, and the known mistake, if any."""

    sentence: str
    case: int
    trial: Trial
    outcome: Outcome
    known: Wrong | None


@cache
def trials(ex: Exercise) -> tuple[Trial, ...]:
    """Return the cases of an exercise with their expected results; the same each time."""
    with own_random_numbers():
        made = []
        for number, args in enumerate(ex.arguments(np.random.default_rng(0)), 1):
            try:
                outcome = call(ex.answer, args, LIMIT)
            except TypeError as error:
                raise CourseError(f"case {number} of {ex.id} holds what cannot be copied: {error}.") from error
            if outcome.error is not None or outcome.changed:
                raise CourseError(f"the reference answer of {ex.id} fails on its own case {number}, or changes its "
                                  f"arguments: {outcome.error!r}.") from outcome.error
            made.append(Trial(args, outcome.value))
    if not made:
        raise CourseError(f"exercise {ex.id} has no cases, so that no answer could be wrong.")
    return tuple(made)


@cache
def _behaviours(ex: Exercise) -> tuple[tuple[Outcome, ...], ...]:
    """Return what every known wrong answer does on every case."""
    return tuple(tuple(call(wrong.answer, trial.args, LIMIT) for trial in trials(ex)) for wrong in ex.wrongs)


def examine(ex: Exercise, answer: Callable, limit: float = LIMIT, diagnose: bool = True) -> Fault | None:
    """Run an answer on the exercise's cases.

    Parameters
    ----------
    ex, answer
        The exercise, and the function to check.
    limit
        Seconds that all calls may take together.
    diagnose
        Look for a known mistake too, which takes calling it on all cases.

    Returns
    -------
    Fault or None
        None if the answer is right.
    """
    known = trials(ex)
    with own_random_numbers():
        left, outcomes, sentence = limit, [], None
        for trial in [*known, known[0]]:
            outcomes.append(call(answer, trial.args, left))
            left = max(left - outcomes[-1].seconds, 0.01)
            sentence = _fault(ex, trial, outcomes[-1], answer)
            if sentence:
                break
        if sentence is None:
            return None
        case, outcome = len(outcomes) - 1, outcomes[-1]
        if case == len(known):
            told = f"a second call with the same arguments went wrong (does it remember, or draw lots?): {sentence}"
            return Fault(told, 0, trial, outcome, None)
        if not diagnose or isinstance(outcome.error, TimeUp):
            return Fault(sentence, case, trial, outcome, None)
        share = left / (len(known) + 1)
        outcomes += [call(answer, trial.args, share) for trial in known[case + 1:]]
        again = call(answer, known[0].args, share)
        if not _alike(ex, again, outcomes[0]):
            sentence += "; called again with the same arguments, it gives something else"
        return Fault(sentence, case, trial, outcome, _recognise(ex, outcomes))


def _recognise(ex: Exercise, outcomes: list[Outcome]) -> Wrong | None:
    for wrong, theirs in zip(ex.wrongs, _behaviours(ex), strict=True):
        if all(_alike(ex, mine, other) for mine, other in zip_longest(outcomes, theirs)):
            return wrong
    return None


def _alike(ex: Exercise, one: Outcome, two: Outcome) -> bool:
    if one.error is not None or two.error is not None:
        return type(one.error) is type(two.error) and str(one.error) == str(two.error)
    return one.changed == two.changed and difference(one.value, two.value, ex.rtol, ex.atol) is None


def _fault(ex: Exercise, trial: Trial, outcome: Outcome, answer: Callable) -> str | None:
    if outcome.error is not None:
        return _stopped(outcome.error, answer)
    if outcome.changed:
        names = ", ".join(parameters(ex.answer)[i] for i in outcome.changed)
        return f"your answer changed its argument {names} in place; work on a copy (clone, copy) or without '+='"
    unique = difference(outcome.value, trial.want, ex.rtol, ex.atol)
    if ex.compare is None or unique is None:
        return unique
    if outcome.value is None:
        return unique
    try:
        return ex.compare(outcome.value, trial.want, *copy.deepcopy(trial.args))
    except Exception as error:  # an answer of a shape that the comparison cannot even read
        return f"{unique} ({type(error).__name__} when it was examined: {error})"


def _stopped(error: BaseException, answer: Callable) -> str:
    file = inspect.unwrap(answer).__code__.co_filename
    mine = [f.line for f in traceback.extract_tb(error.__traceback__) if f.filename == file and f.line]
    where = f" in the line '{mine[-1]}'" if mine else ""
    if isinstance(error, TimeUp):
        return f"your answer was stopped{where} after {LIMIT:g} s: is there a loop that never ends, or a very slow one?"
    if isinstance(error, RecursionError):
        return f"your answer calls itself without end{where} (RecursionError)"
    if isinstance(error, SystemExit):
        return f"your answer ends the program{where}; return a value instead"
    said = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return f"your answer stopped{where} with {said}"


def parameters(function: Callable) -> tuple[str, ...]:
    """Return the names of a function's parameters, in order."""
    code = inspect.unwrap(function).__code__
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
    return code.co_varnames[:count]


class ExerciseError(CourseError):
    """An answer that is not right yet: what it does, on the smallest case that shows it, and which mistake it may be.

    Attributes
    ----------
    fault : Fault or None
        What the check found; None if the function does not even have the right name and parameters.
    """

    def __init__(self, ex: Exercise, fault: Fault | str) -> None:
        self.fault = fault if isinstance(fault, Fault) else None
        lines = [f"{ex.id} · {ex.title}: not right yet"]
        lines += self._case(ex, fault) if self.fault else [f"  {fault}"]
        super().__init__("\n".join([*lines, f'  hint("{ex.id}") helps; reveal("{ex.id}") shows the answer.']))

    @staticmethod
    def _case(ex: Exercise, fault: Fault) -> list[str]:
        lines = [f"  Looks like: {fault.known.name}. {fault.known.text}"] if fault.known else []
        end = "" if fault.sentence[-1] in ".?!" else "."
        lines += [f"  {fault.sentence[0].upper()}{fault.sentence[1:]}{end}",
                  f"  The smallest case that shows it ({fault.case + 1} of {len(trials(ex))}):"]
        names = parameters(ex.answer)
        lines += [f"    {name} = {brief(value)}" for name, value in zip(names, fault.trial.args, strict=False)]
        expected = "expected" if ex.compare is None else "expected, for example,"
        lines += [f"    {expected} {brief(fault.trial.want)}"]
        lines += [f"    given {brief(fault.outcome.value)}"] if fault.outcome.error is None else []
        printed = fault.outcome.printed.rstrip().splitlines()[:10]
        return lines + (["  It printed:", *(f"    {line}" for line in printed)] if printed else [])

    def _render_traceback_(self) -> list[str]:
        """Give Jupyter the message, and of the traceback only the student's own lines."""
        lines = [f"{type(self).__name__}: {self}"]
        if isinstance(self.__cause__, Exception):  # neither a time-out nor an exit, which say all in a sentence
            trace = traceback.TracebackException.from_exception(self.__cause__, limit=-8)
            trace.stack[:] = [frame for frame in trace.stack if not frame.filename.startswith(_HERE)]
            lines = [*trace.format(chain=False), "", *lines]
        return [line.rstrip("\n") for line in lines]


def without_engine(error: BaseException) -> BaseException:
    """Cut the engine's own frames off the start of an error's traceback."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_next and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return error.with_traceback(trace)
