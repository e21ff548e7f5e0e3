"""What a model makes of other activations: the loss of every token when a hook's activation is replaced.

One way for all questions of the kind "what does the model lose if it gets y in place of x": a reconstruction, one part
of an error, a random vector. Position 0 (BOS) keeps its own activation, as in `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_utils.dictionaries.evaluation import Evaluation
from course_utils.dictionaries.reading import decode
from course_utils.errors import CourseError
from course_utils.evidence.estimates import Estimate, bootstrap_ratio
from course_utils.lab import Lab, token_losses


class Replaced(NamedTuple):
    """The tokens of some text behind BOS, in the order of the usable rows of a `harvest` of as many tokens.

    (Of another number of tokens the order is another: rows of like length are read together.)
    """

    clean: Float[np.ndarray, " n"]
    """Loss of each token, in nats."""
    changed: Float[np.ndarray, " n"]
    """The same with the activations replaced."""
    other_choice: Bool[np.ndarray, " n"]
    """Whether the most probable *next* token is another one."""
    tokens: Int[np.ndarray, " n"]
    """The tokens themselves."""
    doc: Int[np.ndarray, " n"]

    @property
    def gap(self) -> Float[np.ndarray, " n"]:
        """Extra loss of each token."""
        return self.changed - self.clean


@torch.no_grad()
def replaced(lab: Lab, hook: str, change: Callable[[Tensor], Tensor], n_tokens: int,
             split: str = "heldout") -> Replaced:
    """Run the model twice, as it is and with ``change(x)`` in place of every activation x behind BOS.

    Parameters
    ----------
    lab
        The opened model, with text.
    hook
        Where to replace.
    change
        Maps activations ``[batch pos d]`` (float32, heads side by side) to others of that shape.
    n_tokens, split
        How much text to read, and which.

    Raises
    ------
    CourseError
        If the hook is not there, or ``change`` returns another shape.
    """
    def put(activation: Tensor) -> Tensor:
        x = activation.flatten(2).float()
        new = change(x)
        if new.shape != x.shape:
            raise CourseError(f"change must keep the shape {tuple(x.shape)}; it returned {tuple(new.shape)}.")
        new = new.to(activation).reshape(activation.shape)
        return torch.cat([activation[:, :1], new[:, 1:]], dim=1)

    parts = []
    for batch in lab.batches(n_tokens, split):
        keep = batch.mask[:, 1:]
        before, after = lab.logits(batch.tokens), lab.run(batch.tokens, hooks=[(lab.check_hook(hook), put)])
        columns = [token_losses(logits, batch.tokens, batch.mask)[keep] for logits in (before, after)]
        columns.append((before.argmax(-1) != after.argmax(-1))[:, 1:][keep])
        columns.append(batch.tokens[:, 1:][keep])
        columns.append(batch.doc[:, None].expand(*keep.shape)[keep.cpu()])
        parts.append([column.cpu().numpy() for column in columns])
    clean, changed, *others = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Replaced(clean.astype(float), changed.astype(float), *others)


def reconstruct(sae: Any) -> Callable[[Tensor], Tensor]:
    """Return the function that replaces activations by an SAE's reconstruction."""
    return lambda x: decode(sae, sae.encode(x.to(sae.W_dec)), x.to(sae.W_dec)).float()


class Lost(NamedTuple):
    """What a splice loses; each with an interval over documents."""

    signal: Estimate
    """Share of the activations' variance."""
    computation: Estimate
    """Of the way from the clean loss up to the mean-ablated one, the part that the splice goes."""
    nats: Estimate
    """Spliced minus clean, a token."""


def lost(*sheets: Evaluation) -> Lost:
    """Sum up what one SAE loses, or several of them on average (seeds), that were evaluated on the same text.

    The interval is of documents: the seeds' mean is taken first.

    Raises
    ------
    CourseError
        If there is none, or they were not evaluated on the same documents.
    """
    if not sheets or len({e.document_tokens.tobytes() for e in sheets}) > 1:
        raise CourseError("give one evaluation or several of the same text.")
    value, low, high = np.mean([e.explained_variance[:3] for e in sheets], axis=0)
    clean, spliced, _, ablated = np.mean([e.document_losses for e in sheets], axis=0).T
    return Lost(Estimate(1 - value, 1 - high, 1 - low, sheets[0].explained_variance.n),
                bootstrap_ratio(spliced - clean, ablated - clean),
                bootstrap_ratio(spliced - clean, sheets[0].document_tokens))
