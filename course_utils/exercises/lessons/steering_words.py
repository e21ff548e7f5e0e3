"""Notebook 08, what steering does to the next token: how far from clean, and how much nearer to the feature's words."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise, draw

kl = Exercise("08.3", "how far from clean", stars=2, minutes=10, lines=3, hints=(
    "Turn both into log-probabilities. The divergence is what the clean model expects to lose by the change: the mean "
    "of log p − log q under p, the clean probabilities.",
    "With `log_p = clean.log_softmax(1)` and `log_q` likewise: `log_p.exp() * (log_p - log_q)`, summed over the "
    "vocabulary."))


@kl.reference
def kl_to_clean(clean, steered):
    """Return KL(clean || steered) in nats for each row of logits; clean, steered [n d_vocab]."""
    log_p = clean.log_softmax(1)
    log_q = steered.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


@kl.right
def _(clean, steered):
    log_p, log_q = (torch.log_softmax(logits, -1) for logits in (clean, steered))
    return torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


@kl.right
def _(clean, steered):
    expected = (clean.softmax(1) * (clean - steered)).sum(1)
    return expected + steered.logsumexp(1) - clean.logsumexp(1)


@kl.right
def _(clean, steered):
    p, q = clean.softmax(1), steered.softmax(1)
    return torch.stack([sum(a * torch.log(a / b) for a, b in zip(*rows, strict=True))
                        for rows in zip(p, q, strict=True)])


@kl.wrong("the other way round", "This is KL(steered || clean): you weigh by the steered probabilities. Asked for is "
          "the mean under the *clean* ones, which counts what the model would have said and now says less.")
def _(clean, steered):
    log_p, log_q = clean.log_softmax(1), steered.log_softmax(1)
    return (log_q.exp() * (log_q - log_p)).sum(1)


@kl.wrong("in bits", "You took logarithms to base 2, or divided by log 2: that is bits. Losses in this course are in "
          "nats, with the natural logarithm.")
def _(clean, steered):
    log_p, log_q = clean.log_softmax(1), steered.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1) / torch.tensor(2.0).log()


@kl.wrong("logits taken for log-probabilities", "You subtract the logits as they are. Add 3 to all of a row's logits, "
          "and no probability moves, but your answer does: take `log_softmax` of both first.")
def _(clean, steered):
    return (clean.softmax(1) * (clean - steered)).sum(1)


@kl.wrong("a mean over the vocabulary", "You average over the vocabulary. The probabilities are weights that add up to "
          "1 already, so that their *sum* is the mean.")
def _(clean, steered):
    log_p, log_q = clean.log_softmax(1), steered.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).mean(1)


@kl.wrong("symmetrised", "You average both directions. They ask different things, and a word that is impossible in one "
          "of the models makes one of them huge; asked for is the one under the clean model.")
def _(clean, steered):
    log_p, log_q = clean.log_softmax(1), steered.log_softmax(1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1) / 2


@kl.wrong("one number for all rows", "You averaged the rows (`reduction=\"batchmean\"` does that). Keep one number a "
          "row: the interval comes from how much they differ.")
def _(clean, steered):
    log_p, log_q = clean.log_softmax(1), steered.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


@kl.cases
def _(rng):
    yield torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    clean = draw(rng, 4, 7, scale=1.5)
    yield clean, clean + draw(rng, 4, 7)
    yield clean, clean + torch.tensor([[3.0], [-2.0], [0.0], [1.0]])


odds = Exercise("08.6", "output score", stars=2, minutes=12, lines=3, hints=(
    "The words together have one probability p, the sum of theirs. Odds are p / (1 − p): what is on the words, over "
    "what is on all others. Take the logarithm, before and after.",
    "Log-odds are `logits[:, inside].logsumexp(1) - logits[:, ~inside].logsumexp(1)`, with `inside` True at the words; "
    "or `logits.softmax(1)[:, words].sum(1).logit()`."))


@odds.reference
def rise(clean, steered, words):
    """Return how much the log-odds that the next token is one of words (ids [k]) rise; clean, steered [n d_vocab]."""
    inside = torch.isin(torch.arange(clean.shape[1]), words)
    before, after = (x[:, inside].logsumexp(1) - x[:, ~inside].logsumexp(1) for x in (clean, steered))
    return after - before


@odds.right
def _(clean, steered, words):
    p, q = (logits.softmax(1)[:, words].sum(1) for logits in (clean, steered))
    return q.logit() - p.logit()


@odds.right
def _(clean, steered, words):
    def log_odds(row):
        weight = (row - row.max()).exp()
        hit = sum(weight[i] for i in words.tolist())
        return (hit / (weight.sum() - hit)).log()

    return torch.stack([log_odds(b) - log_odds(a) for a, b in zip(clean, steered, strict=True)])


@odds.wrong("a difference of probabilities", "You subtract probabilities. They stick at 0: from one in a million to "
            "one in a thousand is a large step for the direction, and a rise of 0.001 here. Log-odds do not stick.")
def _(clean, steered, words):
    p, q = (logits.softmax(1)[:, words].sum(1) for logits in (clean, steered))
    return q - p


@odds.wrong("each word for itself", "You average the rises of the single words' log-probabilities, so that a word that "
            "nobody would say here weighs as much as the likeliest. Sum the probabilities of the words first.")
def _(clean, steered, words):
    return (steered.log_softmax(1) - clean.log_softmax(1))[:, words].mean(1)


@odds.wrong("logits only", "You average the rises of the words' logits. If all logits rise together, no word has "
            "become likelier; compare the words with the rest of the vocabulary.")
def _(clean, steered, words):
    return (steered - clean)[:, words].mean(1)


@odds.wrong("log p, not log-odds", "This is the rise of log p. It can rise no further once p is near 1, and counts the "
            "way there as next to nothing. Log-odds, log p − log(1 − p), treat both ends alike.")
def _(clean, steered, words):
    p, q = (logits.softmax(1)[:, words].sum(1) for logits in (clean, steered))
    return q.log() - p.log()


@odds.wrong("a ratio of odds", "You divide the odds, and leave it there. The ratio is never below 0, and a mean of "
            "ratios is ruled by the largest; the rise of the log-odds is its logarithm.")
def _(clean, steered, words):
    p, q = (logits.softmax(1)[:, words].sum(1) for logits in (clean, steered))
    return q / (1 - q) / (p / (1 - p))


@odds.wrong("the wrong way", "You subtract the steered log-odds from the clean ones: your rise is a fall.")
def _(clean, steered, words):
    p, q = (logits.softmax(1)[:, words].sum(1) for logits in (clean, steered))
    return p.logit() - q.logit()


@odds.cases
def _(rng):
    yield torch.tensor([[0.0, 0.0, 0.0, 0.0]]), torch.tensor([[2.0, 0.0, 1.0, 0.0]]), torch.tensor([0, 1])
    clean = draw(rng, 3, 9, scale=1.5)
    yield clean, clean + draw(rng, 3, 9) + 2, torch.tensor([7, 0, 4])
    yield clean, clean + draw(rng, 3, 9), torch.tensor([5])
