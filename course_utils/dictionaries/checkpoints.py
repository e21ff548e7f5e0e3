"""Checkpoints: one safetensors file each, whole or absent, the newest two kept.

1. Everything goes into one file: tensors as such, and the facts about them as JSON in the file's header.
2. It is written under another name, flushed to the disk and then renamed: a kill at any moment leaves the old ones.
3. Reading takes the newest that is whole, and refuses one that was made with other settings.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from course_utils.errors import CourseError

KEPT = 2
_NAME = re.compile(r"step-(\d+)\.safetensors")


def prepare(directory: str | os.PathLike) -> Path:
    """Make the folder and prove that it can be written, before any work is done.

    Raises
    ------
    CourseError
        If it cannot be made or written.
    """
    folder = Path(directory)
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CourseError(f"checkpoint={str(directory)!r} cannot be written ({error.strerror}); "
                          "give a folder that you may write to, or None.") from error
    return folder


def files(folder: Path) -> list[Path]:
    """List a folder's checkpoints, newest first."""
    found = [(int(m.group(1)), p) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found, reverse=True)]


def write(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> bool:
    """Write a checkpoint and drop all but the newest two; a full disk is a warning, because the training goes on.

    Parameters
    ----------
    folder
        From `prepare`.
    step
        Number of finished steps; names the file.
    tensors, facts
        What to keep; facts must be JSON.

    Returns
    -------
    bool
        Whether it was written.
    """
    from safetensors.torch import save

    temporary = folder / f".writing-{os.getpid()}"
    try:
        blob = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()},
                    metadata={"facts": json.dumps(facts)})
        with temporary.open("wb") as handle:
            handle.write(blob)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, folder / f"step-{step:08d}.safetensors")
        for old in files(folder)[KEPT:]:
            old.unlink()
    except OSError as error:
        warnings.warn(f"the checkpoint of step {step} could not be written to {folder} ({error.strerror}); the "
                      "training goes on, and an older checkpoint stays.", stacklevel=2)
        temporary.unlink(missing_ok=True)
        return False
    return True


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read one checkpoint's tensors and facts; ``SafetensorError`` if it is cut short."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as handle:
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}
        return tensors, json.loads(handle.metadata()["facts"])


def _whole(folder: Path) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
    from safetensors import SafetensorError

    for path in files(folder):
        try:
            yield read(path)
        except (SafetensorError, KeyError, TypeError, ValueError):
            warnings.warn(f"{path} is cut short or damaged; the checkpoint before it is used.", stacklevel=2)


def newest(folder: Path, settings: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the newest whole checkpoint, or return None where there is none at all.

    Parameters
    ----------
    folder
        From `prepare`.
    settings
        Must equal the checkpoint's ``facts["settings"]``, or it belongs to another run.

    Raises
    ------
    CourseError
        If it was made with other settings, or no checkpoint is whole.
    """
    if not files(folder):
        return None
    found = next(_whole(folder), None)
    if found is None:
        raise CourseError(f"checkpoint={str(folder)!r} holds only damaged files; delete the folder to start again.")
    # Through JSON, as the stored ones went: a tuple comes back as a list.
    given, stored = json.loads(json.dumps(settings)), found[1]["settings"]
    for name in {**given, **stored}:
        if given.get(name) != stored.get(name):
            raise CourseError(f"checkpoint={str(folder)!r} was made with {name}={stored.get(name)!r}, not "
                              f"{given.get(name)!r}; give another folder, or delete it to start again.")
    return found
