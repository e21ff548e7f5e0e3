"""Every fault of a hub ends in the right bytes or in one sentence, soon; the cache is never wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loopback_hub import Fault, running

from course_utils.cli import bundle
from course_utils.paths import build_dir

pytestmark = pytest.mark.slow


def test_every_fault_is_mended_or_said_and_leaves_the_cache_right(on_hub):
    from hub_faults import FAULTS, PARTS, markdown

    rows = on_hub("""
        import hub_faults
        found["rows"] = hub_faults.table(hub)
        """, seconds=1200)["rows"]
    (build_dir() / "faults.json").write_text(json.dumps(rows, indent=1))
    print(markdown(rows))
    assert {*rows} == {*FAULTS, "disk full", "gone after the first shard"}
    for name, trials in rows.items():
        for trial in trials:
            case = f"{name}, {trial['what']}: {trial}"
            assert trial["again"] == "right" and trial["left"] == [], case
            assert trial["first"] == "right" or "=" in trial["first"] or "The hub" in trial["first"], case
            assert "\n" not in trial["first"] and trial["slept"] < 120, case
    by = {(name, trial["what"]): trial["first"] for name, trials in rows.items() for trial in trials}
    for what in PARTS:
        for name in ("slow", "cut in mid-file, once", "429, Retry-After 2 s, once"):
            assert by[name, what] == "right", (name, what)
        assert "3,601 s of rest" in by["429, Retry-After 1 h", what]
        assert "the disk is full" in by["disk full", what]
    for what in ("model", "SAE"):
        assert by["wrong bytes, once", what] == "right"
        assert "came twice with another content" in by["wrong bytes, always", what]
        assert "the hub answered 404" in by["404", what] and "the hub answered 500" in by["500, always", what]
    assert "broke off after" in by["gone after the first shard", "text"]


def test_killed_in_the_middle_of_model_text_and_sae_it_goes_on(tmp_path):
    from hub_contents import HOOK, RELEASE, fill

    command = [sys.executable, "-m", "course_utils.cli", "prefetch", "--tokens", "40000", "--to", str(tmp_path / "to"),
               "--sae", f"{RELEASE}/{HOOK}"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "COURSE_"))}
    env |= {"HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    with running() as hub:
        fill(hub)
        for part, cut in (("model.safetensors", 5_000_000), ("0000.parquet", 20_000), ("sae_weights", 20_000)):
            hub.forget()
            hub.fault = lambda request, part=part, cut=cut: Fault(cut=cut, pause=60) if (
                request.path.startswith("/cdn") and part in request.path) else None
            with (tmp_path / f"{part}.log").open("wb") as log:
                child = subprocess.Popen(command, env=env | {"HF_ENDPOINT": hub.url}, stdout=log, stderr=log)
                for _ in range(6000):
                    if hub.served(part) or child.poll() is not None:
                        break
                    time.sleep(0.05)
                assert hub.served(part) and child.poll() is None, (tmp_path / f"{part}.log").read_text()
                child.kill()
                assert child.wait() == -9
        hub.forget()
        done = subprocess.run(command, env=env | {"HF_ENDPOINT": hub.url}, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        assert hub.served("model.safetensors") == 0  # it was whole already
        files = bundle.read(tmp_path / "to")["files"]
        listed = subprocess.run(command[: command.index("--sae")], env=env | {"HF_ENDPOINT": hub.url},
                                capture_output=True, text=True, timeout=600)
        held = {hashlib.sha256(blob).hexdigest() for repo in hub.repositories.values() for blob in repo.files.values()}
    fetched = {name: digest for name, digest in files.items() if "/snapshots/" in name}
    assert {Path(name).name for name in fetched} >= {"config.json", "merges.txt", "model.safetensors", "cfg.json",
                                                     "sae_weights.safetensors"}
    assert {*fetched.values()} <= held and any(name.startswith("texts/") for name in files)
    assert not [*(tmp_path / "to").rglob("*.incomplete")] and RELEASE in done.stdout
    # Of the SAEs that sae-lens lists the hub has no other: each is named, and the rest is there all the same.
    assert listed.returncode == 1 and f"SAE: {RELEASE}/{HOOK}" in listed.stdout
    assert "SAE: left out, name=" in listed.stdout and "each with its SHA-256" in listed.stdout
