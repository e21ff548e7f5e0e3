"""``course badge``: the course's address in README, and from there in every notebook's badge and setup cell.

The badge is a link in words, not a picture: a picture would be fetched from elsewhere whenever a notebook is opened.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from course_utils.errors import CourseError
from course_utils.paths import write_text

if TYPE_CHECKING:
    from nbformat import NotebookNode

COLAB = "https://colab.research.google.com/github/"
_ADDRESS = re.compile(rf"^(\[colab\]: {re.escape(COLAB)})([^/\s]+/[^/\s]+)(/.*)$", re.M)
_BADGE = re.compile(rf"\n\n\*\*\[Open in Colab\]\({re.escape(COLAB)}[^)\n]*\)\*\*(?=\n|$)")
_OWNER, _REPO = r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}", r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}(?<!\.git)"
_CELL = """\
try:  # On Colab this installs the course and what it lacks, and replaces nothing that fits. Elsewhere it does nothing.
    from course_utils.setup import ensure
except ImportError:
    %pip install -q --no-deps "git+https://github.com/{repository}"
    from course_utils.setup import ensure
ensure()"""


def setup_cell(repository: str) -> str:
    """Return the code that every notebook begins with."""
    return _CELL.format(repository=repository)


def repository_of(readme: str) -> str:
    """Return the repository that README's last line names, ``"OWNER/REPO"`` until there is one.

    Raises
    ------
    CourseError
        If there is no such line.
    """
    found = _ADDRESS.search(readme)
    if found is None:
        raise CourseError(f"README.md has no line that begins with [colab]: {COLAB}OWNER/REPO/; put it back.")
    return found[2]


def stamp(notebook: NotebookNode, file_name: str, repository: str) -> NotebookNode:
    """Put badge and setup cell into a notebook, in place; done twice, nothing changes.

    Parameters
    ----------
    notebook
        Its first cell is text that begins with the heading.
    file_name
        Its name in ``notebooks/``.
    repository
        As GitHub spells it: ``"owner/name"``.

    Raises
    ------
    CourseError
        If it does not begin with a heading.
    """
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        raise CourseError(f"{file_name} does not begin with a heading; its first cell must be text that begins with #.")
    heading, *rest = _BADGE.sub("", first.source).split("\n", 1)
    link = f"**[Open in Colab]({COLAB}{repository}/blob/main/notebooks/{file_name})**"
    first.source = "\n".join([f"{heading}\n\n{link}", *rest])
    _put_setup(notebook, setup_cell(repository))
    return notebook


def _put_setup(notebook: NotebookNode, source: str) -> None:
    """Put the setup cell before all other code; in an executed notebook numbers become those of the next run."""
    from course_utils.exercises.notebooks import put

    others = [cell for cell in notebook.cells if "setup" not in cell.metadata.get("tags", [])]
    code = [cell for cell in others if cell.cell_type == "code"]
    put(notebook, "setup", source, others.index(code[0]) if code else len(others), kind="code")
    everything = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    first, *counts = [cell.execution_count for cell in everything]
    if first is None and counts in ([*range(1, len(counts) + 1)], [*range(2, len(counts) + 2)]):
        for number, cell in enumerate(everything, 1):
            cell.execution_count = number
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = number


def write_badges(args: argparse.Namespace) -> int:
    """Write the address, if one is given, into README; then badge and setup cell of every notebook."""
    import nbformat

    from course_utils.cli import runner

    if args.repository and not re.fullmatch(rf"{_OWNER}/{_REPO}", args.repository):
        raise CourseError(f"repository={args.repository!r} is not a repository of GitHub; give OWNER/REPO, as its "
                          "address has it.")
    readme = runner.notebooks_dir().parent / "README.md"
    text = readme.read_text(encoding="utf-8")
    there = repository_of(text)
    name = args.repository or there
    _renew(readme, _ADDRESS.sub(rf"\g<1>{name}\g<3>", text))
    for path in runner.find():
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        _renew(path, nbformat.writes(stamp(notebook, path.name, name)).rstrip("\n") + "\n")
    return 0


def _renew(path: Path, text: str) -> None:
    if text != path.read_text(encoding="utf-8"):
        write_text(path, text)
        print(f"{path.name}: address renewed")


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add ``badge``."""
    parser = commands.add_parser("badge", help="say where the course is kept: README, badges and setup cells")
    parser.add_argument("repository", nargs="?", metavar="OWNER/REPO",
                        help="on GitHub (default: the one that README names)")
    parser.set_defaults(func=write_badges)
