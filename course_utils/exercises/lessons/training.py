"""Notebook 04, the SAE itself: what it is given, and the forward pass."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise

prepared = Exercise("04.1", "scale and start", stars=1, minutes=8, lines=2, hints=(
    "A row's length is `x.norm(dim=1)`. By what must all be multiplied so that the lengths' mean is √d, with d the "
    "number of columns? And where does the mean vector lie then?",
    "`scale = x.shape[1] ** 0.5 / x.norm(dim=1).mean()`; the mean of `scale * x` is `scale * x.mean(0)`."))


@prepared.reference
def scale_and_start(x):
    """Return the scale that brings the rows of x [n d] to a mean length of sqrt(d), and the mean of the scaled rows."""
    scale = x.shape[1] ** 0.5 / x.norm(dim=1).mean()
    return scale, scale * x.mean(0)


@prepared.right
def _(x):
    n, d = x.shape
    scale = n * d**0.5 / sum(float((row * row).sum()) ** 0.5 for row in x)
    return scale, (x * scale).sum(0) / n


@prepared.right
def _(x):
    lengths = torch.einsum("nd,nd->n", x, x).sqrt()
    ones = torch.ones(len(x)) / len(x)
    scale = torch.tensor(float(x.shape[1])).sqrt() / (ones @ lengths)
    return scale, ones @ (x * scale)


@prepared.wrong("length 1", "The rows come out with length 1. Penalties and rates are tuned for √d, where a typical "
                            "*entry* is about 1, whatever d is.")
def _(x):
    scale = 1 / x.norm(dim=1).mean()
    return scale, scale * x.mean(0)


@prepared.wrong("the root of the rows", "You took the root of the number of rows. It is the number of *columns*, d.")
def _(x):
    scale = len(x) ** 0.5 / x.norm(dim=1).mean()
    return scale, scale * x.mean(0)


@prepared.wrong("the mean square", "You brought the mean *square* of the lengths to d. A few very long rows weigh more "
                                   "in it; asked is the mean length.")
def _(x):
    scale = (x.shape[1] / x.square().sum(1).mean()).sqrt()
    return scale, scale * x.mean(0)


@prepared.wrong("the length of the mean", "`x.mean(0).norm()` is the length of the mean vector. Rows that point in all "
                                          "directions have a short one however long they are: average the lengths.")
def _(x):
    scale = x.shape[1] ** 0.5 / x.mean(0).norm()
    return scale, scale * x.mean(0)


@prepared.wrong("the mean of raw rows", "The SAE sees *scaled* rows, so that it must start at the scaled rows' mean.")
def _(x):
    return x.shape[1] ** 0.5 / x.norm(dim=1).mean(), x.mean(0)


@prepared.wrong("each direction by itself", "You gave every direction a scale of its own. That would change angles, "
                                            "and directions are what an SAE looks for: one number for all.")
def _(x):
    scale = 1 / x.std(0)
    return scale, scale * x.mean(0)


@prepared.wrong("one mean for all directions", "`x.mean()` is one number. Each direction has a mean of its own.")
def _(x):
    scale = x.shape[1] ** 0.5 / x.norm(dim=1).mean()
    return scale, scale * x.mean()


@prepared.cases
def _(rng):
    yield torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    yield torch.from_numpy(rng.normal([3, 0, -1, 5, 0.5], [1, 2, 0.5, 1, 3], (9, 5))).float()


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
