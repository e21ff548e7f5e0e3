"""What the first cell of a notebook calls on Colab: install what the course lacks, and leave alone what fits.

The cell fetches the package itself without its dependencies; `ensure` sees to those:

1. Each dependency is *there* (its version fits the range), *unfit* or *missing*. Where none is missing nothing happens.
2. pip installs the missing and replaces the unfit, while everything else stays pinned at the version that is there.
3. Only if nothing can be found that way are libraries below the course's own free to move; they are named afterwards.

It is called where none of the course's libraries may be there, so it imports only Python's own, and pip's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import invalidate_caches, metadata
from typing import Any

from course_utils.errors import CourseError

DISTRIBUTION = "under-the-hood-course"

Pip = Callable[[Sequence[str], Sequence[str]], str]


def present() -> dict[str, str]:
    """Return the version of every installed distribution, by its normalised name."""
    found: dict[str, str] = {}
    for about in (one.metadata for one in metadata.distributions()):
        if about and about.get("Name") and about.get("Version"):  # some leave an empty folder behind
            found.setdefault(normal(about["Name"]), about["Version"])  # the first on the path is what is imported
    return found


def normal(name: str) -> str:
    """Return a distribution's name as PEP 503 compares it.

    Examples
    --------
    >>> normal("Huggingface_Hub")
    'huggingface-hub'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def asked() -> list[Any]:
    """Return the course's requirements on this machine; none if it runs from a folder and was never installed."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    wanted = [Requirement(line) for line in lines]
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]


def ensure() -> None:
    """Install what the course lacks, and say what is replaced; print and do nothing where nothing is missing.

    Raises
    ------
    CourseError
        If pip cannot install it; with pip's own words.
    """
    needs, there = asked(), present()
    missing = [one for one in needs if normal(one.name) not in there]
    unfit = [one for one in needs if one not in missing
             and not one.specifier.contains(there[normal(one.name)], prereleases=True)]
    names = ", ".join(f"{one.name} {there[normal(one.name)]} (needed {one.specifier})" for one in unfit)
    if not missing:
        if unfit:  # an environment that somebody made: it is theirs to change
            print(f"Does not fit: {names}. course doctor says what mends it.")
        return
    print(f"Installing what the course lacks: {', '.join(one.name for one in missing)}. This may take some minutes.")
    if unfit:
        print(f"Does not fit and is replaced: {names}.")
    install([*missing, *unfit], needs, there, run_pip)
    invalidate_caches()
    _report(there, present())


def install(wanted: Sequence[Any], needs: Sequence[Any], there: Mapping[str, str], pip: Pip) -> None:
    """Install requirements, moving as little else as possible.

    Parameters
    ----------
    wanted
        What to install.
    needs
        All requirements of the course; those that fit are never moved.
    there
        Versions that are there.
    pip
        Called with the requirements and with lines of constraints; returns what went wrong, or nothing.

    Raises
    ------
    CourseError
        If it cannot be done.
    """
    moving = {normal(one.name) for one in wanted} | {DISTRIBUTION}
    pins = {name: f"{name}=={version}" for name, version in there.items() if name not in moving}
    own = [pins[normal(one.name)] for one in needs if normal(one.name) in pins]
    lines = [f"{one.name}{one.specifier}" for one in wanted]
    if pip(lines, [*pins.values()]) and (wrong := pip(lines, own)):
        raise CourseError(f"pip finds nothing that fits beside {', '.join(own) or 'what is here'}: {wrong}")


def run_pip(requirements: Sequence[str], constraints: Sequence[str]) -> str:
    """Call this interpreter's pip; return its last words if it failed, else nothing."""
    with tempfile.TemporaryDirectory() as folder:
        pins = os.path.join(folder, "constraints.txt")
        with open(pins, "w", encoding="utf-8") as file:
            file.write("\n".join(constraints))
        done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check",
                               "--no-input", "-c", pins, *requirements], capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    return " ".join(errors[-2:]) or f"pip ended with {done.returncode}"


def _report(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Say what was replaced, and whether this kernel already uses the old one."""
    moved = [name for name, version in before.items() if after.get(name, version) != version]
    if moved:
        print("Replaced: " + ", ".join(f"{name} {before[name]} by {after[name]}" for name in moved) + ".")
    loaded = {normal(owner) for module, owners in metadata.packages_distributions().items() if module in sys.modules
              for owner in owners}
    if loaded & {*moved}:
        print(f"This session already uses {', '.join(sorted(loaded & {*moved}))}: restart it, then go on from here.")
    print("Everything the course needs is here.")
