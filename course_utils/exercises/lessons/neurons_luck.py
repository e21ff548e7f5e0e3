"""Notebook 05, luck: one test a unit, and what was chosen on one split scored on another."""

from __future__ import annotations

import numpy as np
import torch

from course_utils.exercises.book import Exercise

test = Exercise("05.3", "one test a unit", stars=2, minutes=10, lines=2, hints=(
    "Each unit has many chances to look selective: one a domain. So ask of each shuffle how far the unit's "
    "*luckiest* domain got, and let the bar be passed by that in a share `alpha` of the shuffles only.",
    "`z_null.amax(2)` is the luckiest domain of each shuffle and unit; `.quantile(1 - alpha, dim=0)` the bar, one a"
    " unit."))


@test.reference
def beyond_chance(z, z_null, alpha):
    """Say which of z [units domains] beat the unit's luckiest domain in all but a share alpha of z_null [draws ...]."""
    bar = z_null.amax(2).quantile(1 - alpha, dim=0)
    return z > bar[:, None]


@test.right
def _(z, z_null, alpha):
    lucky = z_null.max(dim=2).values.sort(dim=0).values  # [draws units]
    place = (1 - alpha) * (len(lucky) - 1)
    low = int(place)
    high = min(low + 1, len(lucky) - 1)
    bar = lucky[low] + (place - low) * (lucky[high] - lucky[low])
    return (z.T > bar).T


@test.right
def _(z, z_null, alpha):
    rows = []
    for unit in range(len(z)):
        luckiest = torch.stack([draw[unit].max() for draw in z_null])
        rows.append(z[unit] > torch.quantile(luckiest, 1 - alpha))
    return torch.stack(rows)


@test.wrong(
    "one test a domain",
    "Each domain gets its own bar. With twenty domains and alpha = 0.05 every unit then serves one by luck. The bar "
    "must be that of the *luckiest* domain.")
def _(z, z_null, alpha):
    return z > z_null.quantile(1 - alpha, dim=0)


@test.wrong(
    "the luckiest shuffle of all",
    "Nothing may beat your bar but what beats every shuffle: it rises with the number of shuffles. Take a quantile "
    "over the shuffles.")
def _(z, z_null, alpha):
    return z > z_null.amax((0, 2))[:, None]


@test.wrong(
    "one bar for all units",
    "You pour all units into one quantile. Units differ in how far chance takes them: a bar each.")
def _(z, z_null, alpha):
    return z > z_null.amax(2).quantile(1 - alpha)


@test.wrong(
    "the other tail",
    "You took the `alpha` quantile: nearly every shuffle is above it. It is the 1 − alpha quantile that few of them "
    "reach.")
def _(z, z_null, alpha):
    return z > z_null.amax(2).quantile(alpha, dim=0)[:, None]


@test.wrong(
    "the luckiest unit",
    "You take the largest over *units* and leave a bar for each domain. The question is asked for a unit: is any of "
    "its domains beyond chance?")
def _(z, z_null, alpha):
    return z > z_null.amax(1).quantile(1 - alpha, dim=0)


@test.cases
def _(rng):
    null = torch.tensor([[[0.0, 1.0], [3.0, 0.0]], [[2.0, 0.0], [1.0, 4.0]], [[1.0, 3.0], [2.0, 0.0]]])
    yield torch.tensor([[2.0, 2.5], [3.5, 3.0]]), null, 0.5
    scale = torch.tensor([0.5, 1.0, 3.0, 1.5])[:, None] * torch.tensor([1.0, 2.0, 1.5])
    draw = torch.from_numpy(rng.normal(size=(41, 4, 3))).float() * scale
    z = torch.from_numpy(rng.normal(size=(4, 3))).float() * 3 * scale
    z[0, 0] = draw.amax(2).quantile(0.95, dim=0)[0]  # exactly at the bar is not beyond it
    yield z, draw, 0.05
    yield z, draw, 0.2


elsewhere = Exercise("05.6", "chosen here, scored there", stars=1, minutes=8, lines=4, hints=(
    "For every concept, which unit is best on the split that chooses? That unit's score on the *other* split is the "
    "one to report.",
    "`unit = train.argmax(0)`; its score elsewhere is `heldout[unit, torch.arange(train.shape[1])]`."))


@elsewhere.reference
def chosen_and_scored(train, heldout):
    """Return the chosen units, their held-out scores [concepts], and by how much the mean fell; [units concepts]."""
    unit = train.argmax(0)
    score = heldout[unit, torch.arange(train.shape[1])]
    return unit, score, train.amax(0).mean() - score.mean()


@elsewhere.right
def _(train, heldout):
    value, unit = train.max(0)
    score = heldout.gather(0, unit[None])[0]
    return unit, score, (value - score).mean()


@elsewhere.right
def _(train, heldout):
    units = [max(range(len(train)), key=lambda u: float(train[u, c])) for c in range(train.shape[1])]
    score = torch.stack([heldout[u, c] for c, u in enumerate(units)])
    fell = sum(train[u, c] - heldout[u, c] for c, u in enumerate(units)) / len(units)
    return torch.tensor(units), score, fell


@elsewhere.wrong(
    "the best of the other split",
    "You choose again on the split that scores. The best of a thousand is lucky as well as good; its luck must stay "
    "behind.")
def _(train, heldout):
    unit = heldout.argmax(0)
    return unit, heldout.amax(0), train.amax(0).mean() - heldout.amax(0).mean()


@elsewhere.wrong(
    "scored where it was chosen",
    "You report the score on the split that chose the unit: it is too good by construction.")
def _(train, heldout):
    unit = train.argmax(0)
    score = heldout[unit, torch.arange(train.shape[1])]
    return unit, train.amax(0), train.amax(0).mean() - score.mean()


@elsewhere.wrong(
    "a concept for every unit",
    "You looked for the best concept of each unit. Asked is the best unit of each concept: one a column.")
def _(train, heldout):
    concept = train.argmax(1)
    score = heldout[torch.arange(len(train)), concept]
    return concept, score, train.amax(1).mean() - score.mean()


@elsewhere.wrong(
    "one unit for all",
    "You take the unit with the best mean over concepts. Each concept may choose its own.")
def _(train, heldout):
    unit = train.mean(1).argmax().expand(train.shape[1])
    score = heldout[unit, torch.arange(train.shape[1])]
    return unit, score, train.amax(0).mean() - score.mean()


@elsewhere.wrong(
    "rose, not fell",
    "You subtract the wrong way: by how much did the mean *fall* on the other split?")
def _(train, heldout):
    unit = train.argmax(0)
    score = heldout[unit, torch.arange(train.shape[1])]
    return unit, score, score.mean() - train.amax(0).mean()


@elsewhere.cases
def _(rng):
    yield torch.tensor([[0.9, 0.1], [0.2, 0.3], [0.4, 0.8]]), torch.tensor([[0.5, 0.1], [0.7, 0.2], [0.1, 0.6]])
    train = torch.from_numpy(rng.random((9, 5))).float()
    yield train, 0.7 * train + 0.2 * torch.from_numpy(rng.random((9, 5))).float() - 0.1
    yield -train.T.contiguous(), torch.from_numpy(np.sort(rng.random((5, 9)), axis=0)).float()
