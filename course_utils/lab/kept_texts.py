"""The first texts of a data set, kept on disk by ``course prefetch`` so that they need no network.

They lie in files of `SHARD` texts, each written whole or not at all; one with fewer is the data set's last.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from itertools import count, takewhile
from pathlib import Path

from course_utils.errors import CourseError
from course_utils.paths import prefetched

SHARD = 256


def shards(dataset: str) -> list[Path]:
    """List the files that are kept, in order, up to the first that is missing."""
    root = prefetched()
    found = (root and folder(root, dataset) / f"{number:06}.jsonl.gz" for number in count())
    return list(takewhile(lambda file: file and file.is_file(), found))


def folder(root: Path, dataset: str) -> Path:
    """Return where a data set's texts are kept in a cache folder."""
    return root / "texts" / dataset.replace("/", "--")


def n_kept(dataset: str) -> int:
    """Count the texts that are kept."""
    files = shards(dataset)
    return SHARD * (len(files) - 1) + len(load(files[-1])) if files else 0


def is_whole(dataset: str) -> bool:
    """Say whether all texts of the data set are kept."""
    files = shards(dataset)
    return bool(files) and len(load(files[-1])) < SHARD


def read(dataset: str, skip: int = 0) -> Iterator[str]:
    """Yield the texts that are kept, but for the first ``skip``.

    Raises
    ------
    CourseError
        If a file is damaged.
    """
    for number, file in enumerate(shards(dataset)):
        if (number + 1) * SHARD > skip:
            yield from load(file)[max(0, skip - number * SHARD):]


def load(file: Path) -> list[str]:
    """Read one file.

    Raises
    ------
    CourseError
        If it is damaged.
    """
    try:
        return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CourseError(f"{str(file)!r} is damaged ({error}); run course prefetch again, which mends it.") from error


def write(root: Path, dataset: str, texts: Sequence[str]) -> Path:
    """Keep the next texts of a data set: `SHARD` of them, or fewer if they are its last."""
    number = len(shards(dataset))
    file = folder(root, dataset) / f"{number:06}.jsonl.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(file.name + ".part")
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    try:
        draft.write_bytes(gzip.compress(lines.encode(), mtime=0))
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    return file
