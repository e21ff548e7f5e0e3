"""Notebook 05, scores: the threshold with the best F1, and AUROC with ties."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from course_utils.exercises.book import Exercise

best = Exercise("05.4", "the threshold with the best F1", stars=3, minutes=15, lines=7, hints=(
    "Sort by value, the highest first. If the threshold is the i-th value, the unit says *on* i times, and the hits "
    "are the running sum of the sorted labels. But equal values are in or out together: only the *last* of a run of "
    "equals is a threshold.",
    "With `y` the sorted labels: `f1 = 2 * np.cumsum(y) / (np.arange(1, len(y) + 1) + y.sum())`. The last of each "
    "run: `np.append(v[1:] != v[:-1], True)`; look for the best among those."))


@best.reference
def best_threshold(values, on):
    """Return the threshold with the best F1 for "at or above it", and that F1; values [n], on [n] True or False."""
    order = np.argsort(values)[::-1]
    v, y = values[order], on[order]
    f1 = 2 * np.cumsum(y) / (np.arange(1, len(y) + 1) + y.sum())
    last = np.append(v[1:] != v[:-1], True)
    return v[last][f1[last].argmax()], f1[last].max()


@best.right
def _(values, on):
    found = 0.0, -1.0
    for t in np.unique(values):
        says = values >= t
        f1 = 2 * (says & on).sum() / (says.sum() + on.sum())
        found = (t, f1) if f1 > found[1] else found
    return found


@best.right
def _(values, on):
    levels = np.unique(values)
    says = values >= levels[:, None]
    precision = (says & on).sum(1) / says.sum(1)
    recall = (says & on).sum(1) / on.sum()
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return levels[f1.argmax()], f1.max()


@best.wrong(
    "ties cut in two",
    "Tokens of the same value are in or out together; you cut through them, in the order in which they happen to "
    "stand. For a sparse latent most tokens are tied, at zero.")
def _(values, on):
    order = np.argsort(-values, kind="stable")
    v, y = values[order], on[order]
    f1 = 2 * np.cumsum(y) / (np.arange(1, len(y) + 1) + y.sum())
    return v[f1.argmax()], f1.max()


@best.wrong(
    "strictly above",
    "The unit says *on* at the threshold too: `>=`, not `>`.")
def _(values, on):
    levels = np.unique(values)
    says = values > levels[:, None]
    f1 = 2 * (says & on).sum(1) / (says.sum(1) + on.sum())
    return levels[f1.argmax()], f1.max()


@best.wrong(
    "accuracy",
    "You maximise how often the answer is right. For a concept on one token in a hundred, never saying *on* is right"
    " on 99 % of them.")
def _(values, on):
    levels = np.unique(values)
    says = values >= levels[:, None]
    t = levels[(says == on).mean(1).argmax()]
    return t, 2 * ((values >= t) & on).sum() / ((values >= t).sum() + on.sum())


@best.wrong(
    "precision alone",
    "You look for the threshold with the best precision: the highest value will do, for one token. F1 also counts "
    "what is missed.")
def _(values, on):
    levels = np.unique(values)
    says = values >= levels[:, None]
    precision = (says & on).sum(1) / says.sum(1)
    return levels[precision.argmax()], precision.max()


@best.wrong(
    "upside down",
    "You say *on* at or *below* the threshold. A unit stands for what raises it.")
def _(values, on):
    levels = np.unique(values)
    says = values <= levels[:, None]
    f1 = 2 * (says & on).sum(1) / (says.sum(1) + on.sum())
    return levels[f1.argmax()], f1.max()


@best.wrong(
    "the threshold zero",
    "You always cut at zero. For some units the best cut is higher; a neuron may even need a negative one.")
def _(values, on):
    says = values > 0
    return 0.0, 2 * (says & on).sum() / (says.sum() + on.sum())


@best.cases
def _(rng):
    yield np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, False, True, False])
    yield np.array([2.0, 5.0, 2.0, 0.0, 2.0, 0.0, 0.0]), np.array([True, False, False, False, False, False, False])
    yield np.arange(8.0), np.array([False, False, True, True, False, False, False, True])
    yield np.array([-1.0, -3.0, -2.0, -0.5, -4.0]), np.array([True, True, True, False, True])
    on = rng.random(80) < 0.2
    yield np.maximum(rng.normal(1.5 * on, 1.0), 0).round(1), on
    on = rng.random(90) < 0.1
    yield rng.normal(1.2 * on, 1.0), on


area = Exercise("05.5", "AUROC, with ties", stars=2, minutes=12, lines=4, hints=(
    "For each token of the concept: how many of the other tokens are below it, and how many are equal? A tie is half"
    " a win.",
    "With `b` sorted, `np.searchsorted(b, a)` counts the values of `b` below each `a`, and with `side=\"right\"` "
    "those below or equal; the mean of both, over `len(b)`."))


@area.reference
def auroc(values, on):
    """Return the chance that a token with the concept has a higher value than one without; a tie counts one half."""
    a, b = values[on], np.sort(values[~on])
    below, not_above = np.searchsorted(b, a), np.searchsorted(b, a, side="right")
    return (below + not_above).mean() / 2 / len(b)


@area.right
def _(values, on):
    a, b = values[on][:, None], values[~on][None]
    return float(((a > b) + 0.5 * (a == b)).mean())


@area.right
def _(values, on):
    ranks, p = rankdata(values), on.sum()
    return (ranks[on].sum() - p * (p + 1) / 2) / (p * (len(on) - p))


@area.wrong(
    "ties lost",
    "A tie counts nothing with you. A sparse latent is tied at zero with nearly everything, and would look worse "
    "than a coin.")
def _(values, on):
    return (values[on][:, None] > values[~on][None]).mean()


@area.wrong(
    "ties won",
    "You count a tie as a win: a unit that is always zero would be perfect.")
def _(values, on):
    return (values[on][:, None] >= values[~on][None]).mean()


@area.wrong(
    "the wrong way round",
    "This is the chance that a token *without* the concept is higher.")
def _(values, on):
    a, b = values[on][:, None], values[~on][None]
    return ((a < b) + 0.5 * (a == b)).mean()


@area.wrong(
    "against all tokens",
    "You compare the concept's tokens with *all* tokens, themselves included; the others are those without the "
    "concept.")
def _(values, on):
    a, b = values[on][:, None], values[None]
    return ((a > b) + 0.5 * (a == b)).mean()


@area.wrong(
    "a difference of means",
    "The two means say how far apart the values are, not how often one is above the other. AUROC knows only the "
    "order.")
def _(values, on):
    return values[on].mean() - values[~on].mean()


@area.cases
def _(rng):
    yield np.array([2.0, 0.0, 1.0, 3.0]), np.array([True, False, False, False])
    yield np.array([0.0, 0.0, 4.0, 0.0, 1.0]), np.array([True, True, True, False, False])
    on = rng.random(50) < 0.3
    yield rng.normal(on, 1.0).round(), on
    yield -rng.random(50), on
