"""What the package raises when it is given something it cannot use: one sentence that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CourseError(ValueError):
    """Bad input, said in one sentence: which argument, what was given, what is allowed."""


def one_of(argument: str, given: object, allowed: Iterable[object], limit: int = 6) -> CourseError:
    """Build the error for a value that is not among the allowed ones, naming the nearest.

    Parameters
    ----------
    argument
        Name of the argument as the caller wrote it.
    given
        The value that was refused.
    allowed
        All values that would have been accepted.
    limit
        How many of them to name.

    Returns
    -------
    CourseError
        To be raised by the caller, so that the traceback ends there.

    Examples
    --------
    >>> raise one_of("mode", "men", ["zero", "mean", "resample"])
    Traceback (most recent call last):
    ...
    course_utils.errors.CourseError: mode='men' is not known; nearest: 'mean' (3 allowed).
    """
    names = [str(a) for a in allowed]
    near = difflib.get_close_matches(str(given), names, n=limit, cutoff=0.5)
    shown, word = (near, "nearest") if near else (names[:limit], "allowed")
    listed = ", ".join(repr(n) for n in shown) or "none"
    return CourseError(f"{argument}={given!r} is not known; {word}: {listed} ({len(names)} allowed).")
