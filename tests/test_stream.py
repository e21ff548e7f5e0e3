"""Streamed text without a network, and the loopback hub itself, asked by the hub's own client."""

import inspect
from itertools import islice
from pathlib import Path

import huggingface_hub
import loopback_hub
import pytest
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import _http
from loopback_hub import Fault
from packaging.version import Version

from course_utils.errors import CourseError
from course_utils.lab import hub as room
from course_utils.lab import stream


@pytest.fixture
def opened(monkeypatch):
    """Texts "0" to "99" as a data set; the list holds where each opening began. `broken` breaks the next pass at 7."""
    calls, broken = [], []

    def documents(dataset, skip=0):
        calls.append(skip)
        for n in range(skip, 100):
            if broken and n == 7:
                raise CourseError(broken.pop())
            yield str(n)

    monkeypatch.setattr(stream, "stream_documents", documents)
    return calls, broken


def test_a_text_is_streamed_once_however_often_it_is_read(opened):
    texts = stream.Stream("some/set")
    assert list(islice(texts(), 5)) == list("01234")
    both = zip(texts(), texts(), strict=True)  # side by side
    assert list(islice(both, 8)) == [(n, n) for n in "01234567"]
    assert [*texts()] == [*texts()] == [str(n) for n in range(100)]
    assert opened[0] == [0]


def test_a_pass_that_broke_goes_on_where_it_did(opened):
    opened[1].append("broke off")
    texts = stream.Stream("some/set")
    with pytest.raises(CourseError, match="broke off"):
        [*texts()]
    assert [*texts()] == [str(n) for n in range(100)] and opened[0][:2] == [0, 7]


def test_what_is_too_much_to_keep_is_streamed_again(opened, monkeypatch):
    monkeypatch.setattr(stream, "KEPT", 12)  # characters: "0" to "9" and one more
    texts = stream.Stream("some/set")
    for _ in range(2):
        assert [*texts()] == [str(n) for n in range(100)]
    assert len(texts.kept) == 11 and opened[0] == [0, 11, 11]


# --- the hub --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub():
    with loopback_hub.running() as running:
        running.add("someone/model", {"config.json": b"{}", "sub/model.safetensors": bytes(range(256)) * 4000})
        running.moved["model"] = "someone/model"
        yield running


def test_the_hubs_own_client_finds_everything_it_asks_for(hub, tmp_path):
    there = {"endpoint": hub.url, "cache_dir": tmp_path}
    folder = snapshot_download("model", **there)
    assert (Path(folder) / "sub" / "model.safetensors").read_bytes() == bytes(range(256)) * 4000
    assert {status for _, status, _ in hub.log} >= {200, 302, 307} and hub.served("cdn") == 256 * 4000
    hub.forget()
    assert snapshot_download("model", local_files_only=True, **there) == folder and not hub.log
    for repository, file, revision, error in (("no/such", "a", None, RepositoryNotFoundError),
                                              ("someone/model", "a", None, EntryNotFoundError),
                                              ("someone/model", "config.json", "other", RevisionNotFoundError)):
        with pytest.raises(error):
            hf_hub_download(repository, file, revision=revision, **there)


# With an older client a download that is cut ends in a sentence, and in the second call it goes on.
@pytest.mark.skipif(Version(huggingface_hub.__version__) < Version("1.20"), reason="this client gives up")
def test_a_download_that_is_cut_is_taken_up_again(hub, tmp_path):
    hub.fault = lambda request: Fault(cut=1000) if request.path.startswith("/cdn") and request.number == 0 else None
    file = hf_hub_download("someone/model", "sub/model.safetensors", endpoint=hub.url, cache_dir=tmp_path)
    assert Path(file).read_bytes() == bytes(range(256)) * 4000
    assert [sent for request, _, sent in hub.log if request.path.startswith("/cdn")][0] == 1000


def test_wrong_bytes_of_the_right_length_are_found_by_their_digest(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "course"))
    there = {"endpoint": hub.url, "cache_dir": tmp_path}
    hub.fault = lambda request: Fault(wrong=request.path.startswith("/cdn"))
    folder = Path(snapshot_download("model", **there))  # which the client takes for whole
    assert room.drop_spoilt(folder) == ["model.safetensors"] and not (folder / "sub" / "model.safetensors").exists()
    hub.forget()
    assert Path(snapshot_download("model", **there)) == folder and room.drop_spoilt(folder) == []
    read = []
    monkeypatch.setattr(room, "sha256", lambda blob: read.append(blob) or "")
    assert room.drop_spoilt(folder) == [] and not read  # what was right is not read again
    weights = (folder / "sub" / "model.safetensors").resolve()
    weights.write_bytes(bytes(weights.stat().st_size))  # unless it was touched
    assert room.drop_spoilt(folder) == ["model.safetensors"] and read == [weights]


@pytest.mark.skipif("retry-after" not in inspect.getsource(_http).lower(), reason="this client never waits so long")
def test_a_hub_that_asks_for_hours_is_not_waited_for(hub, tmp_path):
    hub.fault = lambda request: Fault(429, headers={"Retry-After": "7200"})
    with pytest.raises(CourseError, match="wants 7,201 s of rest; run this again then"), room.hub_client():
        hf_hub_download("someone/model", "sub/model.safetensors", endpoint=hub.url, cache_dir=tmp_path)
