"""Notebook 05, rivals: a direction from two means for every concept, and what the top of a unit hides."""

from __future__ import annotations

import numpy as np
import torch

from course_utils.exercises.book import Exercise

means = Exercise("05.7", "differences of means", stars=2, minutes=10, lines=3, hints=(
    "The sum of the rows of each concept is one matrix product; what is left of the sum of *all* rows belongs to the"
    " tokens without it.",
    "`there = on.T.float() @ x` and `n = on.sum(0)[:, None]`; then `there / n` less `(x.sum(0) - there) / (len(x) -"
    " n)`."))


@means.reference
def differences_of_means(x, on):
    """Return, for each concept, the mean of x [n d] where it is on less the mean where it is not; on [n concepts]."""
    n = on.sum(0)[:, None]
    there = on.T.float() @ x
    return there / n - (x.sum(0) - there) / (len(x) - n)


@means.right
def _(x, on):
    return torch.stack([x[rows].mean(0) - x[~rows].mean(0) for rows in on.T])


@means.right
def _(x, on):
    with_it, without = on.double(), (~on).double()
    weights = with_it / with_it.sum(0) - without / without.sum(0)
    return (weights.T @ x.double()).float()


@means.wrong(
    "less the mean of all",
    "You subtract the mean of *all* tokens, those of the concept among them: for a frequent concept the direction "
    "comes out too short.")
def _(x, on):
    return torch.stack([x[rows].mean(0) - x.mean(0) for rows in on.T])


@means.wrong(
    "only where it is on",
    "This is the mean where the concept is on. Most of it is what all activations share; take off the mean where it "
    "is not.")
def _(x, on):
    return torch.stack([x[rows].mean(0) for rows in on.T])


@means.wrong(
    "sums, not means",
    "You subtract sums. There are far more tokens without the concept than with it, so that they rule.")
def _(x, on):
    there = on.T.float() @ x
    return there - (x.sum(0) - there)


@means.wrong(
    "pointing away",
    "The sign is turned: the direction should point to where the concept is.")
def _(x, on):
    return torch.stack([x[~rows].mean(0) - x[rows].mean(0) for rows in on.T])


@means.wrong(
    "both divided by the same number",
    "Each mean has its own number of tokens: n with the concept, the others without.")
def _(x, on):
    there = on.T.float() @ x
    return (there - (x.sum(0) - there)) / len(x)


@means.cases
def _(rng):
    yield (torch.tensor([[1.0, 0.0], [3.0, 2.0], [0.0, 4.0], [2.0, 2.0]]),
           torch.tensor([[True, False, False], [True, False, True], [False, True, True], [False, False, True]]))
    on = torch.from_numpy(rng.random((70, 6)) < 0.3)
    x = torch.from_numpy(rng.normal(2.0, 1.0, (70, 4))).float()
    yield x, on


top = Exercise("05.8", "what the top hides", stars=2, minutes=8, lines=4, hints=(
    "First find the label that the `n` strongest tokens suggest: the most frequent domain among them. Then ask how "
    "far it carries: there, and on all tokens on which the unit is on.",
    "`top = domain[np.argsort(values)[::-1][:n]]`, `label = np.bincount(top).argmax()`; the shares are means of `=="
    " label`."))


@top.reference
def top_and_all(values, on, domain, n):
    """Return the commonest domain of the n strongest tokens, its share of them, and of all tokens on; all [tokens]."""
    strongest = domain[np.argsort(values)[::-1][:n]]
    label = np.bincount(strongest).argmax()
    return label, (strongest == label).mean(), (domain[on] == label).mean()


@top.right
def _(values, on, domain, n):
    first = np.argpartition(-values, n - 1)[:n]
    names, counts = np.unique(domain[first], return_counts=True)
    label = names[counts.argmax()]
    return label, counts.max() / n, np.count_nonzero(on & (domain == label)) / on.sum()


@top.right
def _(values, on, domain, n):
    rows = sorted(range(len(values)), key=lambda i: -values[i])[:n]
    seen = [domain[i] for i in rows]
    label = max(sorted(set(seen)), key=seen.count)
    return label, seen.count(label) / n, float(np.average(domain == label, weights=on))


@top.wrong(
    "the label of all tokens",
    "You take the most frequent domain of *all* tokens on which the unit is on. Whoever reads the top sees only the "
    "top.")
def _(values, on, domain, n):
    strongest = domain[np.argsort(values)[::-1][:n]]
    label = np.bincount(domain[on]).argmax()
    return label, (strongest == label).mean(), (domain[on] == label).mean()


@top.wrong(
    "the weakest tokens",
    "`np.argsort` sorts upwards: you read the weakest tokens.")
def _(values, on, domain, n):
    weakest = domain[np.argsort(values)[:n]]
    label = np.bincount(weakest).argmax()
    return label, (weakest == label).mean(), (domain[on] == label).mean()


@top.wrong(
    "of the domain's tokens",
    "The last number should be a share of the tokens on which the unit is on; you give the share of the *domain's* "
    "tokens on which it is.")
def _(values, on, domain, n):
    strongest = domain[np.argsort(values)[::-1][:n]]
    label = np.bincount(strongest).argmax()
    return label, (strongest == label).mean(), on[domain == label].mean()


@top.wrong(
    "of all text",
    "The last number is the domain's share of all text, whether the unit is on or not.")
def _(values, on, domain, n):
    strongest = domain[np.argsort(values)[::-1][:n]]
    label = np.bincount(strongest).argmax()
    return label, (strongest == label).mean(), (domain == label).mean()


@top.wrong(
    "the strongest token alone",
    "You label the unit by its one strongest token. Take the most frequent domain among the `n` strongest.")
def _(values, on, domain, n):
    strongest = domain[np.argsort(values)[::-1][:n]]
    label = strongest[0]
    return label, (strongest == label).mean(), (domain[on] == label).mean()


@top.cases
def _(rng):
    yield (np.array([0.1, 3.0, 2.0, 5.0, 1.0, 0.0, 4.0, 0.2]),
           np.array([False, True, True, True, True, False, True, False]), np.array([0, 2, 1, 1, 3, 0, 2, 3]), 3)
    values = rng.permutation(40).astype(float)
    on = values >= 15
    domain = np.where(values >= 35, 2, rng.choice([0, 1, 3, 3, 3], 40))
    domain[values == 39] = 1
    yield values, on, domain, 5
    yield values, on, rng.integers(0, 4, 40), 9
