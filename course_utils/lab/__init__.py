"""Where we run: one model and its text, opened. The only room that imports ``transformer_lens``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.lab import models
from course_utils.lab.hooked import HookedModel
from course_utils.lab.machine import hushed, pick_device, pick_dtype
from course_utils.lab.text import Batch, Document, Source, open_text, pack, rows

_RANDOM = " (random weights)"


@dataclass(repr=False)
class Lab(HookedModel):
    """One opened model with everything needed to read it; made by `open_lab`."""

    seed: int
    text: Source
    directory: Path  # of the checkpoint
    quiet: bool = False
    _said: set[str] = field(default_factory=set)

    def __repr__(self) -> str:
        """Say in one line what was opened."""
        return (f"{self.name}: {self.n_params / 1e6:.2f} M weights, {self.n_layers} layers of width "
                f"{self.d_model}, context {self.n_ctx}, on {self.device} in {str(self.dtype).removeprefix('torch.')}; "
                f"text: {self.text.name or 'none'}")

    @property
    def world(self) -> Any:
        """The organism's world where that is the text, else None."""
        return self.text.world

    @property
    def text_source(self) -> str | None:
        """What is read, in words; None if no text was given."""
        return self.text.name

    def documents(self, split: str = "train", labels: bool = False) -> Iterator[Any]:
        """Read documents: endless on the organism; from a file or a stream, every tenth one is held out.

        Parameters
        ----------
        split
            ``"train"`` or ``"heldout"``.
        labels
            Ask the organism's world for its answer key (other text has none).

        Raises
        ------
        CourseError
            If the split is unknown, or the lab was opened without text.
        """
        return self.text.documents(self.tokenizer, split, self.seed, labels)

    def batches(
        self, n_tokens: int, split: str = "train", batch_tokens: int | None = None, labels: bool = False
    ) -> Iterator[Batch]:
        """Read ``n_tokens`` tokens (BOS not counted) in padded batches, the same each time.

        One document a row, or one window of a document that is longer than the context; rows of like length
        together; at most ``batch_tokens`` tokens a batch, padding included, but at least one row.

        Raises
        ------
        CourseError
            If ``n_tokens`` or ``batch_tokens`` is below 1, or there is no text.
        """
        # On a CPU attention over more at once leaves the cache and takes twice as long.
        best = 2048 if self.device.type == "cpu" else 16384
        batch_tokens = best if batch_tokens is None else batch_tokens
        for argument, given in (("n_tokens", n_tokens), ("batch_tokens", batch_tokens)):
            if given < 1:
                raise CourseError(f"{argument}={given} must be at least 1.")
        documents = self._watched(self.documents(split, labels))
        for batch in pack(rows(documents, n_tokens, self.n_ctx - 1), self.bos, batch_tokens):
            yield Batch(batch.tokens.to(self.device), batch.mask.to(self.device), batch.doc, batch.labels)

    def _watched(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            if len(document.ids) > self.n_ctx - 1:
                self.say(f"Documents of over {self.n_ctx - 1} tokens are read in windows of that length.")
            yield document

    def say(self, line: str) -> None:
        """Print a line once in this lab's life, unless the lab is quiet."""
        if line not in self._said and not self.quiet:
            print(line)
        self._said.add(line)


def token_losses(
    logits: Float[Tensor, "batch pos d_vocab"],
    tokens: Int[Tensor, "batch pos"],
    mask: Bool[Tensor, "batch pos"],
) -> Float[Tensor, "batch pos-1"]:
    """Return the cross-entropy of each next token, in nats; 0 where ``mask`` says that there is none.

    Column ``i`` is the loss of ``tokens[:, i + 1]``, so a mean divides by ``mask[:, 1:].sum()``.
    """
    # Row by row: a log-softmax over a whole batch and GPT-2's vocabulary would take gigabytes.
    losses = [torch.nn.functional.cross_entropy(row[:-1].float(), ids[1:], reduction="none")
              for row, ids in zip(logits, tokens, strict=True)]
    return torch.stack(losses) * mask[:, 1:]


def open_lab(
    model: str | os.PathLike | None = None, device: str = "auto", dtype: str = "auto", seed: int = 0,
    text: str | os.PathLike | None = None, quiet: bool = False,
) -> Lab:
    """Open a model with its tokenizer and text, and print one line that says what was opened.

    Parameters
    ----------
    model
        ``"organism"`` (embedded, needs no network), a local directory, or a hub id such as ``"gpt2"``.
        None: the environment's ``COURSE_MODEL``, else ``"organism"``.
    device
        ``"auto"`` (cuda, else mps, else cpu) or a name that torch knows.
    dtype
        ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``. Auto is float32, but half precision for a
        model of more than a billion weights where this machine multiplies it faster.
    seed
        Chooses the organism's text.
    text
        A UTF-8 file (documents separated by ``<|endoftext|>``, else by blank lines), ``"world"`` (the
        organism's text), or ``"hub:<data set>"``. None: ``COURSE_TEXT``, else the world for the organism, web
        text for a hub id, nothing for a directory.
    quiet
        Print nothing.

    Raises
    ------
    CourseError
        If the model, device, dtype or text is not there or not usable.
    """
    name = str(model or os.environ.get("COURSE_MODEL") or "organism")
    directory = models.find_model(name)
    where = pick_device(device)
    precision = pick_dtype(dtype, where, models.n_params(directory))
    source = open_text(text or os.environ.get("COURSE_TEXT"), name)
    shown = Path(name).expanduser().resolve().name if Path(name).expanduser().is_dir() else name
    lab = _opened(shown, directory, where, precision, seed=seed, text=source, quiet=quiet)
    if source.world is not None and lab.d_vocab != len(source.world.vocabulary):
        raise CourseError(f"text='world' needs a model with the organism's tokens; {lab.name} has others.")
    lab.say(repr(lab))
    return lab


def random_twin(lab: Lab, seed: int = 0) -> Lab:
    """Open the same architecture, tokenizer and text with weights that learned nothing: the control for every latent.

    The entries of each weight tensor are shuffled within it, so that the sizes of the weights stay and what was learned
    goes. Whatever an SAE, a neuron or a probe still finds comes from the text and the architecture.

    Parameters
    ----------
    lab
        The opened model; it is left alone.
    seed
        Draws the order; the same seed gives the same weights.

    Returns
    -------
    Lab
        Its name is ``"<name> (random weights)"``.

    References
    ----------
    Heap et al. 2025, arXiv 2501.17727: SAEs on random transformers.

    Examples
    --------
    >>> lab = open_lab("organism", device="cpu", quiet=True)
    >>> twin = random_twin(lab)
    >>> twin.name, twin.fingerprint == lab.fingerprint
    ('organism (random weights)', False)
    """
    name = f"{lab.name.removesuffix(_RANDOM)}{_RANDOM}"
    return _opened(name, lab.directory, lab.device, lab.dtype, shuffle=seed, seed=lab.seed, text=lab.text, quiet=True)


def _opened(name: str, directory: Path, device: torch.device, dtype: torch.dtype, shuffle: int | None = None,
            **others: Any) -> Lab:
    with hushed():
        checkpoint = models.load(directory, device, dtype)
        if shuffle is not None:
            models.shuffle_weights(checkpoint.weights, shuffle)
        bridge = _bridge(checkpoint, directory, device, dtype)
    return Lab(name, bridge, bridge.tokenizer, device, dtype, checkpoint.bos, checkpoint.n_params,
               directory=directory, **others)


def _bridge(checkpoint: models.Checkpoint, directory: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """Wrap loaded weights in hooks, leaving their values alone."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.generalized_components import AttentionBridge

    try:
        bridge = TransformerBridge.boot_transformers(
            str(directory), hf_model=checkpoint.weights, tokenizer=checkpoint.tokenizer,
            device=str(device), dtype=dtype)
    except ValueError as error:
        raise CourseError(
            f"model={str(directory)!r} is a {checkpoint.weights.config.model_type!r} model, which cannot be "
            "hooked here; give a GPT-2- or Llama-like one."
        ) from error
    bridge.enable_compatibility_mode(no_processing=True, disable_warnings=True)
    for part in bridge.modules():
        if isinstance(part, AttentionBridge):
            part._update_kv_cache = partial(_remember, part._update_kv_cache)
    return bridge


def _remember(update: Callable, k: Tensor, v: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
    """Hand on the cache by the name that transformer-lens 3.9 knows; transformers from 5.24 on call it ``cache``."""
    return update(k, v, **{"past_key_values": given.get("cache")} | given)
