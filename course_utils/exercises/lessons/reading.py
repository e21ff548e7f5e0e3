"""Notebook 06, cards: bands of activity, what fires together, what share of a latent's activity a concept explains."""

from __future__ import annotations

import numpy as np

from course_utils.exercises.book import Exercise

cut = Exercise("06.1", "bands of activity", stars=1, minutes=10, lines=4, hints=(
    "Two steps: the places of the active tokens, strongest first; then cut that list into n pieces and write each "
    "piece's number into an array of −1.",
    "`order = np.argsort(-values)` and `order = order[values[order] > 0]`; `np.array_split(order, n)` cuts into pieces "
    "that differ by one at most, the longer ones first."))


@cut.reference
def band_of(values, n):
    """Return each token's band, 0 the strongest of n, -1 where the latent is silent; values [tokens]."""
    order = np.argsort(-values)
    band = np.full(len(values), -1)
    for number, part in enumerate(np.array_split(order[values[order] > 0], n)):
        band[part] = number
    return band


@cut.right
def _(values, n):
    places = sorted((i for i, v in enumerate(values) if v > 0), key=lambda i: -values[i])
    band, start = [-1] * len(values), 0
    for number in range(n):
        size = len(places) // n + (number < len(places) % n)
        for i in places[start : start + size]:
            band[i] = number
        start += size
    return np.array(band)


@cut.right
def _(values, n):
    active = values > 0
    k = int(active.sum())
    rank = (values[None] > values[:, None]).sum(1)  # how many are stronger
    long, short = k % n, k // n
    border = long * (short + 1)
    number = np.where(rank < border, rank // (short + 1), long + (rank - border) // max(short, 1))
    return np.where(active, number, -1)


@cut.wrong("silent tokens ranked too", "Silent tokens got into a band: nearly all tokens are silent, so that the last "
           "bands hold nothing else. Keep the tokens on which the latent is active, then cut.")
def _(values, n):
    band = np.full(len(values), -1)
    for number, part in enumerate(np.array_split(np.argsort(-values, kind="stable"), n)):
        band[part] = number
    return band


@cut.wrong("equal steps of activation", "You cut the *scale* into equal steps. Most activations are weak, so that the "
           "top steps hold a handful of tokens and the lowest all the rest; cut the *tokens* into equal parts.")
def _(values, n):
    peak = values.max(initial=0)
    step = np.clip(np.ceil(n * (1 - values / (peak or 1))) - 1, 0, n - 1).astype(int)
    return np.where(values > 0, step, -1)


@cut.wrong("the weakest first", "Band 0 holds the weakest tokens here; it should hold the strongest.")
def _(values, n):
    order = np.argsort(values, kind="stable")
    band = np.full(len(values), -1)
    for number, part in enumerate(np.array_split(order[values[order] > 0], n)):
        band[part] = number
    return band


@cut.wrong("order taken for place", "You cut the tokens in the order of the text. Sort them by activation first.")
def _(values, n):
    band = np.full(len(values), -1)
    for number, part in enumerate(np.array_split(np.flatnonzero(values > 0), n)):
        band[part] = number
    return band


@cut.wrong("silent tokens in the last band", "Silent tokens belong to no band: give them −1.")
def _(values, n):
    order = np.argsort(-values, kind="stable")
    band = np.full(len(values), n - 1)
    for number, part in enumerate(np.array_split(order[values[order] > 0], n)):
        band[part] = number
    return band


@cut.cases
def _(rng):
    yield np.array([0.0, 3.0, 0.0, 1.0, 2.0]), 2
    yield np.array([0.0, 0.5, 0.0, 9.0, 0.7, 0.6, 0.4, 0.0]), 3
    values = np.where(rng.random(60) < 0.4, rng.exponential(size=60), 0.0)
    yield values, 5
    yield np.zeros(4), 2


together = Exercise("06.2", "what fires together", stars=2, minutes=12, lines=3, hints=(
    "φ is the ordinary correlation of two columns of 0 and 1: the mean of their product less the product of their "
    "means, over both standard deviations.",
    "With `x = on - on.mean(0)`: the products `x.T @ x[:, i]`, over the lengths of both columns. A column that never "
    "changes has length 0: divide by `np.maximum(…, 1e-12)`."))


@together.reference
def phi(on, i):
    """Correlate latent i's being active with every latent's, 0 where one of both never changes; on [tokens latents]."""
    x = on - on.mean(0)
    size = np.sqrt((x**2).sum(0))
    return x.T @ x[:, i] / np.maximum(size * size[i], 1e-12)


@together.right
def _(on, i):
    rate, both = on.mean(0), (on & on[:, [i]]).mean(0)
    spread = np.sqrt(rate * (1 - rate) * rate[i] * (1 - rate[i]))
    return np.where(spread > 0, (both - rate[i] * rate) / np.where(spread > 0, spread, 1), 0.0)


@together.right
def _(on, i):
    found = []
    for column in on.T:
        a, b = int((on[:, i] & column).sum()), int((on[:, i] & ~column).sum())
        c, d = int((~on[:, i] & column).sum()), int((~on[:, i] & ~column).sum())
        below = float(a + b) * (c + d) * (a + c) * (b + d)
        found.append((a * d - b * c) / below**0.5 if below else 0.0)
    return np.array(found)


@together.wrong("the overlap", "This is the overlap (Jaccard): tokens with both over tokens with either. It is high "
                "for two latents that are active on nearly everything, whether they have to do with each other or not.")
def _(on, i):
    either = (on | on[:, [i]]).sum(0)
    return (on & on[:, [i]]).sum(0) / np.maximum(either, 1)


@together.wrong("the share of i's tokens", "This is how often another latent is active *when i is*: a latent that is "
                "always active wins. Take off what chance would give.")
def _(on, i):
    return (on & on[:, [i]]).sum(0) / max(on[:, i].sum(), 1)


@together.wrong("not centred", "This is a cosine: the means were not taken off, so that two frequent latents seem "
                "related though neither says anything about the other.")
def _(on, i):
    x = on / np.maximum(np.linalg.norm(on, axis=0), 1)
    return x.T @ x[:, i]


@together.wrong("a covariance", "The products of deviations are right, but divided by nothing: frequent latents have "
                "large covariances. Divide by both standard deviations.")
def _(on, i):
    rate = on.mean(0)
    return (on & on[:, [i]]).mean(0) - rate[i] * rate


@together.wrong("dead latents are NaN", "A latent that never fires (or always does) has no correlation; you divide by "
                "zero. Return 0 there.")
def _(on, i):
    rate, both = on.mean(0), (on & on[:, [i]]).mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (both - rate[i] * rate) / np.sqrt(rate * (1 - rate) * rate[i] * (1 - rate[i]))


@together.cases
def _(rng):
    yield np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1]], dtype=bool), 0
    yield np.array([[1, 1, 0, 1], [0, 1, 0, 0], [1, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 0]], dtype=bool), 0
    on = rng.random((50, 6)) < [0.05, 0.3, 0.9, 0.5, 0.2, 0.0]
    on[:, 4] |= on[:, 1]
    yield on, 4
    yield on, 1


share = Exercise("06.3", "inside the concept, band by band", stars=2, minutes=10, lines=3, hints=(
    "A band's share is a ratio of two sums of activation: over its tokens that carry the concept, and over all of its "
    "tokens.",
    "`np.bincount(band[kept], weights=…, minlength=n)`, with `kept = band >= 0`, sums by band: once over "
    "`values * on`, once over `values`."))


@share.reference
def inside(values, on, band, n):
    """Share of each band's activation that falls on the concept, 0 for an empty band; values, on, band [tokens]."""
    kept = band >= 0
    there = np.bincount(band[kept], weights=(values * on)[kept], minlength=n)
    return there / np.maximum(np.bincount(band[kept], weights=values[kept], minlength=n), 1e-12)


@share.right
def _(values, on, band, n):
    found = []
    for number in range(n):
        here = band == number
        total = values[here].sum()
        found.append(values[here & on].sum() / total if total > 0 else 0.0)
    return np.array(found)


@share.right
def _(values, on, band, n):
    member = band[None] == np.arange(n)[:, None]
    total = member @ values
    return np.divide(member @ np.where(on, values, 0), total, out=np.zeros(n), where=total > 0)


@share.wrong("tokens counted", "You counted tokens. The question is where the *activation* lies: weigh each token by "
             "its value.")
def _(values, on, band, n):
    return np.array([on[band == number].mean() if (band == number).any() else 0.0 for number in range(n)])


@share.wrong("of the whole activity", "You divided by the activation of all bands together. Each band is a question of "
             "its own: divide by the band's activation.")
def _(values, on, band, n):
    total = max(values[band >= 0].sum(), 1e-12)
    return np.array([values[(band == number) & on].sum() / total for number in range(n)])


@share.wrong("of the concept's tokens", "This is a recall: of the concept's activation, the part in each band. Divide "
             "by the band, whatever its tokens carry.")
def _(values, on, band, n):
    total = max(values[on & (band >= 0)].sum(), 1e-12)
    return np.array([values[(band == number) & on].sum() / total for number in range(n)])


@share.wrong("outside", "This is what falls *outside*.")
def _(values, on, band, n):
    return np.array([values[(band == k) & ~on].sum() / max(values[band == k].sum(), 1e-12) for k in range(n)])


@share.cases
def _(rng):
    yield np.array([4.0, 1.0, 3.0, 0.0]), np.array([True, False, False, True]), np.array([0, 1, 0, -1]), 2
    values = np.where(rng.random(40) < 0.6, rng.exponential(size=40), 0.0)
    order = np.argsort(-values)
    band = np.full(40, -1)
    for number, part in enumerate(np.array_split(order[values[order] > 0], 4)):
        band[part] = number
    on = rng.random(40) < 0.5
    yield values, on, band, 4
    yield values, on, np.where(band == 2, -1, band), 5
