"""How many unrelated things a unit stands for.

A unit is *on* for the same share of tokens as every other: for those with its highest training values. It *serves* a
domain (animals, weather, code ...: `Labels.domains`) if, on held-out text,

1. at least ``share`` of the tokens on which it is on lie in the domain: a sizeable part of what it does;
2. that is at least ``lift`` times the domain's share of all text, so that a unit for " the" serves nothing;
3. chance does not explain it: (share - mean) / deviation, both over labels shuffled by document, exceeds the 1 - alpha
   quantile of the largest such figure over the domains in the shuffles (one test a unit, not one a domain).

It is *polysemantic* if it serves two domains or more: our form of what Olah et al. 2020, Zoom In, describe,
neurons that respond to unrelated things. It can fail: shuffled labels leave about no polysemantic unit, a unit for one
domain counts 1 and one for grammar 0, and `rotated` units say how many any axes of the same space would give.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.evidence.estimates import Estimate, bootstrap
from course_utils.features.scores import check
from course_utils.features.units import Table, Units, columns_of, donor_rows

SEEN = 20  # a unit that is on for fewer held-out tokens is not judged


class Polysemanticity(NamedTuple):
    """Which domains each unit serves."""

    names: tuple[str, ...]
    """Domains."""
    serves: Bool[Tensor, "units domains"]
    share: Float[Tensor, "units domains"]
    """Share of the held-out tokens on which the unit is on that lie in the domain."""
    lift: Float[Tensor, "units domains"]
    """That share over the domain's share of all held-out tokens."""
    active: Bool[Tensor, " units"]
    """Units that are on for enough held-out tokens to be judged."""
    domains: Int[Tensor, " units"]
    """How many domains each serves; 0 where it is not active."""
    selective: Estimate
    """Share of the active units that serve a domain; the interval resamples units."""
    polysemantic: Estimate
    """Share of the active units that serve two or more."""
    null: Float[np.ndarray, " draws"]
    """`polysemantic` with labels shuffled by document."""

    def of(self, unit: int) -> list[tuple[str, float, float]]:
        """List the domains that a unit serves, with share and lift, the largest share first."""
        found = [(self.names[g], float(self.share[unit, g]), float(self.lift[unit, g]))
                 for g in self.serves[unit].nonzero()[:, 0].tolist()]
        return sorted(found, key=lambda row: -row[1])


def says_on(train: Units, heldout: Units, density: float = 0.01) -> csc_array:
    """Say where each unit is on in held-out text: at or above the value that ``density`` of training tokens reach.

    A unit of a sparse matrix that is above zero more rarely than that is on wherever it is above zero. So all are
    judged by equally few tokens; the fewer, the more selective any unit looks.
    """
    n, cut = train.shape[0], []
    k = max(1, round(density * n))
    for rows, values in columns_of(train):
        values = values if rows is None else values[values > 0]
        few = rows is not None and len(values) <= k
        cut.append(np.finfo(np.float32).tiny if few else np.partition(values, len(values) - k)[len(values) - k])
    parts = []
    for threshold, (rows, values) in zip(cut, columns_of(heldout), strict=True):
        on = np.flatnonzero(values >= threshold)
        parts.append(on if rows is None else rows[on])
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    ones = np.ones(starts[-1], np.float32)
    return csc_array((ones, np.concatenate(parts), starts), shape=heldout.shape)


def _named(units: Units, domains: Table) -> tuple[Units, Table]:
    rows = domains.on.any(1)
    kept = units[rows] if isinstance(units, Tensor) else units.tocsr()[rows.numpy()].tocsc()
    return kept, Table(domains.names, domains.on[rows], domains.doc[rows])


def polysemanticity(
    train: Units, heldout: Units, domains: Table, train_domains: Table | None = None, *, density: float = 0.01,
    share: float = 0.1, lift: float | int = 2.0, n_null: int = 100, alpha: float = 0.05, seed: int = 0,
) -> Polysemanticity:
    """Count the unrelated domains that each unit serves on held-out text.

    Parameters
    ----------
    train
        Units on the split that says from which value on a unit is on.
    heldout, domains
        Units on the split that is counted, and its domains (`domain_table`).
    train_domains
        Domains of the training split: then only tokens that belong to a domain are looked at, on both splits. For
        columns that speak of few tokens, such as ``entity``: among words that name something, which does it pick?
    density
        Share of training tokens for which a unit is on.
    share, lift, alpha
        What it takes to serve a domain: see the module.
    n_null, seed
        Shuffles of the labels by document, and what draws them.

    Raises
    ------
    CourseError
        If units and domains do not have the same rows, or no unit is on often enough to be judged.
    """
    check(heldout, domains, "held-out")
    if train_domains is not None:
        check(train, train_domains, "training")
        (train, _), (heldout, domains) = (_named(*split) for split in ((train, train_domains), (heldout, domains)))
    on = says_on(train, heldout, density).T.tocsr()  # [units n]
    n_on = np.asarray(on.sum(1)).ravel()
    active = n_on >= SEEN
    if not active.any():
        raise CourseError(f"no unit is on for {SEEN} held-out tokens; give more tokens or a higher density={density}.")
    labels = domains.on.numpy().astype(np.float32)
    base = labels.mean(0)
    found = (on @ labels) / np.maximum(n_on, 1)[:, None]
    rng = np.random.default_rng(seed)
    null = np.stack([on @ labels[donor_rows(domains.doc, rng).numpy()] for _ in range(n_null)])
    null /= np.maximum(n_on, 1)[:, None]
    # No sharper than independent tokens would be: with few shuffles the deviation may come out too small.
    spread = np.maximum(null.std(0), np.sqrt(base * (1 - base) / np.maximum(n_on, 1)[:, None])) + 1e-9
    mean = null.mean(0)
    bar = np.quantile(((null - mean) / spread).max(2), 1 - alpha, axis=0)[:, None]

    def serving(shares: np.ndarray) -> np.ndarray:
        beyond = (shares - mean) / spread > bar
        return beyond & (shares >= share) & (shares >= lift * base) & active[:, None]

    serves = serving(found)
    count = serves.sum(1)
    chance = np.array([float((serving(draw).sum(1) >= 2)[active].mean()) for draw in null])
    return Polysemanticity(
        domains.names, torch.from_numpy(serves), torch.from_numpy(found), torch.from_numpy(found / base),
        torch.from_numpy(active), torch.from_numpy(count), bootstrap(count[active] >= 1, seed=seed),
        bootstrap(count[active] >= 2, seed=seed), chance)
