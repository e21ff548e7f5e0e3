"""Where the course's own files are, and proof that they are whole."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from course_utils.errors import CourseError

_HERE = Path(__file__).resolve().parent
# In a wheel the data travel inside the package; in a checkout they lie beside it.
DATA = _HERE / "data" if (_HERE / "data").is_dir() else _HERE.parent / "data"


def build_dir() -> Path:
    """Return the folder for everything that a run writes: ``$COURSE_BUILD``, else ``build/`` of the checkout or here.

    Returns
    -------
    Path
        Made if it was missing.
    """
    root = next((p for p in (Path.cwd(), *Path.cwd().parents) if (p / "pyproject.toml").is_file()), Path.cwd())
    folder = Path(os.environ.get("COURSE_BUILD", root / "build"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@cache
def expected_sums() -> dict[str, str]:
    """Read ``data/SHA256SUMS``: path below ``data/`` → expected digest."""
    listing = DATA / "SHA256SUMS"
    if not listing.is_file():
        return {}
    pairs = (line.split(maxsplit=1) for line in listing.read_text().splitlines() if line.strip())
    return {name.strip().lstrip("*"): digest for digest, name in pairs}


def checked(name: str) -> Path:
    """Return ``data/<name>`` after comparing it with its recorded checksum.

    Parameters
    ----------
    name
        Path below ``data/``, with forward slashes, e.g. ``"organism/model.safetensors"``.

    Raises
    ------
    CourseError
        If the file is missing, or differs from ``data/SHA256SUMS``.
    """
    path = DATA / name
    if not path.is_file():
        raise CourseError(f"data/{name} is missing; restore it with 'git checkout data' or install the package again.")
    expected = expected_sums().get(name)
    if expected is not None and sha256(path) != expected:
        raise CourseError(f"data/{name} differs from its checksum in data/SHA256SUMS (cut short or edited?); "
                          "restore it with 'git checkout data', or run 'course organism sums' if you meant it.")
    return path
