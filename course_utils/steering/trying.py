"""Try many pushes at once: every row of a batch is steered by a direction and a dose of its own.

A small model spends most of a step on everything but arithmetic, so that 512 rows cost little more than 64. All
pushes are tried on the same prompts with the same draws, so that they differ by what they do, and not by luck.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from course_utils.errors import CourseError
from course_utils.interventions import sample, steer
from course_utils.lab import Lab
from course_utils.steering.judging import divergence, judge_text
from course_utils.steering.lexicon import Lexicon
from course_utils.steering.traits import Prompts, Trait, log_odds

_ROWS = 512  # rows written at a time
_TOKENS = 4096  # tokens read at a time: more of them leave a CPU's cache, and take twice as long


class Outcome(NamedTuple):
    """What came of every push."""

    share: Float[Tensor, "pushes prompts n concepts"]
    """Words of each feature, as a share of the tokens that could be written."""
    cost: Float[Tensor, "pushes prompts n"]
    """Loss of what was written under the unsteered model, in nats a token."""
    distinct: Float[Tensor, "pushes prompts n"]
    """Share of its pairs of tokens that are no repetition."""
    probe: Float[Tensor, "pushes prompts n concepts"] | None
    """Mean probability of each concept, as a probe reads it from the text."""


def try_out(
    lab: Lab, hook: str, directions: Float[Tensor, "pushes d"], scales: Sequence[float] | Tensor,
    prompts: Sequence[str | Tensor], words: Lexicon, n: int = 5, n_tokens: int = 24, seed: int = 0,
    probe: tuple[str, Any] | None = None, said: str = "writing",
) -> Outcome:
    """Write under each push, ``n`` texts behind each prompt, and judge them.

    Parameters
    ----------
    lab
        The opened model.
    hook
        Where to push.
    directions, scales
        One direction and one scale a push.
    prompts
        Texts, or token ids ``[1 pos]`` with BOS first.
    words
        Whose words are searched.
    n, n_tokens, seed
        Texts a prompt, tokens a text, and what draws them.
    probe
        As in `judge_text`.
    said
        What the progress bar says.

    Raises
    ------
    CourseError
        If there is not one scale a direction, or no prompt.
    """
    scales = torch.as_tensor(scales, dtype=torch.float32).flatten()
    if len(scales) != len(directions) or not len(prompts):
        raise CourseError(f"there are {len(directions)} directions, {len(scales)} scales and {len(prompts)} prompts; "
                          "give one scale a direction, and a prompt or more.")
    if lab.past is not None or any(point.fwd_hooks for point in lab.model.hook_dict.values()):
        raise CourseError("something is in force already; try_out must be called outside of any 'with steer(...)'.")
    each = len(prompts) * n
    draws = torch.rand(each, n_tokens, generator=torch.Generator().manual_seed(seed))
    judged, at_once = [], max(1, _ROWS // each)
    # All pushes of dose 0 write the same: the first of them stands for all.
    once = torch.cat([scales.nonzero()[:, 0], (scales == 0).nonzero()[:1, 0]])
    with tqdm(total=len(once), desc=said, unit="push", delay=2, leave=False) as bar:
        for some, strength in zip(directions[once].split(at_once), scales[once].split(at_once), strict=True):
            m = len(some)
            with steer(lab, hook, some.repeat_interleave(each, 0), strength.repeat_interleave(each)):
                written = sample(lab, list(prompts) * m, n_tokens, n=n, draws=draws.repeat(m, 1))
            judged.append(judge_text(lab, written, words, n_tokens, probe))
            bar.update(m)
    parts = [torch.cat(part) if part[0] is not None else None for part in zip(*judged, strict=True)]
    place = torch.full((len(directions),), len(once) - 1)
    place[scales != 0] = torch.arange(int((scales != 0).sum()))
    shape = len(once), len(prompts), n
    return Outcome(*(None if part is None else part.reshape(*shape, *part.shape[1:])[place] for part in parts))


class Tried(NamedTuple):
    """What several methods did for several features, each feature judged by its own words."""

    share: Float[np.ndarray, "methods doses concepts prompts n"]
    """The feature's words, as a share of the tokens that could be written."""
    cost: Float[np.ndarray, "methods doses concepts prompts n"]
    """Nats a token under the unsteered model."""
    distinct: Float[np.ndarray, "methods doses concepts prompts n"]
    """Share of pairs of tokens that are no repetition."""
    probe: Float[np.ndarray, "methods doses concepts prompts n"] | None
    """What a probe for the feature reads in the text."""

    def at(self, dose: Int[np.ndarray, "methods concepts"]) -> Tried:
        """Pick one dose for each method and feature; the axis of doses is gone."""
        m, c = np.indices(dose.shape)
        return Tried(*(None if part is None else part[m, dose, c] for part in self))


def try_methods(
    lab: Lab, hook: str, methods: Mapping[str, Float[Tensor, "concepts d"]], scales: Collection,
    prompts: Sequence[str | Tensor], words: Lexicon, n: int = 5, n_tokens: int = 24, seed: int = 0,
    probe: tuple[str, Any] | None = None, said: str = "writing",
) -> Tried:
    """Steer every feature by every method at every dose.

    Parameters
    ----------
    lab, hook, prompts, words, n, n_tokens, seed, probe, said
        As in `try_out`.
    methods
        Method → a direction for each feature of ``words``, in its order.
    scales
        The doses in the activation's own units: a list for all, or ``[methods concepts]``, one for each, and then the
        axis of doses has length 1.

    Raises
    ------
    CourseError
        If a method has not one direction for each feature, or there is not one scale for each of them.
    """
    m, c = len(methods), len(words.names)
    scale = np.asarray(scales, dtype=float)
    scale = scale[:, None] if scale.ndim == 2 else np.broadcast_to(scale[None, :, None], (m, len(scale), c))
    if not m or any(len(vectors) != c for vectors in methods.values()) or scale.shape != (m, scale.shape[1], c):
        raise CourseError(f"each method needs {c} directions, one a feature, and scales must be a list, or one for "
                          f"each: [{m}, {c}].")
    vectors = torch.stack(list(methods.values()))[:, None].expand(-1, scale.shape[1], -1, -1)  # [m doses c d]
    found = try_out(lab, hook, vectors.flatten(0, 2), torch.tensor(scale).flatten(), prompts, words, n, n_tokens, seed,
                    probe, said)
    own, places = torch.arange(c).repeat(m * scale.shape[1]), torch.arange(m * scale.shape[1] * c)
    parts = [None if part is None else (part[places, ..., own] if part.ndim == 4 else part) for part in found]
    return Tried(*(None if part is None else part.reshape(*scale.shape, *part.shape[1:]).numpy() for part in parts))


@torch.no_grad()
def side_effect(
    lab: Lab, hook: str, directions: Float[Tensor, "pushes d"], scales: Sequence[float] | Tensor,
    tokens: Int[Tensor, "batch pos"], mask: Tensor,
) -> Float[Tensor, " pushes"]:
    """Return how far each push moves the model's predictions on unrelated text: the mean KL(clean ‖ steered), in nats.

    Parameters
    ----------
    lab, hook, directions, scales
        As in `try_out`.
    tokens, mask
        A batch of text, and where it holds tokens rather than padding; BOS does not count.
    """
    scales = torch.as_tensor(scales, dtype=torch.float32).flatten()
    there = mask.clone()
    there[:, 0] = False
    clean, moved = lab.logits(tokens)[there], []
    for direction, scale in zip(directions, scales, strict=True):
        with steer(lab, hook, direction, float(scale)):
            moved.append(divergence(clean, lab.logits(tokens)[there]).mean())
    return torch.stack(moved).cpu()


def next_token(
    lab: Lab, hook: str, directions: Float[Tensor, "pushes d"], scales: Sequence[float] | Tensor,
    tokens: Int[Tensor, "n pos"], ends: Int[Tensor, " n"],
) -> Float[Tensor, "pushes n d_vocab"]:
    """Return the logits behind each prompt under each push.

    Parameters
    ----------
    lab, hook, directions, scales
        As in `try_out`.
    tokens, ends
        Prompts padded behind, and the place of each one's last token.
    """
    scales = torch.as_tensor(scales, dtype=torch.float32).flatten()
    n, found = len(tokens), []
    at_once = max(1, _TOKENS // tokens.numel())
    for some, strength in zip(directions.split(at_once), scales.split(at_once), strict=True):
        m = len(some)
        with steer(lab, hook, some.repeat_interleave(n, 0), strength.repeat_interleave(n)):
            logits = lab.logits_at(tokens.repeat(m, 1), torch.arange(m * n), ends.repeat(m))
        found.append(logits.float().cpu().reshape(m, n, -1))
    return torch.cat(found)


def both_ways(
    lab: Lab, hook: str, directions: Float[Tensor, "pushes d"], scale: float | int, trait: Trait, asked: Prompts
) -> Float[Tensor, "pushes 2 n"]:
    """Return how a trait's log-odds change behind each prompt when a direction is turned up, and down, in nats.

    Parameters
    ----------
    lab, hook, directions
        As in `try_out`.
    scale
        How far to turn, in the activation's own units.
    trait, asked
        From `traits`.
    """
    n = len(directions)
    still = log_odds(next_token(lab, hook, directions[:1], [0.0], asked.tokens, asked.ends)[0], trait)
    turned = next_token(lab, hook, directions.repeat(2, 1), [scale] * n + [-scale] * n, asked.tokens, asked.ends)
    odds = torch.stack([log_odds(part, trait) for part in turned])
    return (odds - still).reshape(2, n, -1).movedim(0, 1)
