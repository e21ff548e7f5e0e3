"""Exercises in notebooks: their headings and hints, made of the engine's data, and the solved build."""

from __future__ import annotations

import re
from html import escape

import nbformat
from nbformat import NotebookNode

from course_utils.errors import CourseError
from course_utils.exercises.book import Exercise, find
from course_utils.exercises.source import filled, stubs


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
