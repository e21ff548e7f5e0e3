"""Is this machine ready for the course? Every finding, and beside every problem what mends it.

A *problem* is something that the course needs and that is broken; a *note* is worth knowing and stops nothing
(a hub that cannot be reached only rules out models that are not on this disk yet).
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from course_utils import __version__, paths
from course_utils.setup import DISTRIBUTION

GIB = 2**30
_REINSTALL = "run 'make test' in the checkout, or 'pip install -c constraints.txt -e .'"


class Remedy(NamedTuple):
    """What a problem looks like from inside a notebook, and what mends it."""

    symptom: str
    fix: str


REMEDIES = {  # one for each check that `examine` makes, in its order; those of single packages share theirs
    "python": Remedy("a `SyntaxError` in code that is not yours, or pip refuses the course",
                     "make the environment with a newer Python: make run PYTHON=/path/to/python3.12"),
    "packages": Remedy("`ModuleNotFoundError`, or an `AttributeError` inside a library", _REINSTALL),
    "device": Remedy("the kernel dies or restarts without a word, or a cell takes many times its minutes",
                     "close other notebooks (a notebook may need up to 4 GiB), and run one at a time: --jobs 1"),
    "build folder": Remedy("`PermissionError`, or *cannot be written*",
                           "make the folder writable, or name another: COURSE_BUILD=/some/folder or course run "
                           "--output"),
    "free disk": Remedy("*No space left on device*",
                        "free some space: a run needs about 0.5 GiB, models from the hub several"),
    "data": Remedy("*differs from its checksum*, or *data/… is missing*",
                   "git checkout data, or install the package again; changed on purpose: course organism sums"),
    "hub": Remedy("a model is not found, or a download hangs",
                  "nothing to mend: the embedded model needs no network; local directories work too (--model DIR)"),
}


class Check(NamedTuple):
    """One finding: ``level`` is ``ok``, ``note`` or ``problem``; ``fix`` says what mends a problem."""

    name: str
    level: str
    found: str
    fix: str = ""


def required() -> tuple[str, list[Requirement]]:
    """Return the Python range and the packages that the course asks for.

    The checkout's ``pyproject.toml`` is believed before the installed metadata, which may be older.
    """
    project = paths.DATA.parent / "pyproject.toml"
    if project.is_file():
        table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        return table["requires-python"], [Requirement(line) for line in table["dependencies"]]
    lines = metadata.requires(DISTRIBUTION) or []
    wanted = [Requirement(line) for line in lines]
    return metadata.metadata(DISTRIBUTION)["Requires-Python"], [r for r in wanted if not r.marker]


def check_python(wanted: str) -> Check:
    """Compare this interpreter with the range of ``requires-python``."""
    found = f"{platform.python_version()} ({sys.executable})"
    if SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        return Check("python", "ok", found)
    return Check("python", "problem", f"{found}, needed {wanted}", REMEDIES["python"].fix)


def check_package(wanted: Requirement) -> Check:
    """Compare one installed package with its range, without importing it."""
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return Check(wanted.name, "problem", f"not installed, needed {wanted.specifier}", _REINSTALL)
    if wanted.specifier.contains(version, prereleases=True):
        return Check(wanted.name, "ok", version)
    return Check(wanted.name, "problem", f"{version}, needed {wanted.specifier}",
                 f"pip install '{wanted}' in an environment of its own")


def cores() -> int:
    """Return how many CPU cores this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or the container's limit."""
    total = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total


def accelerator() -> str:
    """Name what torch would compute on: ``cuda (…)``, ``mps`` or ``cpu``."""
    import torch

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()}, {torch.cuda.mem_get_info()[1] / GIB:.0f} GiB)"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def machine() -> str:
    """Describe this machine in words, e.g. ``"Linux x86_64, 2 cores, 23 GiB of memory, cpu"``."""
    system = f"{platform.system()} {platform.machine()}"
    return f"{system}, {cores()} cores, {memory() / GIB:.0f} GiB of memory, {accelerator()}"


def versions() -> str:
    """Name the versions that results depend on, e.g. ``"Python 3.12.4, torch 2.13.0, …"``."""
    names = ("torch", "transformers", "transformer-lens", "sae-lens", "numpy")
    installed = [f"{name} {metadata.version(name)}" for name in names]
    return ", ".join([f"Under the Hood {__version__}", f"Python {platform.python_version()}", *installed])


def check_device() -> Check:
    """Say what the course will run on, and whether torch itself loads."""
    try:
        where = machine()
    except (ImportError, OSError, RuntimeError) as error:
        return Check("device", "problem", f"torch does not load: {error}", _REINSTALL)
    if memory() < 4 * GIB:
        return Check("device", "note", where, REMEDIES["device"].fix)
    return Check("device", "ok", where)


def check_build() -> list[Check]:
    """Try to write where a run writes, and see how much room is left there."""
    try:
        folder = paths.build_dir()
        probe = folder / f".doctor-{os.getpid()}"
        probe.write_text("x")
        probe.unlink()
    except OSError as error:
        return [Check("build folder", "problem", f"cannot be written: {error}", REMEDIES["build folder"].fix)]
    free = shutil.disk_usage(folder).free / GIB
    level = "problem" if free < 0.5 else "note" if free < 5 else "ok"
    return [Check("build folder", "ok", str(folder)),
            Check("free disk", level, f"{free:.1f} GiB", REMEDIES["free disk"].fix)]


def check_hub(timeout: float = 2.0) -> Check:
    """Ask the model hub for anything at all, within `timeout` seconds; ``HF_ENDPOINT`` is respected.

    It is asked in a thread of its own, because a name server that does not answer heeds no time-out.
    """
    from huggingface_hub import constants

    advice = REMEDIES["hub"].fix
    if constants.HF_HUB_OFFLINE:
        return Check("hub", "note", "not asked: HF_HUB_OFFLINE is set", advice)
    address = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    answer: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=timeout):
                answer.append("reached")
        except urllib.error.HTTPError as error:
            answer.append("reached" if error.code < 500 else f"answers {error.code}")
        except (OSError, ValueError) as error:
            answer.append(str(getattr(error, "reason", error)))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    said = answer[0] if answer else f"no answer within {timeout:g} s"
    if said == "reached":
        return Check("hub", "ok", address)
    return Check("hub", "note", f"{address}: {said}", advice)


def check_data() -> Check:
    """Compare every file of ``data/`` with ``data/SHA256SUMS``."""
    sums = paths.expected_sums()
    fix = REMEDIES["data"].fix
    if not sums:
        return Check("data", "problem", f"no SHA256SUMS in {paths.DATA}", fix)
    wrong = []
    for name, digest in sums.items():
        if not (paths.DATA / name).is_file():
            wrong.append(f"{name} is missing")
        elif paths.sha256(paths.DATA / name) != digest:
            wrong.append(f"{name} differs from its checksum")
    if wrong:
        more = f"; {len(wrong) - 5} more" if wrong[5:] else ""
        return Check("data", "problem", "; ".join(wrong[:5]) + more, fix)
    return Check("data", "ok", f"{len(sums)} files match their checksums")


def examine() -> list[Check]:
    """Make every check.

    Returns
    -------
    list of Check
        Python, each package, the device, the build folder and its disk, the data, the hub.
    """
    python, packages = required()
    return [check_python(python), *(check_package(p) for p in packages), check_device(), *check_build(),
            check_data(), check_hub()]


def table() -> str:
    """Return symptoms and remedies as a Markdown table: what the page behind every notebook's last cell is made of."""
    rows = [f"| {remedy.symptom} | {name} | {remedy.fix} |" for name, remedy in REMEDIES.items()]
    return "\n".join(["| what you see | `course doctor` checks | what mends it |", "| --- | --- | --- |", *rows])


def box() -> str:
    """Return the last cell of every notebook: what to do if it fails, and where words and progress are."""
    *checks, last = REMEDIES
    return f"""\
---
**If this fails**, run `course doctor` in a terminal: it checks {", ".join(checks)} and {last}, and says
what mends each ([by symptom](../docs/if_this_fails.md)). **Words**: [glossary](../docs/glossary.md).
**Where was I?** `course progress`. **Once more from empty**: `course reset` and an exercise's number."""


def show(checks: list[Check]) -> str:
    """Lay the findings out for a terminal, a fix under each problem and note."""
    mark = {"ok": "  ok  ", "note": " note ", "problem": " FIX! "}
    lines = []
    for check in checks:
        lines.append(f"[{mark[check.level]}] {check.name:<18} {check.found}")
        if check.fix and check.level != "ok":
            lines.append(f"{'':>9}{'→':>19} {check.fix}")
    broken = [check.name for check in checks if check.level == "problem"]
    end = f"{len(broken)} to mend: {', '.join(broken)}." if broken else "Everything the course needs is here."
    return "\n".join([*lines, end])
