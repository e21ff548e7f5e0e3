"""Exercises in notebooks: headings and hints made of the engine's data, the solved build, and stubs put back."""

from __future__ import annotations

import ast
import re
from html import escape

import nbformat
from nbformat import NotebookNode

from course_utils.errors import CourseError
from course_utils.exercises.book import Exercise, find
from course_utils.exercises.source import filled, stubs, text_of


def ids(notebook: NotebookNode) -> list[str]:
    """Return the exercises that a notebook asks for, in order."""
    return [id for cell in notebook.cells if cell.cell_type == "code" for id, _ in stubs(cell.source)]


def solve(notebook: NotebookNode) -> NotebookNode:
    """Put the reference answers into a notebook in place, and drop its outputs."""
    answers = {id: find(id).answer for id in ids(notebook)}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = filled(cell.source, answers)
            cell.outputs, cell.execution_count = [], None
    return notebook


def hints(ex: Exercise) -> str:
    """Return what is folded under an exercise."""
    folded = [f"<details><summary>Hint {i}</summary>\n\n{text}\n\n</details>" for i, text in enumerate(ex.hints, 1)]
    how = f'Run <code>reveal({escape(repr(ex.id), quote=False)})</code> in a new cell.'.replace("'", '"')
    return "\n".join([*folded, f"<details><summary>The answer</summary>\n\n{how}\n\n</details>"])


def sync(notebook: NotebookNode) -> NotebookNode:
    """Renew the heading above each exercise, the hints below it, and its tags, in place."""
    kept = [cell for cell in notebook.cells if "hints" not in cell.metadata.get("tags", [])]
    cells: list[NotebookNode] = []
    for cell in kept:
        asked = [id for id, _ in stubs(cell.source)] if cell.cell_type == "code" else []
        if len(asked) > 1:
            raise CourseError(f"exercises {' and '.join(asked)} share a cell; give each one of its own.")
        cells.append(cell)
        if asked:
            ex = find(asked[0])
            cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "exercise"})
            _head(cells, ex)
            tagged = {"tags": ["hints", ex.id]}
            cells.append(nbformat.v4.new_markdown_cell(hints(ex), metadata=tagged, id=_cell_id("hints", ex)))
    notebook.cells = cells
    return notebook


def _cell_id(kind: str, ex: Exercise) -> str:
    return f"{kind}-{ex.id.replace('.', '-')}"  # the same each time, so that nothing changes without a reason


def _head(cells: list[NotebookNode], ex: Exercise) -> None:
    """Put the exercise's heading into the text above it, in place of an older one."""
    above = cells[-2] if len(cells) > 1 else None
    if above is None or above.cell_type != "markdown" or "hints" in above.metadata.get("tags", []):
        above = nbformat.v4.new_markdown_cell("", id=_cell_id("exercise", ex))
        cells.insert(-1, above)
    old = re.compile(rf"^#+ +Exercise +{re.escape(ex.id)}\b.*$", re.M)
    if old.search(above.source):
        above.source = old.sub(lambda _: ex.header, above.source, count=1)
    else:
        above.source = f"{above.source}\n\n{ex.header}".strip()


def put(notebook: NotebookNode, name: str, source: str, at: int, kind: str = "markdown") -> NotebookNode:
    """Put a cell that is made elsewhere into a notebook in place, in place of an older one with the same name.

    Parameters
    ----------
    notebook
        Changed in place.
    name
        The cell's tag, by which it is found again, and its id.
    source
        What the cell says.
    at
        Number of cells before it, not counting an older one.
    kind
        ``"markdown"`` or ``"code"``; the outputs of code stay as long as its source does.
    """
    old = [cell for cell in notebook.cells if name in cell.metadata.get("tags", [])]
    notebook.cells = [cell for cell in notebook.cells if cell not in old]
    new = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}[kind](
        source, metadata={"tags": [name]}, id=name)
    if old and old[0].source == source and old[0].cell_type == kind:
        new = old[0]
    notebook.cells.insert(at, new)
    return notebook


def empty(notebook: NotebookNode, id: str) -> bool:
    """Put an exercise's stub back into a notebook, in place, and drop that cell's outputs; no other cell is touched.

    Returns
    -------
    bool
        False if it was empty already.

    Raises
    ------
    CourseError
        If the exercise is not there.
    """
    ex, changed = find(id), False
    cells = _cells_of(notebook, id)
    if not cells:
        raise CourseError(f"exercise={id!r} is not in this notebook: no cell begins with @exercise(\"{id}\").")
    for cell in cells:
        stub = _stub(ex, cell.source)
        if _parsed(cell.source) != _parsed(stub):
            cell.source, cell.outputs, cell.execution_count, changed = stub, [], None, True
    return changed


def _cells_of(notebook: NotebookNode, id: str) -> list[NotebookNode]:
    """Find an exercise's code by its mark, which also broken code has; else by the hints that stand below it."""
    mark = re.compile(rf"""^@exercise\(\s*["']{re.escape(id)}["']\s*\)""", re.M)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    below = [above for above, cell in zip(notebook.cells, notebook.cells[1:], strict=False)
             if {"hints", id} <= set(cell.metadata.get("tags", [])) and above.cell_type == "code"]
    return [cell for cell in code if mark.search(cell.source)] or below


def _stub(ex: Exercise, cell: str) -> str:
    """Return an exercise's cell as it was before anybody wrote into it; the docstring is its own if it has one."""
    reference = text_of(ex.answer)
    node = ast.parse(reference).body[0]
    first = node.body[0]
    head = reference.splitlines()[: first.lineno - 1]
    if first.lineno == node.lineno:  # def f(x): return x
        head = [reference.splitlines()[0][: first.col_offset].rstrip()]
    return "\n".join([f'@exercise("{ex.id}")', *head, *(_docstring(cell, ex.id) or _docstring(reference)),
                      "    ...  # your code"])


def _docstring(source: str, id: str | None = None) -> list[str]:
    """Return the lines of a function's docstring: of the exercise `id` in a cell, or of the only one in `source`."""
    try:
        node = ast.parse(source).body[0] if id is None else next(node for name, node in stubs(source) if name == id)
    except (SyntaxError, StopIteration):
        return []
    told = ast.get_docstring(node) is not None
    return source.splitlines()[node.body[0].lineno - 1: node.body[0].end_lineno] if told else []


def _parsed(source: str) -> str:
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:
        return source
