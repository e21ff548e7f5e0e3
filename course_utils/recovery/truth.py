"""Worlds with an answer key: directions, densities, and samples of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from course_utils.errors import CourseError


class Truth(NamedTuple):
    """The answer key of one or more worlds."""

    directions: Float[Tensor, "worlds f d"]
    """Where each feature lives; length 1."""
    density: Float[Tensor, "worlds f"]
    """How often each feature is on; the same for two neighbours (features 2i and 2i + 1), and falling."""
    tie: Float[Tensor, " worlds"]
    """Correlation of two neighbours: how often they share one draw of luck, and so are on or off together."""


def new_truth(
    seeds: Sequence[int], *, features: int = 48, dims: int = 24, on: float | int = 3.0, zipf: float | int = 0.0,
    tie: float | int = 0.0,
) -> Truth:
    """Make one world a seed.

    Parameters
    ----------
    seeds
        Draw the directions.
    features, dims
        How many features live in how many dimensions; more than fit without interference.
    on
        How many features are on at a time, on average: the densities' sum.
    zipf
        Density falls with the rank r of a pair of neighbours as ``r ** -zipf``; 0: all alike.
    tie
        0: features are independent; 1: two neighbours are always on together.

    Raises
    ------
    CourseError
        If a density would exceed 1, or a number is out of range.

    Examples
    --------
    >>> new_truth([0], features=4, on=1.5, zipf=1.0).density
    tensor([[0.5000, 0.5000, 0.2500, 0.2500]])
    """
    if not seeds or features < 2 or features % 2 or dims < 1:
        raise CourseError(f"seeds={list(seeds)}, features={features}, dims={dims}: give at least one seed, an even "
                          "number of features and at least one dimension.")
    if zipf < 0 or not 0 <= tie <= 1:
        raise CourseError(f"zipf={zipf} must be at least 0, and tie={tie} lie between 0 and 1.")
    density = torch.arange(1.0, features // 2 + 1).repeat_interleave(2) ** -zipf
    density *= on / density.sum()
    if not 0 < float(density[0]) <= 1:
        raise CourseError(f"on={on} with zipf={zipf} gives the most frequent feature a density of {density[0]:.3g}; "
                          "it must lie above 0 and at most at 1.")
    found = [torch.randn(features, dims, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return Truth(normalize(torch.stack(found), dim=-1), density.repeat(len(seeds), 1),
                 torch.full((len(seeds),), float(tie)))


def join(*truths: Truth) -> Truth:
    """Put worlds of equal size one after another."""
    return Truth(*(torch.cat(parts) for parts in zip(*truths, strict=True)))


def draw(truth: Truth, n: int, generator: torch.Generator) -> Float[Tensor, "worlds n f"]:
    """Draw n samples of every world: strengths, 0 where a feature is off, else uniform between 0.5 and 1.5.

    Strengths stay clear of 0, so that "is it on?" has an answer that no method misses for lack of signal.
    """
    worlds, features = truth.density.shape
    luck = torch.rand(worlds, n, features, generator=generator)
    if truth.tie.any():
        tied = torch.rand(worlds, n, features // 2, generator=generator) < truth.tie[:, None, None]
        luck[..., 1::2] = torch.where(tied, luck[..., 0::2], luck[..., 1::2])
    strength = torch.rand(worlds, n, features, generator=generator).add_(0.5)
    return strength.mul_(luck < truth.density[:, None])
