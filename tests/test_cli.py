"""The command line: exit codes, sentences, and what each command leaves behind."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import course_utils
from course_utils import cli
from course_utils.cli import doctor
from course_utils.errors import CourseError

V4 = nbformat.v4
ROOT = Path(__file__).parents[1]


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Make a checkout with one short notebook and stand in it."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    code = "import os\nprint(os.environ['COURSE_MODEL'], os.environ.get('COURSE_TEXT'))"
    cells = [V4.new_markdown_cell("# Four"), V4.new_code_cell(code)]
    nbformat.write(V4.new_notebook(cells=cells), tmp_path / "notebooks" / "04_four.ipynb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_BUILD", "")  # so that what the command sets is taken back after the test
    monkeypatch.delenv("COURSE_BUILD")
    monkeypatch.delenv("COURSE_MODEL", raising=False)
    monkeypatch.delenv("COURSE_TEXT", raising=False)
    return tmp_path


def said(house: Path, build: str = "build") -> str:
    book = nbformat.read(house / build / "notebooks" / "04_four.ipynb", as_version=4)
    return book.cells[1].outputs[0].text.strip()


def test_run_executes_reports_and_says_where(house, capsys):
    assert cli.main(["run"]) == 0
    out = capsys.readouterr().out
    assert "passed  04_four" in out and f"report: {house / 'build' / 'report.html'}" in out
    told = json.loads((house / "build" / "run.json").read_text())
    assert told["model"] == "organism" and said(house) == "organism None"
    assert told["notebooks"][0]["title"] == "Four" and "Python" in told["versions"]
    assert "Four" in (house / "build" / "report.html").read_text()


def test_run_takes_a_local_model_a_text_and_another_folder(house):
    (house / "model").mkdir()
    (house / "text.txt").write_text("Once.")
    command = ["run", "--notebook", "4", "--model", "model", "--text", "text.txt", "--output", "elsewhere"]
    assert cli.main(command) == 0
    assert said(house, "elsewhere") == f"{house / 'model'} {house / 'text.txt'}"
    assert not (house / "build").exists()


def test_a_failing_notebook_gives_1_and_is_named(house, capsys):
    book = V4.new_notebook(cells=[V4.new_code_cell("x = 1"), V4.new_code_cell("x.y")])
    nbformat.write(book, house / "notebooks" / "05_five.ipynb")
    assert cli.main(["run"]) == 1
    out = capsys.readouterr().out
    assert "failed  05_five" in out and "in cell [2]: x.y" in out and "AttributeError" in out
    assert "passed  04_four" in out


@pytest.mark.parametrize(("command", "sentence"), [
    (["run", "--notebook", "9"], "notebook='9' is not known; there are: 04_four."),
    (["run", "--text", "none.txt"], "text='none.txt' is not a file"),
    (["run", "--model", "./none"], "model='./none' is not a directory"),
    (["run", "--output", "pyproject.toml"], "output='pyproject.toml' cannot be written"),
    (["report", "--output", "pyproject.toml/x"], "cannot be written"),
])
def test_bad_input_is_one_sentence_and_2(house, capsys, command, sentence):
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and error.startswith("course: ")


@pytest.mark.parametrize("option", [["--jobs", "0"], ["--jobs", "two"], ["--timeout", "nan"]])
def test_numbers_out_of_range_are_refused(option, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", *option])
    assert stop.value.code == 2 and "from 1 up" in capsys.readouterr().err


def test_report_alone_is_made_of_what_is_there(house, capsys):
    assert cli.main(["report"]) == 0
    assert "No run is recorded" in (house / "build" / "report.html").read_text()
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("note", 0), ("problem", 1)])
def test_doctor_gives_1_only_for_a_problem(monkeypatch, capsys, level, code):
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Check("hub", level, "as found", "mend it")])
    assert cli.main(["doctor", "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] == (code == 0) and found["checks"][0]["fix"] == "mend it"
    assert cli.main(["doctor"]) == code and "as found" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "code", "said"), [
    (CourseError("k=0 is too small."), 2, "course: k=0 is too small.\n"),
    (KeyboardInterrupt(), 130, "course: interrupted.\n"),
])
def test_errors_become_exit_codes(monkeypatch, capsys, error, code, said):
    def fail():
        raise error

    monkeypatch.setattr(doctor, "examine", fail)
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err == said


def test_version_is_the_packages(capsys):
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out == f"course {course_utils.__version__}\n"


def test_organism_offers_its_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["organism", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert {"train", "exam", "sample", "sums"} <= set(re.findall(r"\w+", said))


def test_the_package_and_its_command_load_fast_and_without_torch():
    code = "import sys, course_utils, course_utils.cli as c; c.build_parser(); " \
           "print('torch' in sys.modules, 'transformers' in sys.modules, 'numpy' in sys.modules)"
    timed = "import time; t = time.perf_counter(); " + code + "; print(time.perf_counter() - t)"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True, env=env)
    *loaded, seconds = done.stdout.split()
    assert loaded == ["False"] * 3 and float(seconds) < 1
