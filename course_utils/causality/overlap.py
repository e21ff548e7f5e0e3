"""Who else carries a direction: other latents at the same site, and latents at a later one that form it anew.

1. An SAE writes x = Σ_i f_i d_i + bias + error. Along a unit direction v that is one number, x·v, split among chosen
   latents, all others, the bias and the error: `shares`, and `carriers` for the latents that carry most.
2. If something is changed at one site, the change of a later site along v can be read in two ways that have the same
   sum: by way (what came straight through the stream, what attention and MLPs between added) and by what the later
   SAE says of it (chosen latents, others, the rest): `reformed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn.functional import normalize

from course_utils.causality.stream import Intervention, depth, passes
from course_utils.dictionaries.reading import decode, encode, hook_of
from course_utils.errors import CourseError
from course_utils.features.units import chunk
from course_utils.interventions.spaces import in_range
from course_utils.lab import Lab


class Shares(NamedTuple):
    """What stands along a direction, less the mean, row by row, and who carries it."""

    total: Float[Tensor, " n"]
    """(x - mean) · v."""
    latents: Float[Tensor, "n k"]
    """What each chosen latent writes of it."""
    others: Float[Tensor, " n"]
    """What all other latents write."""
    bias: Float[Tensor, " n"]
    """(decoder bias - mean) · v."""
    error: Float[Tensor, " n"]
    """What the SAE missed."""

    def parts(self) -> dict[str, Float[Tensor, " n"]]:
        """Return the four parts by name; they sum to the total."""
        return {"chosen latents": self.latents.sum(1), "other latents": self.others, "decoder bias": self.bias,
                "error": self.error}


class Carrier(NamedTuple):
    """A latent with what it writes along a direction."""

    latent: int
    amount: float
    """Mean over rows, those included on which it is not active."""


class Reformed(NamedTuple):
    """Change of a later site along a direction, row by row, read in two ways."""

    total: Float[Tensor, " n"]
    """All of it."""
    straight: Float[Tensor, " n"]
    """By way: the change at the earlier hook, which the stream hands on."""
    attention: Float[Tensor, "n layers"]
    """What the attention of each block between added."""
    mlp: Float[Tensor, "n layers"]
    """What its MLP added."""
    latents: Float[Tensor, "n k"]
    """By the later SAE: the change of what each chosen latent writes."""
    others: Float[Tensor, " n"]
    """Of what all other latents write."""
    error: Float[Tensor, " n"]
    """Of what no latent writes: the error, and what the SAE was given and did not have to learn."""

    def ways(self) -> dict[str, Float[Tensor, " n"]]:
        """Return how the change got there; sums to the total."""
        return {"straight": self.straight, "attention": self.attention.sum(1), "MLP": self.mlp.sum(1)}

    def parts(self) -> dict[str, Float[Tensor, " n"]]:
        """Return what the later SAE says of it; sums to the total as well."""
        return {"chosen latents": self.latents.sum(1), "other latents": self.others, "error": self.error}


def _unit(direction: Tensor, d: int) -> Float64[Tensor, " d"]:
    v = direction.detach().cpu().double()
    if v.shape != (d,) or not torch.isfinite(v).all() or not v.any():
        raise CourseError(f"direction has shape {list(v.shape)}; give [{d}] finite numbers that are not all 0.")
    return normalize(v, dim=0)


def _chosen(sae: Any, latents: Sequence[int] | Tensor) -> Int[Tensor, " k"]:
    ids = in_range("latents", latents, sae.cfg.d_sae).cpu()
    if len(ids.unique()) < len(ids):
        raise CourseError(f"latents={ids.tolist()} name one twice; give each once.")
    return ids


class _Written(NamedTuple):
    each: Float64[Tensor, "n d_sae"]  # what each latent writes along v
    latents: Float64[Tensor, " n"]  # all of them
    bias: Float64[Tensor, " n"]  # what the SAE gives back when no latent is active
    error: Float64[Tensor, " n"]


@torch.no_grad()
def _written(sae: Any, x: Float[Tensor, "n d"], v: Float64[Tensor, " _"]) -> _Written:
    """Split x·v by what the SAE writes. An SAE that normalises its rows writes in a unit of each row's own."""
    if x.shape[1] != sae.cfg.d_in:
        raise CourseError(f"sae reads vectors of width {sae.cfg.d_in}; x has {x.shape[1]}.")
    x = x.to(sae.W_dec)
    f = encode(sae, x)

    def along(vectors: Tensor) -> Tensor:
        return vectors.cpu().double() @ v

    none, all_of_it = along(decode(sae, torch.zeros_like(f), x)), along(decode(sae, f, x))
    pull = along(sae.W_dec)
    probe, tried = torch.zeros_like(f), int(pull.abs().argmax())
    probe[:, tried] = f.max().clamp(min=1)  # one latent on, by a known amount, says what a row's unit is
    unit = (along(decode(sae, probe, x)) - none) / (probe[:, tried].cpu().double() * pull[tried])
    return _Written(f.cpu().double() * pull * unit[:, None], all_of_it - none, none, along(x) - all_of_it)


def shares(sae: Any, x: Float[Tensor, "n d"], direction: Float[Tensor, " _"], latents: Sequence[int] | Tensor,
           mean: Float[Tensor, " _"]) -> Shares:
    """Split what activations hold of a direction among chosen latents, all others, the decoder bias and the error.

    Parameters
    ----------
    sae
        Any sae-lens SAE.
    x
        Activations at its hook, BOS left out.
    direction
        ``[d]``; its length does not count.
    latents
        The chosen ones.
    mean
        What to measure from, e.g. the mean activation of a harvest: of all text, and not of the concept's.

    Returns
    -------
    Shares
        In units of the activations; the parts sum to the total.

    Raises
    ------
    CourseError
        If widths do not fit, a latent is out of range or named twice, or the direction is zero.
    """
    v, chosen, parts = _unit(direction, sae.cfg.d_in), _chosen(sae, latents), []
    if mean.shape != v.shape:
        raise CourseError(f"mean has shape {list(mean.shape)}; give [{len(v)}], the mean activation at the SAE's hook.")
    middle = mean.detach().cpu().double() @ v
    for some in x.split(chunk(sae)):
        found = _written(sae, some, v)
        mine = found.each[:, chosen]
        parts.append((some.cpu().double() @ v - middle, mine, found.latents - mine.sum(1), found.bias - middle,
                      found.error))
    return Shares(*(torch.cat(column).float() for column in zip(*parts, strict=True)))


def carriers(sae: Any, x: Float[Tensor, "n d"], direction: Float[Tensor, " _"], n: int = 10) -> list[Carrier]:
    """Return the latents that write most along a direction, on average over rows, the most first.

    Parameters
    ----------
    sae, x, direction
        As in `shares`.
    n
        How many.
    """
    if n < 1:
        raise CourseError(f"n={n} must be at least 1.")
    v = _unit(direction, sae.cfg.d_in)
    mean = sum(_written(sae, some, v).each.sum(0) for some in x.split(chunk(sae))) / len(x)
    best = mean.topk(min(n, len(mean)))
    return [Carrier(i, amount) for i, amount in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def reformed(
    lab: Lab, sae: Any, tokens: Int[Tensor, "n pos"], places: Int[Tensor, " _"], direction: Float[Tensor, " _"],
    hook: str, intervention: Intervention, latents: Sequence[int] | Tensor,
) -> Reformed:
    """Read in two ways how a later site changes along a direction when something is changed at an earlier one.

    Parameters
    ----------
    lab
        The opened model.
    sae
        An SAE of the later site, and trained there.
    tokens, places, hook, intervention
        As in `account`: ``hook`` is the earlier site.
    direction
        ``[d]`` at the later site, e.g. the concept's difference of means there; its length does not count.
    latents
        Latents of ``sae``, e.g. those that best say the concept there.

    Returns
    -------
    Reformed
        Changed less clean, in units of the activations.

    Raises
    ------
    CourseError
        If a hook is no place of the stream, the later one is not behind the earlier, or something does not fit.
    """
    later = hook_of(lab, sae, None)
    if depth(lab, later) <= depth(lab, hook):
        raise CourseError(f"later={later!r} does not lie behind hook={hook!r}; give an SAE of a later site.")
    v, chosen, parts = _unit(direction, lab.d_model), _chosen(sae, latents), []
    for pair in zip(passes(lab, tokens, places, hook, later),
                    passes(lab, tokens, places, hook, later, intervention), strict=True):
        ways = [[x.double() @ v for x in (part.end, part.start, part.attention, part.mlp)] for part in pair]
        said = [_written(sae, part.end, v) for part in pair]
        mine, all_of_it, none, error = (b - a for a, b in zip(*said, strict=True))
        mine = mine[:, chosen]
        parts.append((*(b - a for a, b in zip(*ways, strict=True)), mine, all_of_it - mine.sum(1), none + error))
    return Reformed(*(torch.cat(column).float() for column in zip(*parts, strict=True)))
