"""What a student has done, in one small JSON file that survives restarts, kill -9 and two notebooks at once.

``$COURSE_PROGRESS`` names the file; ``off`` keeps nothing (headless runs and tests set it, so that they neither read
nor write a student's). Else it is ``progress.json`` in the checkout, or in ``~/.under_the_hood`` for an installed
package. A change is made under a file lock, written to a draft, and moved into place in one step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from course_utils import paths

Book = dict[str, dict[str, dict[str, Any]]]
PATIENCE = 5.0  # seconds to wait for another notebook, which holds the lock for milliseconds
_memory: Book = {}  # what is known while nothing can be, or shall be, written
_warned: set[str] = set()


def place() -> Path | None:
    """Return where progress is kept; None if it shall not be."""
    named = os.environ.get("COURSE_PROGRESS")
    if named == "off":
        return None
    checkout = paths.DATA.parent
    here = checkout if (checkout / "pyproject.toml").is_file() else Path.home() / ".under_the_hood"
    return Path(named).expanduser() if named else here / "progress.json"


def read() -> Book:
    """Return all that is known: section (``exercises``, ``predictions``, ``recall``) → key → entry.

    The section ``touched`` says when each key was last touched, the latest at its end.
    """
    path = place()
    if path is None or not path.exists():
        return _memory
    try:
        with _locked(path):
            return _read(path)
    except (OSError, NotImplementedError) as error:
        _warn(path, error)
        return _memory


def change(section: str, key: str, edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Let `edit` change one entry in place (new ones are empty), keep the result, and return it."""
    path = place()
    if path is not None:
        try:
            with _locked(path):
                book = _read(path)
                entry = _changed(book, section, key, edit)
                _write(path, book)
                return entry
        except (OSError, NotImplementedError) as error:
            _warn(path, error)
    return _changed(_memory, section, key, edit)


def _changed(book: Book, section: str, key: str, edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    entry = book.setdefault(section, {}).setdefault(key, {})
    edit(entry)
    touched = book.setdefault("touched", {})
    touched.pop(key, None)  # to the end: two touches may fall into one second
    touched[key] = {"section": section, "when": now()}
    return entry


def forget() -> None:
    """Begin anew."""
    _memory.clear()
    path = place()
    if path is not None and path.exists():
        with _locked(path):
            path.unlink(missing_ok=True)


def forget_exercises(ids: Iterable[str]) -> None:
    """Begin anew with these exercises: their tries, hints and successes are forgotten, all else stays."""
    ids, path = list(ids), place()
    for id in ids:
        _memory.get("exercises", {}).pop(id, None)
    if path is not None and path.exists():
        with _locked(path):
            book = _read(path)
            for id in ids:
                book.get("exercises", {}).pop(id, None)
            _write(path, book)


def now() -> str:
    """Return the time as it is written down."""
    return time.strftime("%Y-%m-%dT%H:%M:%S")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no file")
    with FileLock(f"{path}.lock", timeout=PATIENCE):
        yield


def _read(path: Path) -> Book:
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(entry, dict) for section in book.values() for entry in section.values()):
            return book
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError):
        pass  # no JSON, or another shape: both are set aside
    aside = path.with_name(f"{path.stem}.damaged-{time.time_ns()}{path.suffix}")
    os.replace(path, aside)
    print(f"{path} cannot be read; it is kept as {aside.name}, and progress begins anew.", file=sys.stderr)
    return {}


def _write(path: Path, book: Book) -> None:
    paths.write_text(path, json.dumps(book, indent=1, ensure_ascii=False), locked=True)


def _warn(path: Path, error: BaseException) -> None:
    if str(path) not in _warned:
        _warned.add(str(path))
        why = getattr(error, "strerror", None) or error
        print(f"Progress is not kept: {path}: {why}. COURSE_PROGRESS names another file.", file=sys.stderr)
