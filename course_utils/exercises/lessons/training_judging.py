"""Notebook 04, judging: recovered loss and its cost, two SAEs pair by pair, and a law of width."""

from __future__ import annotations

import numpy as np

from course_utils.exercises.book import Exercise

loss = Exercise("04.5", "recovered, and what it costs", stars=2, minutes=10, lines=3, hints=(
    "Recovered is a way gone: from the ablated loss down to the spliced one, as a share of the way down to the clean "
    "one. Sum over the documents first.",
    "`(ablated - spliced).sum() / (ablated - clean).sum()`; the cost is `(spliced - clean).sum()` over the tokens' "
    "sum."))


@loss.reference
def recovered_and_cost(clean, spliced, ablated, n_tokens):
    """Return the share of the loss recovered, and spliced minus clean in nats a token; all inputs [documents]."""
    recovered = (ablated - spliced).sum() / (ablated - clean).sum()
    return recovered, (spliced - clean).sum() / n_tokens.sum()


@loss.right
def _(clean, spliced, ablated, n_tokens):
    a, b, c = (np.sum(losses) / np.sum(n_tokens) for losses in (clean, spliced, ablated))
    return 1 - (b - a) / (c - a), b - a


@loss.right
def _(clean, spliced, ablated, n_tokens):
    gone = full = extra = tokens = 0.0
    for a, b, c, n in zip(clean, spliced, ablated, n_tokens, strict=True):
        gone, full, extra, tokens = gone + c - b, full + c - a, extra + b - a, tokens + n
    return gone / full, extra / tokens


@loss.wrong(
    "the share that is lost",
    "This is the share of the way that the splice *loses*; recovered is what is left of 1.")
def _(clean, spliced, ablated, n_tokens):
    return (spliced - clean).sum() / (ablated - clean).sum(), (spliced - clean).sum() / n_tokens.sum()


@loss.wrong(
    "a ratio of losses",
    "Clean over spliced is near 1 for whatever hardly changes the loss, and knows nothing of the ablation: it cannot "
    "say how much there was to lose.")
def _(clean, spliced, ablated, n_tokens):
    return clean.sum() / spliced.sum(), (spliced - clean).sum() / n_tokens.sum()


@loss.wrong(
    "a mean of ratios",
    "You average a ratio over documents. A document that the ablation hardly hurts has a tiny denominator and rules "
    "the mean; divide the sums.")
def _(clean, spliced, ablated, n_tokens):
    ratios = (ablated - spliced) / (ablated - clean)
    return ratios.mean(), (spliced - clean).sum() / n_tokens.sum()


@loss.wrong("nats a document", "The cost is asked for *a token*: divide by all tokens, not by the number of documents.")
def _(clean, spliced, ablated, n_tokens):
    return (ablated - spliced).sum() / (ablated - clean).sum(), (spliced - clean).mean()


@loss.wrong(
    "the mean of documents' costs",
    "You average the cost a token over documents, so that a short document weighs as much as a long one. Divide the "
    "sum of losses by the sum of tokens.")
def _(clean, spliced, ablated, n_tokens):
    return (ablated - spliced).sum() / (ablated - clean).sum(), ((spliced - clean) / n_tokens).mean()


@loss.cases
def _(rng):
    yield np.array([2.0, 6.0]), np.array([3.0, 7.0]), np.array([5.0, 20.0]), np.array([1, 4])
    n = rng.integers(3, 40, 8)
    clean = n * rng.uniform(1, 3, 8)
    spliced = clean + n * rng.uniform(0.05, 0.5, 8)
    yield clean, spliced, spliced + n * rng.uniform(-0.02, 6, 8), n


paired = Exercise("04.6", "pair by pair", stars=2, minutes=10, lines=3, hints=(
    "Subtract within each document first; then treat the difference as you would treat any sum over documents: divide "
    "it by the tokens.",
    "One matrix product gives all resamples: `gaps = draws @ (a - b) / (draws @ n_tokens)`. The ends are "
    "`np.quantile(gaps, 0.025)` and the like."))


@paired.reference
def paired_gap(a, b, n_tokens, draws):
    """Return a minus b in nats a token, and the ends of its 95 % interval; draws [n_boot docs], all else [docs]."""
    gaps = draws @ (a - b) / (draws @ n_tokens)
    return (a - b).sum() / n_tokens.sum(), np.quantile(gaps, 0.025), np.quantile(gaps, 0.975)


@paired.right
def _(a, b, n_tokens, draws):
    tokens = draws @ n_tokens  # the same draws for both, so that they stay paired
    low, high = np.quantile(draws @ a / tokens - draws @ b / tokens, [0.025, 0.975])
    return (a.sum() - b.sum()) / n_tokens.sum(), low, high


@paired.right
def _(a, b, n_tokens, draws):
    found = []
    for counts in draws:
        rows = np.repeat(np.arange(len(a)), counts)
        found.append((a[rows].sum() - b[rows].sum()) / n_tokens[rows].sum())
    return (a - b).sum() / n_tokens.sum(), *np.percentile(found, [2.5, 97.5])


@paired.wrong("two intervals, one subtracted", "You made an interval for each and subtracted their far ends. That asks "
              "whether one SAE on easy documents could look like the other on hard ones; they read the same ones.")
def _(a, b, n_tokens, draws):
    ends = [np.quantile(draws @ s / (draws @ n_tokens), [0.025, 0.975]) for s in (a, b)]
    return (a - b).sum() / n_tokens.sum(), ends[0][0] - ends[1][1], ends[0][1] - ends[1][0]


@paired.wrong("nats a document", "Divide by tokens, in each resample by the tokens *it* drew, not by documents.")
def _(a, b, n_tokens, draws):
    gaps = draws @ (a - b) / draws.sum(1)
    return (a - b).mean(), np.quantile(gaps, 0.025), np.quantile(gaps, 0.975)


@paired.wrong("documents, not resamples", "These are quantiles of single documents: where a document may lie, not how "
                                          "sure we are of their mean. Take the quantiles of the resampled gaps.")
def _(a, b, n_tokens, draws):
    gaps = (a - b) / n_tokens
    return (a - b).sum() / n_tokens.sum(), np.quantile(gaps, 0.025), np.quantile(gaps, 0.975)


@paired.wrong("a mean over documents", "You average the documents' gaps a token, so that a short document weighs as "
                                       "much as a long one. Sum the losses, sum the tokens, then divide.")
def _(a, b, n_tokens, draws):
    gap = (a - b) / n_tokens
    gaps = draws @ gap / draws.sum(1)
    return gap.mean(), np.quantile(gaps, 0.025), np.quantile(gaps, 0.975)


@paired.wrong("the tokens of all documents", "A resample draws other documents and so other numbers of tokens: divide "
                                             "by `draws @ n_tokens`, not always by the same sum.")
def _(a, b, n_tokens, draws):
    gaps = draws @ (a - b) / n_tokens.sum()
    return (a - b).sum() / n_tokens.sum(), np.quantile(gaps, 0.025), np.quantile(gaps, 0.975)


@paired.wrong("90 %", "Between the 5 % and the 95 % quantile lie 90 % of the resamples: cut 2.5 % off each end.")
def _(a, b, n_tokens, draws):
    gaps = draws @ (a - b) / (draws @ n_tokens)
    return (a - b).sum() / n_tokens.sum(), np.quantile(gaps, 0.05), np.quantile(gaps, 0.95)


@paired.wrong("the other way round", "This is b minus a.")
def _(a, b, n_tokens, draws):
    gaps = draws @ (b - a) / (draws @ n_tokens)
    return (b - a).sum() / n_tokens.sum(), np.quantile(gaps, 0.025), np.quantile(gaps, 0.975)


@paired.cases
def _(rng):
    yield np.array([3.0, 9.0]), np.array([2.0, 5.0]), np.array([1, 4]), np.array([[2, 0], [1, 1], [0, 2], [1, 1]])
    n_tokens = rng.integers(3, 60, 12)
    b = n_tokens * rng.uniform(0.2, 3, 12)
    a = b + n_tokens * rng.normal(0.05, 0.1, 12)
    yield a, b, n_tokens, rng.multinomial(12, [1 / 12] * 12, size=200)


law = Exercise("04.7", "a law of width", stars=2, minutes=10, lines=2, hints=(
    "A power law, left = c · width ** e, is a straight line between logarithms: log left = log c + e · log width.",
    "With `x = np.log(widths) - np.log(widths).mean()`, a line's least-squares slope is `y @ x / (x @ x)`, for all "
    "rows of `y = np.log(left)` at once."))


@law.reference
def exponents(widths, left):
    """Return the slope of log(left) over log(widths) for each row; widths [w], left [n w]."""
    x = np.log(widths) - np.log(widths).mean()
    return np.log(left) @ x / (x @ x)


@law.right
def _(widths, left):
    return np.polyfit(np.log2(widths), np.log2(left).T, 1)[0]


@law.right
def _(widths, left):
    x, found = np.log10(widths), []
    for row in np.log10(left):
        found.append(np.cov(x, row)[0, 1] / np.var(x, ddof=1))
    return np.array(found)


@law.wrong("no logarithm of the width", "A power law is straight only if *both* axes are logarithmic; you took the "
                                        "widths as they are.")
def _(widths, left):
    return np.polyfit(widths, np.log(left).T, 1)[0]


@law.wrong("no logarithm of what is left", "A power law is straight only if *both* axes are logarithmic; you took what "
                                           "is left as it is.")
def _(widths, left):
    return np.polyfit(np.log(widths), left.T, 1)[0]


@law.wrong("kept, not left", "This is the slope of what is *kept*, 1 − left. That flattens out at 1 and follows no "
                             "power law; what is left can.")
def _(widths, left):
    return np.polyfit(np.log(widths), np.log(1 - left).T, 1)[0]


@law.wrong("from end to end", "You joined the first point with the last. The points between them count as well: fit a "
                              "line to all.")
def _(widths, left):
    return np.log(left[:, -1] / left[:, 0]) / np.log(widths[-1] / widths[0])


@law.wrong("through the origin", "Your line is forced through log width = 0, a dictionary of one latent. Centre the "
                                 "logarithms of the widths first.")
def _(widths, left):
    x = np.log(widths)
    return np.log(left) @ x / (x @ x)


@law.wrong("one slope for all", "You fitted one line to the mean of all rows. Each row is a resample with a slope of "
                                "its own; how they scatter is the interval.")
def _(widths, left):
    return np.polyfit(np.log(widths), np.log(left).mean(0), 1)[0]


@law.cases
def _(rng):
    yield np.array([2, 8, 16]), np.array([[0.5, 0.25, 0.2], [0.4, 0.3, 0.1]])
    widths = np.array([512, 1024, 2048, 4096])
    yield widths, 0.9 * widths**-0.25 * rng.uniform(0.9, 1.1, (5, 4))
