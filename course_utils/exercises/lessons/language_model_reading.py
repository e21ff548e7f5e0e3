"""Notebook 01, reading the residual stream: the logit lens, and what each part adds to a logit."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise, draw

lens = Exercise("01.6", "the logit lens", stars=1, minutes=5, lines=1, hints=(
    "Treat the stream at every layer as if it were the last one's: what does the model do behind its last block?",
    "`norm(stream)` first, then the unembedding `@ W_U + b_U`, then the softmax over the vocabulary."))


@lens.reference
def logit_lens(stream, norm, W_U, b_U):
    """Return next-token probabilities [... d_vocab] read off the stream [... d_model]; `norm` is the last one."""
    return torch.softmax(norm(stream) @ W_U + b_U, -1)


@lens.right
def _(stream, norm, W_U, b_U):
    logits = torch.nn.functional.linear(norm(stream), W_U.T, b_U)
    return torch.nn.functional.log_softmax(logits, -1).exp()


@lens.right
def _(stream, norm, W_U, b_U):
    weights = (torch.einsum("...d,dv->...v", norm(stream), W_U) + b_U).exp()
    return weights / weights.sum(-1, keepdim=True)


@lens.wrong("no norm",
            "The unembedding only ever sees *normalised* vectors. Without the last norm early layers, whose vectors "
            "are short, look undecided, and later ones too sure.")
def _(stream, norm, W_U, b_U):
    return torch.softmax(stream @ W_U + b_U, -1)


@lens.wrong("normed behind the unembedding",
            "The norm works on the stream (`d_model` numbers), in front of the unembedding, not on the logits.")
def _(stream, norm, W_U, b_U):
    return torch.softmax(norm(stream @ W_U + b_U), -1)


@lens.wrong("softmax over the layers",
            "The softmax runs over the wrong axis: at each place in the stream the probabilities of all *tokens of "
            "the vocabulary* must sum to one.")
def _(stream, norm, W_U, b_U):
    return torch.softmax(norm(stream) @ W_U + b_U, 0)


@lens.wrong("logits, not probabilities",
            "These are the logits. The softmax over the vocabulary turns them into probabilities.")
def _(stream, norm, W_U, b_U):
    return norm(stream) @ W_U + b_U


def _unit(x: torch.Tensor) -> torch.Tensor:
    """Stand for a model's norm in the cases; it takes vectors of any length, so that a misplaced one runs, too."""
    return 2 * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() + 0.5


@lens.cases
def _(rng):
    W_U = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.5]])
    yield torch.tensor([[1.0, 2.0], [0.0, 0.5]]), _unit, W_U, torch.zeros(3)
    yield draw(rng, 3, 4, 5), _unit, draw(rng, 5, 7), draw(rng, 7)


credit = Exercise("01.7", "whose logit is it?", stars=3, minutes=15, lines=4, hints=(
    "The last norm is nearly linear: only its *scale* depends on all parts together. Compute that scale once, from "
    "the sum of the parts, and hold it fixed; then each part passes through the norm by itself.",
    "Centre every part, `total = parts.sum(0)`, `scale = (total.square().mean(-1, keepdim=True) + eps).sqrt()`; "
    "the answer is `(parts / scale * w) @ direction`."))


@credit.reference
def attribution(parts, w, eps, centred, direction):
    """Return what each part adds to the logit along `direction`, [part n], for parts [part n d_model] of a stream.

    The norm (weights w, eps, centred or not) stands in between; its scale is the whole stream's.
    """
    if centred:
        parts = parts - parts.mean(-1, keepdim=True)
    scale = (parts.sum(0).square().mean(-1, keepdim=True) + eps).sqrt()
    return (parts / scale * w) @ direction


@credit.right
def _(parts, w, eps, centred, direction):
    total = parts.sum(0)
    variance = total.var(-1, unbiased=False) if centred else total.square().mean(-1)
    seen = w * direction
    seen = seen - seen.mean() if centred else seen
    return torch.einsum("pnd,d,n->pn", parts, seen, (variance + eps).rsqrt())


@credit.right
def _(parts, w, eps, centred, direction):
    total = parts.sum(0)
    logit = []
    for one in parts:
        rows = []
        for x, t in zip(one, total, strict=True):
            x, t = (x - x.mean(), t - t.mean()) if centred else (x, t)
            rows.append((x * w * direction).sum() / ((t * t).sum() / len(t) + eps) ** 0.5)
        logit.append(torch.stack(rows))
    return torch.stack(logit)


@credit.wrong("each part normed by itself",
              "Every part got a scale of its own, so that a whisper counts as much as a shout, and the parts no "
              "longer sum to the logit. There is one scale: that of the whole stream.")
def _(parts, w, eps, centred, direction):
    parts = parts - parts.mean(-1, keepdim=True) if centred else parts
    return (parts / (parts.square().mean(-1, keepdim=True) + eps).sqrt() * w) @ direction


@credit.wrong("no norm at all",
              "Between stream and unembedding stands the last norm. Without it the parts sum to something, but not "
              "to the model's logit.")
def _(parts, w, eps, centred, direction):
    return parts @ direction


@credit.wrong("the norm's weights forgotten",
              "The norm multiplies each dimension by its own weight `w` after the division; that weight decides how "
              "loud a dimension is heard.")
def _(parts, w, eps, centred, direction):
    parts = parts - parts.mean(-1, keepdim=True) if centred else parts
    return (parts / (parts.sum(0).square().mean(-1, keepdim=True) + eps).sqrt()) @ direction


@credit.wrong("not centred",
              "LayerNorm removes the mean of the whole stream, and that is the sum of the parts' means: so subtract "
              "from each part its own mean, where `centred` says so.")
def _(parts, w, eps, centred, direction):
    return (parts / (parts.sum(0).square().mean(-1, keepdim=True) + eps).sqrt() * w) @ direction


@credit.wrong("the mean of the parts",
              "The stream is the *sum* of the parts, not their mean: with a mean the scale is too small by their "
              "number, and every part counts too much.")
def _(parts, w, eps, centred, direction):
    parts = parts - parts.mean(-1, keepdim=True) if centred else parts
    return (parts / (parts.mean(0).square().mean(-1, keepdim=True) + eps).sqrt() * w) @ direction


@credit.cases
def _(rng):
    pair = torch.tensor([[[1.0, 2.0, 0.0]], [[0.5, -1.0, 1.0]]])
    yield pair, torch.tensor([1.0, 2.0, 0.5]), 0.1, False, torch.tensor([1.0, -1.0, 2.0])
    yield pair, torch.tensor([1.0, 2.0, 0.5]), 0.1, True, torch.tensor([1.0, -1.0, 2.0])
    yield draw(rng, 6, 4, 5), draw(rng, 5), 0.05, True, draw(rng, 5)
