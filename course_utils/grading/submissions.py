"""Whose notebook is where: what a folder of submissions holds, and reading one without being led astray."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from course_utils.errors import CourseError

LARGEST = 32 * 2**20  # bytes; the course's own notebooks, figures included, have less than one million
_NAMED = re.compile(r"(?P<student>.+?)[ _-](?P<notebook>\d\d)(?:[ _-].*)?")
_NUMBERED = re.compile(r"(?P<notebook>\d\d)(?:[ _-].*)?")


class Submission(NamedTuple):
    """One file, or that there is none; `notebook` is empty where the name does not tell."""

    student: str
    notebook: str
    path: Path | None


def find(folder: Path, notebook: str = "") -> list[Submission]:
    """Return the submissions in a folder, students in order.

    Parameters
    ----------
    folder
        Holds ``<student>.ipynb`` and ``<student>_<notebook>.ipynb``, or a folder a student with notebooks in it at any
        depth. Links are listed, not followed.
    notebook
        Only this one, e.g. ``"02"``; what is named after no notebook is taken for it.

    Raises
    ------
    CourseError
        If there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise CourseError(f"DIR={str(folder)!r} is no folder; give one with <student>.ipynb or <student>/*.ipynb.")
    found: list[Submission] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            found += _of_student(path)
        elif path.suffix == ".ipynb":
            named = _NAMED.fullmatch(path.stem)
            found.append(Submission(_shown(named["student"] if named else path.stem), named["notebook"] if named else
                                    "", path))
    if not found:
        raise CourseError(f"DIR={str(folder)!r} holds no submission; give <student>.ipynb or <student>/*.ipynb.")
    if notebook:  # a student who sent other ones only stays in the table
        there = {one.student for one in found if one.notebook in ("", notebook)}
        rest = {one.student: Submission(one.student, notebook, None) for one in found if one.student not in there}
        found = [one for one in found if one.notebook in ("", notebook)] + [*rest.values()]
    return sorted((one._replace(notebook=one.notebook or notebook) for one in found),
                  key=lambda one: (one.student, one.notebook, str(one.path)))


def _of_student(folder: Path) -> list[Submission]:
    student = _shown(folder.name)
    found = []
    for here, inner, files in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]  # .ipynb_checkpoints
        for name in files:
            named = _NUMBERED.fullmatch(Path(name).stem) or _NAMED.fullmatch(Path(name).stem)
            if name.endswith(".ipynb") and not name.startswith("."):
                found.append(Submission(student, named["notebook"] if named else "", Path(here, name)))
    return found or [Submission(student, "", None)]


def _shown(name: str) -> str:
    """Return a file's name as text that a table can hold."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "�" for c in text)


def read(path: Path | None) -> bytes:
    """Return a submission's bytes.

    Raises
    ------
    CourseError
        If it is missing, a link, no plain file, empty or too large.
    """
    if path is None:
        raise CourseError("no notebook was handed in.")
    try:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        if path.is_symlink():
            raise CourseError("the file is a link, which is not followed.")
        with os.fdopen(os.open(path, flags), "rb") as handle:
            known = os.fstat(handle.fileno())
            if not stat.S_ISREG(known.st_mode):
                raise CourseError("this is no plain file.")
            if known.st_nlink > 1:
                raise CourseError("the file has a second name (a hard link), perhaps somebody else's.")
            raw = handle.read(LARGEST + 1)
    except OSError as error:
        raise CourseError(f"the file cannot be read ({error.strerror}).") from None
    if not raw.strip():
        raise CourseError("the file is empty.")
    if len(raw) > LARGEST:
        raise CourseError(f"the file has {known.st_size / 2**20:,.0f} MiB; at most {LARGEST // 2**20} are read. Clear "
                          "the outputs and hand it in again.")
    return raw
