"""Notebook 02, the toy model: sparse data, the forward pass, the loss."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise, draw

sparse = Exercise("02.1", "sparse features", stars=1, minutes=8, lines=1, hints=(
    "`u` tosses the coins, `v` holds the values: keep `v` where the coin falls below the density. A comparison "
    "gives True and False, which multiply like 1 and 0.",
    "`density` has one entry an instance, the coins have three axes: `density[:, None, None]` stretches over "
    "samples and features."))


@sparse.reference
def sparse_batch(u, v, density):
    """Features x [instances n f]: v where u < the density [instances] of its instance, and 0 elsewhere."""
    return v * (u < density[:, None, None])


@sparse.right
def _(u, v, density):
    return torch.where(u < density.view(-1, 1, 1), v, torch.zeros_like(v))


@sparse.right
def _(u, v, density):
    x = v.clone()
    for i, p in enumerate(density):
        x[i][u[i] >= p] = 0
    return x


@sparse.wrong("sparsity for density",
              "A feature is on with probability `density`, which is 1 − sparsity. Yours is on with probability 1 − "
              "density.")
def _(u, v, density):
    return v * (u >= density[:, None, None])


@sparse.wrong("one coin for a whole sample",
              "All features of a sample are on or off together. Superposition lives on their being on at "
              "*different* times: toss a coin for each.")
def _(u, v, density):
    return v * (u[:, :, :1] < density[:, None, None])


@sparse.wrong("the coin as the value",
              "You return the coin itself. Where it fell below the density it is below the density, so that sparse "
              "features would be faint too. The value is `v`, whatever the coin.")
def _(u, v, density):
    return u * (u < density[:, None, None])


@sparse.wrong("on or off, without a value", "This says whether a feature is on. It needs a strength too: `v`.")
def _(u, v, density):
    return (u < density[:, None, None]).to(v.dtype)


@sparse.wrong("density along the features",
              "Broadcasting starts at the *last* axis, so `density` meets the features there. It belongs to the "
              "first axis: `density[:, None, None]`.")
def _(u, v, density):
    return v * (u < density)


@sparse.cases
def _(rng):
    yield torch.tensor([[[0.2, 0.6, 0.9]]]), torch.tensor([[[0.5, 0.7, 0.4]]]), torch.tensor([0.6])
    for shape in ((3, 4, 3), (2, 5, 6)):
        u, v = (torch.from_numpy(rng.uniform(0.05, 1, shape)).float() for _ in range(2))
        yield u, v, torch.from_numpy(rng.uniform(0.2, 0.8, shape[0])).float()


forward = Exercise("02.2", "the reconstruction", stars=1, minutes=8, lines=2, hints=(
    "Two products and a bias, then the ReLU. `@` multiplies the last two axes and runs over the first, so nothing "
    "has to loop over the instances; `W.mT` turns each instance's matrix over.",
    "`h = x @ W.mT` is `[instances n m]`; then `torch.relu(h @ W + b[:, None])`, where `None` stretches the bias "
    "over the samples."))


@forward.reference
def rebuild(W, b, x):
    """Rebuild x [instances n f] as ReLU(Wᵀ W x + b), with W [instances m f] and b [instances f]."""
    h = x @ W.mT
    return torch.relu(h @ W + b[:, None])


@forward.right
def _(W, b, x):
    return torch.einsum("imf,img,ing->inf", W, W, x).add(b.unsqueeze(1)).clamp(min=0)


@forward.right
def _(W, b, x):
    return torch.stack([torch.relu((w.T @ (w @ rows.T)).T + bias) for w, bias, rows in zip(W, b, x, strict=True)])


@forward.wrong("ReLU before the bias",
               "The bias comes in before the ReLU: a negative bias silences the small positive values that other "
               "features leave behind. Behind the ReLU it only shifts them.")
def _(W, b, x):
    return torch.relu(x @ W.mT @ W) + b[:, None]


@forward.wrong("no ReLU",
               "Without the ReLU this is a linear model: principal components. The ReLU is what cuts negative "
               "interference off, and there is no superposition without it.")
def _(W, b, x):
    return x @ W.mT @ W + b[:, None]


@forward.wrong("a ReLU in the hidden layer",
               "The hidden layer is linear here, so that features may point in negative directions too. The only "
               "ReLU is at the output.")
def _(W, b, x):
    return torch.relu(torch.relu(x @ W.mT) @ W + b[:, None])


@forward.wrong("b meets the wrong axis",
               "`b` is `[instances f]`, and `+ b` lines its instances up with the *samples*. Give it an axis for "
               "them: `b[:, None]`.")
def _(W, b, x):
    return torch.relu(x @ W.mT @ W + b)


@forward.wrong("no bias",
               "The bias is missing. It makes up for features that are left out (by their mean), and raises the bar "
               "against interference.")
def _(W, b, x):
    return torch.relu(x @ W.mT @ W)


@forward.cases
def _(rng):
    yield draw(rng, 1, 1, 2), draw(rng, 1, 2), draw(rng, 1, 1, 2)
    yield draw(rng, 3, 2, 4), draw(rng, 3, 4), draw(rng, 3, 3, 4)
    yield draw(rng, 2, 3, 5), draw(rng, 2, 5), draw(rng, 2, 7, 5)


loss = Exercise("02.3", "the weighted loss", stars=1, minutes=6, lines=1, hints=(
    "Square first, then weigh, then add up the features and average the samples. One number an instance is left.",
    "The axes are `[instances n f]`: features are axis 2 and samples axis 1, so `.sum(2).mean(1)`."))


@loss.reference
def weighted_loss(x, x_hat, importance):
    """Loss [instances]: squared error of x_hat [instances n f] times importance [f], summed over f, averaged over n."""
    return (importance * (x_hat - x) ** 2).sum(2).mean(1)


@loss.right
def _(x, x_hat, importance):
    return torch.einsum("inf,f->i", (x - x_hat).square(), importance) / x.shape[1]


@loss.right
def _(x, x_hat, importance):
    return ((x_hat - x).pow(2).mean(1) @ importance)


@loss.wrong("averaged over the features",
            "Features are summed, not averaged: each brings its own error, weighed by its importance.")
def _(x, x_hat, importance):
    return (importance * (x_hat - x) ** 2).mean((1, 2))


@loss.wrong("summed over the samples", "Samples are averaged, or the loss (and the step) would grow with the batch.")
def _(x, x_hat, importance):
    return (importance * (x_hat - x) ** 2).sum((1, 2))


@loss.wrong("importance inside the square",
            "You square the importance too. It weighs the squared error: square first.")
def _(x, x_hat, importance):
    return ((importance * (x_hat - x)) ** 2).sum(2).mean(1)


@loss.wrong("one number for all instances",
            "All instances are averaged into one number. Each needs a loss of its own: keep the first axis.")
def _(x, x_hat, importance):
    return (importance * (x_hat - x) ** 2).sum(2).mean()


@loss.wrong("absolute error",
            "This is the absolute error. Squaring makes two small errors cheaper than one large one, on which the "
            "whole trade of superposition rests.")
def _(x, x_hat, importance):
    return (importance * (x_hat - x).abs()).sum(2).mean(1)


@loss.cases
def _(rng):
    yield torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.5, 2.0]]]), torch.tensor([1.0, 0.5])
    x, x_hat = draw(rng, 3, 4, 5), draw(rng, 3, 4, 5)
    yield x, x_hat, torch.from_numpy(rng.uniform(0.1, 2, 5)).float()
