"""The course as a web site: static pages with navigation, which need no network, no server and no script.

Nothing is written for it: README is the front page, each executed notebook a page, and so are the glossary, the
instructors' pages and what else lies in ``docs/``. nbconvert turns cells into HTML (its ``basic`` template, which loads
nothing); here pages get their frame, headings their address, and links between files become links between pages.
Formulas would need a renderer of their own: no notebook has one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import jinja2
import nbformat
from markupsafe import Markup

from course_utils.cli import report, runner
from course_utils.errors import CourseError

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

_ELSEWHERE = ("http", "https", "mailto", "data")


class Source(NamedTuple):
    """A file that becomes a page: where it lies, its group in the contents, and the page's name."""

    path: Path
    group: str
    file: str


class Page(NamedTuple):
    """A page before it is framed: its name, its title, its HTML, and the sections to jump to (address, text)."""

    file: str
    title: str
    html: Markup
    sections: list[tuple[str, str]]


def sources(root: Path) -> list[Source]:
    """Return what there is to show of a checkout, in reading order."""
    docs = root / "docs"
    found = [Source(root / "README.md", "", "index.html")]
    found += [Source(path, "Notebooks", f"{path.stem}.html") for path in runner.find()]
    found += [Source(path, "Beside them", f"{path.stem}.html") for path in sorted(docs.glob("*.md"))]
    found += [Source(path, "For instructors", f"instructors_{path.stem}.html")
              for path in sorted((docs / "instructors").glob("*.md"))]
    return found


def slug(text: str) -> str:
    """Return a heading's address as GitHub makes it, so that a link leads to the same place here and there.

    Examples
    --------
    >>> slug("4 · An exercise"), slug("Who pays?")
    ('4--an-exercise', 'who-pays')
    """
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def _notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook that was executed to its end, or a text as a notebook of one cell."""
    if path.suffix != ".ipynb":
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(path.read_text(encoding="utf-8"))])
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    if any(cell.execution_count is None or any(out.output_type == "error" for out in cell.outputs) for cell in code):
        raise CourseError(f"{path.name} was not executed to its end; `make notebooks` executes them all.")
    for cell in code:
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["transient"] = {"remove_source": True}  # nbconvert's own mark
    return notebook


def _address(soup: BeautifulSoup) -> list[tuple[str, str]]:
    """Give every heading of the text an address, and return those of the sections."""
    used: dict[str, int] = {}
    sections = []
    for heading in soup.select(".text_cell_render :is(h1, h2, h3, h4)"):
        place = slug(heading.get_text())
        used[place] = used.get(place, -1) + 1
        heading["id"] = f"{place}-{used[place]}" if used[place] else place
        if heading.name == "h2":
            sections.append((heading["id"], heading.get_text()))
    return sections


def _link(soup: BeautifulSoup, source: Source, pages: dict[Path, str], site: Path) -> None:
    """Turn links between files into links between pages, and bring pictures along."""
    for tag, key in [(tag, "href") for tag in soup.find_all("a", href=True)] + \
            [(tag, "src") for tag in soup.find_all("img", src=True)]:
        address = urlsplit(tag[key])
        if address.scheme in _ELSEWHERE or not address.path:
            continue
        target = (source.path.parent / address.path).resolve()
        if target in pages:
            tag[key] = pages[target] + (f"#{address.fragment}" if address.fragment else "")
        elif tag.name == "img" and target.is_file():
            shutil.copyfile(target, site / target.name)
            tag[key] = target.name
        elif tag.name == "a":
            tag.unwrap()  # a file of the repository that is no page: its name stays
        else:
            raise CourseError(f"{source.path.name} shows {tag[key]!r}, which is not there.")


def _tidy(soup: BeautifulSoup) -> None:
    """Let what is too wide for a phone scroll by itself, also from the keyboard; boxes to tick on paper are signs."""
    for box in soup.select("input[type=checkbox]"):
        box.replace_with("☑ " if box.has_attr("checked") else "☐ ")
    for wide in soup.select(".output pre, .output [role=figure]"):
        wide["tabindex"] = "0"
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))


def pages(root: Path, site: Path) -> Iterator[tuple[str, Page]]:
    """Render every source; yields its group with the page."""
    from bs4 import BeautifulSoup
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True,
                            exclude_anchor_links=True)
    there = sources(root)
    names = {source.path.resolve(): source.file for source in there}
    for source in there:
        notebook = _notebook(source.path)
        soup = BeautifulSoup(exporter.from_notebook_node(notebook)[0], "html.parser")
        sections = _address(soup)
        _link(soup, source, names, site)
        _tidy(soup)
        yield source.group, Page(source.file, runner.title_of(notebook, source.path.stem), Markup(soup), sections)


def make(build: Path) -> Path:
    """Write ``<build>/site`` anew from the executed notebooks, with the report of the run in `build` if there is one.

    Parameters
    ----------
    build
        Folder of a run; the site needs none.

    Returns
    -------
    Path
        The front page.

    Raises
    ------
    CourseError
        Outside of a checkout, if a notebook was not executed to its end, or if a picture is missing.
    """
    draft, site, here = build / ".site", build / "site", Path(__file__).parent
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    rendered = list(pages(runner.notebooks_dir().parent, draft))
    groups: dict[str, list[Page]] = {}
    for name, page in rendered:
        groups.setdefault(name, []).append(page)
    ran = (build / "run.json").is_file()
    if ran:
        shutil.copyfile(report.make(build), draft / "report.html")
    frame = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        (here / "site.html.jinja").read_text(encoding="utf-8"))
    order = [None, *(page for _, page in rendered), None]
    for before, page, after in zip(order, order[1:], order[2:], strict=False):
        html = frame.render(page=page, before=before, after=after, groups=groups.items(), report=ran)
        (draft / page.file).write_text(html, encoding="utf-8")
    style = [(here / name).read_text(encoding="utf-8") for name in ("look.css", "site.css")]
    (draft / "site.css").write_text("\n".join(style), encoding="utf-8")
    shutil.rmtree(site, ignore_errors=True)
    os.replace(draft, site)
    return site / "index.html"

