"""The toy model, x' = ReLU(Wᵀ W x + b), many at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course_utils.errors import CourseError


class Toy(NamedTuple):
    """The weights of many toy models."""

    W: Float[Tensor, "instances m f"]
    """Column i is where feature i lives in the hidden space."""
    b: Float[Tensor, "instances f"]
    """Biases of the output."""


def new_toys(instances: int, features: int, hidden: int, *, seed: int = 0) -> Toy:
    """Return untrained toys: Xavier's normal weights, no bias.

    Examples
    --------
    >>> new_toys(3, features=5, hidden=2).W.shape
    torch.Size([3, 2, 5])
    """
    for name, value in {"instances": instances, "features": features, "hidden": hidden}.items():
        if value < 1:
            raise CourseError(f"{name}={value} must be at least 1.")
    generator = torch.Generator().manual_seed(seed)
    std = math.sqrt(2 / (features + hidden))
    return Toy(std * torch.randn(instances, hidden, features, generator=generator), torch.zeros(instances, features))


def reconstruct(toy: Toy, x: Float[Tensor, "instances n f"], *, relu: bool = True) -> Float[Tensor, "instances n f"]:
    """Return x' = ReLU(Wᵀ W x + b), or without the ReLU."""
    out = torch.baddbmm(toy.b[:, :, None], toy.W.mT, toy.W @ x.mT)
    return (out.relu_() if relu else out).mT


def losses(toy: Toy, x: Float[Tensor, "instances n f"], importance: Float[Tensor, "#instances f"], *,
           relu: bool = True) -> Float[Tensor, " instances"]:
    """Return Σ_i I_i (x'_i − x_i)² of each instance, averaged over its samples."""
    error = (reconstruct(toy, x, relu=relu) - x).square_().mean(1)
    return (importance * error).sum(1)


def explained(x_hat: Float[Tensor, "instances n f"], x: Float[Tensor, "instances n f"]) -> Float[Tensor, "instances f"]:
    """Return the share of each feature's variance that the reconstruction explains; 0 is what a constant gets."""
    return 1 - (x_hat - x).square().mean(1) / x.var(1, correction=0)
