"""Notebook 07, what is rare: a rank correlation with other things held equal."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from course_utils.exercises.book import Exercise

within = Exercise("07.4", "other things equal", stars=2, minutes=12, lines=6, hints=(
    "Rank x and y among the concepts of one kind only, as a share of that kind, and take the middle off: then every "
    "kind is centred at 0 and spread alike. Only then put the kinds together.",
    "For each kind: `here = kind == g`, then `a[here] = rankdata(x[here]) / here.sum()`, minus its mean; the same "
    "for y. The answer is `(a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())`."))


@within.reference
def rank_correlation_within(x, y, kind):
    """Return the correlation of the ranks that x and y have within their kind; all inputs [concepts]."""
    a, b = np.zeros(len(x)), np.zeros(len(x))
    for g in np.unique(kind):
        here = kind == g
        for ranks, values in ((a, x), (b, y)):
            ranks[here] = rankdata(values[here]) / here.sum()
            ranks[here] -= ranks[here].mean()
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


@within.right
def _(x, y, kind):
    def ranks(values):
        same = kind[:, None] == kind
        below = (values[:, None] > values) & same
        level = (values[:, None] == values) & same
        n = same.sum(1)
        return (below.sum(1) + (level.sum(1) + 1) / 2 - (n + 1) / 2) / n

    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


@within.right
def _(x, y, kind):
    parts = []
    for g in sorted(set(kind.tolist())):
        here = np.flatnonzero(kind == g)
        n = len(here)
        parts.append([(rankdata(v[here]) - (n + 1) / 2) / n for v in (x, y)])
    a, b = np.concatenate(parts, axis=1)
    return np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))


@within.wrong(
    "all kinds together",
    "You rank all concepts together. Topics are frequent *and* easy, entities rare and hard: then the kinds are "
     "compared, and rarity gets the blame.")
def _(x, y, kind):
    return np.corrcoef(rankdata(x), rankdata(y))[0, 1]


@within.wrong(
    "values, not ranks",
    "You correlate the values. Rates span several powers of ten, so that the few most frequent concepts rule; ranks "
     "give every concept one say.")
def _(x, y, kind):
    a, b = np.array(x, dtype=float), np.array(y, dtype=float)
    for g in np.unique(kind):
        a[kind == g] -= a[kind == g].mean()
        b[kind == g] -= b[kind == g].mean()
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


@within.wrong(
    "a mean of correlations",
    "You average one correlation for each kind, so that a kind of three concepts weighs as much as one of three "
     "hundred. Put the centred ranks together, then correlate once.")
def _(x, y, kind):
    found = [np.corrcoef(rankdata(x[kind == g]), rankdata(y[kind == g]))[0, 1] for g in np.unique(kind)]
    return np.mean(found)


@within.wrong(
    "ranks not as shares",
    "Rank 200 of 300 and rank 2 of 3 stand equally high. Divide by the number of concepts of the kind, or large "
     "kinds rule.")
def _(x, y, kind):
    a, b = np.zeros(len(x)), np.zeros(len(x))
    for g in np.unique(kind):
        here = kind == g
        a[here], b[here] = rankdata(x[here]) - (here.sum() + 1) / 2, rankdata(y[here]) - (here.sum() + 1) / 2
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


@within.wrong(
    "ties in order of appearance",
    "Equal values get different ranks, by where they stand in the list. Concepts that no latent detects are all "
     "equally bad: `rankdata` gives ties their mean rank.")
def _(x, y, kind):
    a, b = np.zeros(len(x)), np.zeros(len(x))
    for g in np.unique(kind):
        here = np.flatnonzero(kind == g)
        for ranks, values in ((a, x), (b, y)):
            ranks[here] = values[here].argsort(kind="stable").argsort() / len(here)
            ranks[here] -= ranks[here].mean()
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


@within.wrong(
    "centred once, not by kind",
    "You take off the mean of all ranks at once, or none. Kinds of different size then still differ in their "
     "middle; centre within each kind.")
def _(x, y, kind):
    a, b = np.zeros(len(x)), np.zeros(len(x))
    for g in np.unique(kind):
        here = kind == g
        a[here], b[here] = rankdata(x[here]) / here.sum(), rankdata(y[here]) / here.sum()
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


@within.cases
def _(rng):
    yield np.array([10, 30, 20, 1, 4, 2]), np.array([0.8, 0.9, 0.8, 0.1, 0.0, 0.3]), np.array([0, 0, 0, 1, 1, 1])
    kind = np.repeat([0, 1, 2], [12, 3, 6])
    rates = np.exp(rng.normal(size=21) + kind)
    yield rates, np.round(rng.random(21) * 0.5 + 0.2 * kind + 0.05 * np.log(rates), 1), kind
    shuffled = rng.permutation(21)
    yield rates[shuffled], rng.integers(0, 4, 21) / 4, kind[shuffled]
