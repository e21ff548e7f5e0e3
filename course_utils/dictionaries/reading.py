"""What an SAE reads: the activation itself, or the activation after somebody's preprocessing.

1. Many SAEs for GPT-2 were trained on a model whose weights had been centred (``center_writing_weights``): whatever
   writes into the residual stream writes with mean 0 over ``d_model``. Such a model computes the same, because a layer
   norm takes that mean away before anything else sees it, but its activations are others: x less its mean.
2. The course opens models as they are published. There an encoder that expects centred activations gets their mean as
   well, in a direction that its training never visited. `fold_centring` takes that direction out of the encoder: since
   (x − mean) W = x (W − mean of W over d_model), the SAE then takes x itself, and its latents are the right ones.
3. It still gives back a centred activation. `decode` adds the mean that x had.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.lab import Lab

# Where centred weights write. Inside a head or an MLP, activations are the same with and without.
_WRITTEN = re.compile(r"hook_(resid_(pre|mid|post)|attn_out|mlp_out|embed|pos_embed)$")
_NORMED = ("layer_norm", "constant_norm_rescale")  # computed by the library, token by token


def asks_centred(sae: Any) -> bool:
    """Say whether an SAE was trained on a residual stream of mean 0 over ``d_model``, by its metadata."""
    loaded = sae.cfg.metadata.model_from_pretrained_kwargs or {}
    written = _WRITTEN.search(sae.cfg.metadata.hook_name or "")
    # A layer norm centres by itself.
    return bool(loaded.get("center_writing_weights") and written and sae.cfg.normalize_activations != "layer_norm")


def reads_centred(sae: Any) -> bool:
    """Say whether `fold_centring` was done: the SAE takes activations as they are, and gives back centred ones."""
    return bool(sae.cfg.metadata.centring_folded)


@torch.no_grad()
def fold_centring(sae: Any) -> Any:
    """Let an SAE that was trained on centred activations take activations as they are; in place, once.

    Parameters
    ----------
    sae
        A sae-lens SAE whose encoder is one product.

    Returns
    -------
    SAE
        The same one. Encoder and encoder bias are changed; its latents are those of centred activations.

    Raises
    ------
    CourseError
        If its encoder is of another form.
    """
    # The encoder's biases, and what each encoder's product is multiplied by.
    gains = {"b_enc": None, "b_gate": None, "b_mag": getattr(sae, "r_mag", None)}
    gains = {name: gain for name, gain in gains.items() if getattr(sae, name, None) is not None}
    if not gains or sae.cfg.normalize_activations not in ("none", "expected_average_only_in"):
        raise CourseError(f"sae is of the kind {sae.cfg.architecture()!r} with normalize_activations="
                          f"{sae.cfg.normalize_activations!r}, into which centring cannot be folded; give it centred "
                          "activations.")
    if reads_centred(sae):
        return sae
    # With the mean of x goes that of b_dec, which the encoder saw as well and which is constant.
    lost = sae.b_dec.mean() * sae.W_enc.sum(0) * sae.cfg.apply_b_dec_to_input
    for name, gain in gains.items():
        getattr(sae, name).sub_(lost if gain is None else lost * gain.exp())
    sae.W_enc.sub_(sae.W_enc.mean(0))
    sae.cfg.metadata["centring_folded"] = True
    return sae


def opened(sae: Any, fold: bool) -> Any:
    """Make an SAE that was just read ready for use: no gradients, heads laid side by side, centring folded in."""
    if sae.hook_z_reshaping_mode:  # the course joins the heads of an activation, not the SAE
        sae.turn_off_forward_pass_hook_z_reshaping()
    if fold and asks_centred(sae):
        fold_centring(sae)
    return sae.eval().requires_grad_(False)


def hook_of(lab: Lab, sae: Any, hook: str | None) -> str:
    """Return where an SAE belongs: the hook given, or the one that its metadata names."""
    hook = hook or getattr(sae.cfg.metadata, "hook_name", None)
    if not hook:
        raise CourseError("hook=None, and sae.cfg.metadata.hook_name says nothing; give the hook it was trained on.")
    return lab.check_hook(hook)


def laid_flat(x: Float[Tensor, "batch pos *rest"], sae: Any) -> Float[Tensor, "batch pos d"]:
    """Lay heads side by side, and bring activations to the SAE's place and type."""
    x = x.flatten(2).to(sae.W_dec.device, sae.W_dec.dtype)
    if x.shape[-1] != sae.cfg.d_in:
        raise CourseError(f"sae reads vectors of width {sae.cfg.d_in}, but this hook's have {x.shape[-1]}; "
                          "give the hook it was trained on.")
    return x


def as_read(x: Float[Tensor, "batch pos *rest"], sae: Any) -> Float[Tensor, "batch pos *sae"]:
    """Do as `laid_flat`, but leave the heads apart for an SAE that joins them itself."""
    flat = laid_flat(x, sae)
    return flat.reshape(x.shape) if sae.hook_z_reshaping_mode else flat


def encode(sae: Any, x: Tensor) -> Tensor:
    """Encode activations of the SAE's own shape, place and type into latents, dense whatever the library makes."""
    f = sae.encode(x)
    return f.to_dense() if f.is_sparse else f


def decode(sae: Any, latents: Tensor, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """Decode latents into an activation like ``x``, whose mean or norm the SAE was given and did not have to learn.

    Parameters
    ----------
    sae
        Any sae-lens SAE.
    latents
        The latents of ``x``, or others in their place.
    x
        What stood at the hook.
    """
    if sae.cfg.normalize_activations in _NORMED:
        sae.process_sae_in(x)  # leaves the norm where the library's decode looks for it, once
    found = sae.decode(latents)
    return found + x.mean(-1, keepdim=True) if reads_centred(sae) else found


def warn_of_preprocessing(sae: Any) -> None:
    """Warn if an SAE's metadata asks for a preprocessing that nobody has done."""
    missing = {"centred (less their mean over d_model)": asks_centred(sae) and not reads_centred(sae),
               "scaled to a mean length of sqrt(d_model)": sae.cfg.normalize_activations == "expected_average_only_in"}
    for what, is_missing in missing.items():
        if is_missing:
            warnings.warn(f"By its metadata this SAE reads activations {what}, and nothing does that here: its figures "
                          "will be too low. load_sae centres; preprocessing_check(lab, sae) finds what fits.",
                          stacklevel=3)
