"""Notebook 01, attention: what each token reads from, and what each head writes."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise, draw

reading = Exercise("01.4", "who reads whom", stars=2, minutes=12, lines=4, hints=(
    "A score is the dot product of a query and a key, divided by the root of their length: "
    "`torch.einsum(\"...qhd,...khd->...hqk\", q, k)`.",
    "Set the scores of later keys to minus infinity *before* the softmax: `torch.ones(n, n).triu(1).bool()` marks "
    "them, and `scores.masked_fill(later, -torch.inf).softmax(-1)` does the rest."))


@reading.reference
def attention_pattern(q, k):
    """Return what each token reads from, [... head query key], from queries and keys [... pos head d_head]."""
    scores = torch.einsum("...qhd,...khd->...hqk", q, k) / q.shape[-1] ** 0.5
    later = torch.ones_like(scores).triu(1).bool()
    return scores.masked_fill(later, -torch.inf).softmax(-1)


@reading.right
def _(q, k):
    scores = q.transpose(-3, -2) @ k.transpose(-3, -2).mT / q.shape[-1] ** 0.5
    weights = (scores - scores.amax(-1, keepdim=True)).exp().tril()
    return weights / weights.sum(-1, keepdim=True)


@reading.right
def _(q, k):
    pattern = torch.zeros(*q.shape[:-3], q.shape[-2], q.shape[-3], q.shape[-3])
    for i in range(q.shape[-3]):
        scores = (q[..., i:i + 1, :, :] * k[..., :i + 1, :, :]).sum(-1) / q.shape[-1] ** 0.5
        pattern[..., i, :i + 1] = torch.softmax(scores, -2).mT
    return pattern


@reading.wrong("no mask",
               "Tokens read from *later* tokens here. The model is trained to predict the next token, so it must "
               "not see it: later keys get a score of minus infinity.")
def _(q, k):
    return (torch.einsum("...qhd,...khd->...hqk", q, k) / q.shape[-1] ** 0.5).softmax(-1)


@reading.wrong("masked after the softmax",
               "You took the softmax first and wiped the future afterwards, so that the rows no longer sum to one. "
               "Mask the scores, then take the softmax.")
def _(q, k):
    return (torch.einsum("...qhd,...khd->...hqk", q, k) / q.shape[-1] ** 0.5).softmax(-1).tril()


@reading.wrong("not scaled",
               "The scores are not divided by the root of the head's width. Without it, wide heads would have "
               "scores so large that the softmax is all or nothing.")
def _(q, k):
    scores = torch.einsum("...qhd,...khd->...hqk", q, k)
    return scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(-1)


@reading.wrong("scaled by the width, not its root",
               "Divide by the *square root* of `d_head`. A dot product of d random numbers is about √d in size.")
def _(q, k):
    scores = torch.einsum("...qhd,...khd->...hqk", q, k) / q.shape[-1]
    return scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(-1)


@reading.wrong("a token may not read itself",
               "Your mask hides the token itself too, so that the first one has nothing to read, and its row is "
               "NaN. `triu(1)` starts above the diagonal, `triu(0)` on it.")
def _(q, k):
    scores = torch.einsum("...qhd,...khd->...hqk", q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(torch.ones_like(scores).triu(0).bool(), -torch.inf).softmax(-1)


@reading.wrong("softmax over the readers",
               "Your columns sum to one: each token shares out how much it is *read*. It is the reader who shares "
               "out its attention: the softmax runs over the keys, the last axis.")
def _(q, k):
    scores = torch.einsum("...qhd,...khd->...hqk", q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(-2)


@reading.cases
def _(rng):
    yield torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]]), torch.tensor([[[1.0, 1.0]], [[-1.0, 2.0]]])
    yield draw(rng, 5, 2, 3), draw(rng, 5, 2, 3)
    yield draw(rng, 2, 4, 3, 6), draw(rng, 2, 4, 3, 6)


writing = Exercise("01.5", "what a head writes", stars=2, minutes=10, lines=2, hints=(
    "Two steps: mix the values of the tokens that are read, `torch.einsum(\"...hqk,...khd->...qhd\", pattern, v)`; "
    "then take each head's mix through its own `W_O[head]`.",
    "The second step keeps the heads apart: `torch.einsum(\"...qhd,hdm->...qhm\", mixed, W_O)`."))


@writing.reference
def head_outputs(pattern, v, W_O):
    """Return what each head adds, [... pos head d_model].

    From its pattern [... head query key], the values v [... pos head d_head] and W_O [head d_head d_model].
    """
    mixed = torch.einsum("...hqk,...khd->...qhd", pattern, v)
    return torch.einsum("...qhd,hdm->...qhm", mixed, W_O)


@writing.right
def _(pattern, v, W_O):
    return (pattern @ (v.transpose(-3, -2) @ W_O)).transpose(-3, -2)


@writing.right
def _(pattern, v, W_O):
    heads = [pattern[..., h, :, :] @ v[..., :, h, :] @ W_O[h] for h in range(len(W_O))]
    return torch.stack(heads, dim=-2)


@writing.wrong("the reader gives",
               "Your pattern is turned round: each token hands its value to those *it* reads. The pattern's row is "
               "the reader, its column the source, and information flows from source to reader.")
def _(pattern, v, W_O):
    mixed = torch.einsum("...hqk,...qhd->...khd", pattern, v)
    return torch.einsum("...qhd,hdm->...qhm", mixed, W_O)


@writing.wrong("nobody reads",
               "The pattern is not used: every token writes its own value. Without attention no token learns "
               "anything of another.")
def _(pattern, v, W_O):
    return torch.einsum("...qhd,hdm->...qhm", v, W_O)


@writing.wrong("head 0's exit for all",
               "All heads leave through `W_O[0]`. Each head has an output matrix of its own, which decides where in "
               "the stream its message lands.")
def _(pattern, v, W_O):
    mixed = torch.einsum("...hqk,...khd->...qhd", pattern, v)
    return torch.einsum("...qhd,dm->...qhm", mixed, W_O[0])


@writing.wrong("the heads added up too early",
               "This is the sum over the heads, what the layer adds as a whole. Keep the heads apart: later we ask "
               "which of them did it.")
def _(pattern, v, W_O):
    mixed = torch.einsum("...hqk,...khd->...qhd", pattern, v)
    return torch.einsum("...qhd,hdm->...qm", mixed, W_O)


@writing.cases
def _(rng):
    yield torch.tensor([[[1.0, 0.0], [0.25, 0.75]]]), torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([[[1.0, -1.0]]])
    pattern = torch.softmax(draw(rng, 2, 3, 4, 4), -1).tril()
    yield pattern, draw(rng, 2, 4, 3, 5), draw(rng, 3, 5, 6)
