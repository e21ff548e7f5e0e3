"""`course prefetch` without a hub: a folder is filled, mended, packed and unpacked, and then used instead of work."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import tarfile
from pathlib import Path

import pytest
import torch

from course_utils.activations import DiskWriter, MemoryWriter, harvest
from course_utils.cli import bundle, main
from course_utils.errors import CourseError
from course_utils.lab import kept_texts, open_lab, stream
from course_utils.paths import prefetched, sha256

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder; ``course prefetch`` sets the environment, which is put back."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COURSE_KEEP", "")
    return tmp_path / "cache"


@pytest.fixture
def filled(cache, tiny_gpt2) -> Path:
    assert main(["prefetch", "--model", str(tiny_gpt2.directory), "--text", str(tiny_gpt2.text),
                 "--hook", f"{HOOK}:500", "--bundle", str(cache.parent / "course.tar")]) == 0
    os.environ["COURSE_KEEP"] = ""
    return cache


def repack(archive: Path, change) -> Path:
    """Copy an archive, each entry as ``change(name, content)`` yields it: tar header and content."""
    other = archive.with_name("other.tar")
    with tarfile.open(archive) as old, tarfile.open(other, "w") as new:
        for entry in old:
            for header, content in change(entry, old.extractfile(entry).read()):
                new.addfile(header, io.BytesIO(content))
    return other


def test_the_organism_needs_nothing(cache, capsys):
    assert main(["prefetch", "--model", "organism"]) == 0
    assert "needs no network" in capsys.readouterr().out and not cache.exists()


def test_what_was_prefetched_is_used_and_is_what_would_have_been_made(filled, monkeypatch):
    (model,) = (filled / "models").iterdir()
    lab = open_lab(model, text=filled / "texts" / "text.txt", quiet=True)
    made = harvest(lab, HOOK, 500, directory=filled.parent / "made")
    for writer in (DiskWriter, MemoryWriter):
        monkeypatch.setattr(writer, "add", lambda *_: pytest.fail("harvested again"))
    kept = harvest(lab, HOOK, 500)
    assert torch.equal(kept.x, made.x) and torch.equal(kept.tokens, made.tokens)
    monkeypatch.setenv("COURSE_CACHE", str(filled.parent / "another"))
    with pytest.raises(pytest.fail.Exception, match="harvested again"):
        harvest(lab, HOOK, 500)


def test_an_archive_carries_the_folder_whole(filled, monkeypatch, capsys, no_network):
    other = filled.parent / "usb"
    assert main(["prefetch", "--from", str(filled.parent / "course.tar"), "--to", str(other)]) == 0
    assert f"COURSE_CACHE={other}" in capsys.readouterr().out
    files = bundle.read(other)["files"]
    assert files == bundle.read(filled)["files"] == {name: sha256(other / name) for name in bundle.finished(other)}
    assert {name.split("/")[0] for name in files} == {"models", "texts", "harvests"} and no_network == []
    times = {name: (other / name).stat().st_mtime_ns for name in files}
    gone = next(iter(files))
    (other / gone).unlink()
    bundle.unpack(filled.parent / "course.tar", other)  # goes on: only what is missing
    assert [name for name in files if (other / name).stat().st_mtime_ns != times[name]] == [gone]


def test_what_was_damaged_is_named_and_mended_and_nothing_else_is_touched(filled, tiny_gpt2, capsys):
    before = bundle.read(filled)["files"]
    weights, x = (next(filter(re.compile(f"{end}$").search, before)) for end in (r"model\.safetensors", r"/x\.\w+"))
    for name in weights, x:
        content = bytearray((filled / name).read_bytes())
        content[-1] ^= 1  # the length stays
        (filled / name).write_bytes(content)
    times = {name: (filled / name).stat().st_mtime_ns for name in before}
    capsys.readouterr()
    assert main(["prefetch", "--model", str(tiny_gpt2.directory), "--text", str(tiny_gpt2.text),
                 "--hook", f"{HOOK}:500"]) == 0
    said = capsys.readouterr().out
    assert f"{weights} was missing or damaged" in said and f"{x} was missing or damaged" in said
    assert bundle.read(filled)["files"] == before == {name: sha256(filled / name) for name in before}
    again = {name for name in before if (filled / name).stat().st_mtime_ns != times[name]}
    assert again == {weights, *(name for name in before if name.startswith("harvests/"))}


@pytest.mark.parametrize("name", ["../outside", "/outside", "texts/../../outside", "texts\\..\\outside", "C:outside",
                                  "texts//outside", "./texts/outside"])
def test_an_archive_that_leads_out_of_its_folder_is_refused(filled, name):
    def add(entry, content):
        yield entry, content
        if entry.name == bundle.MANIFEST:
            other = tarfile.TarInfo(name)
            other.size = 3
            yield other, b"bad"

    archive, to = repack(filled.parent / "course.tar", add), filled.parent / "to"
    with pytest.raises(CourseError, match="no plain file below the folder; nothing was unpacked"):
        bundle.unpack(archive, to)
    assert not to.exists() and not (filled.parent / "outside").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_an_archive_with_a_link_a_folder_or_a_pipe_is_refused(filled, kind):
    def turn(entry, content):
        if entry.name.endswith("model.safetensors"):
            entry.type, entry.linkname, entry.size, content = kind, "../../outside", 0, b""
        yield entry, content

    with pytest.raises(CourseError, match="no plain file below the folder"):
        bundle.unpack(repack(filled.parent / "course.tar", turn), filled.parent / "to")
    assert not (filled.parent / "to").exists()


def test_an_archive_that_was_changed_or_cut_is_refused_by_name(filled):
    archive, to = filled.parent / "course.tar", filled.parent / "to"

    def flip(entry, content):
        yield entry, content[:-1] + bytes([content[-1] ^ 1]) if entry.name.endswith("text.txt") else content

    def more(entry, content):
        yield entry, content
        if entry.name == bundle.MANIFEST:
            yield tarfile.TarInfo("texts/more"), b""

    with pytest.raises(CourseError, match="damaged: texts/text.txt is not the file that its manifest names"):
        bundle.unpack(repack(archive, flip), to)
    assert not (to / "texts" / "text.txt").exists() and prefetched() != to and not (to / bundle.MANIFEST).exists()
    with pytest.raises(CourseError, match="no archive.*names other files than it holds"):
        bundle.unpack(repack(archive, more), to)
    for content in (archive.read_bytes()[:-30_000], b"", b"something else" * 1000):
        (cut := archive.with_name("cut.tar")).write_bytes(content)
        with pytest.raises(CourseError, match="is no archive of course prefetch, or is cut short"):
            bundle.unpack(cut, filled.parent / "new")
    assert bundle.unpack(archive, to)["files"] == bundle.read(filled)["files"]  # and the whole one mends all that


def test_a_full_disk_is_one_sentence_and_loses_nothing(filled, tiny_gpt2, capsys):
    archive, before = filled.parent / "course.tar", (filled.parent / "course.tar").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(CourseError, match="course.tar' does not fit: the disk is full.*folder stays as it is"):
            bundle.pack(filled, archive)
        assert main(["prefetch", "--from", str(archive), "--to", str(filled.parent / "small")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert archive.read_bytes() == before and not [*filled.parent.glob("*.part")]
    assert "the disk is full" in capsys.readouterr().err
    assert main(["prefetch", "--from", str(archive), "--to", str(filled.parent / "small")]) == 0
    assert bundle.finished(filled.parent / "small") == bundle.finished(filled)


def test_kept_texts_come_first_and_the_hub_is_asked_for_the_rest(cache, monkeypatch):
    texts, asked = [f"text {n}\n\u2028 ü" for n in range(kept_texts.SHARD + 100)], []

    def hub(dataset, skip=0):
        asked.append(skip)
        yield from texts[skip:]

    monkeypatch.setattr(stream, "streamed", hub)
    cache.mkdir()
    bundle.write(cache, {"made": {}, "files": {}})
    kept_texts.write(cache, "some/set", texts[: kept_texts.SHARD])
    assert [*stream.Stream("some/set")()] == texts and asked == [kept_texts.SHARD]
    assert [*stream.stream_documents("some/set", skip=300)] == texts[300:] and asked == [kept_texts.SHARD, 300]
    last = kept_texts.write(cache, "some/set", texts[kept_texts.SHARD :])
    assert [*stream.stream_documents("some/set", skip=10)] == texts[10:] and len(asked) == 2  # all is kept
    last.write_bytes(last.read_bytes()[:50])
    with pytest.raises(CourseError, match="is damaged.*run course prefetch again"):
        [*stream.stream_documents("some/set")]
    kept_texts.shards("some/set")[0].unlink()  # what lies behind a gap is not taken for what stood before it
    assert [*stream.stream_documents("some/set")] == texts


def test_bad_input_is_one_sentence(cache, tiny_gpt2, capsys):
    model = ["--model", str(tiny_gpt2.directory)]
    for argv, said in ((["--tokens", "0"], "tokens=0"), (["--text", "nowhere.txt", *model], "text='nowhere.txt'"),
                       (["--hook", f"{HOOK}:many", "--text", str(tiny_gpt2.text), *model], "number of tokens"),
                       (["--from", "nowhere.tar"], "from='nowhere.tar' is no archive")):
        assert main(["prefetch", *argv]) == 2
        assert said in capsys.readouterr().err
    (cache / bundle.MANIFEST).write_text(json.dumps([1]))
    assert main(["prefetch", *model]) == 2
    assert "manifest.json' cannot be read" in capsys.readouterr().err
