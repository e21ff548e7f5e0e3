"""The pages for instructors and the glossary: what is generated is up to date, and every number and link is true."""

import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import yaml

from course_utils.cli import agendas, doctor, glossary, instructors, runner
from course_utils.errors import CourseError
from course_utils.evidence import claims
from course_utils.exercises import everything, find, notebooks

pytestmark = pytest.mark.repository

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def test_the_committed_pages_are_what_the_command_writes():
    """After a change of exercises, notebooks, claims or the doctor: ``course instructors``."""
    stale = [name for name, text in instructors.pages().items() if (ROOT / name).read_text(encoding="utf-8") != text]
    assert stale == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_of_the_pages_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|mailto:)([^)\s]*)\)", page.read_text(encoding="utf-8"))
    broken = []
    for file, _, part in (link.partition("#") for link in links):
        target = page.parent / file if file else page
        if not target.exists():
            broken.append(file)
        elif part and part not in anchors(target):
            broken.append(f"{file}#{part}")
    assert broken == []


def anchors(path: Path) -> set[str]:
    """Return a page's or notebook's anchors: GitHub's for a page, those that nbconvert writes for a notebook."""
    if path.suffix == ".md":
        heads = re.findall(r"^#+ +(.*)$", path.read_text(encoding="utf-8"), re.M)
        return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
    from nbconvert.filters import markdown2html

    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    return {unquote(id) for cell in cells for id in re.findall(r'<h\d id="([^"]+)"', markdown2html(cell.source))}


# --- agendas --------------------------------------------------------------------------------------------------------


def test_a_section_counts_its_words_pictures_and_exercises():
    cells = [nbformat.v4.new_markdown_cell("# T\nfive words stand in here"),
             nbformat.v4.new_markdown_cell("## 3 · Part\n" + "word " * 260 + "\n## Recall\n"),
             nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("display_data", {"text/html": "x"})]),
             nbformat.v4.new_code_cell('@exercise("00.1")\ndef share_lit(activity, threshold):\n    ...'),
             nbformat.v4.new_markdown_cell("many hints " * 500, metadata={"tags": ["hints"]})]
    first, part, recall = agendas.sections(nbformat.v4.new_notebook(cells=cells))
    assert (first.heading, first.number, first.words, first.reading) == ("Opening", 0, 7, 1)
    assert (part.number, part.words, part.reading, part.exercises) == (3, 260, 2, ())
    assert (recall.number, recall.shown, recall.reading, recall.exercises) == (0, 1, 1, ("00.1",))


def test_every_exercise_and_every_word_is_in_one_section():
    for lesson in agendas.lessons().values():
        notebook = nbformat.read(lesson.path, as_version=4)
        assert [id for section in lesson.sections for id in section.exercises] == notebooks.ids(notebook)
        texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"
                 and not {"hints", "footer"} & set(cell.metadata.get("tags", []))]
        heads = sum(len(re.findall(r"^## .*$", text, re.M)) for text in texts)
        assert heads == len(lesson.sections) - 1
        said = sum(len(re.sub(r"^## .*$", "", text, flags=re.M).split()) for text in texts)
        assert said == sum(section.words for section in lesson.sections)


def test_an_agenda_is_within_its_slots_and_adds_up():
    text = (DOCS / "instructors" / "agendas.md").read_text(encoding="utf-8")
    slots = re.findall(r"^### [^\n]* · (\d+) min\n\n(.*?)(?=\n\n|\Z)", text, re.M | re.S)
    assert len(slots) > 10
    for minutes, table in slots:
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        clock = 0
        for start, _, reading, exercises, took in rows:
            assert start == f"{clock // 60}:{clock % 60:02}"
            named = re.findall(r"\d\d\.\d+", exercises)
            assert not reading or int(took) == int(reading) + sum(find(id).minutes for id in named)
            clock += int(took)
        assert clock == int(minutes) and int(rows[-1][-1]) >= 0


def test_in_the_term_every_exercise_has_its_place_once():
    *_, term = yaml.safe_load((DOCS / "instructors" / "agendas.yaml").read_text(encoding="utf-8"))
    known = agendas.lessons()
    placed = [id for slot in term["slots"] for part in slot.get("parts", []) if part["notebook"] in known
              for row in agendas.rows(part, known[part["notebook"]]) for id in row.exercises]
    placed += [id for slot in term["slots"] for part in slot.get("parts", []) for id in part.get("home", [])
               if part["notebook"] in known]
    assert sorted(placed) == sorted(ex.id for ex in everything() if ex.notebook in known)


@pytest.mark.parametrize(("part", "told"), [
    ({"notebook": "04", "exercises": ["04.77"]}, r"exercises=\['04.77'\] of an agenda: 04_"),
    ({"notebook": "04", "sections": [77]}, r"sections=\[77\] of an agenda: 04_")])
def test_an_agenda_that_asks_for_what_is_not_there_is_refused(part, told):
    with pytest.raises(CourseError, match=told):
        list(agendas.rows(part, agendas.lessons()["04"]))


def test_a_slot_that_is_too_short_is_refused(tmp_path):
    slot = {"title": "Short", "minutes": 10, "rest": "none", "parts": [{"notebook": "04"}]}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump([{"title": "A", "about": "x", "slots": [slot]}]))
    with pytest.raises(CourseError, match="'Short' takes .* minutes; its slot has 10"):
        agendas.page(tmp_path / "a.yaml")


# --- wrong answers, discussion, failures -----------------------------------------------------------------------------


def test_every_known_mistake_stands_under_its_exercise():
    parts = re.split(r"^## (\d\d\.\d+) .*$", instructors.wrong_answers(), flags=re.M)
    shown = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(shown) == [ex.id for ex in everything()]
    for ex in everything():
        rows = [line for line in shown[ex.id].splitlines() if line.startswith("| ")][2:]
        assert len(rows) == len(ex.wrongs)
        for row, wrong in zip(rows, ex.wrongs, strict=True):
            name, text = re.split(r"(?<!\\)\|", row.strip("| "))
            assert name.strip() == wrong.name.replace("|", "\\|")
            assert text.split() == wrong.text.replace("|", "\\|").split()


def test_every_claim_has_a_key_and_cites_only_what_the_course_cites():
    sides = instructors.arguments()
    assert set(sides) == set(claims())
    known = (ROOT / "data" / "claims.yaml").read_text(encoding="utf-8") + "".join(
        path.read_text(encoding="utf-8") for path in runner.find())
    for id, texts in sides.items():
        cited = re.findall(r"\b\d{4}\.\d{5}\b", " ".join(texts.values()))
        assert [number for number in cited if number not in known] == [], id
        assert texts["ask"].strip().endswith("?"), id


def test_the_verdicts_are_those_of_the_notebooks():
    found = instructors.verdicts()
    for path in runner.find():
        text = path.read_text(encoding="utf-8")
        cards = re.findall(r'aria-label=\\"Claim card (C\d\d): ([^\\]+)\\"', text)
        mine = [(id, re.match(r"\*\*(.+?)\*\*", line)[1]) for id, lines in found.items() for line in lines
                if path.name in line]
        assert sorted(mine) == sorted(cards)


def test_every_check_of_the_doctor_has_its_symptom():
    _, packages = doctor.required()
    names = {"packages" if check.name in {package.name for package in packages} else check.name
             for check in doctor.examine()}
    assert names == set(doctor.REMEDIES)
    page = instructors.failures()
    for name, remedy in doctor.REMEDIES.items():
        assert f"| {remedy.symptom} | {name} | {remedy.fix} |" in page and name in doctor.box()


# --- glossary -------------------------------------------------------------------------------------------------------


def test_every_term_of_the_glossary_is_used_in_a_notebook():
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    entries = re.findall(r"^### ([^\n]*?)(?: <!--[^\n]*)?\n(.*?)(?=^###? |\Z)", text, re.M | re.S)
    assert len(entries) > 50 and len({term for term, _ in entries}) == len(entries)
    assert [term for term, said in entries if "First used in [" not in said] == []


def test_every_term_is_explained_in_two_or_three_sentences():
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    for term, said in re.findall(r"^### ([^\n]*)\n(.*?)\nFirst used", text, re.M | re.S):
        assert 2 <= len(re.findall(r"[.)*](?:\s|$)(?=[A-Z(]|\s*$)", said)) <= 3, term


def test_the_first_use_is_where_the_term_first_stands():
    text = "# G\n\n### logit lens\nOne. Two.\n\nFirst used in the wrong place.\n\n### qwertz\nOne. Two.\n"
    new = glossary.renewed(text)
    assert "First used in the wrong place" not in new and new.count("First used in") == 2
    assert "01_how_a_language_model_thinks.ipynb#10-·-The-logit-lens:-reading-before-the-end" in new
    assert new.endswith("First used in no notebook yet.\n") and glossary.renewed(new) == new
