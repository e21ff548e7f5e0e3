"""A harvest on disk: written batch by batch, resumed after a kill, mapped rather than read.

1. ``x.safetensors.part`` grows behind room left for its header; every ``CHECKPOINT_BYTES``, ``progress.json``
   says how many batches of it count. What was written after that is cut off on resuming.
2. ``rows.safetensors`` is written, the header filled in, the part renamed to ``x.safetensors``.
3. ``index.json`` comes last: a directory with it is finished, one without it is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.concepts import Labels
from course_utils.errors import CourseError
from course_utils.lab import Lab
from course_utils.paths import build_dir, disk_full, prefetched, write_text

CHECKPOINT_BYTES = 2**25
# Bytes before the data of x.safetensors: an 8-byte length and JSON, padded with blanks as the format allows.
_HEADER = 512


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Say in one sentence why a directory could not be written."""
    try:
        yield
    except OSError as error:
        if disk_full(error):
            raise CourseError(
                f"directory={str(directory)!r}: the disk is full; free some space and run the same line "
                "again (it resumes), or ask for fewer tokens."
            ) from error
        raise CourseError(f"directory={str(directory)!r} cannot be written ({error.strerror}); "
                          "give a directory of your own.") from error


def kept_at(lab: Lab, identity: dict[str, Any], large: bool) -> Path | None:
    """Return where a harvest lies that was given no directory; None: in memory.

    With ``COURSE_KEEP`` set, as `course prefetch` sets it, each harvest is kept in the folder that it fills.
    """
    root = prefetched()
    if root is None and not large:  # the weights need no digest
        return None
    key = hashlib.sha256(json.dumps({**identity, "weights": lab.fingerprint}).encode()).hexdigest()[:16]
    if root and (os.environ.get("COURSE_KEEP") or (root / "harvests" / key / "index.json").is_file()):
        return root / "harvests" / key
    return build_dir() / "harvest" / key if large else None


class MemoryWriter:
    """Keeps a harvest in memory; the same interface as `DiskWriter`."""

    batches = 0  # nothing was done before

    def __init__(self, width: int, most: int) -> None:
        # As many rows as could come; the system gives memory only to those that are written to.
        self._x = torch.empty(most, width)
        self._rows = 0

    def __enter__(self) -> MemoryWriter:
        """Do nothing: memory needs no opening."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def text(self, tokens: Int[Tensor, " n"]) -> None:
        """Take note of nothing: memory is never resumed."""

    def add(self, x: Float[Tensor, "n d"]) -> None:
        """Append rows."""
        self._x[self._rows : self._rows + len(x)] = x
        self._rows += len(x)

    @property
    def x(self) -> Float[Tensor, "n d"]:
        """What was added."""
        return self._x[: self._rows]


class DiskWriter:
    """Appends activations to a directory; another of the same ``identity`` goes on where it was killed."""

    def __init__(self, directory: Path, width: int, identity: dict[str, Any], resume: bool = True) -> None:
        self._dir, self._width, self._identity, self._resume = directory, width, identity, resume
        self._part = directory / "x.safetensors.part"
        self._rows = self.batches = self._pending = 0
        self._digest, self._resumed_digest, self._seen = hashlib.sha256(), "", 0

    def __enter__(self) -> DiskWriter:
        """Open the directory, or reopen it at its last checkpoint."""
        with writing(self._dir):
            self._dir.mkdir(parents=True, exist_ok=True)
            progress = self._dir / "progress.json"
            if self._resume and progress.is_file():
                self._reopen(json.loads(progress.read_text(encoding="utf-8")))
            self._handle = self._part.open("r+b" if self._part.is_file() else "w+b")
            self._handle.truncate(_HEADER + 4 * self._width * self._rows)
            self._handle.seek(0, os.SEEK_END)
        return self

    def _reopen(self, saved: dict[str, Any]) -> None:
        same_harvest(self._dir, saved["identity"], self._identity)
        finished = self._dir / "x.safetensors"
        if finished.is_file():  # killed after the renaming and before the index
            os.replace(finished, self._part)
        if self._part.is_file() and self._part.stat().st_size >= _HEADER + 4 * self._width * saved["rows"]:
            self._rows, self.batches, self._resumed_digest = saved["rows"], saved["batches"], saved["text"]

    def __exit__(self, *_: object) -> None:
        """Close the file; what lies behind the last checkpoint is written again next time."""
        with writing(self._dir):
            self._handle.close()

    def text(self, tokens: Int[Tensor, " n"]) -> None:
        """Take note of a batch's tokens, and refuse to go on from a checkpoint of other text."""
        self._digest.update(tokens.numpy().tobytes())
        self._seen += 1
        if self._seen == self.batches and self._digest.hexdigest() != self._resumed_digest:
            raise CourseError(f"directory={str(self._dir)!r} was begun on other text; give a new directory.")

    def add(self, x: Float[Tensor, "n d"]) -> None:
        """Append the rows of one batch, after its `text`."""
        with writing(self._dir):
            self._handle.write(x.contiguous().numpy().data)
            self._rows, self._pending = self._rows + len(x), self._pending + 4 * x.numel()
            if self._pending >= CHECKPOINT_BYTES:
                self._checkpoint()

    def _checkpoint(self) -> None:
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._pending, self.batches = 0, self._seen
        progress = {"identity": self._identity, "rows": self._rows, "batches": self.batches,
                    "text": self._digest.hexdigest()}
        write_text(self._dir / "progress.json", json.dumps(progress))

    @property
    def x(self) -> Float[Tensor, "n d"]:
        """What was added, memory-mapped; only after `finish`."""
        return mapped(self._dir / "x.safetensors", "x")

    def finish(self, tokens: Tensor, doc: Tensor, pos: Tensor, labels: Labels | None) -> None:
        """Write everything but the activations, then declare the harvest finished."""
        from safetensors.torch import save_file

        if len(tokens) != self._rows:
            raise CourseError(f"directory={str(self._dir)!r} was begun on other text; give a new directory.")

        columns = {
            f"label:{name}": torch.from_numpy(column)
            for name, column in (labels.columns if labels else {}).items()
        }
        shape = [self._rows, self._width]
        header = json.dumps(
            {"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0] * shape[1]]}}
        )
        with writing(self._dir):
            self._checkpoint()
            save_file(
                {"tokens": tokens, "doc": doc, "pos": pos, **columns}, self._dir / "rows.safetensors.part"
            )
            os.replace(self._dir / "rows.safetensors.part", self._dir / "rows.safetensors")
            self._handle.seek(0)
            self._handle.write((_HEADER - 8).to_bytes(8, "little") + header.encode().ljust(_HEADER - 8))
            self._handle.flush()
            os.replace(self._part, self._dir / "x.safetensors")
            index = {"identity": self._identity, "names": labels and labels.names}
            write_text(self._dir / "index.json", json.dumps(index))
            (self._dir / "progress.json").unlink()


def mapped(file: Path, name: str) -> Tensor:
    """Map one tensor of a safetensors file into memory; it is read as it is used."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as handle:
        return handle.get_tensor(name)


def same_harvest(directory: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise a `CourseError` that names what differs if a directory holds another harvest."""
    differing = [f"{key} {found.get(key)!r}, not {wanted.get(key)!r}" for key in {**found, **wanted}
                 if found.get(key) != wanted.get(key)]
    if differing:
        raise CourseError(
            f"directory={str(directory)!r} holds another harvest ({'; '.join(differing)}); give a new one."
        )


def read_harvest(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Open a finished harvest.

    Returns
    -------
    fields : dict
        ``x`` (memory-mapped), ``tokens``, ``doc``, ``pos``, ``labels``.
    identity : dict
        What was harvested.

    Raises
    ------
    CourseError
        If the harvest is missing, unfinished or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not (directory / "index.json").is_file():
        raise CourseError(
            f"directory={str(directory)!r} holds no finished harvest; run harvest(..., directory=...) "
            "again with the same arguments, which resumes it."
        )
    try:
        index = json.loads((directory / "index.json").read_text(encoding="utf-8"))
        fields: dict[str, Any] = {"x": mapped(directory / "x.safetensors", "x")}
        with safe_open(directory / "rows.safetensors", framework="pt") as handle:
            rows = {name: handle.get_tensor(name) for name in handle.keys()}
    except (OSError, ValueError, SafetensorError) as error:
        raise CourseError(
            f"directory={str(directory)!r} is damaged ({error}); harvest again into a new one."
        ) from error
    columns = {
        name.removeprefix("label:"): rows.pop(name).numpy()
        for name in list(rows)
        if name.startswith("label:")
    }
    labels = None if index["names"] is None else Labels(columns, index["names"])
    return {**fields, **rows, "labels": labels}, index["identity"]
