"""Where the course's own files are, and proof that they are whole."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
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


def cache_dir() -> Path:
    """Return the folder for what is made or fetched once and kept: ``$COURSE_CACHE``, else in the user's cache.

    Returns
    -------
    Path
        Made if it was missing.

    Raises
    ------
    CourseError
        If it cannot be made.
    """
    folder = _cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CourseError(f"{str(folder)!r} cannot be made ({error.strerror}); set COURSE_CACHE to a folder that you "
                          "may write to.") from error
    return folder


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("COURSE_CACHE") or Path(home) / "under-the-hood").expanduser()


def prefetched() -> Path | None:
    """Return the cache folder if ``course prefetch`` filled it, else None.

    There the hub's files lie in ``hub/``, texts in ``texts/``, harvests in ``harvests/``, SAEs that were trained in
    ``saes/``; ``manifest.json`` holds the SHA-256 of each. What lies there is used without asking the hub.
    """
    folder = _cache()
    return folder if (folder / "manifest.json").is_file() else None


def disk_full(error: OSError) -> bool:
    """Say whether a write failed for want of room: a full disk, a quota, or a file larger than the disk can hold."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_text(path: Path, text: str, *, encoding: str = "utf-8", newline: str | None = None,
               locked: bool = False) -> None:
    """Write a text file atomically: whoever reads it sees the old or the new, never a half.

    Parameters
    ----------
    path
        Its folder is made if it was missing.
    text, encoding, newline
        As for ``Path.write_text``.
    locked
        The caller holds a lock: there is one draft for all, so that a dead writer's is reused, and it is on the disk
        before it takes the file's place.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_text(Path(folder, "new", "a.txt"), "whole")
    ...     [(path.name, path.read_text()) for path in Path(folder, "new").iterdir()]
    [('a.txt', 'whole')]
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{'' if locked else f'{os.getpid()}.{threading.get_ident()}.'}part")
    with part.open("w", encoding=encoding, newline=newline) as handle:
        handle.write(text)
        if locked:
            handle.flush()
            os.fsync(handle.fileno())
    os.replace(part, path)


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


def write_sums() -> int:
    """Write ``data/SHA256SUMS`` anew; return how many files it lists."""
    files = sorted(p for p in DATA.rglob("*") if p.is_file() and p.name != "SHA256SUMS" and not p.name.startswith("."))
    lines = [f"{sha256(p)}  {p.relative_to(DATA).as_posix()}" for p in files]
    (DATA / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    expected_sums.cache_clear()
    return len(lines)
