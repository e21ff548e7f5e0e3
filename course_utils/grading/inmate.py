"""The process in which a student's answers run: it locks itself, then does what it is asked over two pipes.

Frames are a length of eight bytes and as many bytes: first the notebook, raw; then requests of `wire`, ``["load", id,
references]`` and ``["call", arguments]``, each answered by one frame.
"""

from __future__ import annotations

import ast
import linecache
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from course_utils.errors import CourseError

_FILE = "<answer>"
_TEXT = 1_000  # characters kept of what an error says


def main(memory: str, seconds: str, protected: str) -> None:
    """Lock this process, say so, and answer until nobody asks."""
    import matplotlib  # noqa: F401  (a student's helper may import these, which then costs no time of the answer's)
    import numpy  # noqa: F401
    import torch

    from course_utils.exercises import source  # noqa: F401
    from course_utils.grading import cage, definitions, wire

    ask, reply = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # what an answer prints goes nowhere, however much it is
        os.dup2(nothing, fd)
    os.closerange(max(ask, reply, nothing) + 1, 1024)
    torch.set_num_threads(1)
    try:
        said = ["locked", cage.lock(int(memory), float(seconds), protected == "yes")]
    except OSError as error:
        said = ["open", str(error)]
    send(reply, wire.encode(said))
    if said[0] == "locked":
        _serve(ask, reply, definitions, wire)


def _serve(ask: int, reply: int, definitions: Any, wire: Any) -> None:
    try:
        cells, predictions = definitions.code_cells(receive(ask))
        book = definitions.Definitions(cells)
        there = {id: id in book.blank for id in book.answers}
        send(reply, wire.encode({"answers": there, "broken": book.broken, "predictions": predictions}))
    except ValueError as error:
        send(reply, wire.encode({"unreadable": str(error)}))
        return
    answer: Callable | None = None
    while request := receive(ask):
        kind, *rest = wire.decode(request, functions=True)
        if kind == "load":
            answer, told = load(book, *rest)
        else:
            told = call(answer, rest[0])
        send(reply, wire.encode(told))


def load(book: Any, id: str, references: dict[str, str]) -> tuple[Callable | None, dict]:
    """Run an answer's slice of the notebook; return the function, and what to say of it."""
    from course_utils.exercises.check import parameters
    from course_utils.exercises.sandbox import own_random_numbers

    try:
        text = "\n\n".join(map(ast.unparse, book.slice(id, references)))
        linecache.cache[_FILE] = (len(text), None, text.splitlines(True), _FILE)
        space: dict[str, Any] = {"__name__": "__main__"}
        with own_random_numbers():
            exec(compile(text, _FILE, "exec"), space)
        function = space[book.answers[id].name]
        return function, {"given": f"{function.__name__}({', '.join(parameters(function))})"}
    except BaseException as error:
        return None, _told(error)


def call(function: Callable, args: tuple) -> dict:
    """Call the answer; return its value or its error, and the arguments as it left them."""
    try:
        return {"value": function(*args), "args": args}
    except BaseException as error:  # SystemExit too
        return _told(error) | {"args": args}


def _told(error: BaseException) -> dict:
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _FILE]
    plain = [arg for arg in error.args if arg is None or type(arg) in (int, float, bool, str)]
    try:
        text = str(error)[:_TEXT]
    except Exception:
        text = "an error that cannot be shown"
    made_of = plain if len(plain) == len(error.args) and sum(len(str(arg)) for arg in plain) < _TEXT else [text]
    return {"error": type(error).__name__, "made of": made_of, "text": text, "line": lines[-1] if lines else ""}


def send(fd: int, data: bytes) -> None:
    """Write one frame."""
    left = memoryview(len(data).to_bytes(8, "little") + data)
    while left:
        left = left[os.write(fd, left):]


def receive(fd: int, most: int = 2**40) -> bytes:
    """Read one frame; nothing if the other side has gone.

    Raises
    ------
    CourseError
        If it is longer than `most` bytes.
    """
    length = int.from_bytes(_exactly(fd, 8), "little")
    if length > most:
        raise CourseError(f"it answers with {length / 2**20:,.0f} MiB; at most {most / 2**20:,.0f} are taken.")
    return _exactly(fd, length)


def _exactly(fd: int, n: int) -> bytes:
    parts = []
    while n and (part := os.read(fd, min(n, 2**20))):
        parts.append(part)
        n -= len(part)
    return b"" if n else b"".join(parts)


if __name__ == "__main__":
    main(*sys.argv[1:])
