"""The glossary's places: under each term of ``docs/glossary.md``, the section of a notebook where it is first used.

Terms and their explanations are written by hand. A term is a heading of the third rank; where notebooks spell it
otherwise, an HTML comment holds the spellings to look for: ``### head <!-- head | heads -->``. What begins with
*First used* is made here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import nbformat

from course_utils.cli import runner

_ENTRY = re.compile(r"^### (?P<term>.*?)(?: <!-- (?P<also>.*?) -->)?\n(?P<text>.*?)(?=^###? |\Z)", re.M | re.S)
_PLACE = re.compile(r"^First used in .*\n?", re.M)
_HEADING = re.compile(r"^(#{1,2}) +(.*?) *$", re.M)


def anchor(heading: str) -> str:
    """Return the address of a notebook's heading, as JupyterLab and nbconvert make it.

    Examples
    --------
    >>> anchor("4 · The residual stream is a sum")
    '4-·-The-residual-stream-is-a-sum'
    """
    return re.sub(r"[*`_]", "", heading).replace(" ", "-")


def terms(text: str) -> dict[str, tuple[str, ...]]:
    """Return the glossary's terms: each with the spellings under which the notebooks use it."""
    return {entry["term"]: tuple((entry["also"] or entry["term"]).split(" | ")) for entry in _ENTRY.finditer(text)}


def _passages() -> Iterator[tuple[str, str, str, str]]:
    """Yield what the notebooks say, section by section: file, title, heading, text; without generated cells.

    First cells are left out, which announce what is explained later, and so are the titles of works under *Read*.
    """
    for path in runner.find():
        notebook = nbformat.read(path, as_version=4)
        title = heading = runner.title_of(notebook, path.stem)
        for cell in notebook.cells[1:]:
            if cell.cell_type != "markdown" or {"hints", "footer"} & set(cell.metadata.get("tags", [])):
                continue
            first, *parts = _HEADING.split(cell.source)
            if heading != "Read":
                yield path.name, title, heading, first
            for _, head, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
                heading = head
                if heading != "Read":
                    yield path.name, title, heading, f"{head}\n{text}"


def renewed(text: str) -> str:
    """Return the glossary with the place of every term renewed."""
    passages = list(_passages())

    def entry(found: re.Match) -> str:
        spellings = terms(found[0])[found["term"]]
        words = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in spellings), re.I)
        place = next((p for p in passages if words.search(" ".join(p[3].replace("*", "").split()))), None)
        link = "First used in no notebook yet.\n"
        if place is not None:
            file, title, heading, _ = place
            where = "" if heading == title else f", *{re.sub('[*`]', '', heading)}*"
            link = f"First used in [{title}](../notebooks/{file}#{anchor(heading)}){where}.\n"
        head = found[0][: found.start("text") - found.start()]
        return f"{head}{_PLACE.sub('', found['text']).strip()}\n\n{link}\n"

    return _ENTRY.sub(entry, text).rstrip("\n") + "\n"
