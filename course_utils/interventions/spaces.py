"""Spaces: the parts of an activation in which an attribute may stand, each with the swap of that part alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.dictionaries.reading import decode, encode
from course_utils.errors import CourseError
from course_utils.interventions.erasing import spanned


@runtime_checkable
class Space(Protocol):
    """Anything that can set its part of a base's activations to a source's."""

    def swap(self, base: Float[Tensor, "n d"], source: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return ``base`` with the space's part taken from ``source``, row by row."""
        ...


class Whole(NamedTuple):
    """The whole activation: patching, the upper bound for cause."""

    def swap(self, base: Float[Tensor, "n d"], source: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return the source."""
        return source


class Coordinates(NamedTuple):
    """Some coordinates: neurons."""

    indices: Sequence[int] | Int[Tensor, " k"]

    def swap(self, base: Float[Tensor, "n d"], source: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return ``base`` with these coordinates from ``source``."""
        chosen = in_range("indices", self.indices, base.shape[1]).to(base.device)
        new = base.clone()
        new[:, chosen] = source[:, chosen]
        return new


class Subspace(NamedTuple):
    """A linear subspace: what a probe, a difference of means or `das` points along."""

    Q: Float[Tensor, "d k"]
    """Orthonormal columns."""

    @classmethod
    def of(cls, directions: Float[Tensor, "k d"] | Float[Tensor, " d"]) -> Subspace:
        """Return what directions of any lengths and at any angles span."""
        return cls(spanned(directions))

    def swap(self, base: Float[Tensor, "n d"], source: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return base + Q Qᵀ (source − base)."""
        d, k = self.Q.shape
        if d != base.shape[1]:
            raise CourseError(f"Q has shape {[d, k]}; the activations have width {base.shape[1]}.")
        q = self.Q.to(base.dtype).to(base.device)
        # In half precision orthonormal columns are so to two digits.
        if not (self.Q.detach().T @ self.Q.detach() - torch.eye(k).to(self.Q)).abs().max() < 1e-2:
            raise CourseError("Q has columns that are not orthonormal; Subspace.of(directions) makes them so.")
        return base + (source - base) @ q @ q.T


class Latents(NamedTuple):
    """Some latents of an SAE; what it misses of the base stays."""

    sae: Any
    latents: Sequence[int] | Int[Tensor, " k"]

    def swap(self, base: Float[Tensor, "n d"], source: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return base + decode(f with these latents from the source) − decode(f)."""
        sae = self.sae
        if base.shape[1] != sae.cfg.d_in:
            raise CourseError(f"sae reads vectors of width {sae.cfg.d_in}; the activations have {base.shape[1]}.")
        chosen = in_range("latents", self.latents, sae.cfg.d_sae).to(sae.W_dec.device)
        base, source = (x.to(sae.W_dec.device, sae.W_dec.dtype) for x in (base, source))
        f, other = encode(sae, base), encode(sae, source)
        mixed = f.clone()
        mixed[:, chosen] = other[:, chosen]
        return base + (decode(sae, mixed, base) - decode(sae, f, base))


def in_range(argument: str, given: Sequence[int] | Tensor, size: int) -> Tensor:
    """Return numbers of coordinates or latents as a tensor; there are ``size`` of them, and others are refused."""
    chosen = torch.as_tensor(given, dtype=torch.long).flatten()
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < size:
        raise CourseError(f"{argument}={chosen.tolist()} must lie in 0 to {size - 1}.")
    return chosen
