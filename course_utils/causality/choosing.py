"""Which latents to take away for a concept: those that read it best, or those that its answers hang on.

A latent that detects tigers need not be one by which the model says tiger. `attribution` estimates for every latent at
once, from one gradient, what its removal would do to the answer: Σ over positions of f · (d · ∂T/∂x), the first term of
a Taylor series, so that it is right for small latents and a guess for large ones. What is chosen by it on some rows
must be tried out on others.

Source: Marks et al. 2024, Sparse feature circuits, arXiv 2403.19647, section 3.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.causality.stream import check_places
from course_utils.causality.targets import Target
from course_utils.dictionaries.reading import decode, encode, hook_of, laid_flat
from course_utils.errors import CourseError
from course_utils.lab import Lab

_TOKENS = 2048  # of text at once: what their gradients need stays in memory


def attribution(lab: Lab, sae: Any, tokens: Int[Tensor, "n pos"], places: Int[Tensor, " _"],
                to: Target) -> Float[Tensor, " d_sae"]:
    """Estimate how much of an answer each latent holds up: the mean drop of the target if it alone were turned off.

    Parameters
    ----------
    lab
        The opened model; its weights collect no gradients.
    sae
        Any sae-lens SAE of the residual stream, or of another hook that is as wide as it.
    tokens, places, to
        Rows of text, the position in each at which the answer is read, and what is asked, as in `account`.

    Returns
    -------
    Tensor
        ``[d_sae]``, in the target's units, on the CPU; 0 for latents that are not active anywhere.

    Raises
    ------
    CourseError
        If places, target or the SAE do not fit.
    """
    check_places(tokens, places)
    if len(to.plus) != len(tokens):
        raise CourseError(f"the target has {len(to.plus)} rows, tokens {len(tokens)}; make it for the same rows.")
    hook, total = hook_of(lab, sae, None), torch.zeros(sae.cfg.d_sae, dtype=torch.float64)
    for some in torch.arange(len(tokens)).split(max(1, _TOKENS // tokens.shape[1])):
        x, slope = _slope(lab, hook, tokens[some], places[some], to.of(some))
        x, slope = (laid_flat(part, sae)[:, 1:].flatten(0, 1) for part in (x, slope))
        f = encode(sae, x).detach().requires_grad_()
        with torch.enable_grad():  # through the decoding, as SAEs that normalise rows write in a unit of each row's own
            (pull,) = torch.autograd.grad((decode(sae, f, x) * slope).sum(), f)
        total += (f * pull).detach().sum(0).double().cpu()
    return (total / len(tokens)).float()


def _slope(lab: Lab, hook: str, tokens: Tensor, places: Tensor, to: Target) -> tuple[Tensor, Tensor]:
    """Return the activations and the target's gradient there: ``[n pos d]`` each."""
    kept: list[Tensor] = []

    def watch(activation: Tensor) -> Tensor:
        kept.append(activation.detach().requires_grad_())
        return kept[0]

    with torch.enable_grad(), lab.hooked((hook, watch)):
        logits = lab.model(lab.checked(tokens))
        said = logits[torch.arange(len(tokens), device=logits.device), places.to(logits.device)]
        (slope,) = torch.autograd.grad(to.read(said.cpu()).sum(), kept)
    return kept[0].detach(), slope
