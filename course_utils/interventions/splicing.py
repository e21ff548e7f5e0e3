"""Put an SAE into the model: splice its reconstruction in, or take some of its latents away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_utils.dictionaries.reading import as_read, decode, encode, hook_of
from course_utils.errors import CourseError, one_of
from course_utils.interventions.spaces import in_range
from course_utils.lab import Lab

MODES = ("zero", "mean", "resample")


def _after_bos(lab: Lab, activation: Tensor, new: Tensor) -> Tensor:
    """Put ``new`` everywhere but at position 0, in the activation's own shape and type."""
    result = new.reshape(activation.shape).to(activation.device, activation.dtype)
    if not lab.past:
        result[:, 0] = activation[:, 0]
    return result


@contextlib.contextmanager
def splice(lab: Lab, sae: Any, error_term: bool = False) -> Iterator[None]:
    """Replace activations by their reconstruction, so that the model sees only what the SAE kept.

    Parameters
    ----------
    lab
        The opened model.
    sae
        Any sae-lens SAE; it is put where ``sae.cfg.metadata.hook_name`` says.
    error_term
        Add what the SAE missed, so that the logits must be the clean ones: the check to make first.

    Raises
    ------
    CourseError
        If the SAE's hook is not on this model, or its width is not the activation's.
    """

    def replace(activation: Tensor) -> Tensor:
        x = as_read(activation, sae)
        new = decode(sae, sae.encode(x), x)
        return _after_bos(lab, activation, new + (x - new) if error_term else new)

    with lab.hooked((hook_of(lab, sae, None), replace)):
        yield


@contextlib.contextmanager
def ablate(
    lab: Lab, sae: Any, latents: Sequence[int] | Int[Tensor, " k"], mode: str = "zero",
    means: Float[Tensor, " d_sae"] | None = None, error_term: bool = True,
    mask: Bool[Tensor, "batch pos"] | None = None, seed: int = 0, only: Bool[Tensor, "batch pos"] | None = None,
) -> Iterator[None]:
    """Take latents away and keep everything else.

    Parameters
    ----------
    lab
        The opened model.
    sae
        Any sae-lens SAE.
    latents
        Which latents; none at all, or latents that are not active, change nothing.
    mode
        ``"zero"``: off. ``"mean"``: at ``means``, so that only what varies is lost. ``"resample"``: at their
        value on another token of the batch, so that the model sees only ordinary values.
    means
        Mean activation of every latent, for ``mode="mean"``.
    error_term
        Keep what the SAE missed (default); False splices the ablated reconstruction in, and adds the SAE's
        own error to the effect.
    mask, seed
        For ``"resample"``: which tokens may be donors (None: all but BOS, which also fills rows up), and how they
        are drawn.
    only
        Where to take them away; None: at every position but BOS. Everywhere else nothing is changed.

    Raises
    ------
    CourseError
        If ``mode`` is unknown, a latent is out of range, ``means`` is missing, or ``only`` is not of the rows' shape.
    """
    chosen = in_range("latents", latents, sae.cfg.d_sae).to(sae.W_dec.device)
    if mode not in MODES:
        raise one_of("mode", mode, MODES)
    if mode == "mean" and (means is None or means.shape != (sae.cfg.d_sae,)):
        raise CourseError(f"mode='mean' needs means=<the mean of each of the {sae.cfg.d_sae} latents>.")

    def substitute(f: Tensor) -> Tensor | float:
        if mode == "zero":
            return 0.0
        if mode == "mean":
            return means.to(f)[chosen]
        return f[_donors(f, lab.tokens != lab.bos if mask is None else mask, seed, lab.past)][..., chosen]

    def replace(activation: Tensor) -> Tensor:
        x = as_read(activation, sae)
        f = encode(sae, x)
        ablated = f.clone()
        ablated[..., chosen] = substitute(f)
        # As a difference of two decodings the error term is exact: an inactive latent changes no bit of x.
        changed = decode(sae, ablated, x)
        new = x + (changed - decode(sae, f, x)) if error_term else changed
        return _after_bos(lab, activation, new if only is None else _where(only, new, x))

    with lab.hooked((hook_of(lab, sae, None), replace)):
        yield


def _where(only: Tensor, new: Tensor, x: Tensor) -> Tensor:
    if only.shape != x.shape[:2]:
        raise CourseError(f"only has shape {tuple(only.shape)}; the tokens have {tuple(x.shape[:2])}.")
    there = only.to(x.device).reshape(*only.shape, *[1] * (x.ndim - 2))  # heads may still lie apart
    return torch.where(there, new.reshape(x.shape), x)


@contextlib.contextmanager
def divert(lab: Lab, sae: Any, latents: Sequence[int] | Int[Tensor, " k"],
           rows: Float[Tensor, "k d"]) -> Iterator[None]:
    """Take away what latents write, but along other directions: x − Σ f_i · rows_i. The null of `ablate`.

    Parameters
    ----------
    lab, sae
        As in `ablate`.
    latents
        Whose activity decides where, and how much.
    rows
        ``[k d]``: what each takes away. With the latents' own decoder rows it is `ablate` at zero; with others' it is
        a shuffled decoder, with random ones of the same length a random direction at an equal dose.

    Raises
    ------
    CourseError
        If a latent is out of range, or there is not one row of the SAE's width for each.
    """
    chosen = in_range("latents", latents, sae.cfg.d_sae).to(sae.W_dec.device)
    if rows.shape != (len(chosen), sae.cfg.d_in) or not rows.isfinite().all():
        raise CourseError(f"rows has shape {list(rows.shape)}; give {[len(chosen), sae.cfg.d_in]} finite numbers, a "
                          "row for each latent.")

    def replace(activation: Tensor) -> Tensor:
        x = as_read(activation, sae)
        f = encode(sae, x)
        return _after_bos(lab, activation, x.flatten(2) - f[..., chosen] @ rows.to(f))

    with lab.hooked((hook_of(lab, sae, None), replace)):
        yield


def _donors(f: Tensor, mask: Tensor, seed: int, past: int | None) -> tuple[Tensor, Tensor]:
    """Draw a donor (row and position) for every token of a batch; one seed, one draw."""
    allowed = mask.cpu().clone()
    if allowed.shape != f.shape[:2]:
        raise CourseError(f"mask has shape {tuple(allowed.shape)}; the tokens have {tuple(f.shape[:2])}.")
    allowed[:, 0] &= bool(past)  # behind a cache the first column is no BOS
    pool = allowed.nonzero()
    if not len(pool):
        raise CourseError("mode='resample' needs at least one token after BOS to draw from.")
    draw = torch.randint(len(pool), tuple(f.shape[:2]), generator=torch.Generator().manual_seed(seed))
    row, pos = pool[draw].to(f.device).unbind(-1)
    return row, pos
