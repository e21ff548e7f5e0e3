"""Text streamed from the hub: nothing is downloaded as a whole, nothing twice, and a break is mended or named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import count
from typing import Any

from course_utils.errors import CourseError
from course_utils.lab import kept_texts
from course_utils.lab.hub import hub_client, require_hub, why

PARQUET = "refs/convert/parquet"  # the hub's own copy of a public set, whatever files the set itself consists of
KEPT = 2**26  # characters, some 15 million tokens
# The hub's client tries a read again for half a minute by itself; `datasets` would start that over twenty times, with
# pauses of up to a minute.
_ONCE = {"STREAMING_READ_MAX_RETRIES": 1, "STREAMING_READ_RETRY_INTERVAL": 1, "STREAMING_OPEN_MAX_RETRIES": 1,
         "STREAMING_OPEN_RETRY_INTERVAL": 1, "STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL": 1,
         "STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL": 1}


class Stream:
    """The texts of a data set from the first on, as often as one likes; those read once are kept.

    So the second pass needs no network, two passes read the same, and a pass that broke goes on where it did.
    """

    def __init__(self, dataset: str) -> None:
        self.dataset, self.kept, self.size = dataset, [], 0
        self.live: Iterator[str] | None = None

    def __call__(self) -> Iterator[str]:
        """Start a pass.

        Raises
        ------
        CourseError
            As `stream_documents`.
        """
        for n in count():
            if n == len(self.kept) and not self._read():
                break
            yield self.kept[n]
        if self.size >= KEPT:
            yield from stream_documents(self.dataset, skip=len(self.kept))

    def _read(self) -> bool:
        """Keep one more text; False if there is none, or enough are kept."""
        if self.size >= KEPT:
            return False
        if self.live is None:
            self.live = stream_documents(self.dataset, skip=len(self.kept))
        try:
            text = next(self.live, None)
        except BaseException:
            self.live = None  # a generator that raised is finished: the next pass needs a new one
            raise
        if text is None:
            return False
        self.kept.append(text)
        self.size += len(text)
        return True


def stream_documents(dataset: str, skip: int = 0) -> Iterator[str]:
    """Read the texts that ``course prefetch`` kept of a data set, and behind them stream those of the hub.

    Parameters and errors as of `streamed`.
    """
    for text in kept_texts.read(dataset, skip):
        yield text
        skip += 1
    if not kept_texts.is_whole(dataset):
        yield from streamed(dataset, skip)


def streamed(dataset: str, skip: int = 0) -> Iterator[str]:
    """Stream the ``text`` column of a public data set on the hub.

    Parameters
    ----------
    dataset
        Its name on the hub. One that consists of a loading script, which nobody runs any more, is read from the hub's
        copy in Parquet.
    skip
        Texts to leave out at the beginning.

    Raises
    ------
    CourseError
        If the hub cannot be reached or has no such text, or the stream breaks off for more than half a minute.
    """
    if kept := kept_texts.n_kept(dataset):
        require_hub(f"text='hub:{dataset}' behind the {kept:,} documents that are kept", "have more of it kept while "
                    "online: course prefetch --tokens")
    else:
        require_hub(f"text='hub:{dataset}'")
    with _said(dataset, 0), _one_try():
        rows = _open(dataset)
        rows = iter(rows.skip(skip) if skip else rows)
    for n in count(skip):
        with _said(dataset, n), _one_try():
            row = next(rows, None)
        if row is None:
            return
        if not isinstance(row.get("text"), str):
            raise CourseError(f"text='hub:{dataset}' has no column 'text', only {', '.join(row)}; give another set.")
        yield row["text"]


def _open(dataset: str) -> Any:
    import datasets

    ask = {"path": dataset, "split": "train", "streaming": True}
    try:
        return datasets.load_dataset(**ask)
    except (RuntimeError, ValueError) as error:  # before datasets 4: ValueError, "contains custom code"
        if "script" not in str(error) and "custom code" not in str(error):
            raise
        return datasets.load_dataset(**ask, revision=PARQUET)


@contextlib.contextmanager
def _said(dataset: str, n: int) -> Iterator[None]:
    """Turn whatever `datasets`, its file formats and the HTTP library raise into one sentence."""
    from datasets.exceptions import DatasetNotFoundError

    try:
        with hub_client():
            yield
    except CourseError:
        raise
    except DatasetNotFoundError as error:
        raise CourseError(f"text='hub:{dataset}' is not on the hub, or not open to everyone; give another set, or "
                          "text=<a UTF-8 text file>.") from error
    except Exception as error:
        broke = f"broke off after {n:,} documents" if n else "cannot be streamed"
        what = "run this again and it goes on from there" if n else "give text=<a UTF-8 text file> instead"
        raise CourseError(f"text='hub:{dataset}' {broke} ({why(error)}); {what}.") from error


@contextlib.contextmanager
def _one_try() -> Iterator[None]:
    from datasets import config

    before = {name: getattr(config, name) for name in _ONCE if hasattr(config, name)}
    try:
        for name in before:
            setattr(config, name, _ONCE[name])
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)
