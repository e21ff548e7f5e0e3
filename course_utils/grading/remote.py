"""A student's function, as seen from outside of the process that runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch

from course_utils.errors import CourseError
from course_utils.grading import wire
from course_utils.grading.inmate import receive, send

_REPLY = 64 * 2**20  # bytes of one result
_START = 120.0  # seconds until the process stands, libraries loaded
_LOAD = 20.0  # seconds for what an answer needs of its notebook


class Limits(NamedTuple):
    """What a submission may take; `unprotected` runs it with your own rights, where a machine cannot lock it."""

    seconds: float = 120.0
    memory: int = 1024
    unprotected: bool = False


class Late(CourseError):
    """The process did not answer in time."""


class Remote:
    """The process that holds one notebook's answers; when it has ended or was ended, the next question starts another.

    Parameters
    ----------
    raw
        The notebook's bytes.
    limits
        For the process.

    Attributes
    ----------
    isolation : str
        What is in force.
    line : str
        The line at which the last call stopped.
    """

    def __init__(self, raw: bytes, limits: Limits) -> None:
        self.raw, self.limits, self.isolation, self.line, self._since = raw, limits, "", "", 0.0
        # Between a question and its whole answer. The engine's alarm rings inside `function`, again and again, so that
        # nothing can be cleared up there: the flag says that it is still to be done.
        self._waiting = self._full = False
        self._process: subprocess.Popen | None = None
        self._folder: tempfile.TemporaryDirectory | None = None

    def __enter__(self) -> Remote:
        """Start nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.end()

    def open(self) -> dict:
        """Start the process with the notebook; return what it finds there.

        Raises
        ------
        CourseError
            If the machine cannot lock a process, or the process dies of the notebook.
        """
        self.end()
        self._folder = tempfile.TemporaryDirectory(prefix="grading-")
        here = self._folder.name
        env = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LANG", "LD_LIBRARY_PATH")
               if name in os.environ}
        env |= dict.fromkeys(("HOME", "TMPDIR", "TEMP", "USERPROFILE", "MPLCONFIGDIR", "COURSE_CACHE"), here)
        env |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE"), "1")
        env |= {"COURSE_PROGRESS": "off", "MPLBACKEND": "agg"}
        said = [str(self.limits.memory), str(self.limits.seconds), "no" if self.limits.unprotected else "yes"]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "course_utils.grading.inmate", *said], cwd=here, env=env, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        self._waiting = True
        state, self.isolation = self._answer(_START) or ("open", "the process does not start")
        if state != "locked":
            raise CourseError(f"a submission cannot be locked in here: {self.isolation}.")
        found = self._ask(self.raw, _LOAD)
        if not isinstance(found, dict):
            raise CourseError("its process ends when it reads the notebook.")
        return found

    def load(self, id: str, references: dict[str, str]) -> dict:
        """Make the answer to an exercise ready; return its name and parameters, or what stopped it."""
        if self._process is None or self._waiting or self._full:
            self.open()
        told = self._ask(wire.encode(["load", id, references]), _LOAD) or {"error": "its process has ended"}
        self._since = _processor(self._process)
        return told

    @property
    def used(self) -> float:
        """Seconds of processor time that the process has taken since the answer was loaded."""
        return _processor(self._process) - self._since

    def function(self) -> Callable:
        """Return the answer last loaded, to be called here."""
        def answer(*args: Any) -> Any:
            told = self._call(args)
            for mine, theirs in zip(args, told.get("args", ()), strict=False):
                _put(mine, theirs)
            if "error" in told:
                self.line = str(told["line"])
                self._full |= told["error"] == "MemoryError"  # Python may keep one, and all that its frames hold
                raise wire.error_of(str(told["error"]), list(told["made of"]), str(told["text"]))
            return told["value"]

        # The engine quotes the lines of an answer's own file, which is not this one.
        answer.__code__ = answer.__code__.replace(co_filename="<answer>")
        return answer

    def _call(self, args: tuple) -> dict:
        self.line = ""
        if self._process is None or self._waiting:
            raise ChildProcessError("its process has ended")
        try:
            told = self._ask(wire.encode(["call", args]), self.limits.seconds)
        except CourseError as error:
            raise RuntimeError(str(error)) from None
        if not isinstance(told, dict) or not {"value", "error"} & told.keys():
            raise ChildProcessError("it ends the process in which it runs, or answers in its stead")
        return told

    def _ask(self, request: bytes, seconds: float) -> Any:
        self._waiting = True
        try:
            send(self._process.stdin.fileno(), request)
        except OSError:
            return None
        return self._answer(seconds)

    def _answer(self, seconds: float) -> Any:
        """Return the next reply, or None where the process has ended; kill it if it says nothing in time."""
        process, late = self._process, threading.Event()

        def stop() -> None:
            late.set()
            _kill(process)

        clock = threading.Timer(seconds, stop)
        clock.daemon = True
        clock.start()
        try:
            data = receive(process.stdout.fileno(), _REPLY)
            told = wire.decode(data) if data else None
        finally:
            clock.cancel()
        if late.is_set():
            raise Late(f"it was stopped after {seconds:g} s.")
        self._waiting = told is None
        return told

    def end(self) -> None:
        """Kill the process and what it has started, and remove its folder."""
        if self._process is not None:
            _kill(self._process)
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._folder.cleanup()
        self._process = self._folder = None
        self._waiting = self._full = False


def _processor(process: subprocess.Popen | None) -> float:
    """Return the seconds of processor time that a process has taken; 0 if there is none."""
    with suppress(psutil.Error):
        return sum(psutil.Process(process.pid).cpu_times()[:2]) if process is not None else 0.0
    return 0.0


def _kill(process: subprocess.Popen) -> None:
    if process.poll() is not None:  # its number may be somebody else's by now
        return
    with suppress(psutil.Error):
        family = psutil.Process(process.pid)
        for one in [*family.children(recursive=True), family]:
            with suppress(psutil.Error):
                one.kill()


def _put(mine: Any, theirs: Any) -> None:
    """Make an argument what the answer has made of its copy, so that the engine sees that it was changed."""
    if isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor):
        mine.data = theirs
    elif isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray) and mine.shape == theirs.shape:
        mine[...] = theirs
    elif isinstance(mine, list) and isinstance(theirs, list):
        mine[:] = theirs
    elif isinstance(mine, dict) and isinstance(theirs, dict):
        mine.clear()
        mine.update(theirs)
