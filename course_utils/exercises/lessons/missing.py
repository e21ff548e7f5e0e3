"""Notebook 07, what is lost: extra loss by class of token, and the part of an error that a linear map predicts."""

from __future__ import annotations

import numpy as np
import torch

from course_utils.exercises.book import Exercise

gaps = Exercise("07.1", "who pays", stars=1, minutes=8, lines=3, hints=(
    "Both answers start from the same thing: the extra loss summed over the tokens of each class. What do you divide "
    "it by for a mean, and what for a share of all?",
    "`paid = gap @ on` sums by class. The mean divides by `on.sum(0)`, the share by `gap.sum()`."))


@gaps.reference
def who_pays(gap, on):
    """Return each class's mean extra loss, and its share of all extra loss; gap [n], on [n classes] of booleans."""
    paid = gap @ on
    return paid / on.sum(0), paid / gap.sum()


@gaps.right
def _(gap, on):
    means = np.array([gap[here].mean() for here in on.T])
    return means, means * on.sum(axis=0) / np.sum(gap)


@gaps.right
def _(gap, on):
    paid = np.where(on, gap[:, None], 0.0).sum(0)
    return paid / np.count_nonzero(on, axis=0), paid / (gap.mean() * len(gap))


@gaps.wrong(
    "a mean over all tokens",
    "You divide each class's sum by the number of *all* tokens. A rare class then looks cheap because it is rare; "
     "divide by its own tokens.")
def _(gap, on):
    return gap @ on / len(gap), gap @ on / gap.sum()


@gaps.wrong(
    "a share of the classes' sum",
    "Your shares add up to 1 over the classes given. But classes may overlap, or leave tokens out: the share is of "
     "the extra loss of *all* tokens.")
def _(gap, on):
    paid = gap @ on
    return paid / on.sum(0), paid / paid.sum()


@gaps.wrong(
    "a share of the tokens",
    "Your second answer is the share of the *tokens* that are in the class. Asked for is the share of the extra "
     "loss that falls on them.")
def _(gap, on):
    return gap @ on / on.sum(0), on.mean(0)


@gaps.wrong(
    "gains thrown away",
    "Some tokens get *cheaper* under the splice, by chance or not. You count them as zero or as a loss, so that "
     "your sums no longer add up to what the splice costs.")
def _(gap, on):
    paid = gap.clip(min=0) @ on
    return paid / on.sum(0), paid / gap.clip(min=0).sum()


@gaps.wrong(
    "a share of the means",
    "A share of the summed means forgets how many tokens each class has. Sum the extra loss by class and divide by "
     "that of all tokens.")
def _(gap, on):
    means = gap @ on / on.sum(0)
    return means, means / means.sum()


@gaps.cases
def _(rng):
    yield np.array([4.0, -1.0, 2.0]), np.array([[True, False], [True, True], [False, False]])
    on = rng.random((30, 4)) < [0.5, 0.1, 0.3, 0.2]
    on[:4] |= np.eye(4, dtype=bool)
    yield rng.normal(0.1, 0.4, 30), on


share = Exercise("07.2", "the predictable part", stars=2, minutes=12, lines=5, hints=(
    "Fit on the first split, with an intercept: the least-squares map from centred x to y. Then predict y on "
    "the new split, and compare what is missed with how much y varies there.",
    "`w = torch.linalg.lstsq(x - x.mean(0), y).solution`; the prediction is `y.mean(0) + (x_new - "
    "x.mean(0)) @ w`. Sum squares over rows *and* columns before you divide."))


@share.reference
def linear_r2(x, y, x_new, y_new):
    """Fit y [n k] from x [n d] linearly; return the share of the variance of y_new that it predicts from x_new."""
    w = torch.linalg.lstsq(x - x.mean(0), y).solution
    missed = y_new - y.mean(0) - (x_new - x.mean(0)) @ w
    return 1 - missed.square().sum() / (y_new - y_new.mean(0)).square().sum()


@share.right
def _(x, y, x_new, y_new):
    ones = torch.ones(len(x), 1, dtype=x.dtype), torch.ones(len(x_new), 1, dtype=x.dtype)
    w = torch.linalg.pinv(torch.cat([x, ones[0]], 1)) @ y
    missed = y_new - torch.cat([x_new, ones[1]], 1) @ w
    return 1 - missed.pow(2).sum() / (len(y_new) * y_new.var(0, correction=0).sum())


@share.right
def _(x, y, x_new, y_new):
    a, b = x - x.mean(0), y - y.mean(0)
    w = torch.linalg.solve(a.T @ a, a.T @ b)
    bias = y.mean(0) - x.mean(0) @ w
    left = ((y_new - x_new @ w - bias) ** 2).mean(0)
    return 1 - left.sum() / ((y_new - y_new.mean(0)) ** 2).mean(0).sum()


@share.wrong(
    "scored where it was fitted",
    "You score the map on the split that it was fitted to. With enough inputs it would predict noise there; `x_new` "
     "and `y_new` are for the score.")
def _(x, y, x_new, y_new):
    w = torch.linalg.lstsq(x - x.mean(0), y - y.mean(0)).solution
    missed = y - y.mean(0) - (x - x.mean(0)) @ w
    return 1 - missed.square().sum() / (y - y.mean(0)).square().sum()


@share.wrong(
    "fitted to the new split",
    "You fit a second map to the new split. It has seen what it predicts; use the one from the first.")
def _(x, y, x_new, y_new):
    w = torch.linalg.lstsq(x_new - x_new.mean(0), y_new - y_new.mean(0)).solution
    missed = y_new - y_new.mean(0) - (x_new - x_new.mean(0)) @ w
    return 1 - missed.square().sum() / (y_new - y_new.mean(0)).square().sum()


@share.wrong(
    "no intercept",
    "Your map goes through the origin. Neither activations nor errors have mean zero: centre both, or add a column "
     "of ones.")
def _(x, y, x_new, y_new):
    w = torch.linalg.lstsq(x, y).solution
    return 1 - (y_new - x_new @ w).square().sum() / (y_new - y_new.mean(0)).square().sum()


@share.wrong(
    "variance around zero",
    "You compare with the squared length of y, mean included. A constant would then count as predicted; take y's "
     "mean off first.")
def _(x, y, x_new, y_new):
    w = torch.linalg.lstsq(x - x.mean(0), y - y.mean(0)).solution
    missed = y_new - y.mean(0) - (x_new - x.mean(0)) @ w
    return 1 - missed.square().sum() / y_new.square().sum()


@share.wrong(
    "a mean over directions",
    "You average one share for each direction, so that one in which hardly anything varies weighs as much as the "
     "largest. Sum the squares over directions first.")
def _(x, y, x_new, y_new):
    w = torch.linalg.lstsq(x - x.mean(0), y - y.mean(0)).solution
    missed = y_new - y.mean(0) - (x_new - x.mean(0)) @ w
    return (1 - missed.square().sum(0) / (y_new - y_new.mean(0)).square().sum(0)).mean()


@share.wrong("what is left", "This is the share that is *not* predicted; asked for is 1 minus it.")
def _(x, y, x_new, y_new):
    w = torch.linalg.lstsq(x - x.mean(0), y - y.mean(0)).solution
    missed = y_new - y.mean(0) - (x_new - x.mean(0)) @ w
    return missed.square().sum() / (y_new - y_new.mean(0)).square().sum()


@share.cases
def _(rng):
    def draw(n: int, d: int, k: int, seed: int) -> tuple:
        w = rng.normal(size=(d, k)) * rng.uniform(0.2, 2, k)
        x = rng.normal(size=(2 * n, d)) + rng.uniform(-2, 2, d)
        y = 3 + x @ w + rng.normal(size=(2 * n, k)) * rng.uniform(0.5, 2, k)
        return tuple(torch.from_numpy(part) for part in (x[:n], y[:n], x[n:] + 0.3, y[n:] + 0.2 * seed))

    yield draw(4, 1, 2, 1)
    yield draw(30, 5, 3, 2)
    yield draw(20, 4, 1, 0)
