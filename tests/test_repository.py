"""Promises about the files themselves: who may import what, how long things are, and that README tells the truth."""

import ast
import importlib
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tomllib
from functools import cache
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

import course_utils
from course_utils import paths
from course_utils.cli import doctor

pytestmark = pytest.mark.repository

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "course_utils"
README = ROOT / "README.md"
SOURCES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# The one way through the house: a room imports only from rooms before it. A new room gets its place here.
ROOMS = """errors setup paths evidence organism concepts toy recovery lab lessons activations dictionaries features
    interventions steering causality raters plots cards widgets exercises grading cli""".split()
# Pages that load something from elsewhere; a bare address in a bundled script's text loads nothing.
REMOTE = re.compile(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|url\(\s*["']?(?:https?:)?//|@import
    |(?:import|fetch|from)\s*\(?\s*["'](?:https?:)?//""", re.X)
ELSEWHERE = re.compile(r"(?<![\w.])/(?:home|root|Users|work|tmp|opt|content)/\w")

by_name = pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
by_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def cells(path: Path, kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Return every module that a file imports when it runs, dotted; names after ``from x import`` included."""
    typing_only = {id(inner) for node in ast.walk(tree(path)) if isinstance(node, ast.If)
                   and ast.unparse(node.test) == "TYPE_CHECKING" for inner in ast.walk(node)}
    found = set()
    for node in ast.walk(tree(path)):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_room_has_its_place_and_every_place_its_room():
    assert {room_of(path) for path in SOURCES} - {"__init__"} == set(ROOMS)


@by_name
def test_a_room_imports_only_from_rooms_before_it(path):
    room = room_of(path)
    if room == "__init__":
        return
    used = {name.split(".")[1] for name in imports(path) if name.startswith("course_utils.")} & set(ROOMS)
    assert {other for other in used if ROOMS.index(other) > ROOMS.index(room)} == set()


@by_name
def test_one_room_each_for_the_libraries_that_break(path):
    libraries = {name.split(".")[0] for name in imports(path)}
    assert "transformer_lens" not in libraries or path == PACKAGE / "lab" / "__init__.py"
    assert "sae_lens" not in libraries or path == PACKAGE / "dictionaries" / "__init__.py"


@by_name
def test_rooms_and_functions_stay_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250
    functions = [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    # The limit is for what must be understood at once: a docstring, which explains it, is not counted.
    told = {f.name: (f.body[0].end_lineno - f.body[0].lineno + 1 if ast.get_docstring(f) else 0) for f in functions}
    long = {f.name: f.end_lineno - f.lineno + 1 - told[f.name] for f in functions}
    assert {name: lines for name, lines in long.items() if lines > 40} == {}


@pytest.mark.parametrize("name", course_utils.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(course_utils, name).__doc__
    assert name in dir(course_utils)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'open_laboratory'"):
        course_utils.open_laboratory  # noqa: B018  (looking it up is the test)


def texts():
    """Yield every file of ours that a person reads or runs, with its text (of a notebook: sources and outputs)."""
    folders = [PACKAGE, ROOT / "tests", ROOT / "benchmarks", ROOT / "notebooks", ROOT / ".ci"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    for path in sorted(files):
        if not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts) and path.suffix not in (".png", ".pyc"):
            yield path, path.read_text(encoding="utf-8")


def test_no_file_knows_a_place_on_somebodys_disk():
    assert {str(path.relative_to(ROOT)): hit.group() for path, text in texts() if (hit := ELSEWHERE.search(text))} == {}


def test_nobody_edits_the_import_path():
    edit = re.compile(r"\bsys\.path\s*(?:\.(?:insert|append|extend)|\[[^\]]*\]\s*=|\+?=(?!=))")
    assert edit.search("sys" + ".path.insert(0, '.')") and not edit.search("os.pathsep.join(sys" + ".path)")
    assert [str(path.relative_to(ROOT)) for path, text in texts() if edit.search(text)] == []


# --- what is shipped ------------------------------------------------------------------------------------------------


def data_files() -> set[str]:
    files = {path.relative_to(paths.DATA).as_posix() for path in paths.DATA.rglob("*") if path.is_file()}
    return files - {"SHA256SUMS"}


def test_every_data_file_is_listed_with_its_checksum():
    assert set(paths.expected_sums()) == data_files()
    assert doctor.check_data().level == "ok"


def test_the_constraints_pin_what_the_project_asks_for_within_its_ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert not [line for line in lines if "@" in line or "/" in line and not line.startswith("#")]
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    pins = {name.lower().replace("_", "-"): version for name, version in pinned}
    assert pins["torch"] == "2.13.0"
    for line in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pins[wanted.name.lower()]), line


@pytest.mark.slow
def test_an_installed_wheel_brings_its_data(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "installed"
    subprocess.run([*pip, "install", str(wheel), "--no-deps", "--no-index", "--target", str(target)], check=True)
    code = "import course_utils; from course_utils import evidence, paths; from course_utils.cli import doctor; " \
           "print(paths.DATA, doctor.check_data().level, len(evidence.claims()), course_utils.World.load() is not None)"
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(target)},
                         check=True, capture_output=True, text=True).stdout
    assert out.split() == [str(target / "course_utils" / "data"), "ok", "32", "True"]
    shipped = {p.relative_to(target / "course_utils" / "data").as_posix()
               for p in (target / "course_utils" / "data").rglob("*") if p.is_file()}
    assert shipped == data_files() | {"SHA256SUMS"}
    assert (target / "course_utils" / "cli" / "report.html.jinja").is_file()


@pytest.mark.slow
def test_the_source_distribution_is_whole(tmp_path):
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)], cwd=ROOT,
                   check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.split("/", 1)[1] for name in files.getnames()}
    assert {f"data/{name}" for name in data_files()} | {"Makefile", "constraints.txt", "LICENSE"} <= names


# --- make -----------------------------------------------------------------------------------------------------------


def make(*arguments: str) -> subprocess.CompletedProcess:
    inherited = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VENV", "PYTHON", "ARGS"}
    env = {name: value for name, value in os.environ.items() if name not in inherited}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=env, capture_output=True, text=True)


def test_make_help_lists_every_target():
    listed = set(re.findall(r"^make ([\w-]+)", make("help").stdout, re.M))
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[1]
    assert listed == set(phony.split()) and {"run", "test", "check"} <= listed


def test_an_old_python_is_named_before_anything_is_made(tmp_path):
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1"\nexit 0\n')
    old.chmod(0o755)
    said = make("run", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert said.returncode != 0 and not (tmp_path / "venv").exists()
    assert "needs Python 3.11 or newer; found: Python 3.9.1" in said.stderr


def test_ci_runs_what_contributors_run():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "set -euo pipefail" in lines and lines[-2:] == ["make test", "make check"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


# --- README ---------------------------------------------------------------------------------------------------------


def section(word: str) -> str:
    """Return the part of README under the heading that contains `word`."""
    parts = re.split(r"^#+ +(.*)$", README.read_text(encoding="utf-8"), flags=re.M)
    found = [text for heading, text in zip(parts[1::2], parts[2::2], strict=True) if word in heading]
    assert found, f"README.md has no heading with {word!r} in it"
    return found[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of a Markdown table's rows, without its head."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.lstrip().startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def test_readmes_api_table_names_what_exists_and_all_of_it():
    listed = {name for row in rows(section("API")) for name in re.findall(r"`([A-Za-z_]\w*)", row[0])}
    assert listed == set(course_utils.__all__)


def test_readme_says_how_long_each_file_is_and_keeps_it_true():
    said = {row[0].strip("`"): int(re.sub(r"\D", "", row[1])) for row in rows(section("files"))}
    true = {}
    for room in ROOMS:
        one, files = PACKAGE / f"{room}.py", sorted((PACKAGE / room).rglob("*.py"))
        name = f"{room}.py" if one.is_file() else f"{room}/"
        true[name] = sum(len(p.read_text(encoding="utf-8").splitlines()) for p in files or [one])
    assert set(said) == set(true)
    assert {name: (said[name], n) for name, n in true.items() if abs(said[name] - n) > max(10, 0.1 * n)} == {}


def test_readme_lists_every_notebook():
    text = README.read_text(encoding="utf-8")
    assert [path.name for path in NOTEBOOKS if path.name not in text] == []


@pytest.mark.slow
def test_readmes_ten_lines_run(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    said = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "[" in said.stdout and course_utils.claim("C26").text in said.stdout


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_inside_the_repository_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


# --- notebooks ------------------------------------------------------------------------------------------------------


@by_notebook
def test_notebooks_keep_to_their_size(path):
    code = [[ln for ln in cell.source.splitlines() if ln.strip()] for cell in cells(path, "code")
            if "setup" not in cell.metadata.get("tags", [])]  # that is generated
    assert 20 <= len(code) <= 45
    assert statistics.median(map(len, code)) <= 6 and max(map(len, code)) <= 40
    own = [cell for cell in cells(path, "markdown") if "footer" not in cell.metadata.get("tags", [])]
    assert sum(len(cell.source.split()) for cell in own) <= 3500


@by_notebook
def test_notebooks_are_committed_executed_to_their_end(path):
    code = [cell for cell in cells(path, "code") if cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [out for cell in code for out in cell.outputs if out.output_type == "error"]


@by_notebook
def test_notebook_outputs_load_nothing_from_elsewhere(path):
    for cell in cells(path, "code"):
        for output in cell.outputs:
            for kind, data in output.get("data", {}).items():
                if kind in ("text/html", "image/svg+xml", "application/javascript"):
                    assert not REMOTE.search(data), f"[{cell.execution_count}] {REMOTE.search(data).group()}"


def test_the_remote_check_can_fail():
    for page in ('<script src="https://a.b/c.js">', "<img src=//a.b/c>", "import x from 'https://a.b'", "@import 'x'",
                 "background: url(http://a.b)"):
        assert REMOTE.search(page)
    assert not REMOTE.search('<svg xmlns="http://www.w3.org/2000/svg"><!-- see https://a.b -->')


@by_notebook
def test_each_prediction_has_a_name_of_its_own_and_is_revealed(path):
    """Or after "Run all" a cell that is run again reveals another prediction's measurement."""
    source = "\n".join(cell.source for cell in cells(path, "code"))
    names = re.findall(r"(\w+) = predict\(", source)
    assert len(set(names)) == len(names) and {*names} <= {*re.findall(r"(\w+)\.reveal\(", source)}


@by_notebook
def test_notebooks_import_only_what_is_installed_with_the_course(path):
    source = "\n".join(re.sub(r"^\s*[%!].*", "", cell.source, flags=re.M) for cell in cells(path, "code"))
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else \
            [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            importlib.import_module(name)
