"""One latent: where it fires, how well that says a concept, what lies near it, and what fires with it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from scipy.sparse import csc_array
from torch import Tensor
from torch.nn.functional import normalize

from course_utils.activations import Activations
from course_utils.errors import CourseError
from course_utils.features.units import Units, chunk


class Scores(NamedTuple):
    """How well "this latent is active" says "this token carries the concept", one number a latent."""

    precision: Float[Tensor, " d_sae"]
    """Of the tokens on which the latent is active, the share that carries the concept; 0 if it never is."""
    recall: Float[Tensor, " d_sae"]
    """Of the tokens that carry the concept, the share on which the latent is active."""
    f1: Float[Tensor, " d_sae"]
    """Harmonic mean of both."""


class Neighbour(NamedTuple):
    """A latent whose decoder direction is near another's."""

    latent: int
    cosine: float


class Cofiring(NamedTuple):
    """A latent that is active on the same tokens as another."""

    latent: int
    phi: float
    """Correlation of the two being active."""
    jaccard: float
    """Of the tokens on which either is active, the share on which both are."""


def concept_scores(sae: Any, acts: Activations, concept: Bool[Tensor, " n"]) -> Scores:
    """Score every latent as a detector of one concept, BOS left out.

    Choose a latent on one harvest and report its score on another: the best of a thousand is lucky as well as good.

    Parameters
    ----------
    sae
        Any sae-lens SAE of the harvest's width.
    acts
        Where to score, ``n`` rows.
    concept
        Which rows carry the concept, e.g. ``torch.from_numpy(acts.labels.mask("topic:french"))``.

    Raises
    ------
    CourseError
        If the mask has another length than the harvest, or no usable row carries the concept.
    """
    if len(concept) != len(acts):
        raise CourseError(f"concept has {len(concept)} rows; the harvest has {len(acts)}.")
    rows = acts.usable
    if not concept[rows].any():
        raise CourseError("concept stands on no token of this harvest; take a more frequent one or more tokens.")
    both = torch.zeros(sae.cfg.d_sae)
    active = torch.zeros(sae.cfg.d_sae)
    with torch.no_grad():
        for part in rows.split(chunk(sae)):
            on = (sae.encode(acts.x[part].to(sae.W_dec)) > 0).float().cpu()
            both += concept[part].float() @ on
            active += on.sum(0)
    n = float(concept[rows].sum())
    return Scores(both / active.clamp(min=1), both / n, 2 * both / (active + n))


def latent_values(sae: Any, acts: Activations, latent: int) -> Float[Tensor, " n"]:
    """Return one latent's value on every row of a harvest; 0 on BOS rows, which no SAE here is trained on.

    With ``sae=None``, of one coordinate of the activations: a neuron, if they are an MLP's.

    Raises
    ------
    CourseError
        If there is no such latent.
    """
    _known(latent, acts.x.shape[1] if sae is None else sae.cfg.d_sae)
    if sae is None:
        return acts.x[:, latent] * ~acts.is_bos
    with torch.no_grad():
        values = [sae.encode(part.to(sae.W_dec))[:, latent].float().cpu() for part in acts.x.split(chunk(sae))]
    return torch.cat(values) * ~acts.is_bos


def _known(latent: int, n: int) -> None:
    if not 0 <= latent < n:
        raise CourseError(f"latent={latent} must lie in 0 to {n - 1}.")


def neighbours(sae: Any, latent: int, n: int = 5) -> list[Neighbour]:
    """Return the latents whose decoder directions have the highest cosine with one latent's, nearest first.

    Raises
    ------
    CourseError
        If there is no such latent.
    """
    _known(latent, sae.cfg.d_sae)
    directions = normalize(sae.W_dec.detach().float().cpu(), dim=1)
    cosine = directions @ directions[latent]
    cosine[latent] = -2.0
    best = cosine.topk(min(n, len(cosine) - 1))
    return [Neighbour(i, c) for i, c in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def cofiring(latents: Units, latent: int, n: int = 5) -> list[Cofiring]:
    """Return the latents that are active with one latent, by phi, the correlation of two yes-or-no variables.

    Parameters
    ----------
    latents
        ``[n latents]``, e.g. from `sae_latents`; active means above zero.
    latent
        Which latent.
    n
        How many to return at most; none that never fires with it.
    """
    _known(latent, latents.shape[1])
    on = csc_array(latents.detach().float().cpu().numpy() if isinstance(latents, Tensor) else latents) > 0
    counts = torch.from_numpy(on.sum(0)).double()
    both = torch.from_numpy((on[:, [latent]].T.astype(float) @ on).toarray()[0])
    mine, total = counts[latent], latents.shape[0]
    phi = (total * both - mine * counts) / (mine * counts * (total - mine) * (total - counts)).sqrt()
    phi = phi.nan_to_num(-1.0, posinf=-1.0, neginf=-1.0).masked_fill(both == 0, -1.0)
    phi[latent] = -1.0
    best = [i for i in phi.argsort(descending=True)[:n].tolist() if both[i] > 0 and i != latent]
    return [Cofiring(i, float(phi[i]), float(both[i] / (mine + counts[i] - both[i]))) for i in best]
