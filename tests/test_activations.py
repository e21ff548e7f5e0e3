"""Harvests: equal to the cache, the same in memory, on disk and after a kill; never more of the model than needed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from course_utils import activations
from course_utils.activations import Activations, disk, harvest
from course_utils.errors import CourseError
from course_utils.lab import open_lab

HOOK = "blocks.1.hook_resid_post"
HOOKS = ["hook_embed", "blocks.0.hook_resid_pre", "blocks.1.mlp.hook_post", "blocks.2.hook_attn_out",
         "blocks.1.attn.hook_z", "ln_final.hook_normalized"]


def same(a: Activations, b: Activations) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("x", "tokens", "doc", "pos"))


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("which", ["small_lab", "stories_lab"])
def test_harvest_equals_run_with_cache(which, hook, request):
    lab = request.getfixturevalue(which)
    acts = harvest(lab, hook, 700)
    expected = []
    for batch in lab.batches(700):
        with torch.no_grad():
            expected.append(lab.model.run_with_cache(batch.tokens)[1][hook][batch.mask].flatten(1))
    assert torch.equal(acts.x, torch.cat(expected)) and acts.x.dtype == torch.float32
    assert len(acts.usable) == 700 and int(acts.is_bos.sum()) == len(acts) - 700
    assert (acts.tokens[acts.is_bos] == lab.bos).all()


def test_the_model_stops_after_the_hooks_block(small_lab):
    entered = []
    handles = [block.register_forward_pre_hook(lambda *_, i=i: entered.append(i))
               for i, block in enumerate(small_lab.model.blocks)]
    try:
        harvest(small_lab, HOOK, 500)
    finally:
        for handle in handles:
            handle.remove()
    assert {0, 1} == set(entered)


@pytest.mark.parametrize("hook", ["blocks.0.attn.hook_pattern", "blocks.1.hook_resid_pots"])
def test_hooks_that_give_no_vectors(small_lab, hook):
    with pytest.raises(CourseError, match=f"hook='{hook}'.*e.g.|nearest"):
        harvest(small_lab, hook, 100)


def test_disk_equals_memory(small_lab, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "CHECKPOINT_BYTES", 1)
    memory = harvest(small_lab, HOOK, 9000, labels=True)
    stored = harvest(small_lab, HOOK, 9000, labels=True, directory=tmp_path)
    assert same(memory, stored) and stored.hook == HOOK
    assert stored.labels.concepts() == memory.labels.concepts()
    assert (stored.labels.mask("word_list:animals") == memory.labels.mask("word_list:animals")).all()
    assert memory.labels.mask("word_list:animals").any()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.json", "rows.safetensors", "x.safetensors"]
    # a finished harvest is opened, not made again
    monkeypatch.setattr(activations, "_rows", None)
    assert same(memory, harvest(small_lab, HOOK, 9000, labels=True, directory=tmp_path))


def test_large_harvests_go_to_disk_by_themselves(small_lab, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    acts = harvest(small_lab, HOOK, 1000, in_memory_bytes=1000)
    assert same(acts, harvest(small_lab, HOOK, 1000)) and len(list(tmp_path.glob("harvest/*/x.safetensors"))) == 1


KILLED = """
import os, signal, sys
from course_utils.activations import disk
from course_utils.activations import harvest
from course_utils.lab import open_lab
import torch
torch.set_num_threads(1)
disk.CHECKPOINT_BYTES = 3 * 2048 * 32 * 4
write, calls = disk.DiskWriter.add, []
def add(self, x):
    calls.append(1)
    write(self, x)
    if len(calls) == 8:
        self._handle.flush()
        os.kill(os.getpid(), signal.SIGKILL)
disk.DiskWriter.add = add
harvest(open_lab(sys.argv[1], device="cpu", text=sys.argv[2], quiet=True), sys.argv[3], 25000, directory=sys.argv[4])
"""


def test_killed_and_resumed_equals_uninterrupted(small_lab, tiny_gpt2, tmp_path, monkeypatch):
    arguments = [str(tiny_gpt2.directory), str(tiny_gpt2.text), HOOK, str(tmp_path)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=Path(__file__).parents[1])
    assert killed.returncode == -signal.SIGKILL
    done = json.loads((tmp_path / "progress.json").read_text())["batches"]
    assert 0 < done < 8  # something to keep, and something half done to throw away
    with pytest.raises(CourseError, match="no finished harvest.*resumes"):
        Activations.load(tmp_path)
    run, calls = activations._rows, []
    monkeypatch.setattr(activations, "_rows", lambda *a: calls.append(1) or run(*a))
    resumed = harvest(small_lab, HOOK, 25000, directory=tmp_path)
    assert len(calls) == len(list(small_lab.batches(25000))) - done
    assert same(resumed, harvest(small_lab, HOOK, 25000))


def test_a_directory_with_another_harvest_is_left_alone(small_lab, tmp_path):
    harvest(small_lab, HOOK, 500, directory=tmp_path)
    with pytest.raises(CourseError, match="holds another harvest .*n_tokens 500, not 600"):
        harvest(small_lab, HOOK, 600, directory=tmp_path)


def test_save_and_load(small_lab, tmp_path):
    acts = harvest(small_lab, HOOK, 500, labels=True)
    loaded = Activations.load(acts.save(tmp_path / "new"))
    assert same(acts, loaded) and loaded.model == acts.model
    with pytest.raises(CourseError, match="already holds"):
        acts.save(tmp_path / "new")
    whole = (tmp_path / "new" / "x.safetensors").read_bytes()
    (tmp_path / "new" / "x.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CourseError, match="is damaged"):
        Activations.load(tmp_path / "new")


def test_batches_are_every_usable_row_once_an_epoch(small_lab):
    acts = harvest(small_lab, HOOK, 600)
    epoch = torch.cat(list(acts.batches(100, seed=3, epochs=1)))
    order = lambda x: x[torch.argsort(x[:, 0])]  # noqa: E731
    assert torch.equal(order(epoch), order(acts.x[acts.usable])) and not torch.equal(epoch, acts.x[acts.usable])
    again = list(acts.batches(100, seed=3, epochs=2))
    assert torch.equal(torch.cat(again[:6]), epoch) and not torch.equal(torch.cat(again[6:]), epoch)
    late = list(acts.batches(100, seed=3, epochs=2, start=8))
    assert all(torch.equal(a, b) for a, b in zip(late, again[8:], strict=True))
    for size in (0, 601):
        with pytest.raises(CourseError, match=f"batch_size={size} must lie in 1 to 600"):
            next(acts.batches(size))


def test_activations_can_be_trained_on(small_lab):
    acts = harvest(small_lab, HOOK, 300)
    weight = torch.ones(32, requires_grad=True)
    (next(acts.batches(100)) @ weight).sum().backward()  # tensors made in inference mode would refuse
    assert weight.grad.abs().sum() > 0


def test_more_tokens_than_text(small_lab):
    with pytest.warns(UserWarning, match=r"n_tokens=10000000: the heldout text has \d+ tokens") as said:
        acts = harvest(small_lab, "hook_embed", 10_000_000, split="heldout")
    assert str(len(acts.usable)) in str(said[0].message)
    expected = sum(len(d.ids) for d in small_lab.documents("heldout"))
    assert len(acts.usable) == expected


def test_too_little_text_for_a_split(tiny_gpt2, tmp_path):
    (tmp_path / "one.txt").write_text("the dog ran")
    lab = open_lab(tiny_gpt2.directory, device="cpu", text=tmp_path / "one.txt", quiet=True)
    with pytest.raises(CourseError, match="heldout split .* holds no text"):
        harvest(lab, HOOK, 100, split="heldout")
    with pytest.raises(CourseError, match="n_tokens=0 must be at least 1"):
        harvest(lab, HOOK, 0)


def test_nan_is_refused(small_lab):
    broken = ("blocks.0.hook_resid_post", lambda x: x * float("nan"))
    with small_lab.hooked(broken), pytest.raises(CourseError, match="NaN or infinity"):
        harvest(small_lab, HOOK, 100)


def test_a_full_disk_gets_a_sentence_and_can_be_resumed(small_lab, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "CHECKPOINT_BYTES", 1)
    replace = os.replace

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CourseError, match="the disk is full; .*resumes"):
        harvest(small_lab, HOOK, 5000, directory=tmp_path)
    monkeypatch.setattr(os, "replace", replace)
    assert same(harvest(small_lab, HOOK, 5000, directory=tmp_path), harvest(small_lab, HOOK, 5000))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_writing_to_a_full_device(tmp_path):
    with pytest.raises(CourseError, match="the disk is full"), disk.writing(tmp_path), open("/dev/full", "wb") as file:
        file.write(bytes(100_000))


def test_space_is_looked_at_before_the_work(small_lab, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 10, 1000)
    monkeypatch.setattr(activations.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CourseError, match="GB are needed and 0.0 GB are free"):
        harvest(small_lab, HOOK, 500, directory=tmp_path)


def test_no_permission_to_write(small_lab, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(CourseError, match="cannot be written .*give a directory of your own"):
        harvest(small_lab, HOOK, 500, directory=tmp_path / "file" / "below")

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write anywhere, so the refusal is played
    with pytest.raises(CourseError, match=r"cannot be written \(Permission denied\)"):
        harvest(small_lab, HOOK, 500, directory=tmp_path / "new")


def test_labels_stand_beside_the_right_tokens(stories_lab):
    acts = harvest(stories_lab, "hook_embed", 3000, labels=True)
    labelled = acts.tokens[acts.labels.mask("word_list:animals")].tolist()  # this tokenizer cuts " dog" into " do", "g"
    words = set("".join(stories_lab.token_strings[i] for i in labelled).lower().split())
    assert {"cat", "fish"} <= words
    assert not acts.labels.mask("word_list:animals")[acts.is_bos.numpy()].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert harvest(stories_lab, "hook_embed", 3000).labels is None
