"""Functions as text: is one still empty, what does an answer say, and how it is put in a stub's place."""

from __future__ import annotations

import ast
import dis
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType

from course_utils.errors import CourseError


def _steps(code: CodeType) -> list[tuple]:
    """Return what a function does, regardless of its parameters and of what it says when it raises."""
    steps = [(step.opname, step.argval) for step in dis.get_instructions(code) if step.opname not in ("NOP", "CACHE")]
    raises = any(value == "NotImplementedError" for _, value in steps)
    return [(name, None if raises and name == "LOAD_CONST" else value) for name, value in steps]


def _compiled(body: str) -> CodeType:
    module = compile(f"def f():\n    {body}", "<blank>", "exec")
    return next(const for const in module.co_consts if isinstance(const, CodeType))


_BLANK = [_steps(_compiled(body)) for body in (
    "pass", "raise NotImplementedError", "raise NotImplementedError()", "raise NotImplementedError('text')")]


def is_blank(function: Callable) -> bool:
    """Tell whether a function has no body yet: a docstring and ``...``, ``pass`` or ``raise NotImplementedError``.

    Its compiled code is asked, not its text, which not every console keeps.

    Examples
    --------
    >>> def stub(x):
    ...     "Say what to do."
    ...     ...
    >>> is_blank(stub), is_blank(lambda x: x + 1)
    (True, False)
    """
    return _steps(inspect.unwrap(function).__code__) in _BLANK


def tree_of(function: Callable) -> ast.FunctionDef:
    """Return a function's syntax tree, without its decorators and docstring."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    node.decorator_list = []
    node.body = node.body[_has_docstring(node):]
    return node


def text_of(function: Callable) -> str:
    """Return a function's source, without its decorators."""
    text = textwrap.dedent(inspect.getsource(function))
    return "\n".join(text.splitlines()[ast.parse(text).body[0].lineno - 1:])


def _has_docstring(node: ast.FunctionDef) -> bool:
    return ast.get_docstring(node) is not None


def _body(text: str) -> list[str]:
    """Return the lines of a function's statements, comments before them included, indented as they are."""
    node, lines = ast.parse(text).body[0], text.splitlines()
    told = _has_docstring(node)
    first, last = node.body[told], node.body[told - 1].end_lineno if told else 0
    start = first.lineno - 1
    if start < node.lineno or lines[start][: first.col_offset].strip():  # def f(x): return x
        return ["    " + lines[start][first.col_offset:], *lines[start + 1: node.end_lineno]]
    while start > last and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return lines[start: node.end_lineno]


def stubs(cell: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    r"""Yield the exercises of a code cell: their ids, and the functions to fill.

    Examples
    --------
    >>> [(id, stub.name) for id, stub in stubs('@exercise("02.1")\ndef f(x): ...')]
    [('02.1', 'f')]
    """
    if "@exercise(" not in cell:
        return
    for node in ast.parse(cell).body:
        for mark in getattr(node, "decorator_list", []):
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "exercise" and mark.args:
                yield ast.literal_eval(mark.args[0]), node


def filled(cell: str, answers: dict[str, Callable]) -> str:
    """Return a code cell with the answers in place of its stubs' bodies; decorators and docstrings stay.

    Parameters
    ----------
    cell
        Source of the cell.
    answers
        Exercise id → reference answer.

    Raises
    ------
    CourseError
        If the new cell would not do what the answers do.
    """
    for id, stub in reversed(list(stubs(cell))):  # from the end, so that the lines before keep their numbers
        lines, told = cell.splitlines(), _has_docstring(stub)
        head = lines[: stub.body[0].end_lineno if told else stub.body[0].lineno - 1]
        if not told and stub.body[0].lineno == stub.lineno:  # def f(x): ...
            head = [*lines[: stub.lineno - 1], lines[stub.lineno - 1][: stub.body[0].col_offset].rstrip()]
        while head[-1].lstrip().startswith("#"):  # "your code here"
            head.pop()
        cell = "\n".join([*head, *_body(text_of(answers[id])), *lines[stub.end_lineno:]])
        new = next(node for other, node in stubs(cell) if other == id)
        if [ast.dump(n) for n in new.body[told:]] != [ast.dump(n) for n in tree_of(answers[id]).body]:
            raise CourseError(f"the answer to {id} could not be put into its cell; simplify the stub's text.")
    return cell
