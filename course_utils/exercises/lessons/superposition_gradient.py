"""Notebook 02, the gradient of the toy model by hand."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise

gradient = Exercise("02.4", "the gradient by hand", stars=3, minutes=18, lines=4, hints=(
    "Walk back from the loss. The derivative at the pre-activation is `d = 2 · importance · (x' − x) / n` where "
    "`x' > 0`, and 0 elsewhere. The bias gets the sum of `d` over the samples.",
    "`W` stands in the formula twice. As decoder (`h @ W`) it gets `h.T @ d`; as encoder (`h = x @ W.T`) it gets "
    "`(d @ W.T).T @ x`. Add the two."))


@gradient.reference
def gradients(W, b, x, importance):
    """Gradients of the loss of one instance, (dW [m f], db [f]), with W [m f], b [f], x [n f], importance [f]."""
    h = x @ W.T
    out = torch.relu(h @ W + b)
    d = 2 * importance * (out - x) * (out > 0) / len(x)
    return h.T @ d + W @ d.T @ x, d.sum(0)


@gradient.right
def _(W, b, x, importance):
    W, b = W.clone().requires_grad_(), b.clone().requires_grad_()
    loss = (importance * (torch.relu(x @ W.T @ W + b) - x) ** 2).sum(1).mean()
    return torch.autograd.grad(loss, (W, b))


@gradient.right
def _(W, b, x, importance):
    dW, db = torch.zeros_like(W), torch.zeros_like(b)
    for row in x:
        h = W @ row
        out = torch.relu(W.T @ h + b)
        d = torch.where(out > 0, 2 * importance * (out - row), torch.zeros_like(b))
        dW += torch.outer(h, d) + torch.outer(W @ d, row)
        db += d
    return dW / x.shape[0], db / x.shape[0]


@gradient.wrong("W counted once",
                "`W` stands in the formula twice, as encoder and as decoder. You have the decoder's part; the "
                "encoder's, `W @ d.T @ x`, is missing.")
def _(W, b, x, importance):
    h = x @ W.T
    out = torch.relu(h @ W + b)
    d = 2 * importance * (out - x) * (out > 0) / len(x)
    return h.T @ d, d.sum(0)


@gradient.wrong("through a closed ReLU",
                "Where the output is 0 the ReLU is closed, and nothing flows back. Multiply by `out > 0`.")
def _(W, b, x, importance):
    h = x @ W.T
    d = 2 * importance * (torch.relu(h @ W + b) - x) / len(x)
    return h.T @ d + W @ d.T @ x, d.sum(0)


@gradient.wrong("the ReLU of the wrong side",
                "You let through where the *input* is on. What counts is whether the output's ReLU is open: `out > "
                "0`.")
def _(W, b, x, importance):
    h = x @ W.T
    d = 2 * importance * (torch.relu(h @ W + b) - x) * (x > 0) / len(x)
    return h.T @ d + W @ d.T @ x, d.sum(0)


@gradient.wrong("not averaged",
                "The loss is a mean over the samples, so its gradient is one too: divide by `len(x)`.")
def _(W, b, x, importance):
    h = x @ W.T
    out = torch.relu(h @ W + b)
    d = 2 * importance * (out - x) * (out > 0)
    return h.T @ d + W @ d.T @ x, d.sum(0)


@gradient.wrong("the 2 is missing", "The derivative of a square is *twice* the error.")
def _(W, b, x, importance):
    h = x @ W.T
    out = torch.relu(h @ W + b)
    d = importance * (out - x) * (out > 0) / len(x)
    return h.T @ d + W @ d.T @ x, d.sum(0)


@gradient.cases
def _(rng):
    # One feature in one dimension, on and off: 2 · (1.5 − 1) = 1 through an open ReLU, twice for W, halved by the mean.
    yield torch.tensor([[1.0]]), torch.tensor([0.5]), torch.tensor([[1.0], [-2.0]]), torch.tensor([1.0])
    for n, m, f in ((2, 1, 3), (6, 2, 5)):
        W, b, x = (torch.from_numpy(rng.normal(0, 1, shape)).float() for shape in ((m, f), (f,), (n, f)))
        yield W, b, x, torch.from_numpy(rng.uniform(0.2, 2, f)).float()
