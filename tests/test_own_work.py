# ruff: noqa: F811  (file is a fixture of test_progress)
"""A student's own work: where was I, exercises emptied again, and the cell at the end of every notebook."""

from pathlib import Path

import nbformat
import pytest
from test_progress import count, file, known  # noqa: F401

from course_utils import cli
from course_utils.cli import doctor
from course_utils.cli import progress as own_work
from course_utils.exercises import everything, notebooks, progress
from course_utils.exercises.book import find

ROOT = Path(__file__).parents[1]


# --- where was I ----------------------------------------------------------------------------------------------------


def right(entry):
    entry.update(tries=1, right="now")


@pytest.mark.parametrize(("story", "notebook", "exercise", "next_"), [
    ([], None, None, "00.1"),
    ([("exercises", "02.3", count)], "02", "02.3", "02.3"),  # tried and not right: that one again
    ([("exercises", "02.3", right)], "02", "02.3", "02.4"),
    ([("exercises", "03.9", right)], "03", "03.9", "03.10"),  # numbers, not letters
    ([("exercises", "02.9", right)], "02", "02.9", "02.1"),  # the last of its notebook: what was skipped there
    ([("exercises", "02.3", count), ("predictions", "04.x", count)], "04", "02.3", "04.1"),
    ([("predictions", "04.x", count), ("exercises", "02.3", count), ("exercises", "01.1", right),
      ("exercises", "02.3", count)], "02", "02.3", "02.3"),  # touched again: the last counts, not the first
    ([("exercises", f"00.{i}", right) for i in (2, 1, 3)], "00", "00.3", "01.1"),  # all of it: the next notebook
])
def test_where_was_i(file, story, notebook, exercise, next_):
    for step in story:
        progress.change(*step)
    assert own_work.where(progress.read(), everything()) == (notebook, exercise, next_)


def test_when_all_is_done_nothing_is_next(file, capsys):
    for ex in everything():
        progress.change("exercises", ex.id, right)
    assert own_work.where(progress.read(), everything()).next is None
    assert cli.main(["progress"]) == 0
    assert "next to do: nothing, all exercises are right" in capsys.readouterr().out


def test_course_progress_says_where_and_how_long(file, capsys):
    progress.change("exercises", "04.2", right)
    progress.change("exercises", "04.3", count)
    assert cli.main(["progress"]) == 0
    said = capsys.readouterr().out
    left = sum(ex.minutes for ex in everything("04")) - find("04.2").minutes
    assert "last touched: notebook 04, 20" in said
    assert f"last exercise: 04.3 {find('04.3').title}, not right yet, 20" in said
    assert f"next to do: 04.3 {find('04.3').title}, ★★, {find('04.3').minutes} min" in said
    assert f"left in notebook 04: {left} min" in said


# --- course reset ---------------------------------------------------------------------------------------------------

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_solved_exercise_gets_its_stub_back_and_no_other_cell_changes(path):
    """The oracle is the committed notebook, in which every exercise is empty."""
    before, book = (nbformat.read(path, as_version=4) for _ in range(2))
    solved = {cell.id: cell.source for cell in notebooks.solve(nbformat.read(path, as_version=4)).cells}
    for cell in book.cells:
        if "exercise" in cell.metadata.get("tags", []):
            cell.source = solved[cell.id]
    ids = notebooks.ids(before)
    assert ids and all(notebooks.empty(book, id) for id in ids)
    assert not any(notebooks.empty(book, id) for id in ids)  # they are empty now
    for was, now in zip(before.cells, book.cells, strict=True):
        if "exercise" in was.metadata.get("tags", []):
            assert notebooks._parsed(now.source) == notebooks._parsed(was.source)
            assert now.outputs == [] and now.execution_count is None
        else:
            assert now == was


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Stand in a checkout with a copy of notebook 04, as a student has it."""
    (tmp_path / "house" / "notebooks").mkdir(parents=True)
    (tmp_path / "house" / "pyproject.toml").touch()
    (source,) = (ROOT / "notebooks").glob("04_*.ipynb")
    copy = tmp_path / "house" / "notebooks" / source.name
    copy.write_bytes(source.read_bytes())
    monkeypatch.chdir(tmp_path / "house")
    return copy


def answer(path, id, source):
    """Write into an exercise's cell, as a student does."""
    book = nbformat.read(path, as_version=4)
    (cell,) = [cell for cell in book.cells if cell.cell_type == "code" and f'@exercise("{id}")' in cell.source]
    cell.source = source
    nbformat.write(book, path)
    return path.read_text()


def changed(before, path):
    pairs = zip(nbformat.reads(before, 4).cells, nbformat.read(path, 4).cells, strict=True)
    return [new.source for old, new in pairs if old != new]


@pytest.mark.parametrize("mess", [
    '@exercise("04.3")\ndef explained_variance(x, x_hat):\n    return 1',
    '@exercise("04.3")\ndef explained_variance(x, x_hat:\n  retrun',  # no Python any more
    '@exercise("04.3")\ndef ev(a):\n    return a\n\nprint(ev(2))',  # renamed, and more in the cell
    "def explained_variance(x, x_hat): return 0",  # the mark is gone; the hints below say what it was
])
def test_reset_empties_one_cell_keeps_a_copy_and_forgets(own, file, capsys, mess):
    empty = next(cell.source for cell in nbformat.read(own, 4).cells if '@exercise("04.3")' in cell.source)
    before = answer(own, "04.3", mess)
    progress.change("exercises", "04.3", right), progress.change("exercises", "04.2", right)
    assert cli.main(["reset", "04.3"]) == 0
    (new,) = changed(before, own)
    assert notebooks._parsed(new) == notebooks._parsed(empty)
    assert known() == {"exercises": {"04.2": {"tries": 1, "right": "now"}}}
    (kept,) = (file.parent / "progress-backups").glob("04_*.ipynb")
    assert kept.read_text() == before
    said = capsys.readouterr().out
    assert "04.3 is empty and forgotten" in said and str(kept) in said and "Reload it from disk" in said


def test_reset_of_a_whole_notebook_and_of_a_file_elsewhere(own, file, tmp_path, capsys):
    before = answer(own, "04.3", '@exercise("04.3")\ndef explained_variance(x, x_hat):\n    return 1')
    elsewhere = tmp_path / "mine.ipynb"
    elsewhere.write_text(before)
    for ex in everything("04"):
        progress.change("exercises", ex.id, right)
    assert cli.main(["reset", "--notebook", "4"]) == 0
    assert len(changed(before, own)) == 1 and known() == {"exercises": {}} and elsewhere.read_text() == before
    assert cli.main(["reset", "04.3", "--file", str(elsewhere)]) == 0
    assert changed(before, elsewhere) == changed(before, own)
    capsys.readouterr()
    assert cli.main(["reset", "04.3"]) == 0  # nothing to do: no copy, no change
    assert "What was there" not in capsys.readouterr().out
    assert len(list((file.parent / "progress-backups").iterdir())) == 2


@pytest.mark.parametrize(("given", "told"), [
    ([], "name what to reset"), (["04.99"], "exercise='04.99' is not known"),
    (["--notebook", "77"], "notebook='77' is not known"), (["04.3", "--file", "none.ipynb"], "is not a file"),
    (["05.1", "--file", "notebooks"], "is not a file"), (["05.1"], "notebook='05' is not known")])
def test_what_cannot_be_reset_is_told_and_nothing_changes(own, file, capsys, given, told):
    before = own.read_text()
    assert cli.main(["reset", *given]) == 2
    assert told in capsys.readouterr().err and own.read_text() == before and not file.parent.exists()


def test_an_exercise_of_another_notebook_is_refused(own, file, capsys):
    assert cli.main(["reset", "05.1", "--file", str(own)]) == 2
    assert "exercise='05.1' is not in this notebook" in capsys.readouterr().err


# --- the cell at the end --------------------------------------------------------------------------------------------


def test_sync_puts_one_footer_at_the_end_and_is_then_content(own, file):
    assert cli.main(["exercises", "--sync", "--notebook", "04"]) == 0
    cells = nbformat.read(own, 4).cells
    assert [cell.source for cell in cells if "footer" in cell.metadata.get("tags", [])] == [doctor.box()]
    assert cells[-1].source == doctor.box() and len(doctor.box().split()) <= 60
    once = own.read_text()
    assert cli.main(["exercises", "--sync", "--notebook", "04"]) == 0 and own.read_text() == once


def test_a_generated_cell_takes_the_place_of_the_older_one_and_keeps_its_outputs():
    first, last = nbformat.v4.new_markdown_cell("# A"), nbformat.v4.new_markdown_cell("Z")
    book = nbformat.v4.new_notebook(cells=[first, last])
    notebooks.put(book, "setup", "1 + 1", 1, kind="code")
    book.cells[1].outputs = [nbformat.v4.new_output("stream", text="2")]
    notebooks.put(book, "setup", "1 + 1", 1, kind="code")
    assert [cell.source for cell in book.cells] == ["# A", "1 + 1", "Z"] and book.cells[1].outputs
    notebooks.put(book, "setup", "1 + 2", 1, kind="code")
    assert [cell.source for cell in book.cells] == ["# A", "1 + 2", "Z"] and not book.cells[1].outputs
    nbformat.validate(book)
