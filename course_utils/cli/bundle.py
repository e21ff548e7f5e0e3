"""A cache folder's manifest, and the archive that carries such a folder to other machines.

The manifest holds the SHA-256 of each finished file. The archive is a plain tar with the manifest in front, regular
files behind it, and nothing else; it is unpacked only if each file is the one that the manifest names.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm.auto import tqdm

from course_utils.errors import CourseError
from course_utils.paths import disk_full, sha256, write_text

MANIFEST = "manifest.json"
# A folder below these counts once the named file, which is written last, is there.
_FINISHED_BY = {"harvests": "index.json", "saes": "card.json"}
_PART, _CHUNK = ".part", 2**20


@contextlib.contextmanager
def writing(what: str, again: str) -> Iterator[None]:
    """Say in one sentence why ``what`` could not be written, and what doing it ``again`` loses."""
    try:
        yield
    except OSError as error:
        why = f"cannot be written ({error.strerror or error})"
        if disk_full(error):
            why = "does not fit: the disk is full, or takes no file of that size (FAT32 ends at 4 GB)"
        raise CourseError(f"{what} {why}; {again}.") from error


def read(root: Path) -> dict[str, Any]:
    """Return a folder's manifest: ``made`` (model → how it was asked for), ``files`` (path → SHA-256)."""
    try:
        found = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        return {"made": dict(found["made"]), "files": dict(found["files"])}
    except FileNotFoundError:
        return {"made": {}, "files": {}}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CourseError(f"{str(root / MANIFEST)!r} cannot be read ({type(error).__name__}); delete it, and what lies "
                          "beside it is taken up again.") from error


def write(root: Path, manifest: dict[str, Any]) -> None:
    """Write a folder's manifest, whole or not at all."""
    write_text(root / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def finished(root: Path) -> list[str]:
    """List the finished files of a folder, as paths below it with forward slashes."""
    found = []
    for path in sorted(root.glob("*/**/*")):
        top, *inner = path.relative_to(root).parts
        if path.suffix in (_PART, ".lock", ".incomplete") or not path.is_file():
            continue
        if top == "hub":  # the hub's own cache: blobs, locks and lists stand beside what counts
            counts = len(inner) > 2 and inner[1] in ("refs", "snapshots")
        elif top in _FINISHED_BY:
            counts = len(inner) > 1 and (root / top / inner[0] / _FINISHED_BY[top]).is_file()
        else:
            counts = top in ("models", "texts")
        found += [path.relative_to(root).as_posix()] if counts else []
    return found


def record(root: Path, **made: Any) -> dict[str, Any]:
    """Add new files, and what was ``made``, to the manifest of a folder; return it."""
    manifest = read(root)
    new = [name for name in finished(root) if name not in manifest["files"]]
    for name in tqdm(new, desc="digests", unit="file", delay=2, leave=False, disable=None):
        manifest["files"][name] = sha256(root / name)
    manifest["made"] |= made
    write(root, manifest)
    return manifest


def drop_damaged(root: Path) -> list[str]:
    """Remove what is not as the manifest says, so that it is made again; return the names, missing ones included."""
    manifest, wrong = read(root), []
    for name, digest in tqdm(manifest["files"].items(), desc="check", unit="file", delay=2, leave=False, disable=None):
        path = root / name
        if not path.is_file() or sha256(path) != digest:
            wrong.append(name)
    for name in wrong:
        _remove(root, name)
    kept = {name: digest for name, digest in manifest["files"].items() if (root / name).is_file()}
    write(root, manifest | {"files": kept})
    return wrong


def _remove(root: Path, name: str) -> None:
    path, parts = root / name, PurePosixPath(name).parts
    if parts[0] in _FINISHED_BY:  # one file of it is of no use
        shutil.rmtree(root / parts[0] / parts[1], ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError):
        path.resolve().unlink()  # the hub's cache keeps a link to the file
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def pack(root: Path, archive: Path) -> int:
    """Write a folder's files into one archive, whole or not at all; return its bytes."""
    manifest = read(root)
    listing = json.dumps(manifest, sort_keys=True).encode()
    draft = archive.with_name(archive.name + _PART)
    total = sum((root / name).stat().st_size for name in manifest["files"])
    bar = tqdm(total=total, desc=archive.name, unit="B", unit_scale=True, disable=None)
    try:
        with writing(f"bundle={str(archive)!r}", "nothing of it is left there, and the folder stays as it is"), bar:
            archive.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as tar:
                tar.addfile(_entry(MANIFEST, len(listing)), io.BytesIO(listing))
                for name in sorted(manifest["files"]):
                    with (root / name).open("rb") as handle:  # the file itself where the hub's cache has a link
                        tar.addfile(_entry(name, (root / name).stat().st_size), handle)
                    bar.update((root / name).stat().st_size)
            os.replace(draft, archive)
    finally:
        draft.unlink(missing_ok=True)
    return archive.stat().st_size


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """Return a tar header that is the same on every machine."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


def unpack(archive: Path, root: Path) -> dict[str, Any]:
    """Unpack an archive into a folder; files that lie there already are left.

    Returns
    -------
    dict
        The archive's manifest.

    Raises
    ------
    CourseError
        Before anything is written, if it is no such archive, is cut short, or holds a link, a folder or a name that
        leads out of the folder; and if a file is not the one that the manifest names. What came before stays.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            entries = _checked(archive, tar)
            manifest = json.loads(tar.extractfile(entries.pop(MANIFEST)).read())
            if {*entries} != {*manifest["files"]}:
                raise ValueError("its manifest names other files than it holds")
            with writing(f"to={str(root)!r}", "run this again, and it goes on from there"):
                _unpack(tar, entries, manifest["files"], archive, root)
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CourseError):
            raise
        raise CourseError(f"from={str(archive)!r} is no archive of course prefetch, or is cut short ({error}); copy it "
                          "again.") from error
    here = read(root)
    write(root, {"made": here["made"] | manifest["made"], "files": here["files"] | manifest["files"]})
    return manifest


def _checked(archive: Path, tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """Return an archive's entries by name, each of them a regular file below the folder."""
    entries = {}
    for entry in tar.getmembers():
        parts = entry.name.split("/")
        # A backslash or a colon would lead elsewhere on Windows.
        if not entry.isreg() or {"", ".", ".."} & {*parts} or set("\\:\0") & {*entry.name} or entry.name in entries:
            raise CourseError(f"from={str(archive)!r} holds {entry.name!r}, which is no plain file below the folder; "
                              "nothing was unpacked.")
        entries[entry.name] = entry
    return entries


def _unpack(tar: tarfile.TarFile, entries: dict, digests: dict[str, str], archive: Path, root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    new = {name: entry for name, entry in entries.items()
           if not ((root / name).is_file() and sha256(root / name) == digests[name])}
    needed, free = sum(entry.size for entry in new.values()), shutil.disk_usage(root).free
    if needed > free:
        raise CourseError(f"to={str(root)!r}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; free "
                          "some space, or name another folder.")
    with tqdm(total=needed, desc=archive.name, unit="B", unit_scale=True, disable=None) as bar:
        for name, entry in new.items():
            draft, digest = root / (name + _PART), hashlib.sha256()
            draft.parent.mkdir(parents=True, exist_ok=True)
            with tar.extractfile(entry) as source, draft.open("wb") as handle:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    bar.update(handle.write(chunk))
            if digest.hexdigest() != digests[name]:
                draft.unlink()
                raise CourseError(f"from={str(archive)!r} is damaged: {name} is not the file that its manifest names; "
                                  "copy it again. What was unpacked before it is whole.")
            os.replace(draft, root / name)
