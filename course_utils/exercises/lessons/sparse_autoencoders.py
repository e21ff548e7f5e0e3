"""Notebook 03, the autoencoder with an L1 penalty: its loss, what the penalty does, and a decoder of length 1."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from course_utils.exercises.book import Exercise

penalised = Exercise("03.1", "an autoencoder with an L1 penalty", stars=2, minutes=10, lines=3, hints=(
    "Encoder: take `b_dec` off, multiply, add `b_enc`, cut at zero. Decoder: multiply, add `b_dec`. The loss has one "
    "value a *sample*: sum over the last axis, and average over nothing.",
    "`f = ((x - b_dec) @ W_enc + b_enc).relu()`; the error is `(f @ W_dec + b_dec - x).square().sum(-1)`; the penalty "
    "adds `penalty * f.sum(-1)`."))


@penalised.reference
def l1_sae(x, W_enc, b_enc, W_dec, b_dec, penalty):
    """Return latents f [... n m] and the loss of each sample [... n]; x is [... n d]."""
    f = ((x - b_dec) @ W_enc + b_enc).relu()
    error = (f @ W_dec + b_dec - x).square().sum(-1)
    return f, error + penalty * f.sum(-1)


@penalised.right
def _(x, W_enc, b_enc, W_dec, b_dec, penalty):
    f = torch.einsum("...nd,...dm->...nm", x, W_enc) + (b_enc - b_dec @ W_enc)
    f = torch.where(f > 0, f, torch.zeros_like(f))
    rest = x - b_dec - torch.einsum("...nm,...md->...nd", f, W_dec)
    return f, torch.linalg.vector_norm(rest, dim=-1) ** 2 + penalty * f.norm(p=1, dim=-1)


@penalised.right
def _(x, W_enc, b_enc, W_dec, b_dec, penalty):
    centred = x - b_dec
    f = torch.matmul(centred, W_enc).add(b_enc).clamp(min=0)
    x_hat = torch.matmul(f, W_dec)
    length = (centred * centred).sum(-1) - 2 * (centred * x_hat).sum(-1) + (x_hat * x_hat).sum(-1)
    return f, length + (penalty[..., None] * f if isinstance(penalty, torch.Tensor) else penalty * f).sum(-1)


@penalised.wrong("the error is averaged, the penalty is summed", "You average the squared error over the directions "
                 "of `x`, but sum the penalty over the latents: the balance between them then depends on the width of "
                 "the data. Sum both.")
def _(x, W_enc, b_enc, W_dec, b_dec, penalty):
    f = ((x - b_dec) @ W_enc + b_enc).relu()
    return f, (f @ W_dec + b_dec - x).square().mean(-1) + penalty * f.sum(-1)


@penalised.wrong("the penalty is averaged", "You average the penalty over the latents: a dictionary twice as wide "
                 "would pay half as much for the same activity. Sum over the latents.")
def _(x, W_enc, b_enc, W_dec, b_dec, penalty):
    f = ((x - b_dec) @ W_enc + b_enc).relu()
    return f, (f @ W_dec + b_dec - x).square().sum(-1) + penalty * f.mean(-1)


@penalised.wrong("silence is rewarded", "The penalty is on the pre-activations: a latent that is far below zero earns "
                 "a bonus, and the loss has no floor. Penalise what is left after the ReLU.")
def _(x, W_enc, b_enc, W_dec, b_dec, penalty):
    pre = (x - b_dec) @ W_enc + b_enc
    return pre.relu(), (pre.relu() @ W_dec + b_dec - x).square().sum(-1) + penalty * pre.sum(-1)


@penalised.wrong("a count has no slope", "You penalise how many latents are active (L0). That is what we want, but "
                 "its derivative is zero almost everywhere, so that training would not feel it. L1 sums the values.")
def _(x, W_enc, b_enc, W_dec, b_dec, penalty):
    f = ((x - b_dec) @ W_enc + b_enc).relu()
    return f, (f @ W_dec + b_dec - x).square().sum(-1) + penalty * (f > 0).sum(-1)


@penalised.wrong("b_dec forgotten on the way in", "The encoder sees `x - b_dec`: what the decoder adds at the end is "
                 "taken off at the start.")
def _(x, W_enc, b_enc, W_dec, b_dec, penalty):
    f = (x @ W_enc + b_enc).relu()
    return f, (f @ W_dec + b_dec - x).square().sum(-1) + penalty * f.sum(-1)


@penalised.wrong("b_dec forgotten on the way out", "The reconstruction lacks `b_dec`: with no latent active it must "
                 "be `b_dec`, not zero.")
def _(x, W_enc, b_enc, W_dec, b_dec, penalty):
    f = ((x - b_dec) @ W_enc + b_enc).relu()
    return f, (f @ W_dec - x).square().sum(-1) + penalty * f.sum(-1)


@penalised.cases
def _(rng):
    yield (torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.5]]),
           torch.tensor([0.5, -0.5, -1.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]),
           torch.tensor([0.5, -0.25]), 0.5)
    for lead, penalty in (((), 0.3), ((3,), torch.tensor([[0.1], [0.4], [2.0]]))):
        one = (1,) if lead else ()
        shapes = (*lead, 5, 2), (*lead, 2, 7), (*lead, *one, 7), (*lead, 7, 2), (*lead, *one, 2)
        yield *(torch.from_numpy(rng.normal(0, 1, shape)).float() for shape in shapes), penalty


shrunk = Exercise("03.2", "what the penalty does to a strength", stars=1, minutes=6, lines=1, hints=(
    "Set the derivative of `(a - f)**2 + penalty * f` to zero, and mind that `f` cannot be negative.",
    "`-2 * (a - f) + penalty = 0` gives `f = a - penalty / 2`; where that is negative, the best is 0."))


@shrunk.reference
def best_latent(a, penalty):
    """Return the f >= 0 that makes (a - f)**2 + penalty * f smallest, for each strength in a."""
    return (a - penalty / 2).relu()


@shrunk.right
def _(a, penalty):
    return torch.maximum(a, torch.full_like(a, penalty / 2)) - penalty / 2


@shrunk.right
def _(a, penalty):
    # By search rather than by calculus: halve the interval in which the slope changes its sign.
    low, high = torch.zeros_like(a), a.abs() + 1
    for _ in range(40):
        middle = (low + high) / 2
        rising = 2 * (middle - a) + penalty > 0
        low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
    return low


@shrunk.wrong("the 2 of the square", "The derivative of the square is `-2 * (a - f)`, so that half of the penalty "
              "comes off, not all of it.")
def _(a, penalty):
    return (a - penalty).relu()


@shrunk.wrong("below zero", "For a weak strength this is negative, and a latent is not: there the best value is 0.")
def _(a, penalty):
    return a - penalty / 2


@shrunk.wrong("a threshold that takes nothing off", "You keep a strength whole once it is above the threshold. That "
              "is what JumpReLU will do; under L1, making `f` a little smaller always pays.")
def _(a, penalty):
    return a * (a > penalty / 2)


@shrunk.wrong("a factor, not a step", "You divide. That is what a penalty on the *square* of `f` would do. L1 costs "
              "the same for each unit of `f`, however strong, so it takes off the same from all.")
def _(a, penalty):
    return a.relu() / (1 + penalty / 2)


@shrunk.wrong("negative strengths come through", "This treats both signs alike, as the lasso does. Our latent cannot "
              "be negative: for a negative strength the best value is 0.")
def _(a, penalty):
    return a.sign() * (a.abs() - penalty / 2).relu()


@shrunk.cases
def _(rng):
    yield torch.tensor([1.0, 0.1, -1.0]), 0.4
    yield torch.tensor([[0.5, 2.0], [-3.0, 0.0]]), 1.0
    yield torch.from_numpy(rng.normal(0.5, 1, 9)).float(), 0.0


sphere = Exercise("03.3", "a step that keeps to length 1", stars=2, minutes=10, lines=3, hints=(
    "Three lines, in this order: remove from each row of the gradient what points along the row; step; divide each "
    "row by its length.",
    "`along = (grad * W).sum(-1, keepdim=True)`; then `W = W - lr * (grad - along * W)`; then `normalize(W, "
    "dim=-1)`."))


@sphere.reference
def sphere_step(W, grad, lr):
    """Take one step of gradient descent with rows of length 1 that stay at length 1; W and grad are [... m d]."""
    along = (grad * W).sum(-1, keepdim=True)
    W = W - lr * (grad - along * W)
    return normalize(W, dim=-1)


@sphere.right
def _(W, grad, lr):
    tangent = grad - torch.einsum("...md,...md,...me->...me", grad, W, W)
    stepped = W - lr * tangent
    return stepped / stepped.square().sum(-1, keepdim=True).sqrt()


@sphere.right
def _(W, grad, lr):
    # On a circle through W and the step's direction: the angle whose tangent is the step's length.
    tangent = grad - torch.linalg.vecdot(grad, W)[..., None] * W
    length = tangent.norm(dim=-1, keepdim=True)
    angle = torch.atan(lr * length)
    return W * angle.cos() - tangent / length.clamp(min=1e-12) * angle.sin()


@sphere.wrong("normalise, then step", "The step comes last, and leaves the sphere again: the next forward pass sees "
              "rows that are too long. Normalise after the step.")
def _(W, grad, lr):
    along = (grad * W).sum(-1, keepdim=True)
    return normalize(W, dim=-1) - lr * (grad - along * W)


@sphere.wrong("no projection", "You step along the whole gradient. Its part along the row only changes the length, "
              "which is then taken back; meanwhile the row turns by another angle than you asked for, and Adam would "
              "remember the useless part.")
def _(W, grad, lr):
    return normalize(W - lr * grad, dim=-1)


@sphere.wrong("the step is projected too late", "The gradient is projected after the step, when it has been used "
              "already. Project, step, normalise.")
def _(W, grad, lr):
    W = W - lr * grad
    along = (grad * W).sum(-1, keepdim=True)
    return normalize(W - lr * (grad - along * W), dim=-1)


@sphere.wrong("columns instead of rows", "A latent's direction is a *row* of the decoder. You normalise columns.")
def _(W, grad, lr):
    along = (grad * W).sum(-1, keepdim=True)
    return normalize(W - lr * (grad - along * W), dim=-2)


@sphere.wrong("the other part is kept", "You step along the part of the gradient that points along the row, and drop "
              "the rest. It is the other way round.")
def _(W, grad, lr):
    along = (grad * W).sum(-1, keepdim=True)
    return normalize(W - lr * along * W, dim=-1)


@sphere.cases
def _(rng):
    yield torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, -1.0]]), 0.8
    for shape in ((5, 3), (2, 4, 3)):
        W, grad = (torch.from_numpy(rng.normal(0, 1, shape)).float() for _ in range(2))
        yield normalize(W, dim=-1), grad, 0.4
