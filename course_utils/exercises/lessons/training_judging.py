"""Notebook 04, judging: recovered loss and its cost, choosing on one split, and a null matched by density."""

from __future__ import annotations

import numpy as np
import torch

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


chosen = Exercise("04.6", "choose here, score there", stars=2, minutes=8, lines=3, hints=(
    "F1 is the harmonic mean, `2 * p * r / (p + r)`. Which latent has the largest on the first split? What is *its* "
    "F1 on the second?",
    "A latent that never fires has precision and recall 0, and 0 / 0 is NaN, which `argmax` takes for the largest of "
    "all: divide by `(p + r).clamp(min=1e-9)`."))


@chosen.reference
def choose_and_score(precision, recall, held_precision, held_recall):
    """Return the latent with the best F1 on the first split, and its F1 on the held-out one; all inputs [d_sae]."""
    f1, held_f1 = (2 * p * r / (p + r).clamp(min=1e-9)
                   for p, r in ((precision, recall), (held_precision, held_recall)))
    latent = int(f1.argmax())
    return latent, held_f1[latent]


@chosen.right
def _(precision, recall, held_precision, held_recall):
    latent = int(torch.nan_to_num(2 / (1 / precision + 1 / recall)).argmax())
    p, r = float(held_precision[latent]), float(held_recall[latent])
    return latent, torch.tensor(2 * p * r / (p + r) if p + r else 0.0)


@chosen.right
def _(precision, recall, held_precision, held_recall):
    pairs = zip(precision.tolist(), recall.tolist(), strict=True)
    scores = [0.0 if p + r == 0 else 2 * p * r / (p + r) for p, r in pairs]
    latent = max(range(len(scores)), key=scores.__getitem__)
    both = torch.stack([held_precision[latent], held_recall[latent]])
    return latent, 2 * both.prod() / both.sum().clamp(min=1e-9)


def _f1(p, r):
    return 2 * p * r / (p + r).clamp(min=1e-9)


@chosen.wrong(
    "chosen on the test",
    "You chose the latent on the held-out split and scored it there. The best of a thousand is lucky as well as good,"
    " and you report the luck: choose on the first split.")
def _(precision, recall, held_precision, held_recall):
    f1 = _f1(held_precision, held_recall)
    return int(f1.argmax()), f1.max()


@chosen.wrong(
    "scored where it was chosen",
    "The F1 is from the split on which the latent was chosen. Look up the *same* latent on the held-out one.")
def _(precision, recall, held_precision, held_recall):
    f1 = _f1(precision, recall)
    return int(f1.argmax()), f1.max()


@chosen.wrong(
    "another latent's score",
    "You choose a latent on one split and report the best score of *any* latent on the other: two different ones.")
def _(precision, recall, held_precision, held_recall):
    return int(_f1(precision, recall).argmax()), _f1(held_precision, held_recall).max()


@chosen.wrong(
    "an ordinary mean",
    "The mean of precision and recall is high for a latent that fires everywhere (recall 1). F1 is the *harmonic* "
    "mean, which is near the smaller of the two.")
def _(precision, recall, held_precision, held_recall):
    latent = int(((precision + recall) / 2).argmax())
    return latent, (held_precision[latent] + held_recall[latent]) / 2


@chosen.wrong(
    "NaN wins",
    "A latent that never fires has precision and recall 0, so that F1 is 0 / 0, NaN, and `argmax` takes NaN for the "
    "largest. Guard the division.")
def _(precision, recall, held_precision, held_recall):
    latent = int((2 * precision * recall / (precision + recall)).argmax())
    return latent, _f1(held_precision, held_recall)[latent]


@chosen.cases
def _(rng):
    yield (torch.tensor([0.9, 0.8, 0.1]), torch.tensor([0.5, 0.7, 1.0]),
           torch.tensor([0.9, 0.6, 0.2]), torch.tensor([0.6, 0.5, 1.0]))
    yield (torch.tensor([0.0, 0.3, 0.2, 0.1]), torch.tensor([0.0, 0.4, 0.5, 1.0]),
           torch.tensor([0.0, 0.2, 0.6, 0.1]), torch.tensor([0.0, 0.3, 0.4, 1.0]))
    yield tuple(torch.from_numpy(rng.random(12)).float() for _ in range(4))


alike = Exercise("04.7", "a fair null", stars=2, minutes=8, lines=3, hints=(
    "Firing twice as often is as far as firing half as often: compare *ratios*, that is, differences of logarithms.",
    "`gap = (density / density[latent]).log().abs()` is infinite for the dead; make it infinite for the latent itself"
    " too, and take the first `n` of `gap.argsort()`."))


@alike.reference
def density_matched(density, latent, n):
    """Return the n other latents whose density is nearest to this one's, as a ratio: a list of indices."""
    gap = (density / density[latent]).log().abs()
    gap[latent] = torch.inf
    return gap.argsort()[:n].tolist()


@alike.right
def _(density, latent, n):
    wanted = density[latent].log()
    others = [i for i in range(len(density)) if i != latent and density[i] > 0]
    return sorted(others, key=lambda i: abs(float(density[i].log() - wanted)))[:n]


@alike.right
def _(density, latent, n):
    ratio = torch.maximum(density / density[latent], density[latent] / density)
    return [i for i in ratio.argsort()[: n + 1].tolist() if i != latent][:n]


@alike.wrong(
    "the latent itself",
    "Your null holds the latent that is on trial: its gap is 0, so that it always comes first. Leave it out.")
def _(density, latent, n):
    return (density / density[latent]).log().abs().argsort()[:n].tolist()


@alike.wrong(
    "differences, not ratios",
    "By the difference, a dead latent is nearer to one that fires on a token in a thousand than one that fires three "
    "times as often. Densities span powers of ten: compare logarithms.")
def _(density, latent, n):
    gap = (density - density[latent]).abs()
    gap[latent] = torch.inf
    return gap.argsort()[:n].tolist()


@alike.wrong(
    "the rarest",
    "Without `.abs()` the smallest gaps are the most negative ones: you took the rarest latents, the dead first, and "
    "turning those off does nothing at all.")
def _(density, latent, n):
    gap = (density / density[latent]).log()
    gap[latent] = torch.inf
    return gap.argsort()[:n].tolist()


@alike.wrong(
    "the most frequent",
    "You took the latents that fire most. Turning those off hurts any text, so that your latent would look harmless "
    "beside them; take those that fire about as often.")
def _(density, latent, n):
    order = [i for i in density.argsort(descending=True).tolist() if i != latent]
    return order[:n]


@alike.wrong("the farthest", "`argsort` goes from small to large: the *first* n are the nearest.")
def _(density, latent, n):
    gap = (density / density[latent]).log().abs()
    gap[latent] = -torch.inf
    return gap.argsort(descending=True)[:n].tolist()


@alike.cases
def _(rng):
    yield torch.tensor([0.01, 0.0, 0.03, 0.002, 0.3]), 0, 2
    density = torch.from_numpy(10 ** rng.uniform(-4, -0.5, 30)).float()
    density[[3, 11]] = 0
    yield density, 5, 4
    yield density, 20, 9
