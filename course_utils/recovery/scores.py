"""Scores of a dictionary against the answer key: matching, and what each latent is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from course_utils.errors import CourseError

KINDS = ("feature", "duplicate", "split", "composed", "other", "dead")


class Recovery(NamedTuple):
    """How well each instance's dictionary recovers its world."""

    mmcs: Float[Tensor, " instances"]
    """Mean cosine of a feature with its latent (mean max cosine similarity, one to one); a missing latent counts 0."""
    recall: Float[Tensor, " instances"]
    """Share of the features whose latent points their way (cosine at least `bar`)."""
    precision: Float[Tensor, " instances"]
    """Share of the living latents that are such a feature's only or best one."""
    kinds: Float[Tensor, "instances kinds"]
    """Share of all latents of each of `KINDS`."""
    latent: Int[Tensor, "instances f"]
    """The latent that each feature was handed."""
    cosine: Float[Tensor, "instances f"]
    """Its cosine with the feature."""


def cosines(directions: Float[Tensor, "*i f d"], W_dec: Float[Tensor, "*i m d"]) -> Float[Tensor, "*i f m"]:
    """Return the cosine of every feature with every latent."""
    return normalize(directions, dim=-1) @ normalize(W_dec, dim=-1).mT


def match(cosine: Float[Tensor, "f m"]) -> tuple[Int[Tensor, " f"], Float[Tensor, " f"]]:
    """Hand each feature a latent of its own so that the cosines sum to the most; return latents and cosines.

    Examples
    --------
    Both features like latent 0 best; one of them must do with latent 1:

    >>> match(torch.tensor([[0.9, 0.8], [0.7, 0.1]]))[0]
    tensor([1, 0])
    """
    from scipy.optimize import linear_sum_assignment

    if cosine.shape[0] > cosine.shape[1]:
        raise CourseError(f"{cosine.shape[0]} features cannot have a latent each of {cosine.shape[1]}; "
                          "give a dictionary at least as wide as the truth.")
    _, latent = linear_sum_assignment(cosine.numpy(), maximize=True)
    latent = torch.from_numpy(latent)
    return latent, cosine.gather(1, latent[:, None])[:, 0]


def pair_cosine(cosine: Float[Tensor, "f m"], directions: Float[Tensor, "f d"]) -> Float[Tensor, " m"]:
    """Return each latent's cosine with the best sum of two features, both with positive weight.

    The latent's shadow on the plane of features i and j has length² (c_i² + c_j² − 2 c_i c_j g) / (1 − g²), with
    cosines c and g = F_i · F_j, and weights of the signs of c_i − g c_j and c_j − g c_i.
    """
    g = (directions @ directions.T)[..., None]
    i, j = cosine[:, None], cosine[None]
    shadow = (i**2 + j**2 - 2 * i * j * g) / (1 - g**2).clamp(min=1e-6)
    inside = (i > g * j) & (j > g * i)
    inside[range(len(g)), range(len(g))] = False
    return (shadow * inside).amax((0, 1)).clamp(max=1).sqrt()


def recover(
    W_dec: Float[Tensor, "instances m d"], latents: Float[Tensor, "instances n m"],
    directions: Float[Tensor, "instances f d"], strengths: Float[Tensor, "instances n f"], bar: float = 0.9,
) -> Recovery:
    """Score dictionaries against the truth.

    Parameters
    ----------
    W_dec, latents
        Decoders, and what the latents did on a sample; one that never fires is dead, and no feature's latent.
    directions, strengths
        The truth, and the sample's strengths.
    bar
        Cosine from which a latent counts as pointing a feature's way.

    Notes
    -----
    Of the latents behind a feature's own one that point its way, a *duplicate* fires together with that one on most
    occasions on which the duplicate fires and the feature is on; a *split* takes occasions over. A *composed* latent
    reaches the bar with a sum of two features only.
    """
    found = [_one(*parts, bar) for parts in zip(W_dec, latents > 0, directions, strengths > 0, strict=True)]
    return Recovery(*(torch.stack(column) for column in zip(*found, strict=True)))


def _one(W_dec: Tensor, active: Tensor, directions: Tensor, on: Tensor, bar: float) -> tuple[Tensor, ...]:
    alive = active.any(0)
    cosine = cosines(directions, W_dec).masked_fill(~alive, 0.0)
    latent, best = match(cosine)
    hit = best >= bar
    kind = _kinds(cosine, latent[hit], active, on, bar)
    kind[(kind == KINDS.index("other")) & (pair_cosine(cosine, directions) >= bar)] = KINDS.index("composed")
    kind[~alive] = KINDS.index("dead")
    shares = torch.bincount(kind, minlength=len(KINDS)) / len(kind)
    return best.mean(), hit.float().mean(), hit.sum() / alive.sum().clamp(min=1), shares, latent, best


def _kinds(cosine: Float[Tensor, "f m"], own: Int[Tensor, " hits"], active: Bool[Tensor, "n m"],
           on: Bool[Tensor, "n f"], bar: float) -> Int[Tensor, " m"]:
    """Tell features, their duplicates and splits from all else."""
    kind = torch.full((cosine.shape[1],), KINDS.index("other"))
    kind[own] = KINDS.index("feature")
    near, feature = cosine.max(0)
    for extra in ((near >= bar) & (kind != KINDS.index("feature"))).nonzero()[:, 0].tolist():
        mine = feature[extra]
        rivals = own[cosine[mine, own] >= bar]  # the latent that was handed this feature
        occasions = active[:, extra] & on[:, mine]
        together = (occasions[:, None] & active[:, rivals]).any(1).sum() > occasions.sum() / 2
        kind[extra] = KINDS.index("duplicate" if together else "split")
    return kind
