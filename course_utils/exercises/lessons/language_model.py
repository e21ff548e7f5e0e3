"""Notebook 01: the most probable next tokens, the loss in nats, the norm in front of every block."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise, draw

top = Exercise("01.1", "the next token", stars=1, minutes=5, lines=2, hints=(
    "`torch.softmax(logits, -1)` makes probabilities of *all* logits; only then ask for the largest.",
    "`.topk(k)` returns `.values`, largest first, and `.indices`, which are the token ids."))


@top.reference
def completions(logits, k):
    """Return the ids and the probabilities of the k most probable next tokens, from logits [... d_vocab]."""
    best = torch.softmax(logits, -1).topk(k)
    return best.indices, best.values


@top.right
def _(logits, k):
    ids = logits.argsort(-1, descending=True)[..., :k]
    return ids, (logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)).exp()


@top.right
def _(logits, k):
    weights = 2.718281828459045 ** (logits - logits.amax(-1, keepdim=True))
    p, ids = (weights / weights.sum(-1, keepdim=True)).sort(-1, descending=True)
    return ids.narrow(-1, 0, k), p.narrow(-1, 0, k)


@top.wrong("the rest of the vocabulary is forgotten",
           "You took the largest logits first and the softmax over those alone, so that k tokens share all of the "
           "probability. The softmax must run over the whole vocabulary.")
def _(logits, k):
    best = logits.topk(k)
    return best.indices, torch.softmax(best.values, -1)


@top.wrong("logits are not probabilities",
           "These are logits: they may be negative and do not sum to anything. The softmax turns them into "
           "probabilities.")
def _(logits, k):
    best = logits.topk(k)
    return best.indices, best.values


@top.wrong("each token on its own",
           "A sigmoid asks of every token 'yes or no?', so that the probabilities do not sum to one. The next token "
           "is one of many: use the softmax.")
def _(logits, k):
    best = torch.sigmoid(logits).topk(k)
    return best.indices, best.values


@top.wrong("divided without the exponential",
           "Dividing the logits by their sum does not make probabilities: logits may be negative, and their sum "
           "near zero. Exponentiate first.")
def _(logits, k):
    best = (logits / logits.sum(-1, keepdim=True)).topk(k)
    return best.indices, best.values


@top.cases
def _(rng):
    yield torch.tensor([2.0, -1.0, 1.5]), 2
    yield draw(rng, 11, scale=3), 1
    yield 40 + draw(rng, 3, 30, scale=2), 7


nats = Exercise("01.2", "surprise in nats", stars=1, minutes=8, lines=2, hints=(
    "The logits at position i are about the token at position i + 1. So the last row of logits has nothing to be "
    "compared with, and the first token (BOS) is never predicted.",
    "`torch.log_softmax(logits[:-1], -1)` gives log-probabilities; pick from row i the column `tokens[i + 1]`, and "
    "mind the sign."))


@nats.reference
def surprise(logits, tokens):
    """Return the loss of every token but the first, in nats, from logits [pos d_vocab] and tokens [pos]."""
    log_probs = torch.log_softmax(logits[:-1], -1)
    return -log_probs[torch.arange(len(tokens) - 1), tokens[1:]]


@nats.right
def _(logits, tokens):
    return torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none")


@nats.right
def _(logits, tokens):
    return torch.stack([torch.logsumexp(logits[i], 0) - logits[i, tokens[i + 1]] for i in range(len(tokens) - 1)])


@nats.wrong("asked about the token that it has just read",
            "You looked up token i in the logits at position i. That position has already read token i; its logits "
            "are about the *next* one, token i + 1.")
def _(logits, tokens):
    return torch.nn.functional.cross_entropy(logits, tokens, reduction="none")[1:]


@nats.wrong("shifted the wrong way",
            "You paired the logits at position i + 1 with token i: the model is asked about the token *before* "
            "last. Logits `[:-1]` belong to tokens `[1:]`.")
def _(logits, tokens):
    return torch.nn.functional.cross_entropy(logits[1:], tokens[:-1], reduction="none")


@nats.wrong("bits, not nats",
            "This is the loss in bits (logarithm to base 2). The course, like PyTorch, uses the natural logarithm: "
            "one nat is 1.44 bits.")
def _(logits, tokens):
    return torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none") / 0.6931471805599453


@nats.wrong("the sign",
            "These are log-probabilities, which are never above zero. A loss is *minus* the log-probability: zero "
            "where the model was sure and right, large where it was surprised.")
def _(logits, tokens):
    return -torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none")


@nats.wrong("the raw logit",
            "You took minus the logit, which lacks the softmax's denominator: add 1 to all logits and the model "
            "says the same, but your loss falls by 1.")
def _(logits, tokens):
    return -logits[:-1][torch.arange(len(tokens) - 1), tokens[1:]]


@nats.cases
def _(rng):
    yield torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]]), torch.tensor([0, 2])
    yield draw(rng, 6, 9, scale=3), torch.from_numpy(rng.integers(0, 9, 6))


norm = Exercise("01.3", "the norm before every block", stars=1, minutes=8, lines=2, hints=(
    "Everything happens within one vector: `mean(-1, keepdim=True)` keeps the axis, so that it can be subtracted.",
    "First subtract the mean (only if `centred`). Then divide by `(x.square().mean(-1, keepdim=True) + "
    "eps).sqrt()`, where x is what is left. `w` and `b` come last."))


@norm.reference
def normalise(x, w, b, eps, centred):
    """Normalise vectors [... d_model]: LayerNorm if centred, else RMSNorm, which does not subtract the mean."""
    x = x - x.mean(-1, keepdim=True) if centred else x
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * w + b


@norm.right
def _(x, w, b, eps, centred):
    if centred:
        return torch.nn.functional.layer_norm(x, x.shape[-1:], w, b, eps)
    return torch.nn.functional.rms_norm(x, x.shape[-1:], w, eps) + b


@norm.right
def _(x, w, b, eps, centred):
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        row = row - row.sum() / len(row) * bool(centred)
        rows.append(w * row * torch.rsqrt(row @ row / len(row) + eps) + b)
    return torch.stack(rows).reshape(x.shape)


@norm.wrong("n − 1",
            "`x.std()` divides by n − 1, the norm by n. In a wide model the difference is small, which is why it is "
            "so easily missed; use `unbiased=False` or the mean of squares.")
def _(x, w, b, eps, centred):
    x = x - x.mean(-1, keepdim=True) if centred else x
    n = x.shape[-1]
    return x / (x.square().sum(-1, keepdim=True) / (n - 1) + eps).sqrt() * w + b


@norm.wrong("always centred",
            "RMSNorm (Llama) does not subtract the mean. Only LayerNorm (GPT-2) does: look at `centred`.")
def _(x, w, b, eps, centred):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], w, b, eps)


@norm.wrong("never centred", "LayerNorm subtracts the vector's mean before it divides; `centred` says whether to.")
def _(x, w, b, eps, centred):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * w + b


@norm.wrong("over the tokens",
            "You took mean and spread along the positions, so that one token changes another's vector. Each vector "
            "is normalised by itself, along the last axis.")
def _(x, w, b, eps, centred):
    x = x - x.mean(-2, keepdim=True) if centred else x
    return x / (x.square().mean(-2, keepdim=True) + eps).sqrt() * w + b


@norm.wrong("eps outside of the root",
            "`eps` is added to the mean of squares, under the root. Outside it counts far more: the root of 0.00001 "
            "is 0.003.")
def _(x, w, b, eps, centred):
    x = x - x.mean(-1, keepdim=True) if centred else x
    return x / (x.square().mean(-1, keepdim=True).sqrt() + eps) * w + b


@norm.cases
def _(rng):
    yield torch.tensor([[1.0, 3.0], [0.0, 0.1]]), torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.5]), 0.01, True
    yield torch.tensor([[1.0, 3.0], [0.0, 0.1]]), torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.5]), 0.01, False
    yield 0.3 + draw(rng, 2, 4, 5), draw(rng, 5), draw(rng, 5), 0.02, True
