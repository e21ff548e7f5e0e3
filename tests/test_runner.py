"""The runner: which notebooks, on which interpreter, stopped by what, recorded how."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from course_utils.cli import runner
from course_utils.errors import CourseError

V4 = nbformat.v4


def make(folder: Path, name: str, *cells: str, title: str = "# A title") -> Path:
    """Write a notebook with these code cells under one heading."""
    book = V4.new_notebook(cells=[V4.new_markdown_cell(title), *map(V4.new_code_cell, cells)])
    nbformat.write(book, folder / name)
    return folder / name


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Make a checkout with an empty notebooks/ and stand in it."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(house: Path, *notebooks: Path, **settings: object) -> list[runner.Outcome]:
    return runner.execute(list(notebooks), runner.Settings(house / "build", **settings))


def output(house: Path, name: str) -> str:
    book = nbformat.read(house / "build" / "notebooks" / name, as_version=4)
    return "".join(o.get("text", "") for cell in book.cells for o in cell.get("outputs", []))


def test_finds_by_number_or_name_in_order(house):
    for name in ("04_saes.ipynb", "00_start.ipynb", "notes.ipynb"):
        make(house / "notebooks", name)
    assert [p.stem for p in runner.find()] == ["00_start", "04_saes"]
    for wanted in ("4", "04", "04_saes.ipynb", "notebooks/04_saes.ipynb"):
        assert [p.stem for p in runner.find([wanted])] == ["04_saes"]


def test_unknown_number_lists_what_there_is(house):
    make(house / "notebooks", "04_saes.ipynb")
    with pytest.raises(CourseError, match="'7' is not known; there are: 04_saes"):
        runner.find(["7"])


def test_no_notebooks_is_a_sentence(house):
    with pytest.raises(CourseError, match="There is no notebook"):
        runner.find()


def test_a_kernel_gets_this_interpreter_its_folder_and_its_settings(house, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("JUPYTER_PATH", "/nowhere")
    text = str(house / "text.txt")
    path = make(house / "notebooks", "03_env.ipynb", (
        "import json, os, sys\nnames = ['COURSE_MODEL', 'COURSE_TEXT', 'COURSE_BUILD', 'COURSE_NOTEBOOK']\n"
        "print(json.dumps([sys.executable, os.getcwd(), *(os.environ[n] for n in names), "
        "os.environ['MPLBACKEND']]))"))
    (outcome,) = run(house, path, model="gpt2", text=text)
    said = json.loads(output(house, "03_env.ipynb"))
    assert said[:6] == [sys.executable, str(path.parent), "gpt2", text, str(house / "build"), "03"]
    assert "inline" in said[6]  # a backend from outside would have kept figures out of the notebook
    assert outcome.status == "passed" and outcome.title == "A title"


def test_peak_memory_is_the_kernels_own_and_sees_what_was_freed(house):
    path = make(house / "notebooks", "00_big.ipynb", "x = b'1' * 300 * 2**20; del x", "1")
    (outcome,) = run(house, path)
    assert 300 < outcome.peak_mb < 700


def test_a_failing_notebook_is_named_with_its_cell_and_the_next_still_runs(house):
    bad = make(house / "notebooks", "00_bad.ipynb", "x = 1", "\n# why\ny = x / 0\n", "print('never')")
    good = make(house / "notebooks", "01_good.ipynb", "print('reached')")
    broken = house / "notebooks" / "02_broken.ipynb"
    broken.write_text('{"cells": [')
    first, second, third = run(house, bad, good, broken)
    assert first.status == "failed"
    assert first.failure == (2, "# why", "ZeroDivisionError: division by zero")
    assert (second.status, output(house, "01_good.ipynb")) == ("passed", "reached\n")
    assert third.status == "failed" and "not a notebook" in third.failure.error


def test_outputs_of_an_earlier_run_never_pass_for_this_ones(house):
    path = make(house / "notebooks", "00_old.ipynb", "1 / 0", "print('later')")
    book = nbformat.read(path, as_version=4)
    book.cells[2].outputs = [V4.new_output("stream", text="from last week")]
    nbformat.write(book, path)
    run(house, path)
    assert output(house, "00_old.ipynb") == ""


def test_the_time_limit_is_for_the_whole_notebook(house):
    path = make(house / "notebooks", "00_slow.ipynb", *["import time; time.sleep(1.2)"] * 20)
    (outcome,) = run(house, path, timeout=4.0)
    assert "time limit of 4 s" in outcome.failure.error
    assert 2 <= outcome.failure.cell <= 4 and outcome.seconds < 15


def test_a_kernel_that_dies_is_a_failure_of_its_notebook_only(house):
    path = make(house / "notebooks", "00_dies.ipynb", "import os; os.kill(os.getpid(), 9)")
    good = make(house / "notebooks", "01_good.ipynb", "print('reached')")
    dead, well = run(house, path, good, jobs=2)
    assert dead.failure.cell == 1 and "kernel died" in dead.failure.error
    assert well.status == "passed"


def test_record_is_read_back(house):
    failure = runner.Failure(3, "boom()", "KeyError: 'x'")
    outcome = runner.Outcome("04_x", "X", "failed", 1.5, None, 3, failure)
    told = json.loads(runner.record([outcome], house, model="organism").read_text())
    assert told["model"] == "organism"
    assert told["notebooks"][0]["failure"] == {"cell": 3, "line": "boom()", "error": "KeyError: 'x'"}
    assert not list(house.glob(".run*"))  # the draft has taken the place of the file


def _listen():
    # A shell that put the tests in the background has them, and what they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_control_c_kills_the_kernels_and_ends_with_130(house):
    make(house / "notebooks", "00_long.ipynb", "import os\nopen('pid', 'w').write(str(os.getpid()))",
         "import time; time.sleep(600)")
    make(house / "notebooks", "01_never.ipynb", "open('never', 'w')")
    env = os.environ | {"PYTHONPATH": str(Path(runner.__file__).parents[1])}
    line = [sys.executable, "-m", "course_utils.cli", "run", "--output", "build"]
    command = subprocess.Popen(line, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=_listen)
    note = house / "notebooks" / "pid"
    try:
        deadline = time.monotonic() + 30
        while not (note.is_file() and note.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        kernel = psutil.Process(int(note.read_text()))
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=30)
    finally:
        command.kill()
    assert command.returncode == 130 and "Traceback" not in said
    assert not kernel.is_running() and not (house / "notebooks" / "never").exists()


def test_bars_are_dropped_and_everything_else_is_kept():
    from course_utils.cli.kernels import WIDGET, drop_bars

    bar = {WIDGET: {"model_id": "a"}, "text/plain": "harvest:   0%|          | 0/200 [00:00<?, ?tok/s]"}
    slider = {WIDGET: {"model_id": "b"}, "text/plain": "IntSlider(value=3)"}
    cell = nbformat.v4.new_code_cell("1", outputs=[
        nbformat.v4.new_output("display_data", bar), nbformat.v4.new_output("display_data", slider),
        nbformat.v4.new_output("stream", name="stderr", text="train: 50%|#####     | 1/2"),
        nbformat.v4.new_output("stream", name="stdout", text="recall 12%")])
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    drop_bars(notebook)
    assert [o.get("text") or o.data["text/plain"] for o in cell.outputs] == ["IntSlider(value=3)", "recall 12%"]
    assert "widgets" in notebook.metadata
    cell.outputs = cell.outputs[1:]
    drop_bars(notebook)
    assert "widgets" not in notebook.metadata
