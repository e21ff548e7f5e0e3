"""The library's own training step, from weights of our choice: what a family written by hand must agree with."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from course_utils.dictionaries.recipes import Recipe, check_kind
from course_utils.errors import CourseError, one_of


class LibraryStep(NamedTuple):
    """What the library computes in one training step, before its optimiser moves."""

    latents: Float[Tensor, "n d_sae"]
    """Latents."""
    reconstruction: Float[Tensor, "n d"]
    """Reconstruction."""
    loss: Float[Tensor, ""]
    """All terms of the family's loss, averaged over the samples."""
    gradients: dict[str, Tensor]
    """Gradient of the loss for each weight, by the library's names."""


def library_step(
    kind: str, weights: Mapping[str, Tensor], x: Float[Tensor, "n d"], *, k: int = 16, penalty: float | int = 0.0,
    dead: Bool[Tensor, " d_sae"] | None = None, **options: Any,
) -> LibraryStep:
    """Put weights into the library's training SAE of a family, and take the first half of a training step.

    Parameters
    ----------
    kind
        One of `families`.
    weights
        By the library's names (``W_enc [d d_sae]``, ``b_enc``, ``W_dec [d_sae d]``, ``b_dec``, ``threshold``, …);
        axes of length 1 in front are dropped. Those not given stay as the library starts them.
    x
        Activations.
    k
        Active latents a sample, in the families that fix them.
    penalty
        Weight of the sparsity penalty, in the families that have one.
    dead
        Latents that AuxK shall revive, in the topk families.
    **options
        Other fields of the library's training config.

    Raises
    ------
    CourseError
        If the family or a weight is unknown, or a weight has another shape.
    """
    from course_utils.dictionaries import families, new_parts

    check_kind(kind, families())
    width = weights["W_dec"].shape[-2]
    recipe = Recipe(kind, width, k, lr=None, l1=None, n_samples=1, batch_size=1, seed=0, aux_rows=None, options=options)
    sae = new_parts(recipe, torch.zeros(x.shape[1]), torch.device("cpu")).sae
    sae.activation_fn = sae.get_activation_fn()  # the library's, where the course puts a faster one
    state = sae.state_dict()
    for name, weight in weights.items():
        if name not in state:
            raise one_of(f"weights of kind={kind!r}", name, list(state))
        if weight.numel() != state[name].numel() or weight.shape[-state[name].ndim:] != state[name].shape:
            raise CourseError(f"weights[{name!r}] has shape {tuple(weight.shape)}; {kind} needs "
                              f"{tuple(state[name].shape)}.")
        state[name] = weight.detach().reshape(state[name].shape).clone()
    sae.load_state_dict(state)
    step = SimpleNamespace(sae_in=x, coefficients=dict.fromkeys(sae.get_coefficients(), float(penalty)),
                           dead_neuron_mask=dead, n_training_steps=0, is_logging_step=False)
    out = sae.training_forward_pass(step)
    out.loss.backward()
    gradients = {name: weight.grad for name, weight in sae.named_parameters() if weight.grad is not None}
    return LibraryStep(out.feature_acts.detach(), out.sae_out.detach(), out.loss.detach(), gradients)
