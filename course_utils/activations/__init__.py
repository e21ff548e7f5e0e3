"""Harvesting: run a model up to one hook and keep what is there, in memory or memory-mapped on disk.

How a harvest lies on disk, and survives being killed, is in ``disk.py``.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from course_utils.activations.disk import DiskWriter, MemoryWriter, kept_at, read_harvest, same_harvest
from course_utils.activations.swift import Swift
from course_utils.concepts import Labels, word_list_labels
from course_utils.errors import CourseError, one_of
from course_utils.lab import Lab
from course_utils.lab.machine import Portions
from course_utils.lab.text import Batch

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass
class Activations:
    """Activations of one hook over ``n`` rows, with what stood there beside them.

    BOS rows are kept (so that position effects can be studied) and flagged, but left out of `usable` and
    `batches`: the activation at position 0 is many times longer than any other and carries no text, so that
    it would dominate every mean, norm and explained variance and teach an SAE a latent of its own.
    """

    x: Float[Tensor, "n d_model"]  # float32; heads side by side
    tokens: Int[Tensor, " n"]
    doc: Int[Tensor, " n"]  # number of the document in its stream: the unit to resample in a bootstrap
    pos: Int[Tensor, " n"]  # position in the row; 0 is BOS
    labels: Labels | None
    hook: str
    model: str

    def __len__(self) -> int:
        """Count the rows, BOS included."""
        return len(self.x)

    @property
    def is_bos(self) -> Bool[Tensor, " n"]:
        """True on the rows of position 0."""
        return self.pos == 0

    @cached_property
    def usable(self) -> Int[Tensor, " m"]:
        """Indices of the rows to train and to measure on: all but BOS."""
        return (self.pos > 0).nonzero()[:, 0]

    def batches(
        self, batch_size: int, seed: int = 0, epochs: int | None = None, start: int = 0
    ) -> Iterator[Float[Tensor, "batch d_model"]]:
        """Yield shuffled batches of activations without BOS, in an order of its own for every epoch.

        Parameters
        ----------
        batch_size
            Rows of a batch; what is left over at the end of an epoch is dropped.
        seed
            Draws the order.
        epochs
            How often to go through all rows; None: without end.
        start
            Skip so many batches, at the cost of drawing their order only: to resume where a run was stopped.

        Raises
        ------
        CourseError
            If ``batch_size`` is below 1 or above the number of usable rows.
        """
        per_epoch = len(self.usable) // batch_size if batch_size > 0 else 0
        if not per_epoch:
            raise CourseError(
                f"batch_size={batch_size} must lie in 1 to {len(self.usable)}, the number of usable rows."
            )
        epoch, first = divmod(start, per_epoch)
        while epochs is None or epoch < epochs:
            # Seeded by epoch, so that any epoch's order is known without drawing those before it.
            generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
            order = self.usable[torch.randperm(len(self.usable), generator=generator)]
            for i in range(first, per_epoch):
                yield self.x[order[i * batch_size : (i + 1) * batch_size]]
            epoch, first = epoch + 1, 0

    def save(self, directory: str | os.PathLike) -> Path:
        """Write the harvest to a directory that holds none yet; `load` maps it back."""
        path = Path(directory)
        if (path / "index.json").exists():
            raise CourseError(f"directory={str(path)!r} already holds a harvest; give a new one.")
        identity = {"hook": self.hook, "model": self.model}
        with DiskWriter(path, self.x.shape[1], identity, resume=False) as writer:
            for start in range(0, len(self), 2**16):
                writer.add(self.x[start : start + 2**16])
            writer.finish(self.tokens, self.doc, self.pos, self.labels)
        return path

    @classmethod
    def load(cls, directory: str | os.PathLike) -> Activations:
        """Open a finished harvest; activations are memory-mapped, so any size opens at once.

        Raises
        ------
        CourseError
            If there is no finished harvest, or its files are damaged.
        """
        fields, identity = read_harvest(Path(directory))
        return cls(**fields, hook=identity["hook"], model=identity["model"])


def harvest(
    lab: Lab, hook: str, n_tokens: int = 200_000, split: str = "train", labels: bool | None = None,
    directory: str | os.PathLike | None = None, in_memory_bytes: int = 2**31, precision: str = "auto",
) -> Activations:
    """Collect the activations of one hook over ``n_tokens`` tokens of text, BOS rows coming on top.

    The model runs no further than the hook. On disk, an interrupted harvest is resumed by the same call, and
    a finished one is opened.

    Parameters
    ----------
    lab
        The opened model and its text.
    hook
        Any hook with a vector for each token, e.g. ``"blocks.2.hook_resid_post"``,
        ``"blocks.1.mlp.hook_post"``, ``"blocks.1.attn.hook_z"``.
    n_tokens
        How many tokens, not counting BOS. If the text has fewer, all of it is taken, with a warning.
    split
        ``"train"`` or ``"heldout"``.
    labels
        Keep what each token is about: the answer key on the organism's world, word lists on other text. None:
        where there is an answer key.
    directory
        Where to keep the harvest; None: in memory, or below ``build/`` where it would take more than
        ``in_memory_bytes``, or where ``course prefetch`` kept the same harvest.
    in_memory_bytes
        Largest harvest to hold in memory.
    precision
        ``"float32"``: the very values at the hook. ``"bfloat16"``: the residual stream of a float32 model by products
        in bfloat16, several times as fast (`swift`; other hooks are read exactly). ``"auto"``: that for models of over
        50 million weights on a CPU that has it.

    Returns
    -------
    Activations
        The same values whether in memory, on disk, or resumed.

    Raises
    ------
    CourseError
        If the hook is unknown or gives no vector for each token, there is no text, an activation is not
        finite, or the disk is full, not writable, or holds another harvest.
    """
    if precision not in PRECISIONS:
        raise one_of("precision", precision, PRECISIONS)
    width = lab.capture(torch.tensor([[lab.bos]], device=lab.device), hook).numel()
    labels = lab.world is not None if labels is None else labels
    identity = {"model": lab.name, "hook": hook, "n_tokens": n_tokens, "split": split, "labels": labels,
                "seed": lab.seed, "text": lab.text_source, "dtype": str(lab.dtype), "n_ctx": lab.n_ctx}
    swift = Swift.of(lab, hook, precision)
    identity |= {} if swift is None else {"products": "bfloat16"}
    if directory is None:
        directory = kept_at(lab, identity, large=4 * width * n_tokens > in_memory_bytes)
    if directory is None:
        return _collect(lab, hook, n_tokens, split, labels, MemoryWriter(width, 2 * n_tokens), swift)
    path, identity = Path(directory), {**identity, "weights": lab.fingerprint}
    if (path / "index.json").is_file():
        fields, found = read_harvest(path)
        same_harvest(path, found, identity)
        return Activations(**fields, hook=hook, model=lab.name)
    _check_space(path, 4 * width * n_tokens)
    return _collect(lab, hook, n_tokens, split, labels, DiskWriter(path, width, identity), swift)


def _check_space(directory: Path, needed: int) -> None:
    """Refuse at once what would fill the disk in an hour."""
    there = next(p for p in (directory, *directory.absolute().parents) if p.exists())
    begun = directory / "x.safetensors.part"
    free = shutil.disk_usage(there).free + (begun.stat().st_size if begun.is_file() else 0)
    if needed > free:
        raise CourseError(
            f"directory={str(directory)!r}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are "
            "free; ask for fewer tokens or give a directory on another disk."
        )


def _collect(
    lab: Lab, hook: str, n_tokens: int, split: str, labels: bool, writer: MemoryWriter | DiskWriter,
    swift: Swift | None,
) -> Activations:
    """Run over the text, skipping the model's work on batches that the writer already has."""
    beside: list[tuple[Tensor, Tensor, Tensor, Labels | None]] = []
    portions = Portions()
    with (
        tqdm(
            total=n_tokens, desc=f"harvest {hook}", unit="tok", delay=2, leave=False, disable=lab.quiet or None
        ) as bar,
        writer,
        torch.autocast(lab.device.type, torch.bfloat16, enabled=swift is not None),
    ):
        for number, batch in enumerate(lab.batches(n_tokens, split, labels=labels and lab.world is not None)):
            mask = batch.mask.cpu()
            tokens = batch.tokens.cpu()[mask]
            pos = torch.arange(mask.shape[1]).expand_as(mask)[mask]
            beside.append((tokens, batch.doc[:, None].expand_as(mask)[mask], pos, batch.labels))
            writer.text(tokens)
            if number >= writer.batches:
                writer.add(portions(partial(_rows, lab, hook, batch, swift), batch.tokens.numel()))
            bar.update(int((pos > 0).sum()))
        if not beside:
            raise CourseError(f"the {split} split of {lab.text_source!r} holds no text; give a longer file.")
        tokens, doc, pos = (torch.cat(column) for column in list(zip(*beside, strict=True))[:3])
        if (got := int((pos > 0).sum())) < n_tokens:
            warnings.warn(
                f"n_tokens={n_tokens}: the {split} text has {got} tokens; all of them were taken.",
                stacklevel=3,
            )
        found = None
        if labels:
            found = Labels.concat([row[3] for row in beside]) if lab.world else word_list_labels(lab, tokens)
        if isinstance(writer, DiskWriter):
            writer.finish(tokens, doc, pos, found)
        return Activations(writer.x, tokens, doc, pos, found, hook, lab.name)


def _rows(lab: Lab, hook: str, batch: Batch, swift: Swift | None, most: int) -> Float[Tensor, "n d_model"]:
    """Read a batch, at most so many tokens at once."""
    parts = zip(*(t.split(max(1, most // t.shape[1])) for t in (batch.tokens, batch.mask)), strict=True)
    run = partial(lab.capture, hook=hook) if swift is None else swift
    x = torch.cat([run(tokens)[mask].flatten(1).float().cpu() for tokens, mask in parts])
    if not torch.isfinite(x).all():
        raise CourseError(
            f"activations at {hook!r} hold NaN or infinity; the weights or the precision ({lab.dtype}) "
            "are at fault: try dtype='float32'."
        )
    return x
