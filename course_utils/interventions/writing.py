"""Let the model write, many texts at once and with a cache, under whatever intervention is in force.

1. All rows begin at position 0, whatever the length of their prompts: the shortest prompt is read at once; from there
   on every row goes one token a step, and a row whose prompt is longer takes its next token from the prompt instead of
   drawing it. So nothing is padded, no mask is needed, and a hook sees the same position in every row.
2. What earlier positions left in attention is kept (a *cache*), so that a step costs one token a row. Interventions
   know where a step stands by ``lab.past``.
3. Draws are fixed beforehand, a number in [0, 1) for every row and step, and turned into tokens by the cumulative
   distribution. Two interventions with one seed then differ by what they do, and not by luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.lab import Lab


class Sample(NamedTuple):
    """Texts that were written; rows in order of prompts, the ``n`` texts of a prompt together."""

    tokens: Int[Tensor, "rows pos"]
    """BOS, the prompt, what was written; behind that BOS again."""
    start: Int[Tensor, " rows"]
    """Place of the first token that was written."""
    end: Int[Tensor, " rows"]
    """Place behind the last one."""

    def continuations(self) -> list[list[int]]:
        """Return what was written, as token ids."""
        rows = zip(self.tokens.tolist(), self.start.tolist(), self.end.tolist(), strict=True)
        return [ids[start:end] for ids, start, end in rows]


def sample(
    lab: Lab, prompts: str | Tensor | Sequence[str | Tensor], max_new_tokens: int = 32, temperature: float | int = 1.0,
    seed: int = 0, n: int = 1, stop: str | None = None, cache: bool = True,
    draws: Float[Tensor, "rows steps"] | None = None,
) -> Sample:
    """Continue each prompt ``n`` times.

    Parameters
    ----------
    lab
        The opened model.
    prompts
        A text or token ids ``[1 pos]`` with BOS first; or several of them.
    max_new_tokens
        At most so many tokens a row; the end of the context or an end-of-text token stops it earlier.
    temperature, seed
        How tokens are drawn; temperature 0 takes the most likely one each time. The same seed, prompts and ``n`` give
        the same draws, whatever is in force.
    n
        How many continuations of each prompt.
    stop
        A row ends behind the first token whose text holds this, e.g. ``"."``.
    cache
        Keep what attention needs of earlier tokens. Without, the whole context is run anew for every token, which
        gives the same text many times more slowly.
    draws
        Numbers in [0, 1) to draw with, instead of the seed's.

    Raises
    ------
    CourseError
        If there is no prompt, one is empty or fills the context, or a number is out of range.
    """
    if min(max_new_tokens, n) < 1 or not temperature >= 0:
        raise CourseError(f"{max_new_tokens=} and {n=} must be at least 1, {temperature=} at least 0.")
    rows = _rows(lab, [prompts] if isinstance(prompts, str | Tensor) else prompts, n)
    start = torch.tensor([len(row) for row in rows])
    steps = min(max_new_tokens, lab.n_ctx - int(start.min()))
    if draws is None:
        draws = torch.rand(len(rows), steps, generator=torch.Generator().manual_seed(seed))
    if draws.ndim != 2 or draws.shape[0] != len(rows) or draws.shape[1] < steps:
        raise CourseError(f"draws has shape {list(draws.shape)}; {len(rows)} rows of {steps} tokens are written.")
    end = (start + max_new_tokens).clamp(max=lab.n_ctx)
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=lab.bos)
    tokens = torch.nn.functional.pad(tokens, (0, int(end.max()) - tokens.shape[1]), value=lab.bos)
    return _write(lab, Sample(tokens, start, end), draws, temperature, _enders(lab, stop), cache)


def _rows(lab: Lab, prompts: Sequence[str | Tensor], n: int) -> list[Tensor]:
    """Return the token ids of every row, on the CPU."""
    ids = [(lab.encode(prompt) if isinstance(prompt, str) else prompt)[0].cpu() for prompt in prompts]
    if not ids:
        raise CourseError("prompts is empty; give one text or more.")
    if full := [row for row in ids if len(row) >= lab.n_ctx]:
        raise CourseError(f"prompt fills the context of {lab.n_ctx} tokens ({len(full[0])}); shorten it to leave room.")
    return [row for row in ids for _ in range(n)]


def _enders(lab: Lab, stop: str | None) -> Tensor:
    """Mark the tokens behind which a row ends."""
    return torch.tensor([bool(stop) and stop in text for text in lab.token_strings])


def _write(lab: Lab, begun: Sample, draws: Tensor, temperature: float | int, enders: Tensor, cached: bool) -> Sample:
    tokens, start, end = begun
    rows, eos = torch.arange(len(tokens)), lab.tokenizer.eos_token_id  # the bridge gives every tokenizer an EOS
    place, memory = int(start.min()), None
    new = tokens[:, :place]
    while True:
        last, memory = lab.follow(new, memory) if cached else (lab.follow(tokens[:, :place])[0], None)
        if cached and memory is None:
            raise CourseError(f"{lab.name} keeps no memory of earlier tokens; write with cache=False.")
        turn = (place >= start) & (place < end)  # who draws; the others read their prompt, or are done
        drawn = _draw(last.float().cpu(), draws[rows, (place - start).clamp(0, draws.shape[1] - 1)], temperature)
        tokens[turn, place] = drawn[turn]
        over = turn & (drawn == eos)
        tokens[over, place] = lab.bos  # an end of text is no part of it
        end = torch.where(over, place, torch.where(turn & enders[drawn], place + 1, end))
        new, place = tokens[:, place : place + 1], place + 1
        if place >= int(end.max()):
            return Sample(tokens[:, :place], start, end)


def _draw(logits: Float[Tensor, "rows d_vocab"], u: Float[Tensor, " rows"], temperature: float | int) -> Tensor:
    """Draw a token for each row, on the CPU: the same text on every device."""
    if not temperature:
        return logits.argmax(-1)
    ladder = torch.softmax(logits / temperature, -1).cumsum(-1)
    # Rounded, the last rung may stand a little off 1, and a token must never be drawn that does not exist.
    found = torch.searchsorted(ladder, (u * ladder[:, -1])[:, None], right=True)[:, 0]
    return found.clamp(max=logits.shape[1] - 1)


def generate(
    lab: Lab, prompt: str | Sequence[str], max_new_tokens: int = 32, temperature: float | int = 1.0, seed: int = 0,
    n: int = 1, stop: str | None = None,
) -> list[str]:
    """Continue a prompt, or several, ``n`` times each; as `sample`, but in words.

    Returns
    -------
    list of str
        The continuations without the prompts; those of one prompt together.
    """
    written = sample(lab, prompt, max_new_tokens, temperature, seed, n, stop)
    return [lab.text_of(ids) for ids in written.continuations()]
