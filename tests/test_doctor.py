"""The doctor: every problem is found and has its fix; a missing network is none."""

import http.server
import json
import threading
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from course_utils import paths
from course_utils.cli import doctor


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Make a data/ folder with one file and its right checksum."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"weights")
    (folder / "SHA256SUMS").write_text(f"{paths.sha256(folder / 'model.bin')}  model.bin\n")
    monkeypatch.setattr(paths, "DATA", folder)
    paths.expected_sums.cache_clear()
    yield folder
    paths.expected_sums.cache_clear()


@pytest.fixture
def hub(monkeypatch):
    """Serve the answer 404 on this machine and call it the hub."""

    class Refuses(http.server.BaseHTTPRequestHandler):
        status = 404

        def do_HEAD(self):
            self.send_response(self.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield Refuses
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("line", "level", "words"), [
    ("numpy>=1.26", "ok", ""),
    ("numpy>=99", "problem", "needed >=99"),
    ("numpy<1", "problem", "needed <1"),
    ("no-such-package-of-ours>=1", "problem", "not installed"),
])
def test_packages_are_held_against_their_ranges(line, level, words):
    check = doctor.check_package(Requirement(line))
    assert check.level == level and words in check.found
    assert (check.fix != "") == (level == "problem")


def test_the_ranges_are_those_of_the_project():
    python, packages = doctor.required()
    ranges = {package.name: str(package.specifier) for package in packages}
    assert python == ">=3.11" and ranges["torch"] == ">=2.6" and "pytest" not in ranges
    assert doctor.check_python(python).level == "ok"
    assert doctor.check_python(">=4").level == "problem"


def test_whole_data_are_well(data):
    assert doctor.check_data().level == "ok"


def test_damaged_and_missing_data_are_named(data):
    (data / "model.bin").write_bytes(b"weight")
    assert "model.bin differs from its checksum" in doctor.check_data().found
    (data / "model.bin").unlink()
    check = doctor.check_data()
    assert (check.level, check.found) == ("problem", "model.bin is missing")
    assert "git checkout data" in check.fix


def test_data_without_checksums_are_a_problem(data):
    (data / "SHA256SUMS").unlink()
    assert "no SHA256SUMS" in doctor.check_data().found


def test_a_build_folder_that_cannot_be_made_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "file" / "build"))
    (check,) = doctor.check_build()
    assert check.level == "problem" and "COURSE_BUILD" in check.fix


def test_a_writable_build_folder_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    assert doctor.check_build()[0] == ("build folder", "ok", str(tmp_path), "")
    assert list(tmp_path.iterdir()) == []


def test_little_disk_is_told_by_degree(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    for free, level in ((0.1, "problem"), (2, "note"), (50, "ok")):
        usage = SimpleNamespace(free=free * 2**30)
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert doctor.check_build()[1].level == level


def test_a_hub_that_answers_anything_is_reached(hub):
    assert doctor.check_hub().level == "ok"
    hub.status = 503
    assert "answers 503" in doctor.check_hub().found


def test_a_hub_out_of_reach_is_a_note_and_says_what_works(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    check = doctor.check_hub()
    assert check.level == "note" and "embedded model needs no network" in check.fix


def test_a_hub_that_never_answers_does_not_hold_the_doctor_up(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    over = threading.Event()

    def hang(*_, **__):
        over.wait(20)
        raise OSError("never answered")

    monkeypatch.setattr(doctor.urllib.request, "urlopen", hang)
    assert "no answer within 0.2 s" in doctor.check_hub(0.2).found
    over.set()


def test_the_machine_is_described_in_words():
    assert all(word in doctor.machine() for word in ("cores", "GiB of memory"))
    assert 1 <= doctor.cores() and doctor.memory() > 2**28
    assert "torch " in doctor.versions() and "Under the Hood" in doctor.versions()


def test_every_problem_is_shown_with_its_fix_below():
    checks = [doctor.Check("a", "ok", "fine", "unused"), doctor.Check("b", "problem", "broken", "mend it")]
    shown = doctor.show(checks)
    assert "mend it" in shown and "unused" not in shown and shown.endswith("1 to mend: b.")
    assert doctor.show(checks[:1]).endswith("Everything the course needs is here.")
    assert json.dumps([check._asdict() for check in checks])
