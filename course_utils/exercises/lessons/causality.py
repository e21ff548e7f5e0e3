"""Notebook 09, what remains of an answer, and which other latents to take out for comparison."""

from __future__ import annotations

import math

import numpy as np
import torch

from course_utils.exercises.book import Exercise


def _advantage(logits, target, others):
    return logits.gather(1, target[:, None])[:, 0] - logits.gather(1, others).mean(1)


left = Exercise("09.1", "what remains", stars=2, minutes=10, lines=4, hints=(
    "Do the same with both: the target's logit in each row, minus the mean of that row's siblings. `logits.gather(1, "
    "ids)` picks from every row its own columns. Which do you do first, divide or add up the rows?",
    "In a function of `logits`: `logits.gather(1, target[:, None])[:, 0] - logits.gather(1, others).mean(1)`. The "
    "answer is its sum over the rows of `ablated`, divided by its sum over those of `clean`."))


@left.reference
def remaining(clean, ablated, target, others):
    """Return the share of the target's advantage that remains; logits [n d_vocab], ids target [n], others [n m]."""
    def advantage(logits):
        return logits.gather(1, target[:, None])[:, 0] - logits.gather(1, others).mean(1)

    return advantage(ablated).sum() / advantage(clean).sum()


@left.right
def _(clean, ablated, target, others):
    rows = torch.arange(len(target))
    was, now = (x[rows, target] - x[rows[:, None], others].mean(1) for x in (clean, ablated))
    return now.mean() / was.mean()


@left.right
def _(clean, ablated, target, others):
    def total(logits):  # log-probabilities do as well: what log_softmax takes away, all of a row's words share
        log_p = logits.log_softmax(1)
        return (log_p.gather(1, target[:, None]) - log_p.gather(1, others)).sum()

    return total(ablated) / total(clean)


@left.right
def _(clean, ablated, target, others):
    was = now = 0.0
    for before, after, animal, rest in zip(clean, ablated, target.tolist(), others.tolist(), strict=True):
        was += float(before[animal]) - sum(float(before[i]) for i in rest) / len(rest)
        now += float(after[animal]) - sum(float(after[i]) for i in rest) / len(rest)
    return now / was


@left.wrong("a mean of ratios", "You divide in each row, then average. A row in which the animal was hardly ahead is "
            "divided by next to nothing, and then outweighs all others. Add up the rows first, and divide once.")
def _(clean, ablated, target, others):
    return (_advantage(ablated, target, others) / _advantage(clean, target, others)).mean()


@left.wrong("no siblings", "You look at the target's logit alone. Logits have no zero of their own, and one that falls "
            "together with all other animals' says that *animals* are gone, not tigers. Subtract the siblings' mean.")
def _(clean, ablated, target, others):
    return ablated.gather(1, target[:, None]).sum() / clean.gather(1, target[:, None]).sum()


@left.wrong("probabilities", "You compare probabilities. Where a tiger is nearly certain, its logit can fall a good "
            "deal before the probability moves; and a word of any other kind that rises takes from all animals. Stay "
            "with the logits.")
def _(clean, ablated, target, others):
    was, now = (_advantage(x.softmax(1), target, others).sum() for x in (clean, ablated))
    return now / was


@left.wrong("what is lost", "This is the share that is gone. Asked for is the share that *remains*: 1 where the "
            "ablation did nothing.")
def _(clean, ablated, target, others):
    return 1 - _advantage(ablated, target, others).sum() / _advantage(clean, target, others).sum()


@left.wrong("the best sibling", "You subtract the best of the siblings. Which one that is may change with the "
            "ablation, and of many one is always near by luck; take their mean.")
def _(clean, ablated, target, others):
    was, now = (x.gather(1, target[:, None])[:, 0] - x.gather(1, others).amax(1) for x in (clean, ablated))
    return now.sum() / was.sum()


@left.wrong("the whole vocabulary", "You subtract the mean over the whole vocabulary. Any animal is ahead of commas "
            "and verbs there; whether the model still knows *which* animal, only the siblings tell.")
def _(clean, ablated, target, others):
    was, now = (x.gather(1, target[:, None])[:, 0] - x.mean(1) for x in (clean, ablated))
    return now.sum() / was.sum()


@left.wrong("upside down", "You divide clean by ablated, which says how many times larger the advantage was. The share "
            "that remains is ablated over clean.")
def _(clean, ablated, target, others):
    return _advantage(clean, target, others).sum() / _advantage(ablated, target, others).sum()


@left.cases
def _(rng):
    def draw(n: int, d_vocab: int, m: int, lost: float) -> tuple:
        ids = torch.from_numpy(np.stack([rng.permutation(d_vocab)[: m + 1] for _ in range(n)]))
        clean = torch.from_numpy(rng.normal(0, 1, (n, d_vocab))).float()
        clean[torch.arange(n), ids[:, 0]] += torch.from_numpy(rng.uniform(0.5, 5, n)).float()
        ablated = clean + torch.from_numpy(rng.normal(0.4, 0.5, (n, d_vocab))).float()
        ablated[torch.arange(n), ids[:, 0]] -= lost
        return clean, ablated, ids[:, 0], ids[:, 1:]

    yield (torch.tensor([[6.0, 2.0, 0.0, -4.0]]), torch.tensor([[4.0, 1.0, 0.0, -1.0]]), torch.tensor([0]),
           torch.tensor([[1, 2]]))
    yield draw(4, 9, 3, 1.5)
    yield draw(6, 11, 2, 3.0)


match = Exercise("09.5", "as often active", stars=2, minutes=12, lines=4, hints=(
    "Throw out the latent itself and the dead ones *before* you sort, and keep the ids of those left. Twice as often "
    "and half as often are equally near: the distance is that of the logarithms.",
    "`ids = torch.arange(len(density))`, then `ids = ids[(density > 0) & (ids != latent)]`. With `gap = (density[ids] "
    "/ density[latent]).log().abs()`, the first n of `gap.argsort()` say which of `ids` to return."))


@match.reference
def as_often(density, latent, n):
    """Return ids of the n live latents nearest to latent in log density [d_sae], nearest first and without itself."""
    ids = torch.arange(len(density))
    ids = ids[(density > 0) & (ids != latent)]
    gap = (density[ids] / density[latent]).log().abs()
    return ids[gap.argsort()[:n]]


@match.right
def _(density, latent, n):
    gap = (density.log() - density[latent].log()).square()
    gap[latent] = torch.inf
    gap[density == 0] = torch.inf
    alive = int(gap.isfinite().sum())
    return gap.topk(min(n, alive), largest=False).indices


@match.right
def _(density, latent, n):
    rates = density.tolist()
    near = {i: abs(math.log(rate) - math.log(rates[latent])) for i, rate in enumerate(rates) if rate and i != latent}
    return torch.tensor(sorted(near, key=near.get)[:n])


@match.right
def _(density, latent, n):
    times = torch.maximum(density / density[latent], density[latent] / density)  # how many times as often, or as rare
    order = times.argsort()
    return order[(order != latent) & times[order].isfinite()][:n]


@match.wrong("differences, not ratios", "You take the difference of the densities themselves. Next to a latent at 2 %, "
             "one at 0.01 % then looks nearer than one at 5 %, though it fires two hundred times as rarely. Compare "
             "logarithms.")
def _(density, latent, n):
    ids = torch.arange(len(density))
    ids = ids[(density > 0) & (ids != latent)]
    return ids[(density[ids] - density[latent]).abs().argsort()[:n]]


@match.wrong("itself among them", "The latent itself is in your answer: nothing is nearer to it. A null that holds the "
             "latent under test is no null; leave it out.")
def _(density, latent, n):
    ids = torch.arange(len(density))[density > 0]
    return ids[(density[ids] / density[latent]).log().abs().argsort()[:n]]


@match.wrong("dead ones at the end", "Where too few are left, you fill up with dead latents: the logarithm of 0 is "
             "−inf, which sorts last but still counts. Taking out what never fires changes nothing; return fewer.")
def _(density, latent, n):
    ids = torch.arange(len(density))
    ids = ids[ids != latent]
    return ids[(density[ids] / density[latent]).log().abs().argsort(stable=True)[:n]]


@match.wrong("a small number added", "You add a small number so that the logarithm exists. Dead latents then count as "
             "rare ones, and all rare ones look alike; leave out what never fires, and add nothing.")
def _(density, latent, n):
    ids = torch.arange(len(density))
    ids = ids[ids != latent]
    shifted = density + 1e-4
    return ids[(shifted[ids] / shifted[latent]).log().abs().argsort(stable=True)[:n]]


@match.wrong("the farthest", "You return those that differ the most, or the nearest last. The smallest distance comes "
             "first.")
def _(density, latent, n):
    ids = torch.arange(len(density))
    ids = ids[(density > 0) & (ids != latent)]
    return ids[(density[ids] / density[latent]).log().abs().argsort(descending=True)[:n]]


@match.wrong("the most active", "You return the latents that fire most. Taking those out does much damage anywhere, so "
             "that any latent looks harmless beside them; the comparison is fair only among equally frequent ones.")
def _(density, latent, n):
    ids = density.argsort(descending=True)
    return ids[(density[ids] > 0) & (ids != latent)][:n]


@match.wrong("places, not ids", "You return places in the shortened list. Once latents are thrown out, a place is no "
             "longer an id: look up which latent stands there.")
def _(density, latent, n):
    ids = torch.arange(len(density))
    ids = ids[(density > 0) & (ids != latent)]
    return (density[ids] / density[latent]).log().abs().argsort()[:n]


@match.wrong("signed distances", "You sort the differences with their sign, so that the rarest latents come first. "
             "Nearness has no sign: take the absolute value.")
def _(density, latent, n):
    ids = torch.arange(len(density))
    ids = ids[(density > 0) & (ids != latent)]
    return ids[(density[ids] / density[latent]).log().argsort()[:n]]


@match.cases
def _(rng):
    yield torch.tensor([0.25, 0.1, 0.0, 0.2, 0.03]), 1, 2
    yield torch.tensor([0.3, 0.0, 0.01, 0.02]), 2, 5
    density = torch.from_numpy(10 ** rng.uniform(-5, -0.5, 30)).float()
    density[3:27:4] = 0
    density[5] = 3e-5
    yield density, 5, 8
    yield density, 12, 6
