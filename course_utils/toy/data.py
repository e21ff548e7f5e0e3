"""The toys' world: features that are on now and then, by themselves or tied in groups."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from course_utils.errors import CourseError, one_of

TIES = ("independent", "together", "exclusive")


def sample(density: Float[Tensor, "instances _"], features: int, n: int, *, generator: torch.Generator,
           ties: str = "independent", group: int = 2) -> Float[Tensor, "instances n f"]:
    """Draw sparse features: each is on with its density, and then uniform in (0, 1).

    Parameters
    ----------
    density
        Probability of being on, per instance, and per feature or the same for all.
    features, n
        How many features, how many samples.
    generator
        Source of the random numbers.
    ties
        ``"independent"``; ``"together"``: the features of a group are on at the same time; ``"exclusive"``: at most one
        of a group is on. Each feature keeps its density whatever the ties.
    group
        Neighbouring features that a tie joins.

    Raises
    ------
    CourseError
        If a density is no probability, or the ties cannot be had with it.
    """
    _check_density(density, features, ties, group)
    shape, p = (len(density), features, n), density[:, :, None]
    if ties == "independent":
        # One draw does both jobs: u < p decides, and then 1 − u/p is uniform in (0, 1].
        return torch.rand(shape, generator=generator).mul_(-1 / p).add_(1).relu_().mT
    one = torch.rand(len(density), features // group, n, generator=generator).repeat_interleave(group, 1)
    if ties == "together":
        return torch.rand(shape, generator=generator).mul_(one < p).mT
    start = p * (torch.arange(features) % group)[:, None]  # the group's unit interval, cut into pieces of length p
    value = (one - start) / p
    return value.mul_((value > 0) & (value < 1)).mT


def _check_density(density: Tensor, features: int, ties: str, group: int) -> None:
    if ties not in TIES:
        raise one_of("ties", ties, TIES)
    low, high = float(density.min()), float(density.max())
    if not (0 < low and high <= 1):
        raise CourseError(f"density must lie above 0 and at most at 1 (it is 1 − sparsity); given {low:g} to {high:g}.")
    if density.shape[1] not in (1, features):
        raise CourseError(f"density has {density.shape[1]} columns; give one for all features, or {features}.")
    if ties != "independent" and features % group:
        raise CourseError(f"features={features} does not divide into groups of group={group}.")
    if ties == "exclusive" and high * group > 1:
        raise CourseError(f"density up to {high:g} is too high: of {group} features that exclude each other, each can "
                          f"be on at most 1/{group} of the time.")


def batches(density: Float[Tensor, "instances _"], features: int, n: int = 256, *, seed: int = 0,
            ties: str = "independent") -> Callable[[int], Tensor]:
    """Return a source of fresh batches for :func:`train`; the same seed gives the same batches in the same order."""
    generator = torch.Generator().manual_seed(seed)
    return lambda step: sample(density, features, n, generator=generator, ties=ties)
