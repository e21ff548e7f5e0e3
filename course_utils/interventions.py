"""Reach into a running model: splice an SAE in, ablate its latents, steer along a direction, generate.

Each is a context manager over the model's hooks: inside the ``with`` block every run of the lab is changed, after it
none is, whatever ended the block. All leave position 0 (BOS) alone unless told otherwise: no SAE here is trained on it,
and heads use it as their resting place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_utils.dictionaries.reading import decode
from course_utils.errors import CourseError, one_of
from course_utils.lab import Lab

MODES = ("zero", "mean", "resample")


def _site(lab: Lab, sae: Any) -> str:
    """Name the hook that an SAE was trained on."""
    hook = getattr(sae.cfg.metadata, "hook_name", None)
    if not hook:
        raise CourseError("sae has no sae.cfg.metadata.hook_name; set it to the hook it was trained on.")
    return lab.check_hook(hook)


def _to_sae(activation: Tensor, sae: Any) -> Tensor:
    """Bring an activation into the SAE's shape, type and place; heads side by side."""
    x = activation.to(sae.W_dec.device, sae.W_dec.dtype)
    if getattr(sae, "hook_z_reshaping_mode", False):
        return x  # such an SAE joins the heads itself
    x = x.flatten(2)
    if x.shape[-1] != sae.cfg.d_in:
        raise CourseError(f"sae reads vectors of width {sae.cfg.d_in}; the activations have {x.shape[-1]}.")
    return x


def _after_bos(activation: Tensor, new: Tensor) -> Tensor:
    """Put ``new`` everywhere but at position 0, in the activation's own shape and type."""
    result = new.reshape(activation.shape).to(activation.device, activation.dtype)
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
        x = _to_sae(activation, sae)
        new = decode(sae, sae.encode(x), x)
        return _after_bos(activation, new + (x - new) if error_term else new)

    with lab.hooked((_site(lab, sae), replace)):
        yield


@contextlib.contextmanager
def ablate(
    lab: Lab, sae: Any, latents: Sequence[int] | Int[Tensor, " k"], mode: str = "zero",
    means: Float[Tensor, " d_sae"] | None = None, error_term: bool = True,
    mask: Bool[Tensor, "batch pos"] | None = None, seed: int = 0,
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
        For ``"resample"``: which tokens may be donors (give `Batch.mask`, or padding donates too; BOS never
        does), and how they are drawn.

    Raises
    ------
    CourseError
        If ``mode`` is unknown, a latent is out of range, or ``means`` is missing.
    """
    chosen = torch.as_tensor(latents, dtype=torch.long, device=sae.W_dec.device).flatten()
    if mode not in MODES:
        raise one_of("mode", mode, MODES)
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < sae.cfg.d_sae:
        raise CourseError(f"latents={chosen.tolist()} must lie in 0 to {sae.cfg.d_sae - 1}.")
    if mode == "mean" and (means is None or means.shape != (sae.cfg.d_sae,)):
        raise CourseError(f"mode='mean' needs means=<the mean of each of the {sae.cfg.d_sae} latents>.")

    def substitute(f: Tensor) -> Tensor | float:
        if mode == "zero":
            return 0.0
        if mode == "mean":
            return means.to(f)[chosen]
        return f[_donors(f, mask, seed)][..., chosen]

    def replace(activation: Tensor) -> Tensor:
        x = _to_sae(activation, sae)
        f = sae.encode(x)
        f = f.to_dense() if f.is_sparse else f
        ablated = f.clone()
        ablated[..., chosen] = substitute(f)
        # As a difference of two decodings the error term is exact: an inactive latent changes no bit of x.
        changed = decode(sae, ablated, x)
        new = x + (changed - decode(sae, f, x)) if error_term else changed
        return _after_bos(activation, new)

    with lab.hooked((_site(lab, sae), replace)):
        yield


def _donors(f: Tensor, mask: Tensor | None, seed: int) -> tuple[Tensor, Tensor]:
    """Draw a donor (row and position) for every token of a batch; one seed, one draw."""
    allowed = torch.ones(f.shape[:2], dtype=torch.bool) if mask is None else mask.cpu().clone()
    if allowed.shape != f.shape[:2]:
        raise CourseError(f"mask has shape {tuple(allowed.shape)}; the tokens have {tuple(f.shape[:2])}.")
    allowed[:, 0] = False
    pool = allowed.nonzero()
    if not len(pool):
        raise CourseError("mode='resample' needs at least one token after BOS to draw from.")
    draw = torch.randint(len(pool), tuple(f.shape[:2]), generator=torch.Generator().manual_seed(seed))
    row, pos = pool[draw].to(f.device).unbind(-1)
    return row, pos


@contextlib.contextmanager
def steer(
    lab: Lab, hook: str, direction: Float[Tensor, " d"], scale: float | int,
    positions: Sequence[int] | slice | None = None,
) -> Iterator[None]:
    """Add ``scale * direction`` to an activation (activation addition, Turner et al. 2023).

    Parameters
    ----------
    lab
        The opened model.
    hook
        Where to add, e.g. ``"blocks.1.hook_resid_post"``.
    direction
        What to add, as long as the activation is wide (heads side by side); it is not normalised.
    scale
        How much of it, in the activation's own units; 0 changes nothing at all, not even a bit.
    positions
        Which positions of each row; None: all but BOS.

    Raises
    ------
    CourseError
        If the hook is unknown, or the direction or scale is not finite or not of the activation's width.
    """
    lab.check_hook(hook)
    if not torch.isfinite(direction).all() or not torch.isfinite(torch.tensor(float(scale))):
        raise CourseError("direction and scale must be finite; one of them holds NaN or infinity.")
    where = slice(1, None) if positions is None else positions
    where = where if isinstance(where, slice) else list(where)

    def add(activation: Tensor) -> Tensor:
        width = activation[0, 0].numel()
        if len(direction) != width:
            raise CourseError(f"direction has length {len(direction)}; activations at {hook!r} have {width}.")
        steered = activation.clone()
        try:
            steered[:, where] += (scale * direction).reshape(activation.shape[2:]).to(activation)
        except IndexError as error:
            raise CourseError(f"positions={positions} must lie within {activation.shape[1]}.") from error
        return steered

    with lab.hooked(*([(hook, add)] if scale else [])):
        yield


def generate(
    lab: Lab, prompt: str, max_new_tokens: int = 32, temperature: float | int = 1.0, seed: int = 0, n: int = 1
) -> list[str]:
    """Continue a prompt ``n`` times, under whatever intervention is in force.

    The whole context is run anew for every token: with a cache, hooks would see each token as position 0.

    Parameters
    ----------
    lab
        The opened model.
    prompt
        Text to continue.
    max_new_tokens
        At most so many tokens; the end of the context or an end-of-text token stops earlier.
    temperature, seed
        How tokens are drawn; temperature 0 takes the most likely one each time.
    n
        How many continuations.

    Returns
    -------
    list of str
        The continuations, without the prompt.

    Raises
    ------
    CourseError
        If the prompt is empty or fills the context, or a number is out of range.
    """
    if min(max_new_tokens, n) < 1 or not temperature >= 0:
        raise CourseError(f"{max_new_tokens=} and {n=} must be at least 1, {temperature=} at least 0.")
    start = lab.encode(prompt)
    if start.shape[1] >= lab.n_ctx:
        raise CourseError(f"prompt fills the context of {lab.n_ctx} tokens; shorten it to leave room.")
    tokens, end = start.expand(n, -1), lab.tokenizer.eos_token_id  # the bridge gives every tokenizer an EOS
    generator = torch.Generator().manual_seed(seed)
    done = torch.zeros(n, dtype=torch.bool)
    for _ in range(min(max_new_tokens, lab.n_ctx - start.shape[1])):
        last = lab.logits(tokens)[:, -1].float().cpu()  # drawn on the CPU: the same text on every device
        drawn = (torch.multinomial(torch.softmax(last / temperature, -1), 1, generator=generator) if temperature
                 else last.argmax(-1, keepdim=True))
        drawn[done] = end
        done |= drawn[:, 0] == end
        tokens = torch.cat([tokens, drawn.to(tokens)], dim=1)
        if done.all():
            break
    continuations = [row.tolist() for row in tokens[:, start.shape[1] :]]
    return [lab.text_of(row[: row.index(end)] if end in row else row) for row in continuations]
