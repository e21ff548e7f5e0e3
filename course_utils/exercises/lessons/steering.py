"""Notebook 08, directions: add one to the activations, clamp a latent, and ask whether one carries over."""

from __future__ import annotations

import numpy as np
import torch

from course_utils.exercises.book import Exercise, draw

push = Exercise("08.1", "add a direction", stars=1, minutes=8, lines=3, hints=(
    "Copy first, then add to a part of the copy. `direction` has shape [d], so that torch adds it to every row of "
    "[batch pos d] by itself; which slice leaves out position 0?",
    "`steered = activation.clone()`, then `steered[:, 1:] += scale * direction`: every row of the batch, all positions "
    "from 1 on."))


@push.reference
def add_direction(activation, direction, scale):
    """Return a copy of activation [batch pos d] with scale * direction [d] added at every position but 0."""
    steered = activation.clone()
    steered[:, 1:] += scale * direction
    return steered


@push.right
def _(activation, direction, scale):
    return torch.cat([activation[:, :1], activation[:, 1:] + scale * direction], dim=1)


@push.right
def _(activation, direction, scale):
    dose = torch.full((activation.shape[1], 1), float(scale))
    dose[0] = 0.0
    return activation + dose * direction


@push.wrong("BOS too", "You push position 0 as well. BOS carries no text, its activation is like no other, and all "
            "later tokens may look at it: leave it as it is.")
def _(activation, direction, scale):
    return activation + scale * direction


@push.wrong("in place", "The numbers are right, but you wrote them into the activation that you were given. Whoever "
            "compares it with the steered one afterwards finds no difference; work on a clone.")
def _(activation, direction, scale):
    activation[:, 1:] += scale * direction
    return activation


@push.wrong("the first row left out", "Your slice leaves out the first *text* of the batch, not the first position. "
            "The axes are [batch pos d]: slice the second one.")
def _(activation, direction, scale):
    steered = activation.clone()
    steered[1:] += scale * direction
    return steered


@push.wrong("only the last position", "You steer the last position only. The next token depends on the earlier ones "
            "too, which still say what they said; add to every position from 1 on.")
def _(activation, direction, scale):
    steered = activation.clone()
    steered[:, -1] += scale * direction
    return steered


@push.wrong("made a unit length", "You divide the direction by its length first. How long it is belongs to the dose "
            "that was asked for: add `scale` times the direction as it comes.")
def _(activation, direction, scale):
    steered = activation.clone()
    steered[:, 1:] += scale * direction / direction.norm()
    return steered


@push.wrong("replaced, not added", "You put the direction in the activation's place, and everything that the model had "
            "computed there is gone. *Add* it to what is there.")
def _(activation, direction, scale):
    steered = activation.clone()
    steered[:, 1:] = scale * direction
    return steered


@push.cases
def _(rng):
    yield torch.tensor([[[5.0, 0.0], [1.0, 2.0], [3.0, 4.0]]]), torch.tensor([0.0, 2.0]), 3.0
    yield draw(rng, 2, 4, 3), draw(rng, 3), 2.5
    yield draw(rng, 3, 5, 6), draw(rng, 6), -4


clamp = Exercise("08.2", "clamp a latent", stars=2, minutes=10, lines=2, hints=(
    "The latent stands at f, and you want it at `value`. How much of its decoder row is missing at each token, or too "
    "much there?",
    "`missing = value - f` is one number a token; `missing[:, None] * w` is what has to be added to x."))


@clamp.reference
def clamp_latent(x, f, w, value):
    """Return x [n d] with one latent, which now says f [n] and has the decoder row w [d], set to value."""
    missing = value - f
    return x + missing[:, None] * w


@clamp.right
def _(x, f, w, value):
    without = x - torch.outer(f, w)  # everything that is not this latent: the other latents, the bias and the error
    return without + value * w


@clamp.right
def _(x, f, w, value):
    return torch.stack([row + value * w - now * w for row, now in zip(x, f.tolist(), strict=True)])


@clamp.wrong("added on top", "You add the value to what the latent says already, so that it ends at f + value. Where "
             "it stands at `value` already, nothing should change.")
def _(x, f, w, value):
    return x + value * w


@clamp.wrong("only where it is active", "You change the tokens on which the latent is active and no others. A clamp "
             "holds at *every* token: where the latent is silent, all of `value` is missing.")
def _(x, f, w, value):
    return x + ((value - f) * (f > 0))[:, None] * w


@clamp.wrong("all else thrown away", "Nothing is left but the latent: the others, and the error that no latent "
             "explains, are gone. Start from x, and change only what this latent contributes.")
def _(x, f, w, value):
    return (value * w).expand(len(x), -1).clone()


@clamp.wrong("multiplied", "You make the latent `value` times as strong as it was. A silent one stays silent then, and "
             "no two tokens end at the same value; *set* it instead.")
def _(x, f, w, value):
    return x + ((value - 1) * f)[:, None] * w


@clamp.wrong("the wrong way", "You add f − value, which pushes the latent away from its target, and as far again. What "
             "is missing is value − f.")
def _(x, f, w, value):
    return x + (f - value)[:, None] * w


@clamp.wrong("projected, not read", "You measure the latent by x · w. That counts what other latents and the error "
             "have along w, and takes it away from them; how strong *this* latent is, the encoder says, in f.")
def _(x, f, w, value):
    return x + (value - x @ w)[:, None] * w


@clamp.cases
def _(rng):
    yield torch.tensor([[1.0, 0.0, 2.0], [3.0, 2.0, 0.0]]), torch.tensor([0.0, 2.0]), torch.tensor([0.0, 1.0, 0.0]), 3.0
    f = draw(rng, 7).clamp(min=0)
    w = draw(rng, 5)
    yield draw(rng, 7, 5), f, w / w.norm(), 4
    yield draw(rng, 7, 5), f, w / w.norm(), 0.0


gap = Exercise("08.7", "does it carry over?", stars=3, minutes=12, lines=4, hints=(
    "Stay within a column: one context in which directions are *used*. On the diagonal stands the one that was chosen "
    "there; what is the mean of the others in that column?",
    "`own = effect.diagonal(axis1=1, axis2=2)`; the column without it is `(effect.sum(1) - own) / (n - 1)`. Average "
    "the difference over the columns."))


@gap.reference
def transfer_gap(effect):
    """Return what a direction gains by being chosen where it is used, of each concept; effect [concepts from to]."""
    own = effect.diagonal(axis1=1, axis2=2)
    n = own.shape[1]
    others = (effect.sum(1) - own) / (n - 1)
    return (own - others).mean(1)


@gap.right
def _(effect):
    return np.array([np.mean([column[to] - np.delete(column, to).mean() for to, column in enumerate(table.T)])
                     for table in effect])


@gap.right
def _(effect):
    n = effect.shape[1]
    weight = np.where(np.eye(n, dtype=bool), 1.0, -1.0 / (n - 1))
    return np.einsum("cij,ij->c", effect, weight) / n


@gap.wrong("the diagonal alone", "You average the effects of directions used where they were chosen. A large effect "
           "says nothing of carrying over; subtract what the others do in that same context.")
def _(effect):
    return effect.diagonal(axis1=1, axis2=2).mean(1)


@gap.wrong("itself among the others", "Your mean of a column includes the direction that was chosen there, which makes "
           "the gap too small. Leave the diagonal out.")
def _(effect):
    return (effect.diagonal(axis1=1, axis2=2) - effect.mean(1)).mean(1)


@gap.wrong("divided by one too many", "Without its own there are n − 1 effects in a column; you divide their sum by n.")
def _(effect):
    own = effect.diagonal(axis1=1, axis2=2)
    return (own - (effect.sum(1) - own) / effect.shape[1]).mean(1)


@gap.wrong("the others minus its own", "Your gap has the wrong sign: it should be above 0 where a direction does best "
           "in the context in which it was chosen.")
def _(effect):
    own, n = effect.diagonal(axis1=1, axis2=2), effect.shape[1]
    return ((effect.sum(1) - own) / (n - 1) - own).mean(1)


@gap.wrong("a ratio", "You divide by the others' effect. Where that is near zero, the ratio goes out of all bounds, "
           "and below zero it means nothing; subtract.")
def _(effect):
    own, n = effect.diagonal(axis1=1, axis2=2), effect.shape[1]
    return (own * (n - 1) / (effect.sum(1) - own)).mean(1)


@gap.wrong("one number for all", "You average over the concepts too. Some may carry over and others not: keep one gap "
           "a concept.")
def _(effect):
    own, n = effect.diagonal(axis1=1, axis2=2), effect.shape[1]
    return (own - (effect.sum(1) - own) / (n - 1)).mean()


@gap.wrong("the mean of everything", "This is the mean effect, wherever a direction was chosen: nothing is compared.")
def _(effect):
    return effect.mean((1, 2))


@gap.wrong("the best of the others", "You subtract the best of the other directions. With many contexts one of them is "
           "good by luck; take their mean.")
def _(effect):
    n = effect.shape[1]
    others = np.where(np.eye(n, dtype=bool), -np.inf, effect)
    return (effect.diagonal(axis1=1, axis2=2) - others.max(1)).mean(1)


@gap.cases
def _(rng):
    yield np.array([[[4.0, 1.0], [2.0, 8.0]]])
    easy = rng.uniform(0, 4, (5, 1, 3))  # some contexts are easier for everybody
    yield easy + rng.uniform(0, 2, (5, 3, 3)) + rng.uniform(0, 2, (5, 1, 1)) * np.eye(3)
    yield np.tile(easy, (1, 3, 1))
