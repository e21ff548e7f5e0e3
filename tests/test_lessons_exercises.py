"""The proof, for every exercise: right answers pass, each known mistake is named, and broken answers are noticed."""

import ast
import json
from pathlib import Path

import nbformat
import pytest
from proof import complaints

from course_utils import cli
from course_utils.exercises import everything, lessons, notebooks
from course_utils.exercises.mutants import score
from course_utils.exercises.source import stubs

ROOT = Path(__file__).parents[1]
EXERCISES = everything()
NOTEBOOKS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
# Exercises that the syllabus asks for.
LEAST = {"00": 2, "01": 6, "02": 7, "03": 8, "04": 7, "05": 6, "06": 6, "07": 6, "08": 7, "09": 8}


def cells(number):
    return nbformat.read(NOTEBOOKS[number], as_version=4).cells


@pytest.mark.parametrize("ex", EXERCISES, ids=lambda ex: ex.id)
def test_an_exercise_is_fit_for_students(ex):
    assert complaints(ex) == []


@pytest.mark.parametrize("number", lessons.LESSONS)
def test_a_notebook_asks_for_the_exercises_that_there_are(number):
    book = nbformat.read(NOTEBOOKS[number], as_version=4)
    assert notebooks.ids(book) == [ex.id for ex in everything(number)]
    assert len(notebooks.ids(book)) >= LEAST[number]


@pytest.mark.parametrize("number", lessons.LESSONS)
def test_a_notebooks_headings_hints_and_stubs_are_the_engines(number):
    book = nbformat.read(NOTEBOOKS[number], as_version=4)
    before = nbformat.writes(book)
    assert nbformat.writes(notebooks.sync(book)) == before, f"run: course exercises --sync --notebook {number}"
    for cell in book.cells:
        for _, stub in stubs(cell.source) if cell.cell_type == "code" else []:
            assert ast.get_docstring(stub) and [ast.unparse(node) for node in stub.body[1:]] == ["..."]


@pytest.mark.parametrize("number", lessons.LESSONS)
def test_a_notebook_predicts_and_recalls(number):
    code = [cell.source for cell in cells(number) if cell.cell_type == "code"]
    asked, shown, recalled = ("\n".join(code).count(word) for word in ("predict(\"", ".reveal(", "recall(\""))
    assert asked == shown >= 1 and recalled == 3


@pytest.mark.slow
def test_nine_in_ten_broken_answers_are_noticed():
    scores = {ex.id: score(ex) for ex in EXERCISES}
    made, killed = sum(s.mutants for s in scores.values()), sum(s.killed for s in scores.values())
    survivors = [f"{id}: {change}" for id, found in scores.items() for change in found.survivors]
    assert killed >= 0.9 * made, survivors
    assert {id: f"{s.killed} of {s.mutants}" for id, s in scores.items() if s.killed < 0.75 * s.mutants} == {}


def test_course_exercises_lists_them_all(capsys):
    assert cli.main(["exercises", "--json", "--notebook", "00"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in told["exercises"]] == [ex.id for ex in everything("00")]
    assert set(told["exercises"][0]) == {"id", "notebook", "title", "stars", "minutes", "lines", "hints",
                                         "right_answers", "wrong_answers", "mutants", "killed"}
    assert told["totals"]["exercises"] == len(told["exercises"]) and told["totals"]["killed"] > 0
    assert cli.main(["exercises"]) == 0
    table = capsys.readouterr().out
    assert all(ex.id in table for ex in EXERCISES) and f"{len(EXERCISES)} exercises" in table


def test_the_solved_build_has_every_answer(tmp_path, capsys):
    assert cli.main(["solved", "--output", str(tmp_path)]) == 0
    said, written = capsys.readouterr().out, {path.name for path in tmp_path.glob("*.ipynb")}
    asking = {path.name for number, path in NOTEBOOKS.items() if "exercise(" in path.read_text()}
    assert written == asking and all(name in said for name in written)
    for path in tmp_path.glob("*.ipynb"):
        book = nbformat.read(path, as_version=4)
        for cell in book.cells:
            for id, node in stubs(cell.source) if cell.cell_type == "code" else []:
                assert len(node.body) > 1, id
