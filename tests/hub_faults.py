"""What can go wrong with a hub, tried on a model, an SAE and a text; for a process made by the fixture `on_hub`.

Each trial starts with an empty cache and has two attempts: one with the fault, one after it. Either the first brings
the very bytes that an untroubled hub gives ("mended"), or it raises one sentence and the second brings them ("said").
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

from hub_contents import HOOK, RELEASE
from loopback_hub import Fault, Hub, Request

from course_utils.cli import bundle, prefetch
from course_utils.errors import CourseError

DATASET = "Skylion007/openwebtext"
WORDS = 60_000  # some two shards of the text
# What a trial fetches, and the file that the fault befalls.
PARTS = {"model": "model.safetensors", "SAE": "sae_weights.safetensors", "text": "0000.parquet"}
MISSING = {"X-Error-Code": "EntryNotFound"}
FAULTS = {  # how the answer is spoilt, and how often
    "slow": (Fault(slow=0.5), 99),
    "never answers": (Fault(slow=5), 99),
    "cut in mid-file, once": (Fault(cut=20_000), 1),
    "cut at once, always": (Fault(cut=0), 99),
    "404": (Fault(404, headers=MISSING), 99),
    "429, Retry-After 2 s, once": (Fault(429, headers={"Retry-After": "2"}), 1),
    "429, Retry-After 1 h": (Fault(429, headers={"Retry-After": "3600"}), 99),
    "500, once": (Fault(500), 1),
    "500, always": (Fault(500), 99),
    "wrong bytes, once": (Fault(wrong=True), 1),
    "wrong bytes, always": (Fault(wrong=True), 99),
}


class Quick:
    """The clock of the course's patience with the hub, which writes down how long it would have slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def __getattr__(self, name: str):
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def fetch(what: str, root: Path) -> str:
    """Fetch the model, the SAE or the text into a cache folder; return a digest of what came."""
    from course_utils import load_sae
    from course_utils.lab import kept_texts
    from course_utils.lab.models import find_model

    digest = hashlib.sha256()
    if what == "model":
        for path in sorted(find_model("gpt2").iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
    elif what == "SAE":
        digest.update(load_sae(f"{RELEASE}/{HOOK}").W_enc.numpy().tobytes())
    else:
        words = SimpleNamespace(tokenizer=lambda texts, **_: {"input_ids": [text.split() for text in texts]})
        with bundle.writing(f"to={root.name!r}", "run this again, and it goes on from there"):
            prefetch._keep_text(root, DATASET, words, WORDS)
        digest.update(repr([*kept_texts.read(DATASET)]).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def small_disk() -> Iterator[None]:
    """Let no file grow beyond what a shard of text takes: what the system says is what a full disk says."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def attempt(what: str, root: Path, right: str | None = None) -> str:
    try:
        found = fetch(what, root)
    except CourseError as error:
        return str(error)
    return found if right is None else "right" if found == right else "WRONG"


@contextlib.contextmanager
def empty_cache() -> Iterator[Path]:
    before = os.environ["COURSE_CACHE"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COURSE_CACHE"] = folder
        bundle.write(Path(folder), {"made": {}, "files": {}})
        yield Path(folder)
    os.environ["COURSE_CACHE"] = before


def trial(hub: Hub, what: str, right: str, befalls: Callable[[Request], Fault | None], full: bool = False) -> dict:
    """Try one fault; return what the two attempts gave, the seconds of the first, and what is left in the cache."""
    from course_utils.lab import hub as room

    room.time = clock = Quick()
    with empty_cache() as root:
        hub.forget()
        hub.fault, begun = befalls, time.monotonic()
        with small_disk() if full else contextlib.nullcontext():
            first = attempt(what, root, right)
        took = time.monotonic() - begun
        hub.forget()
        left = {str(path.relative_to(root)) for path in root.rglob("*") if path.suffix in (".incomplete", ".part")}
        again = attempt(what, root, right)
    room.time = time
    return {"what": what, "first": first, "again": again, "seconds": took, "slept": sum(clock.slept), "left": [*left]}


def table(hub: Hub) -> dict[str, list[dict]]:
    """Try every fault on everything; the key is the fault."""
    from huggingface_hub import constants

    constants.HF_HUB_DOWNLOAD_TIMEOUT = 1  # seconds; usually 10
    with empty_cache() as root:
        right = {what: attempt(what, root) for what in PARTS}
    rows: dict[str, list[dict]] = {}
    for what, part in PARTS.items():
        for name, (fault, times) in FAULTS.items():
            def befalls(request: Request, part=part, fault=fault, times=times) -> Fault | None:
                hit = request.path.startswith("/cdn") and part in request.path and request.method == "GET"
                return fault if hit and request.number < times else None

            rows.setdefault(name, []).append(trial(hub, what, right[what], befalls))
        rows.setdefault("disk full", []).append(trial(hub, what, right[what], lambda request: None, full=True))
    gone = trial(hub, "text", right["text"],
                 lambda request: Fault(404, headers=MISSING) if "0001.parquet" in request.path else None)
    return rows | {"gone after the first shard": [gone]}


def markdown(rows: dict[str, list[dict]]) -> str:
    """Return the table: fault × what it befell → mended, or said and then right."""
    lines = ["| fault | " + " | ".join(PARTS) + " |", "| --- " * (1 + len(PARTS)) + "|"]
    for name, trials in rows.items():
        by = {trial["what"]: trial for trial in trials}
        cells = ["–" if what not in by else "mended" if by[what]["first"] == "right" else
                 f"said; then {by[what]['again']}" for what in PARTS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
