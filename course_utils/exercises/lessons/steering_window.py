"""Notebook 08, doses: the useful window, and the share of samples that succeed."""

from __future__ import annotations

import numpy as np

from course_utils.exercises.book import Exercise

window = Exercise("08.5", "the useful window", stars=2, minutes=12, lines=5, hints=(
    "Go up the doses and stop for good at the first that costs too much. Of the doses before it, the last is the end; "
    "the first whose effect suffices is the start. What if there is none?",
    "`cheap = np.logical_and.accumulate(cost <= most)` is True up to there and False ever after; `good = cheap & "
    "(effect >= least)`. The window is `dose[good].min()` to `dose[cheap].max()`."))


@window.reference
def useful_window(dose, effect, cost, least, most):
    """Return (low, high): enough effect from low on, no cost above most up to high; None if empty; arrays [doses]."""
    cheap = np.logical_and.accumulate(cost <= most)
    good = cheap & (effect >= least)
    if not good.any():
        return None
    return float(dose[good].min()), float(dose[cheap].max())


@window.right
def _(dose, effect, cost, least, most):
    low = high = None
    for d, e, c in zip(dose, effect, cost, strict=True):
        if c > most:
            break
        low = d if low is None and e >= least else low
        high = d
    return None if low is None else (low, high)


@window.right
def _(dose, effect, cost, least, most):
    over = np.flatnonzero(cost > most)
    end = over[0] if len(over) else len(dose)
    enough = np.flatnonzero(effect[:end] >= least)
    return (dose[enough[0]], dose[end - 1]) if len(enough) else None


@window.wrong("cheap again", "You go on behind the first dose that costs too much. A broken model can be cheap again, "
              "for instance when it repeats one word; the window is over at the *first* break.")
def _(dose, effect, cost, least, most):
    good = (cost <= most) & (effect >= least)
    return (dose[good].min(), dose[good].max()) if good.any() else None


@window.wrong("no look at the cost", "You return where the effect suffices, whatever it costs. Any direction has an "
              "effect if it is pushed hard enough; end before the first dose whose cost is above `most`.")
def _(dose, effect, cost, least, most):
    good = effect >= least
    return (dose[good].min(), dose[good].max()) if good.any() else None


@window.wrong("no look at the effect", "Your window starts at the smallest dose of all. That is cheap because it does "
              "nothing; start where the effect reaches `least`.")
def _(dose, effect, cost, least, most):
    cheap = np.logical_and.accumulate(cost <= most)
    return (dose[cheap].min(), dose[cheap].max()) if cheap.any() else None


@window.wrong("from the largest effect on", "Your window starts where the effect is largest. It is useful from the "
              "first dose with *enough* of it, which is `least`.")
def _(dose, effect, cost, least, most):
    cheap = np.logical_and.accumulate(cost <= most)
    if not (cheap & (effect >= least)).any():
        return None
    return dose[np.where(cheap, effect, -np.inf).argmax()], dose[cheap].max()


@window.wrong("places, not doses", "You return where the ends stand in the array. Look up which doses these are.")
def _(dose, effect, cost, least, most):
    cheap = np.logical_and.accumulate(cost <= most)
    good = np.flatnonzero(cheap & (effect >= least))
    return (float(good[0]), float(cheap.sum() - 1)) if len(good) else None


@window.wrong("one dose too far", "You end *at* the first dose that costs too much. It is outside already: the dose "
              "before it is the last.")
def _(dose, effect, cost, least, most):
    cheap = np.logical_and.accumulate(cost <= most)
    good = cheap & (effect >= least)
    return (dose[good].min(), dose[min(cheap.sum(), len(dose) - 1)]) if good.any() else None


@window.wrong("a start behind the end", "You look for the start among all doses. Where the effect is reached only "
              "after the text has broken, no dose is useful: return None.")
def _(dose, effect, cost, least, most):
    cheap, enough = np.logical_and.accumulate(cost <= most), effect >= least
    return (dose[enough].min(), dose[cheap].max()) if enough.any() and cheap.any() else None


@window.wrong("ended by a dip", "You end at the last dose that has enough effect. The end is set by the cost alone: "
              "the last dose before the first that costs too much.")
def _(dose, effect, cost, least, most):
    good = np.logical_and.accumulate(cost <= most) & (effect >= least)
    return (dose[good].min(), dose[good].max()) if good.any() else None


@window.cases
def _(rng):
    yield np.array([1.0, 2.0, 4.0, 8.0]), np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.5, 2.0]), 1.0, 0.5
    yield (np.array([0.5, 1.0, 2.0, 3.0, 4.0, 8.0, 16.0]), np.array([0.1, 0.6, 0.8, 0.4, 0.9, 2.0, 1.5]),
           np.array([0.0, 0.1, 0.3, 0.2, 1.5, 0.4, 2.0]), 0.5, 1.0)
    yield np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.2, 1.0]), np.array([0.1, 0.9, 0.2]), 0.5, 0.5
    yield np.array([1.0, 3.0, 9.0]), np.array([1.0, 2.0, 1.5]), np.array([0.0, 0.3, 0.1]), 0.5, 1.0
    yield np.array([2.0, 5.0]), np.array([1.0, 2.0]), np.array([3.0, 4.0]), 0.5, 1.0


both = Exercise("08.4", "success", stars=1, minutes=8, lines=2, hints=(
    "Decide for every single sample first: True if it hits often enough *and* costs little enough. Only then average.",
    "`success = (hits >= least) & (cost <= most)`, and the mean over the last two axes: `success.mean((1, 2))`."))


@both.reference
def success_rate(hits, cost, least, most):
    """Return the share of each concept's samples that succeed; hits, cost [concepts contexts samples]."""
    success = (hits >= least) & (cost <= most)
    return success.mean((1, 2))


@both.right
def _(hits, cost, least, most):
    failed = (hits < least) | (cost > most)
    return 1 - failed.reshape(len(failed), -1).mean(axis=1)


@both.right
def _(hits, cost, least, most):
    found = []
    for h, c in zip(hits, cost, strict=True):
        good = sum(bool(a >= least and b <= most) for a, b in zip(h.flat, c.flat, strict=True))
        found.append(good / h.size)
    return np.array(found)


@both.wrong("two shares multiplied", "You multiply two shares, as if hits and cost had nothing to do with each other. "
            "The samples that hit may be the very ones that break: ask both of *each* sample.")
def _(hits, cost, least, most):
    return (hits >= least).mean((1, 2)) * (cost <= most).mean((1, 2))


@both.wrong("means, then thresholds", "You average first and hold the means against the thresholds. Half of the "
            "samples broken and half without a hit may look fine on average; judge each sample, then average.")
def _(hits, cost, least, most):
    return ((hits.mean((1, 2)) >= least) & (cost.mean((1, 2)) <= most)).astype(float)


@both.wrong("one of both is enough", "You let a sample pass that hits *or* costs little. A steered text succeeds only "
            "if it does both.")
def _(hits, cost, least, most):
    return ((hits >= least) | (cost <= most)).mean((1, 2))


@both.wrong("on the line is out", "You turn away samples that are exactly at a threshold. `least` is enough, and "
            "`most` is still allowed.")
def _(hits, cost, least, most):
    return ((hits > least) & (cost < most)).mean((1, 2))


@both.wrong("one number for all", "You average over the concepts too. Some can be steered and some cannot: keep one "
            "share a concept.")
def _(hits, cost, least, most):
    return ((hits >= least) & (cost <= most)).mean()


@both.wrong("a share a context", "You average over concepts and samples, which leaves one share a context. The "
            "concepts are the first axis: keep that one.")
def _(hits, cost, least, most):
    return ((hits >= least) & (cost <= most)).mean((0, 2))


@both.cases
def _(rng):
    yield np.array([[[2, 0, 1, 3]]]), np.array([[[0.5, 0.1, 0.2, 0.9]]]), 1, 0.5
    hits = rng.poisson(1.5, (2, 3, 8))
    yield hits, np.round(rng.uniform(0, 1, (2, 3, 8)) + 0.1 * hits, 1), 2, 0.6
    yield hits[:, :2], np.round(rng.uniform(0, 1, (2, 2, 8)), 1), 1, 0.8
