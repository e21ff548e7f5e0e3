"""Directions to compare units with: at random, differences of means, and linear probes.

What a probe reads is there; that it is *one unit* is what is claimed of neurons and latents.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from course_utils.errors import CourseError
from course_utils.features.scores import check, score_pairs
from course_utils.features.units import Table, Units, rows_of

PENALTIES = (0.0, 1e-5, 1e-4, 1e-3)
_EPOCHS, _RATE, _BATCH = 10, 0.1, 2048


def random_directions(d: int, m: int, seed: int = 0) -> Float[Tensor, "m d"]:
    """Return ``m`` unit vectors, equally likely in all directions."""
    return normalize(torch.randn(m, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def rotated(units: Float[Tensor, "n units"], seed: int = 0) -> Float[Tensor, "n units"]:
    """Turn the space of the units at random (Haar): the same activations on axes that mean nothing."""
    u = units.shape[1]
    q, r = torch.linalg.qr(torch.randn(u, u, generator=torch.Generator().manual_seed(seed)))
    return units @ (q * r.diagonal().sign()).to(units)


def mean_differences(x: Units, concepts: Table) -> Float[Tensor, "concepts d"]:
    """Return, for each concept, the mean where it is on less the mean where it is not (DiffMean).

    References
    ----------
    As a baseline for latents: Wu et al. 2025, AxBench, arXiv 2501.17148.
    """
    check(x, concepts, "training")
    on = concepts.on.float()
    n = on.sum(0)[:, None]
    if not ((n > 0) & (n < len(on))).all():
        bad = [concepts.names[i] for i in ((n == 0) | (n == len(on))).nonzero()[:, 0].tolist()]
        raise CourseError(f"{bad[0]!r} stands on no token or on all; there is no difference to take.")
    if isinstance(x, Tensor):
        x = x.float() - x.float().mean(0)  # a difference does not change, and keeps its digits
        there, total = on.T @ x, x.sum(0)
    else:
        there, total = torch.from_numpy(x.T @ on.numpy()).T, torch.from_numpy(x.sum(0))
    return there / n - (total - there) / (len(on) - n)


class Probes(NamedTuple):
    """A linear probe for each concept."""

    weight: Float[Tensor, "concepts d"]
    bias: Float[Tensor, " concepts"]
    penalty: Float[Tensor, " concepts"]
    """The one that was chosen."""

    def values(self, x: Units) -> Float[Tensor, "_ concepts"]:
        """Return what the probes say ``[n concepts]``, in log-odds."""
        if isinstance(x, Tensor):
            return x @ self.weight.T.to(x) + self.bias
        return torch.from_numpy(x @ self.weight.numpy().T) + self.bias


class _Inputs:
    """Units in coordinates that make descent quick: dense ones uncorrelated, of variance 1; sparse ones of size 1."""

    def __init__(self, x: Units) -> None:
        if isinstance(x, Tensor):
            self.mean = x.float().mean(0)
            centred = x.float() - self.mean
            covariance = (centred.T @ centred / len(x)).double()
            covariance.diagonal().add_(1e-3 * covariance.diagonal().mean() + 1e-12)
            self.turn = torch.linalg.inv(torch.linalg.cholesky(covariance)).float()  # [d d], lower
            self.x = centred @ self.turn.T
        else:
            size = np.sqrt(x.multiply(x).mean(0)).astype(np.float32)
            self.mean, self.turn = torch.zeros(x.shape[1]), torch.from_numpy(1 / np.where(size > 0, size, 1))
            self.x = x.tocsr().multiply(self.turn.numpy()[None]).tocsr().astype(np.float32)

    def part(self, rows: Int[Tensor, " n"]) -> Any:
        return self.x[rows] if isinstance(self.x, Tensor) else self.x[rows.numpy()]

    def original(self, weight: Tensor, bias: Tensor, penalty: Tensor) -> Probes:
        weight = weight @ self.turn if self.turn.ndim == 2 else weight * self.turn
        return Probes(weight, bias - weight @ self.mean, penalty)


def _descend(inputs: _Inputs, on: Bool[Tensor, "n c"], penalty: Float[Tensor, " c"], seed: int) -> Probes:
    """Fit logistic regressions by Adam (Kingma & Ba 2015) on shuffled batches, the rate falling to zero."""
    n, generator = len(on), torch.Generator().manual_seed(seed)
    y, batch = on.float(), max(1, min(_BATCH, n // 20))
    weights = [torch.zeros(on.shape[1], len(inputs.mean)), torch.logit(y.mean(0), eps=1e-6)]
    first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    total, step = _EPOCHS * (n // batch), 0
    for _ in range(_EPOCHS):
        for rows in torch.randperm(n, generator=generator)[: n // batch * batch].split(batch):
            x, step = inputs.part(rows), step + 1
            said = x @ weights[0].T if isinstance(x, Tensor) else torch.from_numpy(x @ weights[0].numpy().T)
            wrong = (torch.sigmoid(said + weights[1]) - y[rows]) / batch
            slope = wrong.T @ x if isinstance(x, Tensor) else torch.from_numpy(x.T @ wrong.numpy()).T
            for w, g, m, v in zip(weights, (slope.add_(weights[0] * penalty[:, None]), wrong.sum(0)), first, second,
                                  strict=True):
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(0.99).addcmul_(g, g, value=0.01)
                size = (v / (1 - 0.99**step)).sqrt_().add_(1e-8)
                w.addcdiv_(m, size, value=-_RATE * (1 - step / total) / (1 - 0.9**step))
    return inputs.original(*weights, penalty)


def linear_probes(x: Units, concepts: Table, penalties: tuple[float, ...] = PENALTIES, seed: int = 0) -> Probes:
    """Fit a linear probe (logistic regression) for every concept, all at once.

    Parameters
    ----------
    x, concepts
        Training units (activations, neurons, latents, dense or sparse) and concepts, BOS left out.
    penalties
        Weights of the squared norm, in coordinates in which the units are uncorrelated. Each is tried on four fifths of
        the documents; the one with the best F1 on the last fifth is used on all of them, concept by concept.
    seed
        Which documents make the fifth, and the order of the batches.
    """
    check(x, concepts, "training")
    documents = concepts.doc.unique()
    picked = np.random.default_rng(seed).permutation(len(documents))[: max(1, len(documents) // 5)]
    aside = torch.isin(concepts.doc, documents[torch.from_numpy(picked)])
    inputs, units = _Inputs(rows_of(x, ~aside)), rows_of(x, aside)
    judge, scores = Table(concepts.names, concepts.on[aside], concepts.doc[aside]), []
    for penalty in penalties if len(penalties) > 1 else ():
        each = torch.full((len(concepts.names),), float(penalty))
        values = _descend(inputs, concepts.on[~aside], each, seed).values(units)
        scores.append(score_pairs(values, judge, values, judge).train.f1[0])
    best = torch.stack(scores).argmax(0) if scores else torch.zeros(len(concepts.names), dtype=torch.long)
    return _descend(_Inputs(x), concepts.on, torch.tensor(penalties, dtype=torch.float)[best], seed)
