"""Cut the answers out of a notebook: each with the imports, helpers and constants that it needs, and nothing else.

A notebook that does not run from top to bottom can still hold right answers, and its heavy cells (a model opened, an
SAE trained) are none of theirs. So nothing is executed but an answer's own slice of the notebook.
"""

from __future__ import annotations

import ast
import dis
import json
import re
from collections.abc import Iterator
from types import CodeType

from course_utils.exercises.source import is_blank, stubs

_MARK = re.compile(r"@exercise\(\s*[\"'](\d\d\.\d+)[\"']")


def code_cells(raw: bytes) -> tuple[list[str], int]:
    """Return the sources of a notebook's code cells, and how many predictions its outputs show.

    Raises
    ------
    ValueError
        If it is no notebook; in a sentence.
    """
    try:
        book = json.loads(raw)
    except (ValueError, RecursionError) as error:
        cut = " (cut short?)" if raw.lstrip()[:1] == b"{" and raw.rstrip()[-1:] != b"}" else ""
        raise ValueError(f"is no notebook: no valid JSON{cut}, {type(error).__name__}") from None
    cells = book.get("cells") if isinstance(book, dict) else None
    if not isinstance(cells, list):
        raise ValueError("is no notebook of format 4: it has no list of cells")
    code = [cell for cell in cells if isinstance(cell, dict) and cell.get("cell_type") == "code"]
    shown = sum(text.startswith("You predicted ") for cell in code for text in _texts(cell.get("outputs")))
    return [_source(cell.get("source", "")) for cell in code], shown


def _texts(outputs: object) -> Iterator[str]:
    for output in outputs if isinstance(outputs, list) else ():
        data = output.get("data") if isinstance(output, dict) else None
        if isinstance(data, dict):
            yield _source(data.get("text/plain", ""))


def _source(lines: object) -> str:
    return lines if isinstance(lines, str) else "".join(map(str, lines)) if isinstance(lines, list) else ""


class Definitions:
    """What a notebook defines.

    Attributes
    ----------
    answers : dict[str, ast.stmt]
        Exercise id → the function that answers it; of several the last.
    blank : set[str]
        Those without a body yet.
    broken : dict[str, str]
        Exercise id → what is wrong with the cell's syntax.
    """

    def __init__(self, cells: list[str]) -> None:
        self.statements: list[ast.stmt] = []
        self.answers: dict[str, ast.stmt] = {}
        self.broken: dict[str, str] = {}
        for cell in cells:
            self._read(re.sub(r"^[ \t]*[%!?].*$", "", cell, flags=re.M))  # IPython's own lines
        self.blank = {id for id, node in self.answers.items() if _blank(node)}

    def _read(self, cell: str) -> None:
        try:
            tree = ast.parse(cell)
            compile(tree, "<cell>", "exec")  # finds more: `return` outside of a function
            marked = {node.lineno: id for id, node in stubs(cell) if isinstance(id, str)}
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            said = getattr(error, "msg", None) or str(error) or type(error).__name__
            where = f" in line {error.lineno}" if getattr(error, "lineno", None) else ""
            self.broken |= dict.fromkeys(_MARK.findall(cell), f"its cell is no Python{where}: {said}")
            return
        for node in tree.body:
            id = marked.get(node.lineno)
            if id is not None:
                kept = [mark for mark in node.decorator_list if not ast.unparse(mark).startswith("exercise(")]
                node.decorator_list = kept
                if id in self.answers:
                    self.statements.remove(self.answers[id])
                self.answers[id] = node
                self.broken.pop(id, None)
            self.statements.append(node)

    def slice(self, id: str, references: dict[str, str]) -> list[ast.stmt]:
        """Return the statements that an answer needs, itself included, in the notebook's order.

        Parameters
        ----------
        id
            Of the exercise.
        references
            Exercise id → source of its reference answer, which takes an empty one's place as it does in the notebook.
        """
        swapped = {self.answers[other]: ast.parse(text).body[0] for other, text in references.items()
                   if other in self.answers and other != id}
        offered = [(swapped.get(node, node), _bound(node)) for node in self.statements]
        taken, names = [self.answers[id]], {"*"} | _globals(self.answers[id])
        while fresh := [node for node, bound in offered if bound & names and node not in taken]:
            taken += fresh
            names = names.union(*map(_globals, fresh))
        return [_narrowed(node, names) for node, _ in offered if node in taken]


def _blank(node: ast.stmt) -> bool:
    """Tell whether a function is empty, without running any of its defaults or decorators."""
    if not isinstance(node, ast.FunctionDef):
        return False
    names = [arg.arg for arg in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
    bare = ast.parse(f"def answer({', '.join(names)}): ...").body[0]
    bare.body = node.body
    space: dict = {}
    exec(compile(ast.Module([bare], []), "<blank>", "exec"), space)
    return is_blank(space["answer"])


def _bound(node: ast.stmt) -> set[str]:
    """Return the names that a statement gives to the notebook."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {_local(alias) for alias in node.names}
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}


def _local(alias: ast.alias) -> str:
    return alias.asname or alias.name.split(".")[0]


def _globals(node: ast.stmt) -> set[str]:
    """Return the names that a statement, or a function in it, looks up in the notebook."""
    found: set[str] = set()
    codes = [compile(ast.Module([node], []), "<names>", "exec")]
    while codes:
        code = codes.pop()
        found |= {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        codes += [const for const in code.co_consts if isinstance(const, CodeType)]
    return found


def _narrowed(node: ast.stmt, names: set[str]) -> ast.stmt:
    """Leave of an import what is needed: the rest may load a language model's libraries."""
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return node
    kept = [alias for alias in node.names if _local(alias) in names or alias.name == "*"]
    fields = {"module": node.module, "level": node.level} if isinstance(node, ast.ImportFrom) else {}
    return ast.copy_location(type(node)(names=kept, **fields), node)
