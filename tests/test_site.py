"""The site: every source a page, every link leads somewhere, nothing comes from elsewhere, nothing is written twice."""

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from test_report import outcome, picture

from course_utils.cli import site
from course_utils.errors import CourseError

V4 = nbformat.v4
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
README = """# Under the Hood

Begin with [the first](notebooks/00_start.ipynb), see [latent](docs/glossary.md#a-latent), the [licence](LICENSE) and
[a paper](https://example.org/paper). ![A bar](docs/bar.png)

| name | what |
| --- | --- |
| a | b |
"""


def code(source, *outputs, **metadata):
    return V4.new_code_cell(source, outputs=list(outputs), metadata=metadata, execution_count=1)


def figure(alt):
    return V4.new_output("display_data", data={"image/png": picture("red")}, metadata={"image/png": {"alt": alt}})


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small checkout to stand in, with every kind of source."""
    files = {"pyproject.toml": "", "LICENSE": "free", "README.md": README,
             "docs/glossary.md": "# Glossary\n\n## A latent\n\nA unit; see [the start](../README.md).\n\n- [ ] read\n",
             "docs/instructors/half_day.md": "# Half a day\n\nUse [it](../../notebooks/01_next.ipynb#more).\n"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    Image.new("RGB", (4, 3), "blue").save(tmp_path / "docs" / "bar.png")
    (tmp_path / "notebooks").mkdir()
    first = [V4.new_markdown_cell("# 00 · Start\n\n## Part\n\n## Part\n\nTo the [next](01_next.ipynb)."),
             code("plot()", figure("A red one")), code("recall(answer=1)", jupyter={"source_hidden": True})]
    second = [V4.new_markdown_cell("# 01 · Next\n\n## More"), code("print(1)", V4.new_output("stream", text="1 < 2\n"))]
    for name, cells in (("00_start", first), ("01_next", second)):
        nbformat.write(V4.new_notebook(cells=cells), tmp_path / "notebooks" / f"{name}.ipynb")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(checkout) -> dict[str, BeautifulSoup]:
    front = site.make(checkout / "build")
    return {path.name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
            for path in front.parent.glob("*.html")}


ORDER = ["index.html", "00_start.html", "01_next.html", "glossary.html", "instructors_half_day.html"]


def test_every_source_is_a_page_and_pages_follow_one_another(checkout):
    pages = made(checkout)
    assert set(pages) == set(ORDER)
    for before, name, after in zip([None, *ORDER], ORDER, [*ORDER[1:], None], strict=False):
        page = pages[name]
        listed = [a["href"] for a in page.select("#contents a") if not a["href"].startswith("#")]
        assert listed == ORDER and [a["href"] for a in page.select("#contents a[aria-current=page]")] == [name]
        turns = {a["rel"][0]: a["href"] for a in page.select(".turn a")}
        assert turns == {rel: to for rel, to in (("prev", before), ("next", after)) if to}
        assert page.html["lang"] == "en" and page.title.text.endswith("Under the Hood") and len(page.select("h1")) == 1


def test_every_link_leads_to_a_page_and_to_a_place_on_it(checkout):
    pages = made(checkout)
    for name, page in pages.items():
        for link in page.find_all("a", href=True):
            to = urlsplit(link["href"])
            if not to.scheme:
                target = pages[to.path or name]
                assert not to.fragment or target.find(id=to.fragment), link
    front = pages["index.html"].main
    assert {"00_start.html", "glossary.html#a-latent", "https://example.org/paper"} == \
        {a["href"] for a in front.select("p > a[href]") if a["href"] != "#contents"}
    assert "licence" in front.text  # a file that is no page is named and not linked
    assert pages["00_start.html"].find(id="part") and pages["00_start.html"].find(id="part-1")


def test_pages_load_nothing_but_what_lies_beside_them(checkout):
    pages = made(checkout)
    for page in pages.values():
        loaded = [tag.get("src") or tag.get("href") for tag in page.select("[src], link[href]")]
        assert all(a.startswith("data:image/") or (checkout / "build" / "site" / a).is_file() for a in loaded)
        assert page.find("script") is None
    style = (checkout / "build" / "site" / "site.css").read_text()
    assert not re.search(r"url\(|@import|https?:", style)


def test_a_page_shows_sources_outputs_and_figures_with_their_words(checkout):
    pages = made(checkout)
    first = pages["00_start.html"].main
    assert first.find("img")["alt"] == "A red one"
    assert "plot()" in first.text and "recall(answer=1)" not in first.text  # folded in the notebook, left out here
    assert "1 < 2" in pages["01_next.html"].main.text
    assert "☐" in pages["glossary.html"].main.text and not pages["glossary.html"].find("input")
    assert pages["index.html"].select_one("div.scroll[tabindex] > table")


def test_the_report_is_linked_if_there_was_a_run(checkout):
    assert not any(page.select("a[href='report.html']") for page in made(checkout).values())
    (checkout / "build" / "run.json").write_text(json.dumps({"notebooks": [outcome("00_start")]}))
    pages = made(checkout)
    assert all(pages[name].select("#contents a[href='report.html']") for name in ORDER)
    assert "1 of 1 notebooks" in pages["report.html"].text


@pytest.mark.parametrize("cell", [
    V4.new_code_cell("never_run()"),
    code("1 / 0", V4.new_output("error", ename="ZeroDivisionError", evalue="division by zero", traceback=[])),
])
def test_a_notebook_that_did_not_run_to_its_end_is_named(checkout, cell):
    pages = made(checkout)
    nbformat.write(V4.new_notebook(cells=[cell]), checkout / "notebooks" / "02_new.ipynb")
    with pytest.raises(CourseError, match="02_new.ipynb was not executed to its end"):
        site.make(checkout / "build")
    assert len(pages) == len(list((checkout / "build" / "site").glob("*.html")))  # the last whole site stays


def test_a_picture_that_is_missing_is_named(checkout):
    (checkout / "docs" / "bar.png").unlink()
    with pytest.raises(CourseError, match=r"README.md shows 'docs/bar.png', which is not there"):
        site.make(checkout / "build")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_has_a_formula(path):
    """The site has no renderer for them; the first formula is the day to add one that needs no network."""
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert not re.search(r"(?<!\\)\$[^$\n`]+\$|\\\(|\\\[|\\begin\{", re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S))
