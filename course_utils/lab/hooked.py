"""A model that can be read and changed at its hooks; it knows nothing of where its text comes from."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.errors import CourseError, one_of
from course_utils.lab.text import decode_behind

Hook = tuple[str, Callable[[Tensor], Tensor | None]]


class _Captured(Exception):
    """Leaves the forward pass as soon as the wanted activation is there."""


@dataclass(repr=False)
class HookedModel:
    """A language model with named hooks, its tokenizer, and the place where it runs."""

    name: str
    model: Any  # TransformerBridge, with the hook names of its compatibility mode and unprocessed weights
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    bos: int  # the tokenizer's BOS, or its EOS where it has none (GPT-2 was trained with that)
    n_params: int  # tied weights counted once
    # In a run that follows on others (`follow`), how many positions came before; None in every other run.
    past: int | None = field(default=None, init=False)
    # What the present run, or else the last one, reads.
    tokens: Int[Tensor, "batch pos"] | None = field(default=None, init=False)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.model.cfg.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.model.cfg.d_model

    @property
    def d_vocab(self) -> int:
        """Number of tokens that the model knows."""
        return self.model.cfg.d_vocab

    @property
    def n_ctx(self) -> int:
        """Longest row, BOS included."""
        return self.model.cfg.n_ctx

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights: says whether a saved result belongs to this model."""
        digest = hashlib.sha256()
        for p in self.model.original_model.parameters():
            digest.update(p.detach().cpu().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @cached_property
    def hook_names(self) -> list[str]:
        """Every hook that can be used, e.g. ``"blocks.0.hook_resid_post"``."""
        return [name for name in self.model.hook_dict if self.model._gated_hook_reason(name) is None]

    @property
    def middle_hook(self) -> str:
        """The residual stream after the block just before the middle: the course's default place to look."""
        return f"blocks.{max(0, self.n_layers // 2 - 1)}.hook_resid_post"

    @cached_property
    def token_strings(self) -> list[str]:
        """Text of every token, leading space included; special tokens are line breaks."""
        special = {i: "\n" for i in self.tokenizer.all_special_ids}
        strings = decode_behind(self.tokenizer, [[i] for i in range(self.d_vocab)])
        return [special.get(i, string) for i, string in enumerate(strings)]

    def check_hook(self, hook: str) -> str:
        """Return a hook's name, or raise a `CourseError` that lists the nearest valid ones."""
        if hook not in self.hook_names:
            raise one_of("hook", hook, self.hook_names)
        return hook

    def hook_layer(self, hook: str) -> int:
        """Return the block a hook lies in: 0 for the embeddings, ``n_layers`` behind the last block."""
        found = re.match(r"blocks\.(\d+)\.", self.check_hook(hook))
        if found:
            return int(found.group(1))
        return 0 if "embed" in hook and not hook.startswith(("unembed", "hook_unembed")) else self.n_layers

    def encode(self, text: str) -> Int[Tensor, "1 pos"]:
        """Turn a prompt into token ids, BOS first.

        Raises
        ------
        CourseError
            If the prompt is empty or, with BOS, longer than the model's context.
        """
        ids = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        if not ids:
            raise CourseError("text='' is empty; give a prompt of at least one token.")
        if len(ids) + 1 > self.n_ctx:
            raise CourseError(
                f"text has {len(ids)} tokens; {self.name} reads at most {self.n_ctx - 1} after BOS."
            )
        return torch.tensor([[self.bos, *ids]], device=self.device)

    def text_of(self, ids: list[int]) -> str:
        """Decode token ids from the middle of a text: the leading space is kept."""
        return decode_behind(self.tokenizer, [ids])[0]

    def checked(self, tokens: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
        """Return tokens where the model is, for a run; raises `CourseError` if it cannot read them."""
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.d_vocab:
            raise CourseError(f"tokens hold id {low if low < 0 else high}; {self.name} knows 0 to {self.d_vocab - 1}.")
        if tokens.shape[1] > self.n_ctx:
            raise CourseError(f"tokens has {tokens.shape[1]} positions; {self.name} reads at most {self.n_ctx}.")
        self.tokens = tokens.to(self.device)
        return self.tokens

    @contextlib.contextmanager
    def hooked(self, *hooks: Hook) -> Iterator[None]:
        """Apply ``(hook name, function)`` pairs within a ``with`` block; afterwards they are gone, always.

        A function takes an activation and returns its replacement, or None to leave it alone.
        """
        added = []
        try:
            for name, function in hooks:
                point = self.model.hook_dict[self.check_hook(name)]
                # The bridge's own context manager calls a function once per alias: steering would be added twice.
                point.add_hook(lambda activation, hook, f=function: f(activation))
                added.append((point, point.fwd_hooks[-1]))
            yield
        finally:
            for point, handle in added:
                handle.hook.remove()
                point.fwd_hooks.remove(handle)

    def run(self, tokens: Int[Tensor, "batch pos"], *,
            hooks: Iterable[Hook] = ()) -> Float[Tensor, "batch pos d_vocab"]:
        """Run the model to its end without gradients, with ``hooks`` as in `hooked`; tokens have BOS at position 0."""
        with torch.no_grad(), self.hooked(*hooks):
            return self.model(self.checked(tokens))

    def logits(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Run the model to its end; ``with steer(...)`` and its like apply."""
        return self.run(tokens)

    def logits_at(
        self, tokens: Int[Tensor, "batch pos"], rows: Int[Tensor, " n"], places: Int[Tensor, " n"]
    ) -> Float[Tensor, "n d_vocab"]:
        """Return the logits of some places only: most of a small model's time goes into its vocabulary.

        Parameters
        ----------
        tokens
            Token ids, BOS at position 0.
        rows, places
            Which row, and which position in it; one pair for each result.
        """
        def pick(activation: Tensor) -> Tensor:
            return activation[rows.to(activation.device), places.to(activation.device)][None]

        with torch.no_grad(), self.hooked(("unembed.hook_in", pick)):
            return self.model(self.checked(tokens))[0]

    def follow(
        self, tokens: Int[Tensor, "batch pos"], memory: Any = None
    ) -> tuple[Float[Tensor, "batch d_vocab"], Any]:
        """Run tokens that follow on those already read, and return the last position's logits.

        Within the run ``self.past`` says at which position it begins; interventions ask for it.

        Parameters
        ----------
        tokens
            What comes next; at first BOS and the prompt.
        memory
            What the run before returned: keys and values of all positions up to there. It is changed in place.

        Returns
        -------
        tuple
            The logits, and the memory; None if the model keeps none.

        Raises
        ------
        CourseError
            If the memory did not keep what was read, which spoils all text after it without a sign.
        """
        self.past = 0 if memory is None else memory.get_seq_length()
        n, total = len(tokens), self.past + tokens.shape[1]
        # Said in full, because on some machines what is left to be inferred from the memory comes out as NaN.
        given = {"attention_mask": torch.ones(n, total, dtype=torch.long, device=self.device),
                 "position_ids": torch.arange(self.past, total, device=self.device).expand(n, -1)}
        try:
            with torch.no_grad():
                logits, memory = self.model(self.checked(tokens), return_type="logits_and_cache", use_cache=True,
                                            **{self._memory: memory}, **given)
        finally:
            self.past = None
        if memory is not None and memory.get_seq_length() != total:
            raise CourseError(f"{self.name} keeps {memory.get_seq_length()} of {total} positions: these versions of "
                              "transformers and transformer-lens do not fit each other; course doctor names them.")
        return logits[:, -1], memory

    @cached_property
    def _memory(self) -> str:
        """What the model calls its memory: ``cache`` in transformers from 5.24 on."""
        known = inspect.signature(self.model.original_model.forward).parameters
        return "cache" if "cache" in known else "past_key_values"

    def capture(self, tokens: Int[Tensor, "batch pos"], hook: str) -> Float[Tensor, "batch pos *rest"]:
        """Return one hook's activations; nothing that comes after the hook is computed.

        Raises
        ------
        CourseError
            If the hook is unknown, does not fire on this model, or has no row for each position.
        """
        caught: list[Tensor] = []

        def keep(activation: Tensor) -> None:
            caught.append(activation)
            raise _Captured

        with contextlib.suppress(_Captured):
            self.run(tokens, hooks=[(hook, keep)])
        if not caught or caught[0].shape[:2] != tokens.shape or caught[0].ndim < 3:
            what = f"has shape {tuple(caught[0].shape)}" if caught else "does not fire"
            raise CourseError(
                f"hook={hook!r} {what} on {self.name}; choose one with a vector for each token, "
                f"e.g. {self.middle_hook!r}."
            )
        return caught[0]
