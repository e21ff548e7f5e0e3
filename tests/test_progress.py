"""Progress: one small file that survives kills, crowds and damage, and that no headless run touches."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from course_utils import cli, paths
from course_utils.cli import runner
from course_utils.errors import CourseError
from course_utils.evidence import Estimate
from course_utils.exercises import everything, predict, progress, recall

ROOT = Path(__file__).parents[1]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Keep progress in a file of this test's own."""
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "kept" / "progress.json"))
    monkeypatch.setattr(progress, "_memory", {})
    monkeypatch.setattr(progress, "_warned", set())
    return tmp_path / "kept" / "progress.json"


def count(entry):
    entry["tries"] = entry.get("tries", 0) + 1


def known():
    """Return what is kept, without the times of touching."""
    return {section: entries for section, entries in progress.read().items() if section != "touched"}


def child(file, code):
    """Run code that has `progress` and `count`, in a process of its own."""
    head = "import os\nfrom course_utils.exercises import progress\n" \
           "def count(entry): entry['tries'] = entry.get('tries', 0) + 1\n"
    return subprocess.Popen([sys.executable, "-c", head + code], env=os.environ | {"COURSE_PROGRESS": str(file)},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_is_written_is_read_and_only_one_file_stays(file):
    assert progress.read() == {}
    assert progress.change("exercises", "00.1", count) == {"tries": 1}
    progress.change("exercises", "00.1", count)
    progress.change("recall", "00.a", lambda entry: entry.update(chosen=1))
    assert known() == {"exercises": {"00.1": {"tries": 2}}, "recall": {"00.a": {"chosen": 1}}}
    assert {path.name for path in file.parent.iterdir()} - {"progress.json.lock"} == {"progress.json"}


@pytest.mark.parametrize("where", ["os.replace = lambda *_: os.kill(os.getpid(), 9)",
                                   "os.fsync = lambda *_: os.kill(os.getpid(), 9)"])
def test_a_kill_in_the_middle_of_writing_loses_nothing(file, where):
    progress.change("exercises", "00.1", count)
    killed = child(file, f"{where}\nprogress.change('exercises', '00.1', count)")
    assert killed.wait(60) == -signal.SIGKILL, killed.stderr.read()
    assert len(list(file.parent.glob(".*part"))) == 1  # it did die between draft and file
    assert known() == {"exercises": {"00.1": {"tries": 1}}}
    progress.change("exercises", "00.1", count)  # and no lock is left
    assert known() == {"exercises": {"00.1": {"tries": 2}}} and not list(file.parent.glob(".*part"))


def test_two_notebooks_at_once_lose_no_entry(file):
    busy = "for _ in range(40): progress.change('exercises', '00.1', count)"
    both = [child(file, busy) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0], [one.stderr.read() for one in both]
    assert known() == {"exercises": {"00.1": {"tries": 80}}}


@pytest.mark.parametrize("text", ['{"exercises": {"00.1"', "[]", '{"exercises": 3}', '{"recall": {"00.a": 1}}', "\0"])
def test_a_damaged_file_is_set_aside(file, text, capsys):
    file.parent.mkdir()
    file.write_text(text)
    assert progress.change("exercises", "00.1", count) == {"tries": 1}
    said = capsys.readouterr().err
    (aside,) = file.parent.glob("progress.damaged-*.json")
    assert aside.read_text() == text and aside.name in said and said.count("\n") == 1
    assert known() == {"exercises": {"00.1": {"tries": 1}}}


def test_a_place_that_cannot_be_written_is_one_line_and_the_lesson_goes_on(tmp_path, file, monkeypatch, capsys):
    (tmp_path / "a file").touch()
    for place in (tmp_path / "a file" / "progress.json", tmp_path):  # below a file; a folder
        monkeypatch.setenv("COURSE_PROGRESS", str(place))
        progress.change("exercises", "00.1", count), progress.change("exercises", "00.1", count)
        said = capsys.readouterr().err
        assert said.startswith("Progress is not kept: ") and said.count("\n") == 1
    assert known() == {"exercises": {"00.1": {"tries": 4}}} and tmp_path.is_dir()


def test_the_file_lies_in_the_checkout_or_at_home(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_PROGRESS")
    assert progress.place() == ROOT / "progress.json"
    ignored = subprocess.run(["git", "check-ignore", "progress.json", "progress.damaged-1.json", "progress.json.lock"],
                             cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert len(ignored) == 3
    monkeypatch.setattr(paths, "DATA", tmp_path / "site-packages" / "course_utils" / "data")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert progress.place() == tmp_path / ".under_the_hood" / "progress.json"


def test_headless_runs_keep_nothing_and_know_nothing(file, tmp_path):
    progress.change("predictions", "00.x", lambda entry: entry.update(guess=3))
    before = file.read_text()
    code = "from course_utils.exercises import predict, hint\nhint('00.1')\n" \
           "g = predict('00.x', 'How many?', 0, 20, mine=5)\ng.reveal(4)"
    path = tmp_path / "00_x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    (outcome,) = runner.execute([path], runner.Settings(tmp_path / "build"))
    assert outcome.failure is None and file.read_text() == before
    written = (tmp_path / "build" / "notebooks" / "00_x.ipynb").read_text()
    assert "You predicted 5" in written and "widget-view" not in written


def test_nor_do_notebooks_that_pytest_executes():
    code = "import os; assert os.environ['COURSE_PROGRESS'] == 'off'"
    path = ROOT / "build" / f"progress-{os.getpid()}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    env = {name: value for name, value in os.environ.items() if name != "COURSE_PROGRESS"}
    try:
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "--nbmake", str(path)], cwd=ROOT, env=env,
                              capture_output=True, text=True)
    finally:
        path.unlink()
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


# --- predictions and recall -----------------------------------------------------------------------------------------


def test_a_prediction_is_committed_shown_beside_the_measurement_and_then_locked(file, capsys):
    guess = predict("00.x", "How many?", 0, 20, unit="features", mine=12)
    assert guess.committed == 12 and repr(guess) == "Guess('00.x': 12 features)"
    guess.commit(13)  # not yet revealed
    capsys.readouterr()
    predict("00.x", "How many?", 0, 20).reveal(Estimate(14.0, 13.5, 14.5, 9))
    assert "You predicted 13. Measured: 14.0 [13.5, 14.5]. That is outside of the interval.\n" in \
        capsys.readouterr().out
    assert guess.commit(14) == "Your prediction was revealed already, so it stays: 13 features."
    assert progress.read()["predictions"]["00.x"] | {"when": ""} == \
        {"guess": 13, "when": "", "revealed": True, "measured": 14.0}


@pytest.mark.parametrize(("over", "mine", "measured", "said"), [
    ((0, 20), None, 7, "No prediction was committed. Measured: 7."),
    ((0, 20), 5, 7.5, "You predicted 5. Measured: 7.5. You were off by 2.5."),
    ((0.0, 1.0), 0.25, Estimate(0.3, 0.2, 0.4, 9), "That is inside the interval."),
    ((["shorter", "longer"],), "longer", "longer", "You predicted longer. Measured: longer. You were right."),
    ((["shorter", "longer"],), "longer", "shorter", "Measured: shorter. They differ."),
    ((["shorter", "longer"],), None, "shorter", "No prediction was committed. Measured: shorter."),
])
def test_reveal_says_how_it_went(file, capsys, over, mine, measured, said):
    predict("00.x", "What?", *over, mine=mine).reveal(measured)
    assert said in capsys.readouterr().out


def test_a_prediction_that_comes_late_is_told_so(file):
    guess = predict("00.x", "How many?", 0, 20)
    assert guess.commit(3) == "Committed: 3, before the measurement. Run the cell that reveals it."
    late = predict("00.y", "How many?", 0, 20)
    late.reveal(7)
    assert late.commit(7).startswith("Committed: 7, though the measurement had been shown before.")


def test_what_is_no_prediction_is_refused(file):
    with pytest.raises(CourseError, match="mine=21 must be a number from 0 to 20"):
        predict("00.x", "How many?", 0, 20, mine=21)
    with pytest.raises(CourseError, match="mine='long' is not known; nearest: 'longer'"):
        predict("00.x", "Which?", ["shorter", "longer"], mine="long")
    other = "This is prediction 00.x: if the cell reveals another one, first run the cell that asks for it"
    for given in ("long", 87.5):
        with pytest.raises(CourseError, match=f"measured={given!r} is not known; .* {other}"):
            predict("00.x", "Which?", ["shorter", "longer"]).reveal(given)
    for given in ("longer", None):
        with pytest.raises(CourseError, match=f"measured={given!r} must be a number. {other}"):
            predict("00.x", "How many?", 0, 20).reveal(given)
    with pytest.raises(CourseError, match="give a range"):
        predict("00.x", "How many?", 5)
    with pytest.raises(CourseError, match="key='x' must be notebook.name"):
        predict("x", "How many?", 0, 5)
    predict("00.x", "How many?", 0, 20, mine=12)
    assert predict("00.x", "How many, now of 10?", 0, 10).committed is None  # the question has changed


def test_a_recall_question_is_answered_in_plain_python(file, capsys):
    ask = {"question": "Why?", "answers": ["this", "that", "those"], "right": 1, "why": "Because."}
    recall("00.a", **ask)
    assert capsys.readouterr().out == "Recall. Why?\n  0 · this\n  1 · that\n  2 · those\n"
    recall("00.a", **ask, mine=0)
    assert "✗ Not that one: this." in capsys.readouterr().out
    recall("00.a", **ask, mine=1)
    assert "✓ Right. Because." in capsys.readouterr().out
    assert progress.read()["recall"]["00.a"]["right"] is True
    with pytest.raises(CourseError, match="mine=3 must be the number of an answer, from 0 to 2"):
        recall("00.a", **ask, mine=3)
    with pytest.raises(CourseError, match="right=3 must be the place"):
        recall("00.a", **ask | {"right": 3})


# --- course progress ------------------------------------------------------------------------------------------------


def test_course_progress_counts_by_notebook(file, capsys):
    first, second = everything("00")[:2]
    progress.change("exercises", first.id, lambda entry: entry.update(tries=2, right="now", hints=5))
    progress.change("exercises", second.id, lambda entry: entry.update(tries=1))
    progress.change("predictions", "00.x", lambda entry: entry.update(guess=1))
    assert cli.main(["progress"]) == 0
    lines = capsys.readouterr().out.splitlines()
    all_ = everything("00")
    left = sum(ex.minutes for ex in all_) - first.minutes
    stars = f"{first.stars} of {sum(ex.stars for ex in all_)}"
    assert lines[1].split() == ["00", "start", "here", "1", "1", str(len(all_) - 2), *stars.split(), "2", "1",
                                str(left)]
    assert lines[-1] == f"kept in {file}" and any(line.startswith("together") for line in lines)


def test_reset_asks_first(file, capsys, monkeypatch):
    progress.change("exercises", "00.1", count)
    for answer, code in (("no", 1), ("", 1), ("yes", 0)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert cli.main(["progress", "--reset"]) == code
        assert bool(progress.read()) == (code == 1)
    progress.change("exercises", "00.1", count)
    assert cli.main(["progress", "--reset", "--yes"]) == 0 and progress.read() == {}
