"""What an SAE leaves over: its error vectors, and how much of them a linear map of the activation predicts.

1. ``r = residue(sae, acts)``: activations, reconstruction and their difference, BOS left out.
2. ``ridge(r.x, r.error)``: the linear map that predicts the error best, on one split.
3. ``linear_share``: 1 - (what it misses) / (how much the error varies), on another split, over documents.

Engels et al. 2024, "Decomposing the dark matter of sparse autoencoders" (arXiv 2410.14670), split the error so.
Share and map depend on the SAE alone and not on how the error is used by the model: for that, splice the parts in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.activations import Activations
from course_utils.dictionaries.evaluation import explained_variance
from course_utils.dictionaries.reading import decode
from course_utils.errors import CourseError
from course_utils.evidence.estimates import Estimate, bootstrap_sums, group_index, group_sums
from course_utils.features.units import chunk


class Residue(NamedTuple):
    """What an SAE makes of a harvest, BOS left out."""

    x: Float[Tensor, "n d"]
    """Activations."""
    x_hat: Float[Tensor, "n d"]
    """Their reconstruction."""
    doc: Int[Tensor, " n"]
    """The document of each row: the unit to resample."""

    @property
    def error(self) -> Float[Tensor, "n d"]:
        """What is missing: x - x_hat."""
        return self.x - self.x_hat

    @property
    def size(self) -> Float[Tensor, "n 1"]:
        """Squared length of the error."""
        return self.error.square().sum(1, keepdim=True)


def part(acts: Activations, rows: Int[Tensor, " m"]) -> Activations:
    """Keep some rows of a harvest; BOS rows among them stay marked as such."""
    labels = None if acts.labels is None else acts.labels[rows]
    return replace(acts, x=acts.x[rows], tokens=acts.tokens[rows], doc=acts.doc[rows], pos=acts.pos[rows],
                   labels=labels)


def residue(sae: Any, acts: Activations) -> Residue:
    """Reconstruct the usable rows of a harvest.

    Parameters
    ----------
    sae
        Any sae-lens SAE of the harvest's width.
    acts
        A harvest of the hook that the SAE was trained on.

    Raises
    ------
    CourseError
        If the SAE reads vectors of another width.
    """
    if acts.x.shape[1] != sae.cfg.d_in:
        raise CourseError(f"sae reads vectors of width {sae.cfg.d_in}; the harvest's have {acts.x.shape[1]}.")
    parts = []
    with torch.no_grad():
        for rows in acts.usable.split(chunk(sae)):
            x = acts.x[rows].to(sae.W_dec)
            parts.append(decode(sae, sae.encode(x), x).float().cpu())
    return Residue(acts.x[acts.usable].float(), torch.cat(parts), acts.doc[acts.usable])


class LinearMap(NamedTuple):
    """y is about x @ weight + bias."""

    weight: Float[Tensor, "d_in d_out"]
    bias: Float[Tensor, " d_out"]

    def values(self, x: Float[Tensor, "_ d_in"]) -> Float[Tensor, "_ d_out"]:
        """Predict."""
        return x @ self.weight + self.bias


def ridge(x: Float[Tensor, "n d_in"], y: Float[Tensor, "m d_out"], penalty: float = 1e-6) -> LinearMap:
    """Fit the linear map with the smallest squared error plus ``penalty`` times the squared norm of its weights.

    Parameters
    ----------
    x, y
        What to predict from, and what. The intercept is not penalised.
    penalty
        In units of the summed variance of a middling input coordinate, so that it means the same for any scale, and
        a few coordinates of enormous size do not set it for all.

    Raises
    ------
    CourseError
        If there are fewer rows than inputs, a value is not finite, or the penalty is negative.
    """
    if len(x) != len(y) or len(x) <= x.shape[1]:
        raise CourseError(f"x has {len(x)} rows and y {len(y)}; give equally many, and more than {x.shape[1]}.")
    if penalty < 0:
        raise CourseError(f"penalty={penalty} must not be negative.")
    a, b = x.double(), y.double()
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise CourseError("x and y must be finite; find where NaN or infinity comes from.")
    mean_a, mean_b = a.mean(0), b.mean(0)
    a, b = a - mean_a, b - mean_b
    gram = a.T @ a
    gram.diagonal().add_(penalty * gram.diagonal().median() + 1e-300)
    weight = torch.linalg.solve(gram, a.T @ b)
    return LinearMap(weight.float(), (mean_b - mean_a @ weight).float())


def linear_share(fitted: LinearMap, x: Float[Tensor, "n d_in"], y: Float[Tensor, "n d_out"], doc: Int[Tensor, " n"], *,
                 n_boot: int = 1000, seed: int = 0) -> Estimate:
    """Return the R^2 of a fitted map on text that it was not fitted to, with an interval over documents.

    Parameters
    ----------
    fitted
        From `ridge` on the other split.
    x, y, doc
        Inputs, targets and documents of this one.
    n_boot, seed
        Resamples of documents.

    Returns
    -------
    Estimate
        1 - Σ|y - prediction|² / Σ|y - mean of y|²; below 0 where the mean alone would predict better.
    """
    target = y.double()
    left = (target - fitted.values(x).double()).square().sum(1)
    centred = target - target.mean(0)  # explained_variance takes any centre, and keeps its digits with this one
    columns = torch.cat([torch.ones(len(y), 1), left[:, None], centred.square().sum(1, keepdim=True), centred], 1)
    sums = group_sums(columns.numpy(), group_index(doc, len(doc)))
    return bootstrap_sums(sums, explained_variance, n_boot=n_boot, seed=seed)


def variance_with_bos(found: Residue, length: float | int, n_rows: int) -> float:
    """Return the explained variance if BOS rows were counted that an SAE rebuilds exactly.

    Parameters
    ----------
    found
        Of the other tokens.
    length
        How long BOS is, in mean lengths of the others; it points where their mean does.
    n_rows
        How many such rows.
    """
    x = found.x.double()
    bos = x.mean(0) / x.mean(0).norm() * length * x.norm(dim=1).mean()
    centre = (x.sum(0) + n_rows * bos) / (len(x) + n_rows)
    spread = (x - centre).square().sum() + n_rows * (bos - centre).square().sum()
    return 1 - float(found.size.double().sum() / spread)
