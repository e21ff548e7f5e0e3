"""Detecting features with single units: the best unit and its threshold on one sample, its F1 on another."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Choice(NamedTuple):
    """The best unit for each feature, and the value above which it says "on"."""

    unit: Int[Tensor, " f"]
    """Which unit."""
    threshold: Float[Tensor, " f"]
    """Its threshold."""


def choose(values: Float[Tensor, "n u"], on: Float[Tensor, "n f"], steps: int = 16) -> Choice:
    """Choose, for each feature, the unit and threshold with the best F1.

    Parameters
    ----------
    values
        What the units say, of any kind: latents, coordinates, probes.
    on
        1 where the feature is on, else 0.
    steps
        Thresholds that are tried: equal steps from 0, or a unit's smallest value if that is higher, to its largest.
    """
    low, high = values.amin(0).clamp(min=0), values.amax(0)
    best = torch.full((on.shape[1],), -1.0)
    choice = Choice(torch.zeros(on.shape[1], dtype=torch.long), torch.zeros(on.shape[1]))
    for step in range(steps):
        bar = low + (high - low) * step / steps
        says = (values > bar).float()
        score, unit = (2 * (says.T @ on) / (says.sum(0)[:, None] + on.sum(0)).clamp(min=1)).max(0)
        better = score > best
        best = torch.where(better, score, best)
        choice = Choice(torch.where(better, unit, choice.unit), torch.where(better, bar[unit], choice.threshold))
    return choice


def f1(values: Float[Tensor, "n u"], on: Float[Tensor, "n f"], choice: Choice) -> Float[Tensor, " f"]:
    """Return the F1 of the chosen units for their features, on a sample that they were not chosen on."""
    says = (values[:, choice.unit] > choice.threshold).float()
    return 2 * (says * on).sum(0) / (says.sum(0) + on.sum(0)).clamp(min=1)
