"""Notebook 04, the two measures: the variance that is kept, and how often latents fire."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise

kept = Exercise("04.3", "explained variance", stars=2, minutes=8, lines=1, hints=(
    "One minus a ratio of two sums of squares: what is left over, and how far the activations lie from their mean.",
    "The mean is a vector, `x.mean(0)`: one number for each direction. Sum over everything above and below, then "
    "divide."))


@kept.reference
def explained_variance(x, x_hat):
    """Share of the variance of x [n d] around its mean that x_hat accounts for."""
    return 1 - (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()


@kept.right
def _(x, x_hat):
    left_over = torch.linalg.norm(x - x_hat) ** 2
    return 1 - left_over / (x.var(0, correction=0).sum() * len(x))


@kept.right
def _(x, x_hat):
    mean = sum(x) / len(x)
    total = sum(float(((row - mean) ** 2).sum()) for row in x)
    rest = sum(float(((row - hat) ** 2).sum()) for row, hat in zip(x, x_hat, strict=True))
    return 1 - rest / total


@kept.wrong(
    "not centred",
    "You divide by the squared length of x. A constant vector, the same for each token, is most of that length in a "
    "real model, and explaining it is no merit: subtract the mean first.")
def _(x, x_hat):
    return 1 - (x - x_hat).square().sum() / x.square().sum()


@kept.wrong(
    "one mean for all directions",
    "`x.mean()` is a single number. Each direction of the stream has a mean of its own: `x.mean(0)`.")
def _(x, x_hat):
    return 1 - (x - x_hat).square().sum() / (x - x.mean()).square().sum()


@kept.wrong(
    "a constant error forgiven",
    "The variance of the error forgets its mean: a reconstruction that is off by the same vector everywhere would "
    "pass for perfect. Square the error itself.")
def _(x, x_hat):
    return 1 - (x - x_hat).var(0).sum() / x.var(0).sum()


@kept.wrong(
    "a mean of ratios",
    "You form a ratio for each token and average those. Tokens near the mean have tiny denominators and rule the "
    "result; divide the sums.")
def _(x, x_hat):
    return (1 - (x - x_hat).square().sum(1) / (x - x.mean(0)).square().sum(1)).mean()


@kept.wrong(
    "every direction weighs alike",
    "You form a ratio for each direction and average those. A direction in which hardly anything happens then counts "
    "as much as the widest; divide the sums.")
def _(x, x_hat):
    return (1 - (x - x_hat).square().sum(0) / (x - x.mean(0)).square().sum(0)).mean()


@kept.wrong("what is left, not what is kept", "This is the share that the reconstruction misses. Take it from 1.")
def _(x, x_hat):
    return (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()


@kept.cases
def _(rng):
    yield torch.tensor([[1.0, 4.0], [3.0, 5.0]]), torch.tensor([[1.5, 4.0], [3.5, 5.5]])
    x = torch.from_numpy(rng.normal([3, 0, -1, 5], [1, 2, 0.5, 1], (9, 4))).float()
    yield x, x + torch.from_numpy(rng.normal(0.2, 0.5, (9, 4))).float()
    yield x, x * 0


fire = Exercise("04.4", "how often latents fire", stars=1, minutes=8, lines=3, hints=(
    "All three come from the same table of True and False, `f > 0`: by row, by column, and by columns without any "
    "True.",
    "`on = (f > 0).float()`; a token's latents are `on.sum(1)`, a latent's share of tokens is `on.mean(0)`."))


@fire.reference
def firing(f):
    """Return L0, the share of tokens on which each latent fires [d_sae], and the share of latents that never do."""
    on = (f > 0).float()
    density = on.mean(0)
    return on.sum(1).mean(), density, (density == 0).float().mean()


@fire.right
def _(f):
    on = f.sign()
    return on.sum() / len(f), on.sum(0) / len(f), 1 - f.any(0).float().mean()


@fire.right
def _(f):
    counts = torch.count_nonzero(f, dim=0)
    tokens, width = f.shape
    return counts.sum() / tokens, counts / tokens, sum(int(c) == 0 for c in counts) / width


@fire.wrong("L1 for L0", "You summed the latents' values: that is L1. L0 counts how many are active, however strong.")
def _(f):
    on = (f > 0).float()
    return f.sum(1).mean(), on.mean(0), (on.mean(0) == 0).float().mean()


@fire.wrong(
    "a share for L0",
    "This is the share of the dictionary that is active. L0 is a number of latents a token: sum over the latents, "
    "then average over the tokens.")
def _(f):
    on = (f > 0).float()
    return on.mean(), on.mean(0), (on.mean(0) == 0).float().mean()


@fire.wrong(
    "density of tokens",
    "You averaged over the latents and got a number for each token. Density belongs to a latent: average over the "
    "tokens (`dim=0`).")
def _(f):
    on = (f > 0).float()
    return on.sum(1).mean(), on.mean(1), (on.mean(1) == 0).float().mean()


@fire.wrong(
    "silent is not dead",
    "You counted zeros in the table: latents that are silent *on a token*, which is what sparse means. A dead latent "
    "is silent on all tokens.")
def _(f):
    on = (f > 0).float()
    return on.sum(1).mean(), on.mean(0), (f == 0).float().mean()


@fire.wrong(
    "a number of dead latents",
    "You counted the dead latents; divide by their number in all, so that dictionaries of different widths can be "
    "compared.")
def _(f):
    on = (f > 0).float()
    return on.sum(1).mean(), on.mean(0), (on.mean(0) == 0).float().sum()


@fire.cases
def _(rng):
    yield torch.tensor([[0.0, 2.0, 0.0], [0.0, 3.0, 0.5]])
    f = torch.from_numpy(rng.normal(0, 1, (6, 9))).float().relu()
    f[:, [2, 7]] = 0
    yield f
