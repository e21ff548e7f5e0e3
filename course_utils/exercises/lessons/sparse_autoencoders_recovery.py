"""Notebook 03, against the truth: a latent of its own for each feature, and what that says of the dictionary."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch.nn.functional import normalize

from course_utils.exercises.book import Exercise

matching = Exercise("03.4", "a latent of its own for each feature", stars=2, minutes=10, lines=3, hints=(
    "First the table of cosines, `[features latents]`: both sets of directions at length 1, then a matrix product. "
    "Then `linear_sum_assignment`, which *minimises* unless told otherwise.",
    "`feature, latent = linear_sum_assignment(cosine.numpy(), maximize=True)`; return `torch.from_numpy(latent)` and "
    "`cosine[feature, latent]`."))


@matching.reference
def match(directions, W_dec):
    """Return each feature's latent [f] and their cosine [f], all cosines together as large as can be."""
    cosine = normalize(directions) @ normalize(W_dec).T
    feature, latent = linear_sum_assignment(cosine.numpy(), maximize=True)
    return torch.from_numpy(latent), cosine[feature, latent]


@matching.right
def _(directions, W_dec):
    one, two = (w / w.norm(dim=1, keepdim=True) for w in (directions, W_dec))
    distance = torch.cdist(one, two) ** 2  # of unit vectors: 2 - 2 cos
    latent = torch.tensor(linear_sum_assignment(distance.numpy())[1].tolist())
    return latent, torch.stack([one[i] @ two[j] for i, j in enumerate(latent.tolist())])


@matching.right
def _(directions, W_dec):
    cosine = torch.nn.functional.cosine_similarity(directions[:, None], W_dec[None], dim=-1)
    row, column = min_weight_full_bipartite_matching(sparse(2 - cosine.double().numpy()))
    latent = torch.from_numpy(column[row.argsort()]).long()
    return latent, cosine.gather(1, latent[:, None])[:, 0]


def sparse(table):
    """Return a dense table as scipy's sparse one."""
    from scipy.sparse import csr_array

    return csr_array(table)


@matching.wrong("two features, one latent", "You give each feature the latent that is nearest, so that two features "
                "can have the same one and both count as recovered. Each latent may serve once: "
                "`linear_sum_assignment`.")
def _(directions, W_dec):
    cosine, latent = (normalize(directions) @ normalize(W_dec).T).max(1)
    return latent, cosine


@matching.wrong("the worst match", "`linear_sum_assignment` minimises a cost. Give it minus the cosines, or "
                "`maximize=True`.")
def _(directions, W_dec):
    cosine = normalize(directions) @ normalize(W_dec).T
    feature, latent = linear_sum_assignment(cosine.numpy())
    return torch.from_numpy(latent), cosine[feature, latent]


@matching.wrong("not normalised", "You match by scalar products: a long decoder row wins over one that points the "
                "right way. Divide both by their lengths.")
def _(directions, W_dec):
    product = directions @ W_dec.T
    feature, latent = linear_sum_assignment(product.numpy(), maximize=True)
    return torch.from_numpy(latent), product[feature, latent]


@matching.wrong("the wrong way round counts too", "You take the absolute cosine. A latent is never negative, so a "
                "direction that points the opposite way cannot stand for the feature.")
def _(directions, W_dec):
    cosine = (normalize(directions) @ normalize(W_dec).T).abs()
    feature, latent = linear_sum_assignment(cosine.numpy(), maximize=True)
    return torch.from_numpy(latent), cosine[feature, latent]


@matching.wrong("first come, first served", "You let the features choose one after another. An early one may take the "
                "latent that a later one needs far more; the assignment has to weigh all of them together.")
def _(directions, W_dec):
    cosine = normalize(directions) @ normalize(W_dec).T
    left, latent = cosine.clone(), []
    for i in range(len(cosine)):
        latent.append(int(left[i].argmax()))
        left[:, latent[-1]] = -torch.inf
    latent = torch.tensor(latent)
    return latent, cosine[torch.arange(len(cosine)), latent]


@matching.cases
def _(rng):
    # Both features like latent 0 best, the second one far more; latent 2 points away from the first.
    yield torch.tensor([[1.0, 0.0], [0.8, 0.6]]), torch.tensor([[0.9, 0.5], [0.5, 0.1], [-4.0, -0.5]])
    directions = torch.from_numpy(rng.normal(0, 1, (6, 3))).float()
    others = torch.from_numpy(rng.normal(0, 1, (5, 3))).float()
    W_dec = torch.cat([directions[[3, 0, 4]] + 0.3, -directions[[1, 5]], others])
    yield directions * 2, W_dec * torch.linspace(0.2, 3, 10)[:, None]
    yield tuple(torch.from_numpy(rng.normal(0, 1, (9, 4))).float() for _ in range(2))


scores = Exercise("03.5", "recall, precision, spares", stars=2, minutes=12, lines=5, hints=(
    "A feature is recovered if the cosine with *its own* latent reaches the bar. Recall divides the recovered by the "
    "features, precision by the living latents.",
    "`hits = (cosine[torch.arange(len(cosine)), latent] >= bar).sum()`; latents that point at some feature are "
    "`((cosine >= bar).any(0) & alive).sum()`, and all of them beyond the hits are spare."))


@scores.reference
def score(cosine, latent, alive, bar):
    """Return recall, precision and the share of spare latents; cosine [f m], each feature's latent [f], alive [m]."""
    hits = (cosine[torch.arange(len(cosine)), latent] >= bar).sum()
    pointing = ((cosine >= bar).any(0) & alive).sum()
    living = alive.sum()
    return hits / len(cosine), hits / living, (pointing - hits) / living


@scores.right
def _(cosine, latent, alive, bar):
    own = cosine.gather(1, latent[:, None]).flatten()
    hit = own.ge(bar).float()
    spare = cosine.max(0).values.ge(bar).logical_and(alive)
    spare[latent[own >= bar]] = False
    return hit.mean(), hit.sum() / alive.float().sum(), spare.float().sum() / alive.float().sum()


@scores.right
def _(cosine, latent, alive, bar):
    table, own = cosine.tolist(), latent.tolist()
    mine = {j for i, j in enumerate(own) if table[i][j] >= bar}
    point = {j for row in table for j, c in enumerate(row) if c >= bar and bool(alive[j])}
    n = sum(alive.tolist())
    return len(mine) / len(own), len(mine) / n, len(point - mine) / n


@scores.wrong("any latent will do", "You call a feature recovered if *some* latent points its way. Two features with "
              "nearly the same direction would then share one; count its own latent only.")
def _(cosine, latent, alive, bar):
    hits = (cosine >= bar).any(1).sum()
    pointing = ((cosine >= bar).any(0) & alive).sum()
    return hits / len(cosine), hits / alive.sum(), (pointing - hits) / alive.sum()


@scores.wrong("the dead count", "You divide by all latents. A latent that never fires claims nothing; precision is "
              "about the living.")
def _(cosine, latent, alive, bar):
    hits = (cosine[torch.arange(len(cosine)), latent] >= bar).sum()
    pointing = ((cosine >= bar).any(0) & alive).sum()
    return hits / len(cosine), hits / len(alive), (pointing - hits) / len(alive)


@scores.wrong("spares count as hits", "For precision you count every latent that points at a feature. The second "
              "latent for the same feature adds nothing: it is spare.")
def _(cosine, latent, alive, bar):
    hits = (cosine[torch.arange(len(cosine)), latent] >= bar).sum()
    pointing = ((cosine >= bar).any(0) & alive).sum()
    return hits / len(cosine), pointing / alive.sum(), (pointing - hits) / alive.sum()


@scores.wrong("dead latents point as well", "Among the spare latents you count dead ones. A direction that is never "
              "used is no duplicate.")
def _(cosine, latent, alive, bar):
    hits = (cosine[torch.arange(len(cosine)), latent] >= bar).sum()
    pointing = (cosine >= bar).any(0).sum()
    return hits / len(cosine), hits / alive.sum(), (pointing - hits) / alive.sum()


@scores.wrong("recall and precision exchanged", "Recall asks about features: how many of them were found. Precision "
              "asks about latents.")
def _(cosine, latent, alive, bar):
    hits = (cosine[torch.arange(len(cosine)), latent] >= bar).sum()
    pointing = ((cosine >= bar).any(0) & alive).sum()
    return hits / alive.sum(), hits / len(cosine), (pointing - hits) / alive.sum()


@scores.cases
def _(rng):
    # Latent 0 is feature 0's, 1 points there too, 2 is nobody's, 3 is dead and points at feature 1, which has latent 2.
    yield (torch.tensor([[0.95, 0.92, 0.1, 0.2], [0.3, 0.1, 0.6, 0.97]]), torch.tensor([0, 2]),
           torch.tensor([True, True, True, False]), 0.9)
    # Two features of nearly one direction, and one latent between them; a cosine exactly at the bar.
    yield torch.tensor([[0.96, 0.2, 0.0], [0.95, 0.3, 0.5]]), torch.tensor([0, 1]), torch.ones(3, dtype=torch.bool), 0.9
    yield (torch.tensor([[0.5, 0.75], [0.25, 0.1]]), torch.tensor([1, 0]), torch.tensor([True, True]), 0.75)
    cosine = torch.from_numpy(rng.random((5, 12))).float()
    alive = torch.from_numpy(rng.random(12) < 0.7)
    own = alive.nonzero()[:5, 0]
    yield cosine, own, alive, 0.7
