"""What to take away instead: latents that fire as often, decoder rows of other latents, directions of the same length.

A claim about chosen latents must survive these nulls. Latents that hardly ever fire where one looks do no damage there,
so that a null drawn from all of them is easy to beat: match the density *on the very rows* that are looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from course_utils.errors import CourseError


def _ids(name: str, ids: Sequence[int] | Collection[int] | Tensor, d_sae: int) -> np.ndarray:
    found = np.asarray(ids.tolist() if isinstance(ids, Tensor) else list(ids), dtype=np.int64).ravel()
    if len(found) and not 0 <= found.min() <= found.max() < d_sae:
        raise CourseError(f"{name}={found.tolist()} must lie in 0 to {d_sae - 1}.")
    if len(np.unique(found)) < len(found):
        raise CourseError(f"{name}={found.tolist()} name one twice; give each once.")
    return found


def _positive(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise CourseError(f"{name}={value} must be at least 1.")


def density_matched(
    density: Float[Tensor, " d_sae"], latents: Sequence[int] | Tensor, n: int, seed: int = 0,
    exclude: Collection[int] | Tensor = (), pool: int = 20,
) -> Int[Tensor, "n k"]:
    """Draw latents that fire about as often as given ones.

    Parameters
    ----------
    density
        The share of tokens on which each latent is active (`features.density`): of all text, or, so that the draws
        are as active where the intervention is judged, of those rows alone.
    latents
        The ``k`` that are to be matched; none of them is drawn.
    n, seed
        How many draws, and what draws them.
    exclude
        Others that must not be drawn, e.g. all that score for the concept.
    pool
        Each latent's partner is drawn from so many of those nearest to it in log density that this draw does not have
        yet.

    Returns
    -------
    Tensor
        ``[n k]``: column j matches ``latents[j]``; within a draw no latent comes twice, and none that never fires.

    Raises
    ------
    CourseError
        If a latent is out of range or never fires, a density is no share, or too few latents are left.

    Examples
    --------
    >>> density_matched(torch.tensor([0.5, 0.4, 0.01, 0.45, 0.0]), [0], n=9, pool=2).unique().tolist()
    [1, 3]
    """
    rates = density.detach().double().cpu().numpy()
    if not ((rates >= 0) & (rates <= 1)).all():
        raise CourseError("density must hold shares of tokens, from 0 to 1.")
    mine, others = _ids("latents", latents, len(rates)), _ids("exclude", exclude, len(rates))
    _positive(n=n, pool=pool)
    if not len(mine) or not rates[mine].all():
        raise CourseError("latents must name one or more, each of which fires somewhere; a dead one has no match.")
    free = np.setdiff1d(np.flatnonzero(rates), np.union1d(mine, others))
    if len(free) < len(mine) + pool - 1:
        raise CourseError(f"{len(free)} latents are left to draw from; {len(mine)} at a time with pool={pool} need "
                          f"{len(mine) + pool - 1}.")
    away = np.abs(np.log(rates[mine])[:, None] - np.log(rates[free]))
    # Others take at most k - 1 of a latent's neighbours, so that pool of these are left to it.
    near = free[np.argsort(away, axis=1, kind="stable")[:, : pool + len(mine) - 1]]
    rng, found = np.random.default_rng(seed), np.empty((n, len(mine)), dtype=np.int64)
    for draw in found:
        taken = np.zeros(len(rates), dtype=bool)
        for j in rng.permutation(len(mine)):  # in any order, or the last would always get the worst match
            left = near[j][~taken[near[j]]][:pool]
            draw[j] = left[rng.integers(pool)]
            taken[draw[j]] = True
    return torch.from_numpy(found)


def deal_rows(W_dec: Float[Tensor, "d_sae d"], latents: Sequence[int] | Tensor, n: int,
              seed: int = 0) -> Float[Tensor, "n k d"]:
    """Deal each latent the decoder row of another: the null of a shuffled decoder.

    A latent then fires when it did, as strongly as it did, and stands for a direction that the dictionary has, but not
    its own.

    Parameters
    ----------
    W_dec
        The decoder.
    latents
        The ``k`` whose rows are dealt anew; they get rows of others than these.
    n, seed
        How many deals, and what deals.

    Returns
    -------
    Tensor
        ``[n k d]``; within a deal no row comes twice.

    Raises
    ------
    CourseError
        If a latent is out of range, or there are not as many others.
    """
    mine = _ids("latents", latents, len(W_dec))
    _positive(n=n)
    others = np.setdiff1d(np.arange(len(W_dec)), mine)
    if not 0 < len(mine) <= len(others):
        raise CourseError(f"{len(mine)} latents cannot be dealt the rows of {len(others)} others; give 1 or more, and "
                          "at most half of the dictionary.")
    rng = np.random.default_rng(seed)
    dealt = np.stack([rng.choice(others, len(mine), replace=False) for _ in range(n)])
    return W_dec.detach()[torch.from_numpy(dealt).to(W_dec.device)]


def norm_matched(vectors: Float[Tensor, "k d"], n: int, seed: int = 0) -> Float[Tensor, "n k d"]:
    """Return random directions, equally likely everywhere, each as long as the vector that it stands for.

    Raises
    ------
    CourseError
        If ``n`` is below 1.
    """
    _positive(n=n)
    drawn = torch.randn(n, *vectors.shape, generator=torch.Generator().manual_seed(seed)).to(vectors)
    return normalize(drawn, dim=-1) * vectors.detach().norm(dim=-1, keepdim=True)
