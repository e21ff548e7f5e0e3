"""Notebook 06, raters: near distractors, agreement beyond chance, and the pull of a label."""

from __future__ import annotations

import numpy as np

from course_utils.exercises.book import Exercise

near = Exercise("06.4", "near distractors", stars=2, minutes=10, lines=3, hints=(
    "Compare every target with every distractor: who has the higher value? Ties are common, because a latent is silent "
    "most of the time.",
    "`gap = target[:, None] - distractor[None]`; then the mean of `(gap > 0) + 0.5 * (gap == 0)`."))


@near.reference
def selectivity(target, distractor):
    """Chance that a target's value exceeds a distractor's, ties counting a half; target [n], distractor [m]."""
    gap = target[:, None] - distractor[None]
    return ((gap > 0) + 0.5 * (gap == 0)).mean()


@near.right
def _(target, distractor):
    both = np.concatenate([target, distractor])
    rank = (both[None] < both[:, None]).sum(1) + ((both[None] == both[:, None]).sum(1) + 1) / 2
    n, m = len(target), len(distractor)
    return (rank[:n].sum() - n * (n + 1) / 2) / (n * m)


@near.right
def _(target, distractor):
    won = 0.0
    for t in target:
        for d in distractor:
            won += 1.0 if t > d else 0.5 if t == d else 0.0
    return won / (len(target) * len(distractor))


@near.wrong("ties lost", "A tie counts as lost. Where the latent is silent on both, it knows nothing, and a coin would "
            "be right half of the time: count a half.")
def _(target, distractor):
    return (target[:, None] > distractor[None]).mean()


@near.wrong("ties won", "A tie counts as won: a latent that is silent on everything would be perfect. Count a half.")
def _(target, distractor):
    return (target[:, None] >= distractor[None]).mean()


@near.wrong("ties left out", "You dropped the ties and kept a few easy pairs. A latent that fires on one target of a "
            "hundred, and on nothing else, would be perfect.")
def _(target, distractor):
    gap = target[:, None] - distractor[None]
    return (gap > 0).sum() / max((gap != 0).sum(), 1)


@near.wrong("a difference of means", "This is in units of activation: a latent that is twice as loud scores twice as "
            "much. Ask who wins, not by how much.")
def _(target, distractor):
    return target.mean() - distractor.mean()


@near.wrong("the distractors win", "This is the chance that the *distractor* has the higher value.")
def _(target, distractor):
    gap = target[:, None] - distractor[None]
    return ((gap < 0) + 0.5 * (gap == 0)).mean()


@near.wrong("who fires more often", "You only asked whether the latent is on. It may fire on both and be much stronger "
            "on its own thing; keep the values.")
def _(target, distractor):
    gap = (target > 0)[:, None] * 1 - (distractor > 0)[None] * 1
    return ((gap > 0) + 0.5 * (gap == 0)).mean()


@near.cases
def _(rng):
    yield np.array([2.0, 0.0]), np.array([1.0, 0.0, 0.0])
    yield np.array([3.0, 4.0, 0.0]), np.array([1.0, 2.0])
    yield (np.where(rng.random(12) < 0.7, rng.exponential(2, size=12), 0.0),
           np.where(rng.random(9) < 0.4, rng.exponential(1, size=9), 0.0))


agree = Exercise("06.5", "agreement beyond chance", stars=2, minutes=12, lines=4, hints=(
    "How often do both say the same? And how often would they, if each kept the same number of every label but dealt "
    "them out blindly? Kappa is how far the first is from the second, on the way to 1.",
    "`seen = (a == b).mean()`; with `p = np.bincount(a, minlength=k) / len(a)` and `q` likewise, chance is `p @ q`."))


@agree.reference
def kappa(a, b, k):
    """Cohen's kappa of two raters' labels, numbers from 0 to k - 1; a, b [items]."""
    seen = (a == b).mean()
    chance = np.bincount(a, minlength=k) @ np.bincount(b, minlength=k) / len(a) ** 2
    return (seen - chance) / (1 - chance)


@agree.right
def _(a, b, k):
    table = np.zeros((k, k))
    np.add.at(table, (a, b), 1 / len(a))
    dealt = np.outer(table.sum(1), table.sum(0))
    return 1 - (1 - np.trace(table)) / (1 - np.trace(dealt))


@agree.right
def _(a, b, k):
    n = len(a)
    seen = sum(x == y for x, y in zip(a, b, strict=True)) / n
    chance = sum(int(x == y) for x in a for y in b) / n**2  # every answer of one against every answer of the other
    return (seen - chance) / (1 - chance)


@agree.wrong("raw agreement", "This is how often they say the same. Two raters who both answer \"clear\" nine times in "
             "ten agree four times in five without looking; take chance off.")
def _(a, b, k):
    return (a == b).mean()


@agree.wrong("all labels equally likely", "You took 1/k for chance. Raters do not use all labels equally often; chance "
             "is what *their* habits would give.")
def _(a, b, k):
    return ((a == b).mean() - 1 / k) / (1 - 1 / k)


@agree.wrong("one habit for both", "You pooled both raters' labels (Scott's pi). Cohen's kappa lets each have a habit "
             "of his own: multiply the one's shares with the other's.")
def _(a, b, k):
    p = np.bincount(np.concatenate([a, b]), minlength=k) / (2 * len(a))
    return ((a == b).mean() - p @ p) / (1 - p @ p)


@agree.wrong("only the difference", "What exceeds chance is to be divided by all that *could* exceed it, 1 − chance; "
             "else full agreement would not be 1.")
def _(a, b, k):
    p, q = (np.bincount(x, minlength=k) / len(a) for x in (a, b))
    return (a == b).mean() - p @ q


@agree.wrong("over chance", "You divided by chance. Divide by 1 − chance: the way that is left from there to full "
             "agreement.")
def _(a, b, k):
    p, q = (np.bincount(x, minlength=k) / len(a) for x in (a, b))
    return ((a == b).mean() - p @ q) / (p @ q)


@agree.wrong("a correlation", "Labels are names: that 3 is more than 1 means nothing here. Count who says the same.")
def _(a, b, k):
    return np.corrcoef(a, b)[0, 1]


@agree.cases
def _(rng):
    yield np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2
    yield np.array([0, 0, 2, 1, 2, 0]), np.array([2, 0, 2, 0, 2, 0]), 3
    a = rng.choice(4, p=[0.6, 0.2, 0.2, 0.0], size=40)
    yield a, np.where(rng.random(40) < 0.6, a, rng.integers(3, size=40)), 4


pull = Exercise("06.6", "the pull of a label", stars=2, minutes=10, lines=2, hints=(
    "Every item has a label that was *drawn* as a prime, but it was shown for only some of them. How often is that "
    "very label chosen where it was shown, and where it was not?",
    "`follows = chosen == prime`; then the difference of two means, over `shown` and over `~shown`."))


@pull.reference
def priming_shift(chosen, prime, shown):
    """How much more often a drawn wrong label is chosen where it was shown; chosen, prime, shown [items]."""
    follows = chosen == prime
    return follows[shown].mean() - follows[~shown].mean()


@pull.right
def _(chosen, prime, shown):
    rates = []
    for told in (True, False):
        items = [i for i in range(len(chosen)) if bool(shown[i]) is told]
        rates.append(sum(chosen[i] == prime[i] for i in items) / len(items))
    return rates[0] - rates[1]


@pull.right
def _(chosen, prime, shown):
    follows, s = (chosen == prime).astype(float), shown.astype(float)
    s = s - s.mean()
    return (s @ follows) / (s @ s)  # the slope of a line through two groups


@pull.wrong("no comparison", "This is how often the shown label is chosen. Some would have chosen it anyway, because "
            "it fits: compare with the items for which it was drawn and *not* shown.")
def _(chosen, prime, shown):
    return (chosen == prime)[shown].mean()


@pull.wrong("against all items", "You compare the shown items with *all* items, themselves among them. Compare with "
            "those where nothing was shown.")
def _(chosen, prime, shown):
    follows = chosen == prime
    return follows[shown].mean() - follows.mean()


@pull.wrong("numbers, not rates", "You subtract counts. If more labels were shown than kept back, the count is larger "
            "without any pull; take means.")
def _(chosen, prime, shown):
    follows = chosen == prime
    return float(follows[shown].sum()) - float(follows[~shown].sum())


@pull.wrong("against guessing", "You take off what a blind guess would give. Raters do not guess blindly: the items "
            "where nothing was shown say how often the label is chosen without a pull.")
def _(chosen, prime, shown):
    return (chosen == prime)[shown].mean() - 1 / len(np.unique(np.concatenate([chosen, prime])))


@pull.wrong("shares of all items", "Both rates must be over their own group: of the items where it was shown, and of "
            "those where it was not. You divided both by all items.")
def _(chosen, prime, shown):
    follows = chosen == prime
    return (follows & shown).mean() - (follows & ~shown).mean()


@pull.cases
def _(rng):
    yield np.array([1, 2, 0, 0, 1]), np.array([1, 1, 0, 2, 2]), np.array([True, True, True, False, False])
    yield np.array([1, 2, 0, 0]), np.array([1, 1, 2, 0]), np.array([False, True, True, False])
    prime, shown = rng.integers(5, size=30), rng.random(30) < 0.6
    yield np.where(rng.random(30) < 0.3 + 0.4 * shown, prime, rng.integers(5, size=30)), prime, shown
