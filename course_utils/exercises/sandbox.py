"""Calling a student's function so that nothing it does can hurt.

It gets copies of its arguments and a time limit; random numbers, screen, signal handlers and timers are afterwards as
they were before.
"""

from __future__ import annotations

import copy
import ctypes
import io
import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

import numpy as np
import torch

from course_utils.exercises.compare import difference

_TICK = 0.01  # seconds between reminders once the time is over
# A bare `except:` in an endless loop eats every reminder that comes inside its `try`. The next one therefore comes at
# once, so that sooner or later one finds the loop between two rounds.
_SOON = itertools.cycle([2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4])
_PRINTED = 2_000  # characters kept of what an answer prints


class TimeUp(BaseException):
    """Raised inside an answer whose time is over; no Exception, so that ``except Exception`` cannot eat it."""


class Outcome(NamedTuple):
    """What came of one call: its value or its error, which arguments it changed, what it printed, and its seconds."""

    value: Any
    error: BaseException | None
    changed: tuple[int, ...]
    printed: str
    seconds: float


class _Printed(io.StringIO):
    def write(self, text: str) -> int:
        return super().write(text) if self.tell() < _PRINTED else len(text)


def call(function: Callable, args: tuple, seconds: float) -> Outcome:
    """Call ``function(*args)`` on deep copies of its arguments, for at most so many seconds.

    Returns
    -------
    Outcome
        Its error is whatever was raised, `TimeUp` included.

    Raises
    ------
    KeyboardInterrupt
        If the user interrupts.
    """
    own, printed, value, error = copy.deepcopy(args), _Printed(), None, None
    limited = _by_alarm if _alarm_works() else _by_thread
    begun = time.monotonic()
    try:
        with redirect_stdout(printed), torch.enable_grad():
            value = limited(lambda: function(*own), seconds)
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # whatever an answer raises is what the student is told
        error = raised
    took = time.monotonic() - begun
    changed = tuple(i for i, (now, before) in enumerate(zip(own, args, strict=True)) if difference(now, before))
    return Outcome(value, error, changed, printed.getvalue(), took)


def _alarm_works() -> bool:
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


def _by_alarm(function: Callable[[], Any], seconds: float) -> Any:
    """Call a function under a timer that rings until it is heard."""
    armed, rang = True, False

    def ring(*_: object) -> None:
        nonlocal rang
        if armed:
            rang = True
            signal.setitimer(signal.ITIMER_REAL, next(_SOON), _TICK)
            raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds, _TICK)
    begun = time.monotonic()
    try:
        try:
            value = function()
        finally:
            armed = False  # an assignment, between which and the call no signal is handled: nothing rings too late
    except BaseException as error:
        if rang and not isinstance(error, TimeUp):
            raise TimeUp from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
        if left:  # somebody else's timer, which goes on
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begun), 0.001), every)
    if rang:  # and the answer swallowed it
        raise TimeUp
    return value


def _by_thread(function: Callable[[], Any], seconds: float) -> Any:
    """Call a function in a thread, where there are no timers (Windows, other threads than the first)."""
    done: list[tuple[Any, BaseException | None]] = []

    def work() -> None:
        try:
            done.append((function(), None))
        except BaseException as error:  # handed on to the thread that waits
            done.append((None, error))

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        worker.join(seconds)
        late = worker.is_alive()
    finally:  # also when the user interrupts the waiting
        deadline = time.monotonic() + 1
        while worker.is_alive() and time.monotonic() < deadline:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident), ctypes.py_object(TimeUp))
            worker.join(_TICK)
    if late or not done:
        raise TimeUp
    value, error = done[0]
    if error is not None:
        raise error
    return value


@contextmanager
def own_random_numbers(seed: int = 0) -> Iterator[None]:
    """Seed torch, numpy and random inside, and put them back as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_gpu is not None:
            torch.cuda.set_rng_state_all(on_gpu)
