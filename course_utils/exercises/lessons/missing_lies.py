"""Notebook 07, measures that lie: the same dictionary at any L0."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise

strongest = Exercise("07.7", "at any L0", stars=1, minutes=8, lines=3, hints=(
    "`f.topk(n, dim=1)` gives each token's n largest values and where they stand. Put them into a table of zeros.",
    "`kept = torch.zeros_like(f)`, then `kept.scatter_(1, top.indices, top.values)` with `top = f.topk(n, dim=1)`."))


@strongest.reference
def keep_strongest(f, n):
    """Return the latents f [tokens d_sae] with each token's n largest values kept, and all others zero."""
    top = f.topk(n)
    return torch.zeros_like(f).scatter(1, top.indices, top.values)


@strongest.right
def _(f, n):
    place = f.argsort(dim=1, descending=True).argsort(dim=1)
    return f * (place < n)


@strongest.right
def _(f, n):
    kept = torch.zeros_like(f)
    for row, out in zip(f, kept, strict=True):
        best = row.sort(descending=True).indices[:n]
        out[best] = row[best]
    return kept


@strongest.wrong(
    "over all tokens",
    "You keep as many values as n a token, but the largest of *all* tokens together: that is BatchTopK. Here each "
     "token keeps its own n.")
def _(f, n):
    bar = f.flatten().topk(n * len(f)).values[-1]
    return f * (f >= bar)


@strongest.wrong(
    "per latent",
    "You keep each *latent's* n largest values. L0 counts latents a token: choose along the other axis.")
def _(f, n):
    top = f.topk(min(n, len(f)), dim=0)
    return torch.zeros_like(f).scatter(0, top.indices, top.values)


@strongest.wrong(
    "ones in place of values",
    "You return which latents are kept. Their values are needed, to decode them.")
def _(f, n):
    return torch.zeros_like(f).scatter(1, f.topk(n, dim=1).indices, 1.0)


@strongest.wrong("the weakest", "You keep the n smallest values, most of which are zero anyway.")
def _(f, n):
    top = f.topk(n, dim=1, largest=False)
    return torch.zeros_like(f).scatter(1, top.indices, top.values)


@strongest.wrong(
    "one too many",
    "Your bar is the next value after the n-th, and it passes its own bar: n + 1 are kept.")
def _(f, n):
    bar = f.topk(min(n + 1, f.shape[1]), dim=1).values[:, -1:]
    return f * (f >= bar)


@strongest.cases
def _(rng):
    yield torch.tensor([[3.0, 0.5, 1.0], [0.2, 0.3, 0.0]]), 1
    f = torch.from_numpy(rng.permutation(56).reshape(7, 8) + rng.uniform(0.1, 0.9, (7, 8)))
    yield f, 3
    yield f * 0.01 * torch.arange(1, 8)[:, None], 2
