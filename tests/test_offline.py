"""With the network cut by the kernel: an archive made through the loopback hub serves GPT-2, SAE, text and harvest."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import offline
import pytest

pytestmark = pytest.mark.slow
# Every attempt to look up a name or to connect is written down; sockets in files are none.
WATCH = """
import json, sys
tried = []
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        if event == "socket.getaddrinfo" or isinstance(args[1], tuple):
            tried.append([event, str(args)])
sys.addaudithook(watch)
"""
USE = WATCH + """
import time
from hub_contents import HOOK, RELEASE
from course_utils import evaluate, harvest, load_sae, open_lab, ready_sae
from course_utils.dictionaries import published_saes
from course_utils.errors import CourseError
begun = time.monotonic()
lab = open_lab("gpt2", quiet=True)
acts = harvest(lab, HOOK, 3000)
names = published_saes(lab, "blocks.0.hook_resid_post")
sae = load_sae(names[0])
found = {"tried": list(tried), "names": names, "mapped": len(acts), "fingerprint": lab.fingerprint,
         "x": float(acts.x.double().sum()), "ev": evaluate(lab, sae, 500, n_boot=20).explained_variance.value,
         "ready": list(ready_sae(lab, HOOK, 256, n_samples=4096, batch_size=256).W_dec.shape), "tried_all": list(tried),
         "seconds": time.monotonic() - begun}
try:
    for document in lab.documents():
        pass
except CourseError as error:
    found["end"] = str(error)
begun = time.monotonic()
try:
    load_sae("gpt2-small-mlp-tm/blocks.1.hook_mlp_out")
except CourseError as error:
    found["missing"] = str(error), time.monotonic() - begun
print(json.dumps(found))
"""


@pytest.fixture
def cut():
    try:
        offline.prefix()
    except OSError as error:
        pytest.skip(f"no namespace without a network here: {error}")


def env(tmp_path: Path, **others: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "COURSE_"))}
    return kept | {"HF_HOME": str(tmp_path / "nothing"), "OMP_NUM_THREADS": "1",
                   "COURSE_BUILD": str(tmp_path / "build")} | others


def test_there_is_no_network_in_there(cut):
    code = "import socket; print(socket.if_nameindex()); socket.create_connection(('127.0.0.1', 9), 1)"
    said = offline.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "unreachable" in said.stderr and "'lo'" in said.stdout and "eth" not in said.stdout


def test_an_archive_serves_gpt2_where_there_is_no_network(on_hub, cut, tmp_path):
    made = on_hub(f"""
        from course_utils.cli import main
        code = main(["prefetch", "--tokens", "60000", "--hook", HOOK + ":3000", "--sae", f"{{RELEASE}}/{{HOOK}}",
                     "--to", {str(tmp_path / "to")!r}, "--bundle", {str(tmp_path / "usb.tar")!r}])
        from course_utils import harvest, open_lab
        lab = open_lab("gpt2", quiet=True)
        found |= {{"code": code, "fingerprint": lab.fingerprint, "size": os.path.getsize({str(tmp_path / "usb.tar")!r}),
                   "x": float(harvest(lab, HOOK, 3000).x.double().sum())}}
        """)
    assert made["code"] == 0, made["errors"]
    (tmp_path / "to").rename(tmp_path / "elsewhere")  # nothing may lead back to it
    here, usual = tmp_path / "here", {"cwd": Path(__file__).parent, "capture_output": True, "text": True}
    command = [sys.executable, "-m", "course_utils.cli", "prefetch", "--from", str(tmp_path / "usb.tar"), "--to",
               str(here)]
    unpacked = offline.run(command, env=env(tmp_path), **usual)
    assert unpacked.returncode == 0, unpacked.stderr
    used = offline.run([sys.executable, "-c", USE], env=env(tmp_path, COURSE_CACHE=str(here)), **usual)
    assert used.returncode == 0, used.stderr[-3000:]
    found = json.loads(used.stdout.splitlines()[-1])
    print({"bytes": made["size"], "seconds": found["seconds"]}, found["end"], found["missing"])
    assert found["tried"] == found["tried_all"] == []
    assert (found["fingerprint"], found["x"]) == (made["fingerprint"], made["x"])
    assert found["names"] == ["gpt2-small-res-jb/blocks.1.hook_resid_pre"] and found["ev"] == pytest.approx(1, abs=1e-3)
    assert found["ready"] == [256, 64]
    assert "behind the" in found["end"] and "course prefetch --tokens" in found["end"]
    assert "which cannot be reached" in found["missing"][0] and found["missing"][1] < 20
    assert not (tmp_path / "nothing").exists()  # the hub's own cache was not needed
    assert "on gpt2" not in used.stderr and "Retrying" not in used.stderr


def test_a_notebook_runs_on_the_organism_where_there_is_no_network(cut, tmp_path):
    command = [sys.executable, offline.__file__, "00", "--output", str(tmp_path / "out")]
    done = offline.subprocess.run(command, env=env(tmp_path), cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (outcome,) = json.loads((tmp_path / "out" / "run.json").read_text())["notebooks"]
    assert outcome["status"] == "passed" and outcome["cells"] >= 20
