"""Text as a model reads it: documents from a file or a stream, cut into rows, packed into padded batches.

The way through: ``file_documents`` or a ``Stream`` (text) → ``tokenized`` (ids) → ``rows`` (one document, or one
window of a long one, per row) → ``pack`` (rows of like length side by side, BOS in front, padding behind).
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from course_utils.concepts import Labels
from course_utils.errors import CourseError, one_of
from course_utils.lab.stream import Stream

SPLITS = ("train", "heldout")
SEPARATOR = "<|endoftext|>"
HUB_TEXT = "Skylion007/openwebtext"  # an open replication of the text GPT-2 was trained on
HELDOUT_EVERY = 10  # every tenth document of a text file or stream is held out
_CHUNK = 2**20


class Document(NamedTuple):
    """One document; the same fields as the organism's own, which also fills ``labels`` and ``entropy``."""

    ids: list[int]  # token ids, without BOS
    text: str
    topic: str = ""
    labels: dict[str, list] | None = None
    entropy: float | None = None  # nats


class Row(NamedTuple):
    """One row of a batch before padding: a whole document or one window of a long one."""

    ids: list[int]
    labels: dict[str, list] | None
    doc: int  # number of the document in its stream; windows of one document share it


class Batch(NamedTuple):
    """Rows of text, padded on the right (harmless to a causal model: no real token sees the padding)."""

    tokens: Int[Tensor, "batch pos"]  # BOS at position 0
    mask: Bool[Tensor, "batch pos"]  # True on real tokens, BOS included
    doc: Int[Tensor, " batch"]
    labels: Labels | None  # one row for each True of ``mask``, row by row; BOS has no labels


class Source(NamedTuple):
    """Where a lab's text comes from: the organism's world, or a function that starts reading texts anew."""

    name: str | None  # in words; None: there is no text
    world: Any = None  # organism.World
    texts: Callable[[], Iterator[str]] | None = None

    def documents(self, tokenizer: Any, split: str, seed: int, labels: bool) -> Iterator[Any]:
        """Start reading one split; only the world depends on ``seed`` and has ``labels``."""
        if split not in SPLITS:
            raise one_of("split", split, SPLITS)
        if self.world is not None:
            return self.world.documents(seed=seed, split=split, labels=labels)
        if self.texts is None:
            raise CourseError(
                "this model was opened without text; open it with text=<a UTF-8 file> or set COURSE_TEXT."
            )
        return tokenized(self.texts(), tokenizer, split)


def open_text(text: str | os.PathLike | None, model: str) -> Source:
    """Find the text for a model: a file, ``"world"``, ``"hub:<data set>"``, or None for what suits the model.

    Raises
    ------
    CourseError
        If a file is missing, unreadable or empty: said now rather than in the middle of a harvest.
    """
    local = Path(model).expanduser()
    own = local / "world" if (local / "world").is_dir() else None  # an organism that somebody trained on another world
    if text is None:
        text = "world" if model == "organism" or own else None if local.is_dir() else f"hub:{HUB_TEXT}"
    if text is None:
        return Source(None)
    if text == "world":
        from course_utils.organism import World

        return Source("its own synthetic world", World.load(own))
    if str(text).startswith("hub:"):
        dataset = str(text).removeprefix("hub:")
        return Source(f"{dataset}, streamed", texts=Stream(dataset))
    path = Path(text).expanduser()
    next(file_documents(path))
    return Source(f"{path.name} ({path.stat().st_size:,} bytes)", texts=partial(file_documents, path))


def _pieces(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as handle:
            yield from iter(lambda: handle.read(_CHUNK), "")
    except UnicodeDecodeError as error:
        raise CourseError(
            f"text={str(path)!r} is not UTF-8 (byte {error.start} of a chunk); convert it first."
        ) from error
    except OSError as error:
        raise CourseError(
            f"text={str(path)!r} cannot be read ({error.strerror}); give a UTF-8 text file."
        ) from error


def file_documents(path: Path) -> Iterator[str]:
    """Read the documents of a UTF-8 text file, without ever holding the whole file.

    Documents are separated by ``<|endoftext|>``, or by blank lines in a file that has no such separator.

    Raises
    ------
    CourseError
        If the file is missing, is not UTF-8, or holds no text.
    """
    tail, marked = "", False
    for piece in _pieces(path):
        if marked := SEPARATOR in tail + piece:
            break
        tail = piece[-len(SEPARATOR):]
    split = re.compile(re.escape(SEPARATOR) if marked else r"\n\s*\n")
    buffer, found = "", False
    for piece in itertools.chain(_pieces(path), [None]):
        *whole, buffer = [*split.split(buffer), ""] if piece is None else split.split(buffer + piece)
        for text in filter(None, map(str.strip, whole)):
            found = True
            yield text
    if not found:
        raise CourseError(f"text={str(path)!r} holds no text; give a file with at least one document.")


def tokenized(texts: Iterable[str], tokenizer: Any, split: str) -> Iterator[Document]:
    """Tokenize the documents of one split; ``"heldout"`` is every tenth document, ``"train"`` the rest."""
    wanted = (
        text
        for i, text in enumerate(texts)
        if (i % HELDOUT_EVERY == HELDOUT_EVERY - 1) == (split == "heldout")
    )
    for group in iter(lambda: list(itertools.islice(wanted, 64)), []):
        encoded = tokenizer(group, add_special_tokens=False, verbose=False)["input_ids"]
        for text, ids in zip(group, encoded, strict=True):
            if ids:
                yield Document(ids, text)


def decode_behind(tokenizer: Any, sequences: list[list[int]]) -> list[str]:
    """Decode token ids with the leading space that a tokenizer drops at the start of a text."""
    # Behind an anchor, because "▁dog" alone decodes to "dog", and only in company to " dog".
    anchor = tokenizer.encode("a", add_special_tokens=False)[-1]
    decode = partial(tokenizer.batch_decode, clean_up_tokenization_spaces=False)
    lead = len(decode([[anchor]])[0])
    return [text[lead:] for text in decode([[anchor, *ids] for ids in sequences])]


def rows(documents: Iterable[Any], n_tokens: int, window: int) -> Iterator[Row]:
    """Cut documents into rows of at most ``window`` tokens, ``n_tokens`` in all (the last row is cut)."""
    left = n_tokens
    for number, document in enumerate(documents):
        for start in range(0, len(document.ids), window):
            ids = document.ids[start : min(start + window, start + left)]
            cut = slice(start, start + len(ids))
            labels = document.labels and {name: column[cut] for name, column in document.labels.items()}
            yield Row(ids, labels, number)
            left -= len(ids)
            if left <= 0:
                return


def pack(stream: Iterator[Row], bos: int, batch_tokens: int) -> Iterator[Batch]:
    """Pack rows into batches of at most ``batch_tokens`` padded tokens (at least one row).

    Rows are sorted by length within pools of 16 batches, so that little is padded and the order stays the
    same each time.
    """
    while True:
        pool, size = [], 0
        while size < 16 * batch_tokens and (row := next(stream, None)):
            pool.append(row)
            size += len(row.ids) + 1
        if not pool:
            return
        pool.sort(key=lambda row: len(row.ids))
        group: list[Row] = []
        for row in pool:
            if group and (len(group) + 1) * (len(row.ids) + 1) > batch_tokens:
                yield _batch(group, bos)
                group = []
            group.append(row)
        yield _batch(group, bos)


def _batch(group: list[Row], bos: int) -> Batch:
    width = len(group[-1].ids) + 1
    # BOS also serves as padding: every tokenizer has it here, and no real token can see it.
    tokens = torch.tensor([[bos, *row.ids, *[bos] * (width - 1 - len(row.ids))] for row in group])
    lengths = torch.tensor([len(row.ids) + 1 for row in group])
    labels = (
        None if group[0].labels is None else Labels.from_documents([row.labels for row in group], bos=True)
    )
    return Batch(
        tokens, torch.arange(width)[None] < lengths[:, None], torch.tensor([row.doc for row in group]), labels
    )
