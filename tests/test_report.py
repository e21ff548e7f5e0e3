"""The report: self-contained, escaped, whole whatever the run left behind."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import nbformat
import pytest
from PIL import Image

from course_utils.cli import report
from course_utils.evidence import Ledger, claim

V4 = nbformat.v4
VOID = {"meta", "img", "br", "line", "circle"}


class Page(HTMLParser):
    """Parse a page: every tag with its attributes, the text, and whether what opens also closes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def picture(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def row(**changes):
    null = {"value": 0.02, "low": -0.01, "high": 0.05, "n": 999, "p": 0.001}
    return {"id": "C26", "model": "organism", "notebook": "04", "statistic": "dead fraction", "value": 0.31,
            "low": 0.25, "high": 0.37, "n": 120, "nulls": {"shuffled": null}, "verdict": "holds",
            "seconds": 12.5} | changes


def book(build, name, *cells):
    (build / "notebooks").mkdir(exist_ok=True)
    nbformat.write(V4.new_notebook(cells=list(cells)), build / "notebooks" / f"{name}.ipynb")


def cell(colour, **metadata):
    output = V4.new_output("display_data", data={"image/png": picture(colour)})
    return V4.new_code_cell("plot()", outputs=[output], metadata=metadata)


def outcome(name, **changes):
    return {"notebook": name, "title": "Training an SAE", "status": "passed", "seconds": 61.25,
            "peak_mb": 812.4, "cells": 30, "failure": None} | changes


def make(build, rows=(), outcomes=(), **about) -> tuple[str, Page]:
    for one in rows:
        Ledger(build / "ledger.json").record(one)
    if outcomes:
        (build / "run.json").write_text(json.dumps(about | {"notebooks": list(outcomes)}))
    html = report.make(build).read_text(encoding="utf-8")
    return html, Page(html)


def test_an_empty_folder_still_makes_a_page(tmp_path):
    _, page = make(tmp_path)
    assert "No claim has been tried yet" in page.text and "No notebook has been run yet" in page.text


def test_the_page_needs_nothing_else_and_says_its_language(tmp_path):
    book(tmp_path, "04_sae", cell("red"))
    html, page = make(tmp_path, [row()], [outcome("04_sae")], model="organism", date="2026-01-01")
    addresses = [a[key] for _, a in page.tags for key in ("src", "href", "srcset", "data") if key in a]
    assert addresses and all(a.startswith("data:image/") for a in addresses)
    assert not re.search(r"url\(|@import|https?:", html)
    assert page.all("html") == [{"lang": "en"}]
    assert all(img["alt"] for img in page.all("img")) and all(svg["aria-label"] for svg in page.all("svg"))
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))


def test_a_verdict_is_shown_with_its_claim_value_interval_and_nulls(tmp_path):
    _, page = make(tmp_path, [row(), row(id="C25", value=None, low=None, high=None, nulls={},
                                         verdict="not testable here", reason="one layer only")])
    for text in (claim("C26").text, claim("C25").text, "0.31 [0.25, 0.37]", "shuffled 0.02 (p = 0.001)",
                 "dead fraction", "one layer only", "2 verdicts on 2 claims", "1holds", "1not testable here"):
        assert text in page.text
    assert len(page.all("svg")) == 1  # nothing to draw where nothing was measured


def test_a_row_about_a_claim_of_somebodys_own_is_shown_too(tmp_path):
    _, page = make(tmp_path, [row(id="X1")])
    assert "X1" in page.text and "0.31 [0.25, 0.37]" in page.text


def test_everything_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>"
    failure = {"cell": 3, "line": evil, "error": f"NameError: {evil}"}
    rows = [row(statistic=evil, verdict=evil, model=evil, nulls={evil: 0.5}, reason=evil)]
    book(tmp_path, "04_sae", cell("red", alt=f'"{evil}'))
    bad = outcome("04_sae", title=evil, status="failed", failure=failure)
    _, page = make(tmp_path, rows, [bad], text=evil)
    assert len(page.all("script")) == 1 and page.text.count(evil) >= 7
    assert page.all("img")[0]["alt"] == f'"{evil}'


def test_a_failed_notebook_is_named_with_its_cell(tmp_path):
    failure = {"cell": 7, "line": "sae = train()", "error": "CourseError: k=5000 is too large"}
    bad = outcome("04_sae", status="failed", peak_mb=None, failure=failure)
    _, page = make(tmp_path, outcomes=[outcome("03_toy"), bad])
    assert "1 of 2 notebooks ran to their end (not: 04_sae)" in page.text
    assert "Stopped in code cell [7]" in page.text and "CourseError: k=5000 is too large" in page.text


@pytest.mark.parametrize(("marked", "shown", "alt"), [
    ({}, "red", "Figure of notebook 04_sae, cell [2], described there"),
    ({"tags": ["headline"], "alt": "A blue one"}, "blue", "A blue one"),
])
def test_the_headline_figures_are_the_marked_ones_else_the_first(tmp_path, marked, shown, alt):
    book(tmp_path, "04_sae", V4.new_markdown_cell("# T"), cell("red"), cell("blue", **marked), cell("green"))
    _, page = make(tmp_path, outcomes=[outcome("04_sae")])
    (image,) = page.all("img")
    assert image["src"] == f"data:image/png;base64,{picture(shown)}" and image["alt"] == alt


def test_the_bar_keeps_the_order_of_its_marks_and_stays_inside():
    place = report.bar(row(value=-3.0, low=-5.0, high=-1.0, nulls={"shuffled": 0.5, "odd": None}))
    assert place["low"] < place["value"] < place["high"] < place["zero"] < place["nulls"][0][0]
    assert len(place["nulls"]) == 1
    assert 0 < place["low"] and place["nulls"][0][0] < 160
    assert report.bar(row(value=400.0, low=399.0, high=401.0, nulls={}))["zero"] is None
    assert report.bar(row(value=0.0, low=None, high=None, nulls={}))["value"] > 0
