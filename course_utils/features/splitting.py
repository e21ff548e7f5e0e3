"""Feature splitting: latents of a wide dictionary that are parts of one latent of a narrow one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from course_utils.errors import CourseError
from course_utils.features.absorption import firing
from course_utils.features.units import Units


class Splits(NamedTuple):
    """Which latents of a wide dictionary are parts of which latent of a narrow one."""

    parent: Int[Tensor, " wide"]
    """The narrow latent whose decoder is nearest; -1 where it is no parent."""
    cosine: Float[Tensor, " wide"]
    """With the nearest."""
    inside: Float[Tensor, " wide"]
    """Of the tokens on which the wide latent fires, the share on which the nearest narrow one fires too."""
    children: Int[Tensor, " narrow"]
    """How many wide latents each narrow one is the parent of."""


def splitting(narrow: Float[Tensor, "narrow d"], wide: Float[Tensor, "wide e"], narrow_latents: Units,
              wide_latents: Units, *, cosine: float = 0.5, inside: float = 0.5) -> Splits:
    """Find each wide latent's parent among the narrow ones: its decoder points the same way, and it fires within.

    Parameters
    ----------
    narrow, wide
        Two decoders for the same activations.
    narrow_latents, wide_latents
        Their latents on the same tokens.
    cosine, inside
        What it takes to be a child.

    Raises
    ------
    CourseError
        If decoders or tokens do not fit together.

    References
    ----------
    Feature splitting: Bricken et al. 2023, Towards Monosemanticity.
    """
    if narrow.shape[1] != wide.shape[1] or narrow_latents.shape[0] != wide_latents.shape[0]:
        raise CourseError("both dictionaries must be for the same activations, and both latents for the same tokens.")
    near = normalize(wide.float().cpu(), dim=1) @ normalize(narrow.float().cpu(), dim=1).T
    best, parent = near.max(1)
    a, b = firing(wide_latents).astype(np.float32).tocsc(), firing(narrow_latents).astype(np.float32).tocsc()
    both = np.asarray((a * b[:, parent.numpy()]).sum(0)).ravel()
    within = torch.from_numpy(both / np.maximum(np.asarray(a.sum(0)).ravel(), 1)).float()
    child = (best >= cosine) & (within >= inside)
    return Splits(torch.where(child, parent, -1), best, within, torch.bincount(parent[child], minlength=len(narrow)))
