"""Grading: what an answer is cut out with, what crosses between processes, and what no submission can do."""

import argparse
import ast
import csv
import json
import os
import socket
import textwrap
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from course_utils.cli import grading as command
from course_utils.errors import CourseError
from course_utils.exercises import everything, find
from course_utils.exercises.check import trials
from course_utils.exercises.compare import difference
from course_utils.exercises.notebooks import solve
from course_utils.exercises.source import text_of
from course_utils.grading import cage, submissions, table, wire
from course_utils.grading.definitions import Definitions, code_cells
from course_utils.grading.marks import Grade, Mark, grade
from course_utils.grading.remote import Limits, Remote
from course_utils.grading.submissions import Submission
from course_utils.paths import build_dir

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
LIMITS = Limits(seconds=100.0, memory=1024)
IMPORTS = "import numpy as np\nimport torch"
IDS = [ex.id for ex in everything("00")]


@cache
def locks() -> bool:
    try:
        return bool(table.isolation(LIMITS))
    except CourseError:
        return False


def book(*cells: str, outputs: tuple = ()) -> bytes:
    made = [{"cell_type": "code", "metadata": {}, "source": cell, "outputs": list(outputs), "execution_count": None}
            for cell in cells]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def answer(id: str, body: str = "", after: str = "") -> str:
    """Return a cell: the reference answer, with a body put before its own."""
    node = ast.parse(text_of(find(id).answer)).body[0]
    node.body = ast.parse(textwrap.dedent(body)).body + node.body
    return f'@exercise("{id}")\n{ast.unparse(node)}\n{after}'


def stub(id: str, body: str = "...") -> str:
    node = ast.parse(text_of(find(id).answer)).body[0]
    node.body = ast.parse(textwrap.dedent(body)).body
    return f'@exercise("{id}")\n{ast.unparse(node)}'


def submit(folder: Path, name: str, raw: bytes) -> Submission:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.ipynb").write_bytes(raw)
    return Submission(name, "00", folder / f"{name}.ipynb")


def states(got: Grade) -> list[str]:
    return [got.marks[id].state for id in IDS]


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ex", everything("00") + everything("01") + everything("04"), ids=lambda ex: ex.id)
def test_what_an_exercise_asks_and_answers_crosses_unchanged(ex):
    for trial in trials(ex):
        args, want = wire.decode(wire.encode((trial.args, trial.want)), functions=True)
        assert difference(want, trial.want) is None
        for got, arg in zip(args, trial.args, strict=True):
            assert callable(got) if callable(arg) else difference(got, arg) is None


def test_what_is_no_plain_value_crosses_as_its_kind_only():
    class Loud:
        def __reduce__(self):
            return os.system, ("echo unpickled",)

    got = wire.decode(wire.encode([Loud(), lambda x: x, torch.ones(2, device="meta"), {1, 2}]))
    assert [type(one).__name__ for one in got] == ["Loud", "function", "Tensor", "set"]
    assert difference(got[0], torch.ones(2), at="it") == "it is a Loud, expected a tensor"


@pytest.mark.parametrize("data", [b"", b"x" * 100, (2**60).to_bytes(8, "little"), wire.encode(np.ones(9))[:-9],
                                  (8).to_bytes(8, "little") + b'{"a": 1}' + wire.encode(1)[9:]])
def test_bytes_of_another_kind_are_refused(data):
    with pytest.raises(CourseError, match="cannot be read"):
        wire.decode(data)


def test_an_error_comes_back_as_its_own_class_but_never_as_an_interrupt():
    assert repr(wire.error_of("KeyError", ["a"], "'a'")) == "KeyError('a')"
    assert isinstance(wire.error_of("KeyboardInterrupt", [], ""), Exception)
    assert isinstance(wire.error_of("exec", ["1"], "x"), Exception)


# --- cutting out ----------------------------------------------------------------------------------------------------


def cut(id: str, *cells: str, references: dict | None = None) -> str:
    return "\n".join(map(ast.unparse, Definitions(list(cells)).slice(id, references or {})))


def test_an_answer_is_cut_out_with_what_it_needs_and_nothing_else():
    cells = ["import torch, os\nfrom course_utils import open_lab, bootstrap", "lab = open_lab()",
             "%matplotlib inline\nEPS = 1e-5", "def helper(x):\n    return torch.relu(x) + EPS",
             '@exercise("02.1")\n@torch.no_grad()\ndef f(x):\n    return helper(x)', "f(lab)\nraise SystemExit"]
    assert cut("02.1", *cells) == ("import torch\nEPS = 1e-05\ndef helper(x):\n    return torch.relu(x) + EPS\n"
                                   "@torch.no_grad()\ndef f(x):\n    return helper(x)")


def test_an_empty_answer_is_replaced_by_the_reference_as_in_the_notebook():
    cells = ['@exercise("02.1")\ndef f(x):\n    "Say."\n    ...', '@exercise("02.2")\ndef g(x):\n    return f(x)']
    assert Definitions(cells).blank == {"02.1"}
    assert cut("02.2", *cells, references={"02.1": "def f(x):\n    return 7"}).startswith("def f(x):\n    return 7")


def test_of_several_answers_the_last_counts_and_a_broken_cell_breaks_only_itself():
    cells = ['@exercise("02.1")\ndef f(x): return 1', '@exercise("02.1")\ndef f(x): return 2',
             '@exercise("02.2")\ndef g(x) return 1', '@exercise("02.3")\ndef h(x): return 3', "-" * 200_000 + "1"]
    found = Definitions(cells)
    assert [*found.answers] == ["02.1", "02.3"] and "return 2" in cut("02.1", *cells)
    assert "line 2" in found.broken["02.2"] and [*found.broken] == ["02.2"]


@pytest.mark.parametrize(("raw", "said"), [(b"hello", "no valid JSON"), (book(IMPORTS)[:-20], "cut short"),
                                           (b"[" * 100_000, "no valid JSON"), (b'{"worksheets": []}', "format 4")])
def test_what_is_no_notebook_is_said_in_a_sentence(raw, said):
    with pytest.raises(ValueError, match=said):
        code_cells(raw)


def test_a_prediction_that_was_revealed_is_counted():
    shown = {"output_type": "display_data", "data": {"text/plain": ["You predicted 3 %. ", "Measured: 4 %."]}}
    assert code_cells(book("1", "2", outputs=(shown,)))[1] == 2


# --- whose is what --------------------------------------------------------------------------------------------------


def test_submissions_are_found_by_file_and_by_folder(tmp_path):
    for name in ("zoe.ipynb", "ann_lee_02.ipynb", "ann_lee_03_saes.ipynb", "bob/02_toy.ipynb", "bob/x/ps.ipynb",
                 "bob/.ipynb_checkpoints/02_toy.ipynb", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "eve").mkdir()
    found = [(one.student, one.notebook, one.path and one.path.name) for one in submissions.find(tmp_path)]
    assert found == [("ann_lee", "02", "ann_lee_02.ipynb"), ("ann_lee", "03", "ann_lee_03_saes.ipynb"),
                     ("bob", "", "ps.ipynb"), ("bob", "02", "02_toy.ipynb"), ("eve", "", None),
                     ("zoe", "", "zoe.ipynb")]
    only = [(one.student, one.notebook) for one in submissions.find(tmp_path, "03")]
    assert only == [("ann_lee", "03"), ("bob", "03"), ("eve", "03"), ("zoe", "03")]


def test_links_pipes_and_giants_are_not_read(tmp_path):
    secret, link, pipe, twin, giant = (tmp_path / name for name in ("secret", "link", "pipe", "twin", "giant"))
    secret.write_text("{}")
    assert submissions.read(secret) == b"{}"
    link.symlink_to(secret)
    os.mkfifo(pipe)
    with giant.open("wb") as handle:
        handle.truncate(submissions.LARGEST + 1)
    for path, said in ((link, "a link"), (pipe, "no plain file"), (giant, "33 MiB|32 MiB"), (None, "no notebook")):
        with pytest.raises(CourseError, match=said):
            submissions.read(path)
    twin.hardlink_to(secret)
    with pytest.raises(CourseError, match="second name"):
        submissions.read(twin)


def test_no_cell_of_the_table_is_a_formula_and_each_student_has_one_row(tmp_path):
    marks = {id: Mark("right") for id in IDS}
    grades = [Grade("=cmd()", "00", marks, 1, 2.0), Grade("zoe", "", {}, 0, 0.0, "the file is empty."),
              Grade("zoe", "00", marks | {"00.1": Mark("wrong", "@sum, a")}, 0, 1.0)]
    table.write_csv(grades, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["student"] for row in rows] == ["'=cmd()", "zoe"]
    assert rows[0]["points"] == rows[0]["of"] and rows[1]["00.1 says"] == "'@sum, a" and "empty" in rows[1]["problem"]


def test_a_folder_that_submissions_may_read_is_refused(tmp_path):
    table.check_place(LIMITS, tmp_path)
    with pytest.raises(CourseError, match="which submissions may read"):
        table.check_place(LIMITS, Path(cage.__file__).parent)


# --- locked in ------------------------------------------------------------------------------------------------------

ATTEMPTS = {
    "read": "open({file!r}).read()", "list": "os.listdir({folder!r})", "write": "open({file!r} + 'x', 'w')",
    "write at home": "open('note', 'w')", "remove": "os.remove({file!r})", "chmod": "os.chmod({file!r}, 0)",
    "rename": "os.rename({file!r}, {file!r} + 'y')", "truncate": "os.truncate({file!r}, 0)",
    "link": "os.symlink({file!r}, 'l')", "connect": "socket.create_connection(('127.0.0.1', {port}), 2)",
    "datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "fork": "os.fork() or os._exit(0)",
    "run": "subprocess.run(['/bin/true'], check=True)", "daemon": "os.setsid()", "signal": "os.kill(os.getppid(), 0)",
    "memory beside": "os.memfd_create('m')", "reference": "importlib.import_module({lesson!r})",
    "password file": "open('/etc/passwd').read()", "processes": "os.listdir('/proc')", "more": "bytearray({more})",
}


@pytest.fixture
def attempts(tmp_path):
    """Let a locked process (or another) try everything; what came of it."""
    victim = tmp_path / "other.ipynb"
    with socket.create_server(("127.0.0.1", 0)) as server:
        facts = {"file": str(victim), "folder": str(tmp_path), "port": server.getsockname()[1], "more": 3 * 2**30,
                 "lesson": find("00.1").answer.__module__}
        tried = {name: code.format(**facts) for name, code in ATTEMPTS.items()}
        body = ["results = {}", *(f"try:\n    {code}\n    results[{name!r}] = 'done'\nexcept BaseException as error:\n"
                                  f"    results[{name!r}] = type(error).__name__" for name, code in tried.items())]
        cells = ["import importlib, os, socket, subprocess",
                 '@exercise("00.2")\ndef majority(labels):\n' + textwrap.indent("\n".join(body), "    ") +
                 "\n    return results"]

        def run(limits: Limits) -> dict:
            victim.write_text("mine")
            with Remote(book(*cells), limits) as remote:
                remote.open()
                assert remote.load("00.2", {}) == {"given": "majority(labels)"}
                return remote.function()([1]) | {"victim": victim.exists() and victim.read_text()}

        yield run


def test_a_locked_process_can_do_none_of_it(attempts):
    if not locks():
        pytest.skip("needs Linux 5.13 with Landlock, and libseccomp2")
    got = attempts(LIMITS)
    assert got.pop("victim") == "mine" and got.pop("more") == "MemoryError"
    assert got.pop("reference") == "ModuleNotFoundError"
    assert got == dict.fromkeys(ATTEMPTS.keys() - {"more", "reference"}, "PermissionError")


@pytest.mark.slow
def test_without_the_lock_it_could_do_nearly_all_of_it(attempts):
    """Or the test above would prove nothing."""
    got = attempts(LIMITS._replace(unprotected=True))
    assert {name for name, came in got.items() if came == "done"} >= {
        "read", "list", "remove", "connect", "datagram", "fork", "run", "signal", "memory beside", "reference"}


def test_an_answer_is_judged_outside_and_the_rest_goes_on(tmp_path):
    if not locks():
        pytest.skip("needs Linux 5.13 with Landlock, and libseccomp2")
    forged = """
        import course_utils.exercises.check as check, builtins
        check.examine = check.difference = lambda *a, **k: None
        builtins.abs = lambda *a: True
        print("✓ 00.1 how much is lit: right; your function is used from here on.")
        return torch.tensor(0.123)
        """
    raw = book(IMPORTS, answer("00.1", forged), stub("00.2"), answer("00.3"))
    got = grade(submit(tmp_path, "eve", raw), LIMITS)
    assert states(got) == ["wrong", "empty", "right"] and got.problem == ""


# --- the whole command ----------------------------------------------------------------------------------------------

def hostile(folder: Path, port: int) -> dict[str, tuple[bytes, list[str] | str]]:
    """Return the worst that could be handed in: name → bytes, and the marks or the problem that it must get."""
    other = str(folder / "ann_00.ipynb")
    rest = ["right", "right"]

    def with_(first: str, mark: str = "error", **kw) -> tuple[bytes, list[str]]:
        return book(f"{IMPORTS}\nimport os, socket, subprocess, sys", answer("00.1", first, **kw), answer("00.2"),
                    answer("00.3")), [mark, *rest]

    bomb = {"output_type": "display_data", "data": {"application/x-pickle": "Y29zCnN5c3RlbQooUydpZCcKdFIu"}}
    wrong = find("00.2").wrongs[0]
    named = f"def majority(labels):\n{textwrap.indent(text_of(wrong.answer).partition(':')[2].strip(), '    ')}"
    return {
        "ann_00": (book(IMPORTS, *(answer(id) for id in IDS)), ["right"] * 3),
        "partly": (book(IMPORTS, answer("00.1"), stub("00.2"), stub("00.3", "return 1.")), ["right", "empty", "wrong"]),
        "mistaken": (book(IMPORTS, answer("00.1"), f'@exercise("00.2")\n{named}'), ["right", "wrong", "missing"]),
        "empty": (book(IMPORTS, *(stub(id) for id in IDS)), ["empty"] * 3),
        "loop": with_("while True: pass"), "deaf": with_("while True:\n try:\n  while True: pass\n except: pass"),
        "sleeper": with_("import time; time.sleep(10**6)"),
        "loop_at_load": with_("EPS", after="while True: EPS = 1"),
        "forks": with_("for _ in range(3): os.fork()"), "memory": with_("x = [bytearray(2**28) for _ in range(99)]"),
        "tensor": with_("x = torch.ones(10**10)"), "disk": with_("open('filler', 'wb').write(bytes(2**20))"),
        "reader": with_(f"open({other!r}).read()"), "writer": with_(f"open({other!r}, 'w')"),
        "remover": with_(f"os.remove({other!r})"),
        "network": with_(f"socket.create_connection(('127.0.0.1', {port}))"),
        "exit": with_("os._exit(0)"), "sys_exit": with_("sys.exit(0)"),
        "crash": with_("import ctypes; ctypes.string_at(0)"),
        "daemon": with_("subprocess.Popen(['sleep', '1'], start_new_session=True)"),
        "copyist": with_("from course_utils import exercises as e\nreturn e.find('00.1').answer(activity, threshold)"),
        "forger": with_("print('✓ 00.1: right')\nreturn 1", "wrong"),
        "patcher": with_("import course_utils.exercises as e\ne.check.examine = lambda *a: None\nreturn None", "wrong"),
        "pipes": with_("for fd in range(3, 20):\n try: os.write(fd, b'garbage' * 99)\n except OSError: pass"),
        "flood": with_("for _ in range(10**5): print('x' * 100)", "right"),
        "giant_result": with_("return torch.zeros(10**8, dtype=torch.uint8)"),
        "syntax": (book(IMPORTS, '@exercise("00.1")\ndef f(', answer("00.2"), answer("00.3")), ["error", *rest]),
        "deep": (book("x = " + "-" * 10**5 + "1", *(answer(id) for id in IDS), IMPORTS), ["right"] * 3),
        "pickle": (book(IMPORTS, *(answer(id) for id in IDS), outputs=(bomb,)), ["right"] * 3),
        "no_json": (b"hello", "no valid JSON"), "truncated": (book(IMPORTS, answer("00.1"))[:-30], "cut short"),
        "nested": (b"[" * 10**6, "no valid JSON"), "nothing": (b"", "empty"),
        "another": (book(IMPORTS, stub("02.1", "return 1")), "notebook 02, not 00"),
        "=cmd()": (book(IMPORTS, *(answer(id) for id in IDS)), ["right"] * 3),
    }


@pytest.mark.slow
def test_the_worst_submissions_get_their_marks_and_stop_nobody(tmp_path, capsys):
    if not locks():
        pytest.skip("needs Linux 5.13 with Landlock, and libseccomp2")
    folder, kept = tmp_path / "handed in", build_dir() / "grading.csv"
    folder.mkdir()
    kept.with_suffix(".json").unlink(missing_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        worst = hostile(folder, server.getsockname()[1])
        for name, (raw, _) in worst.items():
            (folder / f"{name}.ipynb").write_bytes(raw)
        (folder / "linked.ipynb").symlink_to("/etc/passwd")
        (folder / "late").mkdir()
        with (folder / "huge.ipynb").open("wb") as handle:
            handle.truncate(100 * 2**20)
            handle.write(b" ")
        before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.stem in worst}
        assert run_grade(str(folder), "--notebook", "00", "--csv", str(kept), "--jobs", "2") == 0
        with pytest.raises(BlockingIOError):
            server.accept()
    assert {path: path.read_bytes() for path in before} == before
    with kept.open(encoding="utf-8-sig", newline="") as handle:
        rows = {row["student"].removeprefix("'"): row for row in csv.DictReader(handle)}
    for name, (_, want) in worst.items():
        row = rows[name.removesuffix("_00")]
        got = [row[id] for id in IDS] if isinstance(want, list) else row["problem"]
        assert got == want if isinstance(want, list) else want in got, (name, row)
    assert rows["mistaken"]["00.2 says"] == find("00.2").wrongs[0].name
    assert "link" in rows["linked"]["problem"] and "MiB" in rows["huge"]["problem"]
    assert "no notebook was handed in" in rows["late"]["problem"]
    assert "isolation: Landlock" in capsys.readouterr().out


def run_grade(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["grade", *argv])
    return args.func(args)


def test_what_was_graded_is_not_graded_again_unless_asked(tmp_path, monkeypatch):
    works = [submit(tmp_path / "in", "ann", book("1")), submit(tmp_path / "in", "bob", book("2"))]
    asked: list[str] = []

    def each(works, left, limits, jobs):
        asked.extend(works[i].student for i in left)
        yield from ((i, Grade(works[i].student, "00", {"00.1": Mark("right", "é")}, 0, 1.0)) for i in left)

    monkeypatch.setattr(table, "_each", each)
    first = table.grade_all(works, LIMITS, 1, tmp_path / "kept.json")
    works[1].path.write_bytes(book("3"))
    assert table.grade_all(works, LIMITS, 1, tmp_path / "kept.json") == first and asked == ["ann", "bob", "bob"]
    table.grade_all(works, LIMITS, 1, tmp_path / "kept.json", again=True)
    assert asked[3:] == ["ann", "bob"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_reference_answer_passes_through_the_lock(path, tmp_path):
    if not locks():
        pytest.skip("needs Linux 5.13 with Landlock, and libseccomp2")
    solved = nbformat.writes(solve(nbformat.read(path, as_version=4))).encode()
    got = grade(submit(tmp_path, "ann", solved)._replace(notebook=path.stem[:2]), LIMITS)
    assert (got.problem, {mark for mark in got.marks.values()}) == ("", {Mark("right")})
    blank = grade(Submission("bob", "", path), LIMITS)
    assert {mark.state for mark in blank.marks.values()} == {"empty"} and blank.marks.keys() == got.marks.keys()
