"""Notebook 06, explanations: the words that a latent prefers, against all text."""

from __future__ import annotations

import numpy as np

from course_utils.exercises.book import Exercise

odds = Exercise("06.7", "a word-statistics rater", stars=2, minutes=12, lines=3, hints=(
    "Two rates for every word: among all text, and where the unit fires. The second is shaky where few words were "
    "seen: add `strength` imagined words to those seen there, dealt out as in all text.",
    "`base = (everywhere + 1) / (everywhere + 1).sum()`, and the rate there is `(there + strength * base) / "
    "(there.sum() + strength)`. Return the logarithm of their ratio."))


@odds.reference
def log_odds(there, everywhere, strength):
    """Log of each word's rate where a unit fires over its rate in all text, drawn towards 0 where little was seen."""
    base = (everywhere + 1) / (everywhere + 1).sum()
    return np.log((there + strength * base) / (there.sum() + strength) / base)


@odds.right
def _(there, everywhere, strength):
    base = (everywhere + 1) / (everywhere.sum() + len(everywhere))
    trust = there.sum() / (there.sum() + strength)
    seen = there / max(there.sum(), 1e-12)
    return np.log((trust * seen + (1 - trust) * base) / base)


@odds.right
def _(there, everywhere, strength):
    words, total, found = len(everywhere), sum(there), []
    for a, b in zip(there, everywhere, strict=True):
        p = (b + 1) / (sum(everywhere) + words)
        found.append(np.log(a + strength * p) - np.log(total + strength) - np.log(p))
    return np.array(found)


@odds.wrong("no imagined words", "A word that was not seen there has the rate 0, and the logarithm of 0 is −∞; and a "
            "word seen once counts as sure. Add the imagined words.")
def _(there, everywhere, strength):
    base = (everywhere + 1) / (everywhere + 1).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(there / there.sum() / base)


@odds.wrong("counts, not rates", "You compare counts. There are thousands of times as many words in all text as where "
            "the unit fires; divide each list by its sum.")
def _(there, everywhere, strength):
    base = (everywhere + 1) / (everywhere + 1).sum()
    return np.log((there + strength * base) / (everywhere + 1))


@odds.wrong("imagined words dealt out evenly", "You gave every word an equal part of the imagined ones. Then a rare "
            "word that was never seen there looks preferred; deal them out as in all text.")
def _(there, everywhere, strength):
    base = (everywhere + 1) / (everywhere + 1).sum()
    return np.log((there + strength / len(there)) / (there.sum() + strength) / base)


@odds.wrong("one imagined word of each kind", "You add `strength` to *every* word, which drowns a short list in "
            "imagined words. In all, `strength` words are added.")
def _(there, everywhere, strength):
    base = (everywhere + 1) / (everywhere + 1).sum()
    return np.log((there + strength) / (there.sum() + strength * len(there)) / base)


@odds.wrong("no logarithm", "This is the ratio itself. Its logarithm adds up over words, and is 0 for a word that says "
            "nothing.")
def _(there, everywhere, strength):
    base = (everywhere + 1) / (everywhere + 1).sum()
    return (there + strength * base) / (there.sum() + strength) / base


@odds.wrong("the other way round", "The ratio is upside down: words that the unit prefers come out negative.")
def _(there, everywhere, strength):
    base = (everywhere + 1) / (everywhere + 1).sum()
    return -np.log((there + strength * base) / (there.sum() + strength) / base)


@odds.cases
def _(rng):
    yield np.array([2.0, 0.0, 1.0]), np.array([5.0, 3.0, 0.0]), 1.0
    yield rng.integers(0, 4, size=8).astype(float), rng.integers(0, 400, size=8).astype(float), 2.5
    yield np.array([0.0, 0.0, 3.0, 1.0, 0.0]), np.array([90.0, 0.0, 7.0, 2.0, 1.0]), 4.0
