"""Judge what was written without asking anybody: words found, surprise, repetition, a probe, distance from clean.

Everything is read from the text alone, by the *unsteered* model: whoever wrote it, under whatever push, it is judged in
the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.interventions import Sample, sample
from course_utils.lab import Lab
from course_utils.steering.lexicon import Lexicon

_LOGITS = 2**24  # logits at a time: 64 MB


class Judged(NamedTuple):
    """What each text is worth."""

    share: Float[Tensor, "rows concepts"]
    """Words of each feature, as a share of the tokens that could be written."""
    cost: Float[Tensor, " rows"]
    """Loss of the written tokens under the unsteered model, in nats a token; 0 if there are none."""
    distinct: Float[Tensor, " rows"]
    """Of the pairs of tokens in a row, the share that is not a repetition of one before; 1 if there are none."""
    probe: Float[Tensor, "rows concepts"] | None = None
    """What a probe says of the written tokens: the mean probability of each concept."""


def judge_text(lab: Lab, written: Sample, words: Lexicon, n_tokens: int,
               probe: tuple[str, Any] | None = None) -> Judged:
    """Judge every text of a sample.

    Parameters
    ----------
    lab
        The opened model; nothing may be in force.
    written
        From `sample`.
    words
        The features' words.
    n_tokens
        How many tokens could be written: a text that broke off counts as if the rest held no word of a feature.
    probe
        A hook, and probes (`linear_probes`) that read there; None: none.
    """
    parts = []
    rows = max(1, _LOGITS // (written.tokens.shape[1] * lab.d_vocab))
    for tokens, start, end in zip(*(part.split(rows) for part in written), strict=True):
        place = torch.arange(tokens.shape[1])
        own = (place >= start[:, None]) & (place < end[:, None])
        parts.append(_part(lab, tokens, own, words, n_tokens, probe))
    share, cost, distinct, said = zip(*parts, strict=True)
    return Judged(torch.cat(share), torch.cat(cost), torch.cat(distinct), torch.cat(said) if probe else None)


def _part(lab: Lab, tokens: Int[Tensor, "rows pos"], own: Bool[Tensor, "rows pos"], words: Lexicon, n_tokens: int,
          probe: tuple[str, Any] | None) -> Judged:
    seen: list[Tensor] = []
    hooks = [(probe[0], lambda x: seen.append(x.flatten(2).float().cpu()))] if probe else []
    row, place = own.nonzero(as_tuple=True)
    with lab.hooked(*hooks):
        before = lab.logits_at(tokens, row, place - 1).float()
    loss = before.logsumexp(-1) - before.gather(1, tokens.to(before.device)[row, place][:, None])[:, 0]
    count = own.sum(1).clamp(min=1)
    losses = torch.zeros(len(tokens)).index_add_(0, row, loss.cpu())
    share = (words.marks(lab, tokens) & own[..., None]).sum(1) / n_tokens
    said = None
    if probe:
        chance = torch.sigmoid(probe[1].values(seen[0].flatten(0, 1))).reshape(*tokens.shape, -1)
        said = (chance * own[..., None]).sum(1) / count[:, None]
    return Judged(share, losses / count, distinct(tokens, own), said)


def distinct(tokens: Int[Tensor, "rows pos"], own: Bool[Tensor, "rows pos"], n: int = 2) -> Float[Tensor, " rows"]:
    """Return the share of a text's n-grams that are not repetitions (distinct-n, Li et al. 2016, for one text).

    Examples
    --------
    >>> tokens = torch.tensor([[0, 7, 8, 7, 8, 7]])
    >>> distinct(tokens, tokens > 0).tolist()  # 7 8, 8 7, and both again
    [0.5]
    """
    found = []
    for row, mask in zip(tokens, own, strict=True):
        ids = row[mask].tolist()
        grams = list(zip(*(ids[i:] for i in range(n)), strict=False))
        found.append(len(set(grams)) / len(grams) if grams else 1.0)
    return torch.tensor(found)


def pasted(lab: Lab, prompts: Sequence[Tensor], texts: Sequence[Sequence[int]], n_tokens: int) -> Sample:
    """Put real text behind each prompt, text i behind prompt i: what "about it and fluent" can look like at best.

    Parameters
    ----------
    lab
        The opened model.
    prompts
        Token ids ``[1 pos]``, BOS first.
    texts
        Token ids; cut to ``n_tokens``.
    n_tokens
        How many of its tokens a text may add.

    Raises
    ------
    CourseError
        If there are not as many texts as prompts.
    """
    if len(texts) != len(prompts) or not texts:
        raise CourseError(f"there are {len(texts)} texts for {len(prompts)} prompts; give one text a prompt.")
    heads = [prompt[0].cpu() for prompt in prompts]
    rows = [torch.cat([head, torch.tensor(list(text[:n_tokens]), dtype=head.dtype)])[: lab.n_ctx]
            for head, text in zip(heads, texts, strict=True)]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=lab.bos)
    return Sample(tokens, torch.tensor([len(head) for head in heads]), torch.tensor([len(row) for row in rows]))


def prompted(lab: Lab, prompts: Sequence[Tensor], texts: Sequence[Sequence[int]], n_tokens: int,
             seed: int = 0) -> Sample:
    """Put text about a feature *before* each prompt, let the model go on, and take that text away again.

    So the baseline of those who do not steer is judged as steered text is: by what it says, and by how surprised the
    model would be to see it behind the prompt alone.

    Parameters
    ----------
    lab, prompts, n_tokens
        As in `pasted`.
    texts
        Token ids, text i before prompt i.
    seed
        As in `sample`.
    """
    room = lab.n_ctx - n_tokens - max(prompt.shape[1] for prompt in prompts)
    rows = ((prompt[0].cpu(), torch.tensor(list(text[:room]), dtype=prompt.dtype))
            for prompt, text in zip(prompts, texts, strict=True))
    longer = [torch.cat([row[:1], before, row[1:]])[None] for row, before in rows]
    return pasted(lab, prompts, sample(lab, longer, n_tokens, seed=seed).continuations(), n_tokens)


def divergence(clean: Float[Tensor, "n d_vocab"], other: Float[Tensor, "n d_vocab"]) -> Float[Tensor, " n"]:
    """Return KL(clean ‖ other) of each row of logits, in nats."""
    p, q = (torch.log_softmax(logits.float(), -1) for logits in (clean, other))
    return (p.exp() * (p - q)).sum(-1)
