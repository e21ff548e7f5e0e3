"""The ledger: every verdict of every run, in ``build/ledger.json``.

Rows are written by runs, never by hand: one per claim, model, notebook and statistic. Notebooks may run in
parallel processes, so a row is added under a file lock and the file is replaced in one step; a file that
cannot be read is set aside, never overwritten.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from course_utils.errors import CourseError
from course_utils.paths import build_dir, write_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

KEY = ("id", "model", "notebook", "statistic")
COLUMNS = (*KEY, "value", "low", "high", "nulls", "n", "verdict", "seconds")
_PATIENCE = 30.0  # seconds to wait for a lock file; the lock is held for milliseconds


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


class Ledger:
    """The table of verdicts in one JSON file.

    Parameters
    ----------
    path
        File to read and write; None means ``ledger.json`` in :func:`course_utils.paths.build_dir`.
    """

    def __init__(self, path: Path | str | None = None):
        self.path = build_dir() / "ledger.json" if path is None else Path(path)

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows, sorted by claim, model, notebook and statistic; none if nothing ran yet."""
        if not self.path.exists():
            return []
        with self._locked():
            return self._read()

    def record(self, row: Mapping[str, Any]) -> None:
        """Add a row, in the place of an earlier one with the same claim, model, notebook and statistic.

        Raises
        ------
        CourseError
            If a column is missing, a value is no strict JSON (NaN), or the folder cannot be written.
        """
        missing = [column for column in COLUMNS if column not in row]
        if missing:
            raise CourseError(f"the ledger row lacks {', '.join(missing)}; a row has {', '.join(COLUMNS)}.")
        try:
            new = json.loads(json.dumps(dict(row), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise CourseError(f"the ledger row of {row['id']} is not strict JSON: {error}.") from None
        with self._locked():
            kept = [old for old in self._read() if any(old[k] != new[k] for k in KEY)]
            self._write(sorted([*kept, new], key=lambda r: [str(r[k]) for k in KEY]))

    def _read(self) -> list[dict[str, Any]]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except UnicodeDecodeError:
            return self._set_aside("is not text")
        try:
            rows = json.loads(text, parse_constant=_no_constant)
        except ValueError as error:
            return self._set_aside(f"is not JSON ({error})")
        if not (isinstance(rows, list) and all(isinstance(r, dict) and set(KEY) <= r.keys() for r in rows)):
            return self._set_aside("is not a list of ledger rows")
        return rows

    def _set_aside(self, why: str) -> list[dict[str, Any]]:
        aside = self.path.with_name(f"{self.path.stem}.corrupt-{time.time_ns()}{self.path.suffix}")
        os.replace(self.path, aside)
        warnings.warn(f"{self.path} {why}; it is kept as {aside.name} and a new ledger begins.", stacklevel=4)
        return []

    def _write(self, rows: list[dict[str, Any]]) -> None:
        text = json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False)
        write_text(self.path, text + "\n", locked=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _lock(self.path.with_name(self.path.name + ".lock")):
                yield
        except OSError as error:
            raise CourseError(f"the ledger cannot be written in {self.path.parent} ({error.strerror}); set "
                              "COURSE_BUILD to a folder that you may write.") from None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    if fcntl is not None:
        with path.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)  # let go by the system when the process ends, however it ends
            yield
        return
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            break
        except (FileExistsError, PermissionError) as error:  # Windows denies access to a file being deleted
            if isinstance(error, PermissionError) and not path.exists():
                raise
            if time.monotonic() > deadline:
                raise CourseError(f"{path} stays locked; delete it if no notebook is running.") from None
            time.sleep(0.01)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
