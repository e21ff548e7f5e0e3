"""Notebook 04, the SAE itself: who stays active, and the forward pass."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise

select = Exercise("04.1", "BatchTopK", stars=2, minutes=10, lines=3, hints=(
    "Lay the whole batch out in one row (`.flatten()`): the smallest of its `k * batch` largest values is the bar "
    "that an entry must reach. `torch.topk` finds them.",
    "Start with `values = pre.relu()`, so that nothing negative survives even where too few are positive; then `bar ="
    " values.flatten().topk(k * len(pre)).values.min()`, and keep `values` where they are at least `bar`."))


@select.reference
def batch_top_k(pre, k):
    """Keep the k * batch largest positive entries of pre [batch d_sae]; the others become 0."""
    values = pre.relu()
    bar = values.flatten().topk(k * len(pre)).values.min()
    return values * (values >= bar)


@select.right
def _(pre, k):
    flat = pre.relu().flatten()
    chosen = flat.topk(k * len(pre)).indices
    kept = torch.zeros_like(flat)
    kept[chosen] = flat[chosen]
    return kept.reshape(pre.shape)


@select.right
def _(pre, k):
    order = pre.flatten().argsort(descending=True)
    keep = torch.zeros(pre.numel(), dtype=torch.bool)
    keep[order[: k * pre.shape[0]]] = True
    return torch.where(keep.reshape(pre.shape) & (pre > 0), pre, torch.zeros_like(pre))


@select.wrong(
    "TopK instead of BatchTopK",
    "This keeps the k largest of every *row*: plain TopK. BatchTopK lets a hard token take what an easy one leaves: "
    "choose among all entries of the batch at once.")
def _(pre, k):
    values = pre.relu()
    return values * (values >= values.topk(k, dim=1).values[:, -1:])


@select.wrong(
    "k for the whole batch",
    "You keep k entries in all. k is meant per row: a batch may keep `k * batch` of them.")
def _(pre, k):
    values = pre.relu()
    return values * (values >= values.flatten().topk(k).values.min())


@select.wrong(
    "negative values kept",
    "Where fewer than `k * batch` entries are positive, the largest ones include negative values. A latent is never "
    "negative: cut at zero first.")
def _(pre, k):
    return pre * (pre >= pre.flatten().topk(k * len(pre)).values.min())


@select.wrong("which, not how much", "This says which entries stay, as ones. The decoder needs their values.")
def _(pre, k):
    values = pre.relu()
    return ((values >= values.flatten().topk(k * len(pre)).values.min()) & (values > 0)).to(pre.dtype)


@select.wrong(
    "one too few",
    "The last of the `k * batch` largest is dropped: an entry *at* the bar belongs to them (`>=`).")
def _(pre, k):
    values = pre.relu()
    return values * (values > values.flatten().topk(k * len(pre)).values.min())


@select.wrong(
    "a bar for every column",
    "You choose along the batch for each latent by itself, so that every latent fires equally often. Choose among all"
    " entries of the batch at once.")
def _(pre, k):
    values = pre.relu()
    return values * (values >= values.topk(min(k, len(pre)), dim=0).values[-1:])


@select.cases
def _(rng):
    yield torch.tensor([[3.0, 1.0, 2.0], [0.5, -1.0, 0.2]]), 1
    yield torch.tensor([[-1.0, 2.0, -3.0], [-0.5, -2.0, 1.0]]), 2
    yield torch.from_numpy(rng.normal(0, 1, (5, 12))).float(), 3


forward = Exercise("04.2", "the SAE by hand", stars=2, minutes=10, lines=3, hints=(
    "Three steps: the pre-activations `pre` are a matrix product and a bias; a latent is `pre` where it is above its "
    "threshold and 0 elsewhere; the reconstruction is a matrix product and a bias.",
    "`pre = (x - b_dec) @ W_enc + b_enc`, and `f = pre * (pre > threshold)`: the threshold decides, and takes nothing"
    " off."))


@forward.reference
def sae_forward(x, W_enc, b_enc, threshold, W_dec, b_dec):
    """Return the latents f [n d_sae] and the reconstruction [n d_model] of activations x [n d_model]."""
    pre = (x - b_dec) @ W_enc + b_enc
    f = pre * (pre > threshold)
    return f, f @ W_dec + b_dec


@forward.right
def _(x, W_enc, b_enc, threshold, W_dec, b_dec):
    pre = torch.einsum("nd,ds->ns", x, W_enc) + (b_enc - b_dec @ W_enc)
    f = torch.where(pre > threshold, pre, torch.zeros_like(pre))
    return f, b_dec + torch.einsum("ns,sd->nd", f, W_dec)


@forward.right
def _(x, W_enc, b_enc, threshold, W_dec, b_dec):
    f = torch.stack([W_enc.T @ (row - b_dec) + b_enc for row in x])
    f = f.masked_fill(f <= threshold, 0.0)
    x_hat = b_dec.expand_as(x).clone()
    for i in range(len(W_dec)):
        x_hat += f[:, i : i + 1] * W_dec[i]
    return f, x_hat


@forward.wrong(
    "the threshold is taken off",
    "`relu(pre - threshold)` makes every latent smaller by its threshold: shrinkage, the very fault that thresholds "
    "were brought in to cure. Above it, a latent keeps its full value.")
def _(x, W_enc, b_enc, threshold, W_dec, b_dec):
    f = ((x - b_dec) @ W_enc + b_enc - threshold).relu()
    return f, f @ W_dec + b_dec


@forward.wrong(
    "a plain ReLU",
    "You keep everything above 0. BatchTopK left a threshold behind; without it far more latents fire than in "
    "training.")
def _(x, W_enc, b_enc, threshold, W_dec, b_dec):
    f = ((x - b_dec) @ W_enc + b_enc).relu()
    return f, f @ W_dec + b_dec


@forward.wrong(
    "b_dec forgotten on the way in",
    "The encoder sees `x - b_dec`: the decoder's bias is taken off before, and put back after.")
def _(x, W_enc, b_enc, threshold, W_dec, b_dec):
    pre = x @ W_enc + b_enc
    f = pre * (pre > threshold)
    return f, f @ W_dec + b_dec


@forward.wrong(
    "b_dec forgotten on the way out",
    "The reconstruction lacks the decoder's bias: with no latent active it must be `b_dec`, not zero.")
def _(x, W_enc, b_enc, threshold, W_dec, b_dec):
    pre = (x - b_dec) @ W_enc + b_enc
    f = pre * (pre > threshold)
    return f, f @ W_dec


@forward.wrong(
    "the decoder is not the encoder turned over",
    "You decode with `W_enc.T`. The two matrices begin as each other's transpose and part ways in training; decode "
    "with `W_dec`.")
def _(x, W_enc, b_enc, threshold, W_dec, b_dec):
    pre = (x - b_dec) @ W_enc + b_enc
    f = pre * (pre > threshold)
    return f, f @ W_enc.T + b_dec


@forward.cases
def _(rng):
    for n, d, width in ((1, 2, 3), (6, 4, 9)):
        shapes = (n, d), (d, width), (width,), (width,), (width, d), (d,)
        x, W_enc, b_enc, threshold, W_dec, b_dec = (torch.from_numpy(rng.normal(0, 1, s)).float() for s in shapes)
        yield x, W_enc, b_enc, threshold.abs() / 2, W_dec, b_dec
    # The first pre-activation is at its threshold, where a latent is off.
    x, thresholds = torch.tensor([[1.0, 3.0]]), torch.tensor([1.0, 2.0])
    yield x, torch.eye(2), torch.zeros(2), thresholds, torch.eye(2), torch.zeros(2)
