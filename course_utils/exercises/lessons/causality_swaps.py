"""Notebook 09, swaps: the mean for a direction, a subspace from elsewhere, and methods at equal damage."""

from __future__ import annotations

import numpy as np
import torch

from course_utils.exercises.book import Exercise, draw

out = Exercise("09.2", "take a direction out", stars=1, minutes=8, lines=3, hints=(
    "Make the direction one unit long first. A vector's component along a unit is its dot product with it; how much of "
    "the mean's component is missing in each row, or too much there?",
    "`unit = direction / direction.norm()` and `missing = (mean - x) @ unit`, one number a row; "
    "`missing[:, None] * unit` is what has to be added to x."))


@out.reference
def take_out(x, direction, mean):
    """Return x [n d] with each row's component along direction [d] replaced by that of mean [d]."""
    unit = direction / direction.norm()
    missing = (mean - x) @ unit
    return x + missing[:, None] * unit


@out.right
def _(x, direction, mean):
    unit = torch.nn.functional.normalize(direction, dim=0)
    return torch.stack([row - (row @ unit) * unit + (mean @ unit) * unit for row in x])


@out.right
def _(x, direction, mean):
    away = x - mean
    return mean + away - torch.outer(away @ direction, direction) / (direction @ direction)


@out.wrong("the direction's length left in", "You use the direction at the length it has, which then counts twice: "
           "once when you measure the component, once when you put it back. Divide the direction by its norm first.")
def _(x, direction, mean):
    return x + ((mean - x) @ direction)[:, None] * direction


@out.wrong("normalised once only", "You measure the component with a unit vector, but put it back along the direction "
           "at its own length (or the other way round). Use the unit in both places.")
def _(x, direction, mean):
    return x + ((mean - x) @ direction)[:, None] * direction / direction.norm()


@out.wrong("set to zero", "You remove the component altogether. Zero is no neutral value: if the stream has a mean "
           "along the direction, later layers have never seen it at zero. Put the mean's component in its place.")
def _(x, direction, mean):
    unit = direction / direction.norm()
    return x - (x @ unit)[:, None] * unit


@out.wrong("all of it replaced", "You put the mean in the place of the whole vector, and everything else that the row "
           "had to say is gone. Only the component along the direction changes.")
def _(x, direction, mean):
    return mean.expand(len(x), -1).clone()


@out.wrong("subtracted once", "You subtract the direction from every row, however much of it the row holds. A row "
           "without any then ends up with minus one of it; subtract what is *there*.")
def _(x, direction, mean):
    return x - direction


@out.wrong("the batch's own mean", "You take the mean of the rows that you were given. These are about tigers, and "
           "their mean says so too; use `mean`, which comes from ordinary text.")
def _(x, direction, mean):
    unit = direction / direction.norm()
    return x + ((x.mean(0) - x) @ unit)[:, None] * unit


@out.cases
def _(rng):
    yield torch.tensor([[3.0, 4.0]]), torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0])
    yield draw(rng, 4, 6), 3 * draw(rng, 6), draw(rng, 6)
    yield draw(rng, 5, 3) + 2, 0.2 * draw(rng, 3), draw(rng, 3)


cost = Exercise("09.8", "at equal damage", stars=2, minutes=12, lines=3, hints=(
    "Ask first whether the budget lies within what was measured; both ends belong to it. Within it, the effect lies on "
    "the straight line between the two doses around the budget.",
    "If `damage[0] <= budget <= damage[-1]` does not hold, return None. Else `np.interp(x, xp, fp)` reads off, at x, "
    "the line through the points (xp, fp): the damage is on the x axis, and the effect is what you read."))


@cost.reference
def at_damage(damage, effect, budget):
    """Return the effect at damage = budget, or None outside the measured range; damage ascends, both [doses]."""
    if not damage[0] <= budget <= damage[-1]:
        return None
    return float(np.interp(budget, damage, effect))


@cost.right
def _(damage, effect, budget):
    if budget < damage.min() or budget > damage.max():
        return None
    i = int(np.clip(np.searchsorted(damage, budget), 1, len(damage) - 1))
    way = (budget - damage[i - 1]) / (damage[i] - damage[i - 1])
    return effect[i - 1] + way * (effect[i] - effect[i - 1])


@cost.right
def _(damage, effect, budget):
    points = list(zip(damage.tolist(), effect.tolist(), strict=True))
    for (x, y), (x2, y2) in zip(points, points[1:], strict=False):
        if x <= budget <= x2:
            return ((x2 - budget) * y + (budget - x) * y2) / (x2 - x)
    return None


@cost.wrong("the nearest dose", "You take the effect at the dose whose damage is nearest. Two methods then stand at "
            "*unequal* damage, which is what was to be avoided: go along the line between the two doses around it.")
def _(damage, effect, budget):
    return float(effect[np.abs(damage - budget).argmin()])


@cost.wrong("held at the ends", "Outside the measured range you return the effect at its end. `np.interp` does so "
            "without a word. Nobody has measured at that damage: return None.")
def _(damage, effect, budget):
    return float(np.interp(budget, damage, effect))


@cost.wrong("gone on beyond", "You prolong the line beyond what was measured. Effects level off, and damage explodes: "
            "outside the range you know nothing, and return None.")
def _(damage, effect, budget):
    i = int(np.clip(np.searchsorted(damage, budget), 1, len(damage) - 1))
    slope = (effect[i] - effect[i - 1]) / (damage[i] - damage[i - 1])
    return float(effect[i - 1] + slope * (budget - damage[i - 1]))


@cost.wrong("effect for damage, times the budget", "You take the ratio of effect to damage and multiply. That holds if "
            "effect grows in step with damage; mostly the first nat buys more than the last.")
def _(damage, effect, budget):
    return float(effect[-1] / damage[-1] * budget) if damage[0] <= budget <= damage[-1] else None


@cost.wrong("the axes swapped", "You read off the *damage* at which the effect equals the budget. The budget is a "
            "damage: `np.interp(budget, damage, effect)`.")
def _(damage, effect, budget):
    return float(np.interp(budget, effect, damage)) if damage[0] <= budget <= damage[-1] else None


@cost.wrong("the largest dose within the budget", "You take the largest dose that the budget allows. One method may "
            "have been measured just below it and another far below; go on along the line to the budget itself.")
def _(damage, effect, budget):
    return float(effect[damage <= budget][-1]) if damage[0] <= budget <= damage[-1] else None


@cost.wrong("the ends left out", "You return None where the budget is exactly at the smallest or largest damage. There "
            "the effect *was* measured.")
def _(damage, effect, budget):
    return float(np.interp(budget, damage, effect)) if damage[0] < budget < damage[-1] else None


@cost.cases
def _(rng):
    yield np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 5.0]), 1.5
    damage, effect = np.array([0.1, 0.4, 1.0, 2.5]), np.array([0.2, 0.9, 0.7, 1.6])
    for budget in (0.9, 4.0, 0.05, 2.5, 0.1):
        yield damage, effect, budget


swap = Exercise("09.6", "change one thing only", stars=3, minutes=12, lines=2, hints=(
    "`x @ Q` are a row's k coordinates in the subspace, and multiplying them by `Q.T` leads back to d numbers. By how "
    "much do the coordinates of source and base differ?",
    "`inside = (source - base) @ Q`; lead that back with `Q.T`, and add it to the base."))


@swap.reference
def swap_subspace(base, source, Q):
    """Return base [n d], but with what lies in the span of Q [d k], orthonormal columns, taken from source [n d]."""
    inside = (source - base) @ Q
    return base + inside @ Q.T


@swap.right
def _(base, source, Q):
    onto = Q @ Q.T
    return base @ (torch.eye(len(Q)) - onto) + source @ onto


@swap.right
def _(base, source, Q):
    swapped = base.clone()
    for q in Q.T:
        swapped = swapped + torch.outer(source @ q - swapped @ q, q)
    return swapped


@swap.wrong("added on top", "You add what the source has in the subspace, but leave the base's own there too. Then the "
            "row says both; take the base's part out, or add the *difference*.")
def _(base, source, Q):
    return base + source @ Q @ Q.T


@swap.wrong("nothing but the component", "You return the source's component alone. All that the base holds outside the "
            "subspace is gone, and with it everything that was to stay the same.")
def _(base, source, Q):
    return source @ Q @ Q.T


@swap.wrong("the complement swapped", "You keep the base inside the subspace and take everything *else* from the "
            "source. It is the other way round: the span of Q comes from the source.")
def _(base, source, Q):
    return source + (base - source) @ Q @ Q.T


@swap.wrong("the first k coordinates", "You swap the first k numbers of each vector. The subspace lies askew to the "
            "coordinates; its axes are the columns of Q.")
def _(base, source, Q):
    k = Q.shape[1]
    return torch.cat([source[:, :k], base[:, k:]], dim=1)


@swap.wrong("taken out, nothing put in", "You take the base's component out and put nothing there. That is an "
            "ablation; an interchange puts the *source's* component in its place.")
def _(base, source, Q):
    return base - base @ Q @ Q.T


@swap.wrong("the wrong way", "You add base − source, which pushes the base away from the source, and as far again. The "
            "difference to add is source − base.")
def _(base, source, Q):
    return base + (base - source) @ Q @ Q.T


@swap.wrong("a mean of the sources", "You put the mean of all sources into every row. Each base has a source of its "
            "own, in the same row, and should say what *that* one says.")
def _(base, source, Q):
    return base + (source.mean(0) - base) @ Q @ Q.T


@swap.cases
def _(rng):
    def basis(d: int, k: int) -> torch.Tensor:
        return torch.from_numpy(np.linalg.qr(rng.normal(size=(d, k)))[0]).float()

    yield torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.0, 5.0, 7.0]]), torch.tensor([[0.6], [0.8], [0.0]])
    yield draw(rng, 4, 6), draw(rng, 4, 6), basis(6, 2)
    yield draw(rng, 2, 5) + 1, draw(rng, 2, 5) - 2, basis(5, 3)
