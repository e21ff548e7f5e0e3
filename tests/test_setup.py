"""The first cell of every notebook: generated from one place, and on Colab it moves nothing that fits."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

from course_utils import setup
from course_utils.cli import badges
from course_utils.errors import CourseError

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
V4 = nbformat.v4


def course(*arguments):
    parser = argparse.ArgumentParser()
    badges.add_parsers(parser.add_subparsers())
    args = parser.parse_args([arguments[0], "--", *arguments[1:]])
    return args.func(args)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder like a checkout's, with one executed notebook."""
    cells = [V4.new_markdown_cell("# 01 · One\n\nText.\n\n**You will**"), V4.new_code_cell("1 + 1", execution_count=1),
             V4.new_markdown_cell("More."), V4.new_code_cell("2", execution_count=2, metadata={"tags": ["headline"]})]
    cells[1].outputs = [V4.new_output("execute_result", data={"text/plain": "2"}, execution_count=1)]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(V4.new_notebook(cells=cells), tmp_path / "notebooks" / "01_one.ipynb")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "README.md").write_text(f"# Course\n\n[colab]: {badges.COLAB}OWNER/REPO/blob/main/notebooks/x.ipynb\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(folder):
    return nbformat.read(folder / "notebooks" / "01_one.ipynb", as_version=4)


# --- badges ---------------------------------------------------------------------------------------------------------


def test_badge_and_setup_cell_are_put_once_and_follow_the_address(checkout, capsys):
    before = read(checkout)
    for name in ("ada/hood", "ada/hood", "Grace-H/under.the_hood"):
        assert course("badge", name) == 0
        now = read(checkout)
        nbformat.validate(now)
        assert f"github/{name}/blob/main/notebooks/x.ipynb" in (checkout / "README.md").read_text()
        link = f"**[Open in Colab]({badges.COLAB}{name}/blob/main/notebooks/01_one.ipynb)**"
        assert now.cells[0].source == f"# 01 · One\n\n{link}\n\nText.\n\n**You will**"
        assert now.cells[1].source == badges.setup_cell(name) and now.cells[1].metadata.tags == ["setup"]
        assert not now.cells[1].outputs and now.cells[2].outputs[0].data == before.cells[1].outputs[0].data
        assert [cell.id for cell in now.cells if cell.id != "setup"] == [cell.id for cell in before.cells]
        assert [cell.execution_count for cell in now.cells if cell.cell_type == "code"] == [1, 2, 3]
        assert now.cells[2].outputs[0].execution_count == 2 and now.cells[4].metadata.tags == ["headline"]
    assert capsys.readouterr().out.count("renewed") == 4  # the second time there was nothing to do


def test_without_an_address_that_of_readme_is_taken(checkout):
    course("badge")
    assert "git+https://github.com/OWNER/REPO" in read(checkout).cells[1].source
    assert "OWNER/REPO" in (checkout / "README.md").read_text()


def test_numbers_of_a_notebook_that_was_not_executed_in_order_stay(checkout):
    notebook = read(checkout)
    notebook.cells[1].execution_count = 7
    stamped = badges.stamp(notebook, "n.ipynb", "a/b")
    assert [cell.execution_count for cell in stamped.cells if cell.cell_type == "code"] == [None, 7, 2]


@pytest.mark.parametrize("name", ["hood", "a/b/c", "https://github.com/a/b", "a b/c", "-a/b", "a--b/c", "a/..",
                                  "a/b.git", "a/b\n", 'a/b"', "a/\\g<1>", f"{'a' * 40}/b"])
def test_what_is_no_repository_is_refused_and_nothing_is_written(checkout, name):
    before = (checkout / "README.md").read_text()
    with pytest.raises(CourseError, match="give OWNER/REPO"):
        course("badge", name)
    assert (checkout / "README.md").read_text() == before and read(checkout).cells[1].source == "1 + 1"


def test_a_readme_without_the_line_and_a_notebook_without_a_heading_are_sentences(checkout):
    with pytest.raises(CourseError, match="does not begin with a heading"):
        badges.stamp(V4.new_notebook(cells=[V4.new_code_cell("1")]), "n.ipynb", "a/b")
    (checkout / "README.md").write_text("# Course\n")
    with pytest.raises(CourseError, match="README.md has no line"):
        course("badge", "a/b")


def test_the_setup_cell_is_short_and_does_nothing_where_the_course_is(capfd):
    source = badges.setup_cell("a/b")
    assert len(source.splitlines()) <= 6 and max(map(len, source.splitlines())) <= 120
    exec(compile(source.replace("%pip", "raise SystemExit  #"), "cell", "exec"), {})
    assert capfd.readouterr() == ("", "")


@pytest.mark.repository
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_notebook_begins_as_readmes_address_says(path):
    text = path.read_text(encoding="utf-8")
    name = badges.repository_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert nbformat.writes(badges.stamp(nbformat.reads(text, as_version=4), path.name, name)).rstrip() == text.rstrip()


@pytest.mark.repository
def test_the_address_stands_in_one_place_of_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count(badges.repository_of(text)) == 1


# --- installing -----------------------------------------------------------------------------------------------------


def needs(*lines):
    return [Requirement(line) for line in lines]


class Pip:
    """Stands in for pip: takes note, and fails as often as it is told to."""

    def __init__(self, failures=0):
        self.calls, self.failures = [], failures

    def __call__(self, wanted, pins):
        self.calls.append(([*wanted], {*pins}))
        return "ERROR: nothing fits" if len(self.calls) <= self.failures else ""


NEEDS = needs("torch>=2.6", "transformers>=5.9,<6", "sae-lens>=6.54,<7", "PyYAML>=6")
THERE = {"torch": "2.9.0+cu126", "transformers": "4.57", "pyyaml": "6.0.2", "pyarrow": "18.1", "pip": "24.1",
         setup.DISTRIBUTION: "0.1.0"}
WANTED = [NEEDS[2], NEEDS[1]]
ASKED = ["sae-lens<7,>=6.54", "transformers<6,>=5.9"]
OWN = {"torch==2.9.0+cu126", "pyyaml==6.0.2"}


def test_all_that_is_there_is_pinned_but_what_must_move():
    pip = Pip()
    setup.install(WANTED, NEEDS, THERE, pip)
    assert pip.calls == [(ASKED, OWN | {"pyarrow==18.1", "pip==24.1"})]


def test_if_that_cannot_be_only_libraries_that_are_not_the_courses_may_move():
    pip = Pip(1)
    setup.install(WANTED, NEEDS, THERE, pip)
    assert pip.calls[1] == (ASKED, OWN)
    with pytest.raises(CourseError, match=r"torch==2.9.0\+cu126, pyyaml==6.0.2: ERROR: nothing fits"):
        setup.install(WANTED, NEEDS, THERE, Pip(2))


@pytest.fixture
def colab(monkeypatch):
    """Let `ensure` see another machine, on which pip brings what is asked for."""
    def play(there, brings, asked=NEEDS):
        pip, states = Pip(), iter([there, there | brings])
        monkeypatch.setattr(setup, "asked", lambda: asked)
        monkeypatch.setattr(setup, "present", lambda: next(states))
        monkeypatch.setattr(setup, "run_pip", pip)
        setup.ensure()
        return pip.calls
    return play


def test_what_is_missing_and_what_is_replaced_is_said(colab, capsys):
    assert colab(THERE, {"sae-lens": "6.54", "transformers": "5.9"})[0][0] == ASKED
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Installing what the course lacks: sae-lens.")
    assert said[1] == "Does not fit and is replaced: transformers 4.57 (needed <6,>=5.9)."
    assert said[2] == "Replaced: transformers 4.57 by 5.9." and said[-1] == "Everything the course needs is here."


def test_a_library_that_the_session_already_uses_asks_for_a_restart(colab, capsys):
    there = {"packaging": "20", "pytest": "8"}
    colab(there, {"sae-lens": "6.54", "packaging": "26"}, needs("packaging>=23", "pytest>=8", "sae-lens"))
    assert "This session already uses packaging: restart it" in capsys.readouterr().out


def test_somebodys_own_environment_is_left_alone(colab, capsys):
    whole = THERE | {"sae-lens": "6.54"}
    assert colab(whole | {"transformers": "5.23"}, {}) == [] and capsys.readouterr().out == ""
    assert colab(whole, {}) == []
    assert capsys.readouterr().out == \
        "Does not fit: transformers 4.57 (needed <6,>=5.9). course doctor says what mends it.\n"


def test_pips_own_words_come_back(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert setup.run_pip(["packaging"], ["packaging>=20"]) == ""  # there already
    assert "no-such-distribution" in setup.run_pip(["no-such-distribution"], [])
    assert "packaging" in setup.run_pip(["packaging"], ["packaging<1"])


def test_setup_needs_nothing_but_python(tmp_path):
    shutil.copytree(ROOT / "course_utils", tmp_path / "course_utils",
                    ignore=shutil.ignore_patterns("__pycache__", "data"))
    code = "from course_utils import setup; print(setup.asked(), setup.ensure())"
    said = subprocess.run([sys.executable, "-S", "-c", f"import pip_only; {code}"], cwd=tmp_path, capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": str(_only_pip(tmp_path))})
    assert (said.returncode, said.stdout) == (0, "[] None\n"), said.stderr


def _only_pip(folder):
    """Make a place from which pip can be imported, and nothing else that is installed."""
    import pip

    (folder / "site").mkdir()
    (folder / "site" / "pip").symlink_to(Path(pip.__file__).parent)
    (folder / "site" / "pip_only.py").touch()
    return folder / "site"
