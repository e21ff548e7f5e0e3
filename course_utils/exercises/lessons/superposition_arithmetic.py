"""Notebook 02, arithmetic: which arrangement of two features wins, and absolute values by hand."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise

strategies = Exercise("02.8", "which arrangement wins", stars=3, minutes=15, lines=2, hints=(
    "A dropped feature is replaced by its mean, and what is left is its variance: E[x²] − E[x]². It is on with "
    "probability p and uniform then, so E[x] = p/2 and E[x²] = p/3.",
    "The antipodal pair errs only where both are on, with probability p². *Both* outputs are then off by the "
    "smaller value, whose mean square is 1/6; one error weighs 1, the other `importance`."))


@strategies.reference
def strategy_losses(density, importance):
    """Losses of three ways to keep two features in one dimension: (only the first, only the second, both)."""
    dropped = density / 3 - density**2 / 4
    return importance * dropped, dropped, (1 + importance) * density**2 / 6


@strategies.right
def _(density, importance):
    mean, square = density * 0.5, density / 3
    variance = square - mean * mean
    both_on = density * density
    return variance * importance, variance, both_on / 6 + importance * both_on / 6


@strategies.right
def _(density, importance):
    variance = density * (1 / 12 + (1 - density) / 4)  # within "on", and between on and off
    return importance * variance, 1.0 * variance, (density**2 + importance * density**2) / 6


@strategies.wrong("nothing in place of what is dropped",
                  "You charge E[x²] for a dropped feature, as if 0 stood in its place. The bias can do better: it "
                  "puts the mean there, and the variance is left.")
def _(density, importance):
    return importance * density / 3, density / 3, (1 + importance) * density**2 / 6


@strategies.wrong("the variance of a uniform number",
                  "1/12 is the variance while the feature is on. Being on or off varies too, and for a sparse "
                  "feature that is nearly all of it.")
def _(density, importance):
    return importance * density / 12, density / 12, (1 + importance) * density**2 / 6


@strategies.wrong("only one of the two is off",
                  "When both are on, both outputs are off: the larger one comes out too small by the smaller, and "
                  "the smaller one comes out as 0. You charge one of them.")
def _(density, importance):
    dropped = density / 3 - density**2 / 4
    return importance * dropped, dropped, importance * density**2 / 6


@strategies.wrong("p for p²",
                  "The antipodal pair errs only where *both* are on: probability p², not p. That square is why "
                  "sparsity makes superposition cheap.")
def _(density, importance):
    dropped = density / 3 - density**2 / 4
    return importance * dropped, dropped, (1 + importance) * density / 6


@strategies.wrong("the square of the mean",
                  "1/9 is the square of the smaller value's mean. The loss wants the mean of its square, 1/6.")
def _(density, importance):
    dropped = density / 3 - density**2 / 4
    return importance * dropped, dropped, (1 + importance) * density**2 / 9


@strategies.wrong("dropped and kept exchanged",
                  "Keeping only the *first* feature drops the second, whose error weighs `importance`. Yours are "
                  "the other way round.")
def _(density, importance):
    dropped = density / 3 - density**2 / 4
    return dropped, importance * dropped, (1 + importance) * density**2 / 6


@strategies.cases
def _(rng):
    yield 1.0, 0.5
    yield 0.1, 3.0
    yield torch.from_numpy(rng.uniform(0.05, 1, 4)), torch.from_numpy(rng.uniform(0.1, 10, 4))


def _computes(got, want, n, m):
    W1, W2, b = got
    x = torch.linspace(-1, 1, 9)[:, None] * torch.tensor([(-1.0) ** i / (1 + i) for i in range(n)])
    out = torch.relu(torch.relu(x @ W1.T) @ W2.T + b)
    right = torch.cat([x[:, : m // 2].abs(), torch.zeros(9, n - m // 2)], dim=1)
    bad = (out - right).abs() > 1e-5
    if not bad.any():
        return None
    row, i = bad.nonzero()[0].tolist()
    return f"for x[{i}] = {x[row, i]:.3g} output {i} is {out[row, i]:.3g}; it should be {right[row, i]:.3g}"


by_hand = Exercise("02.9", "absolute values by hand", stars=2, minutes=10, lines=4, compare=_computes, hints=(
    "|x| = ReLU(x) + ReLU(−x): two neurons for each absolute value, one that reads x and one that reads −x.",
    "For feature i take neurons `2 * i` and `2 * i + 1`: `W1` gets 1 and −1 there (in column i), and row i of `W2` "
    "gets 1 and 1. All else stays 0."))


@by_hand.reference
def abs_by_hand(n, m):
    """W1 [m n], W2 [n m], b [n]: ReLU(W2 ReLU(W1 x) + b) is |x| for the first m // 2 features, 0 for the others."""
    W1, W2 = torch.zeros(m, n), torch.zeros(n, m)
    for i in range(m // 2):
        W1[2 * i, i], W1[2 * i + 1, i] = 1, -1
        W2[i, 2 * i : 2 * i + 2] = 1
    return W1, W2, torch.zeros(n)


@by_hand.right
def _(n, m):
    half = m // 2
    eye = torch.eye(half, n)
    rest = torch.zeros(m - 2 * half, n)
    return torch.cat([eye, -eye, rest]), torch.cat([eye, eye, rest]).T, torch.zeros(n)


@by_hand.right
def _(n, m):
    W1 = torch.zeros(m, n)
    for j in range(m - m % 2):
        W1[j, j // 2] = 4.0 if j % 2 else -4.0
    return W1, W1.abs().T / 16, torch.zeros(n)


@by_hand.wrong("one neuron each",
               "One ReLU computes only one half of |x|: for negative x it is 0. Each absolute value takes two "
               "neurons.")
def _(n, m):
    W1 = torch.zeros(m, n)
    W1[range(m // 2), range(m // 2)] = 1
    return W1, W1.T.clone(), torch.zeros(n)


@by_hand.wrong("subtracted instead of added",
               "ReLU(x) − ReLU(−x) is x again, and the last ReLU cuts its negative half off. Add the two halves.")
def _(n, m):
    W1 = torch.zeros(m, n)
    for i in range(m // 2):
        W1[2 * i, i], W1[2 * i + 1, i] = 1, -1
    return W1, W1.T.clone(), torch.zeros(n)


@by_hand.wrong("both neurons read the same side",
               "Both neurons of a pair read +x, so that positive x counts twice and negative x not at all. One of "
               "them must read −x.")
def _(n, m):
    W1 = torch.zeros(m, n)
    for i in range(m // 2):
        W1[2 * i : 2 * i + 2, i] = 1
    return W1, W1.T.clone(), torch.zeros(n)


@by_hand.cases
def _(rng):
    yield 1, 2
    yield 4, 6
    yield 5, 5
