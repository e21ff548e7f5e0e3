"""The residual stream between two places: what stood at the first, and what each block added up to the second.

A place is a hook of the stream itself: ``blocks.j.hook_resid_pre`` lies at depth j, ``blocks.j.hook_resid_post`` at
depth j + 1. Blocks work one behind the other, so that x at depth b is x at depth a plus what attention and MLP of the
blocks a to b - 1 wrote; `passes` checks that it was so. (``hook_resid_mid`` is no such place: it stands in front of the
MLP's norm, and what is changed there never reaches the stream.)
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.lab import Lab
from course_utils.lab.questions import at

Intervention = Callable[[], AbstractContextManager]
_PLACE = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")
_LOGITS = 2**26  # logits at a time: 256 MB
_TOKENS = {"cpu": 2048}  # tokens at a time: more of them leave a CPU's cache
_ROUNDING = 32  # units in the last place, of the largest value


class Part(NamedTuple):
    """Some rows of text, read at one place of each."""

    rows: Int[Tensor, " n"]
    """Which rows."""
    start: Float[Tensor, "n d"]
    """The stream at the first hook."""
    attention: Float[Tensor, "n layers d"]
    """What each block's attention wrote; zero for blocks that do not lie between the hooks."""
    mlp: Float[Tensor, "n layers d"]
    """The same of its MLP."""
    end: Float[Tensor, "n d"]
    """The stream at the second hook."""
    logits: Float[Tensor, "n d_vocab"]


def depth(lab: Lab, hook: str) -> int:
    """Return how many blocks lie before a place of the residual stream.

    Raises
    ------
    CourseError
        If the hook is not there, or is none of the stream's.
    """
    found = _PLACE.fullmatch(lab.check_hook(hook))
    if not found:
        raise CourseError(f"hook={hook!r} is no place of the residual stream; give blocks.0.hook_resid_pre or "
                          f"blocks.j.hook_resid_post with j from 0 to {lab.n_layers - 1}.")
    return int(found.group(1)) + (found.group(2) == "post")


def check_places(tokens: Int[Tensor, "n pos"], places: Int[Tensor, " _"]) -> None:
    """Refuse places that are not one a row, do not exist, or are BOS, which interventions leave alone."""
    if len(places) != len(tokens) or not len(tokens):
        raise CourseError(f"there are {len(places)} places for {len(tokens)} rows of tokens; give one place a row, and "
                          "a row again for a second place in it.")
    low, high = int(places.min()), int(places.max())
    if low < 1 or high >= tokens.shape[1]:
        what = "position 0 is BOS, which interventions leave alone" if low == 0 else "no such position"
        raise CourseError(f"places hold {low if low < 1 else high}: {what}; they must lie in 1 to "
                          f"{tokens.shape[1] - 1}.")


def passes(lab: Lab, tokens: Int[Tensor, "n pos"], places: Int[Tensor, " _"], hook: str, until: str,
           intervention: Intervention | None = None, rows: int | None = None) -> Iterator[Part]:
    """Run the model over rows of text, some at a time, and keep what stands at one place of each.

    Parameters
    ----------
    lab
        The opened model.
    tokens, places
        Rows of text, BOS first, and the position at which each is read.
    hook, until
        Two places of the stream, the first not behind the second.
    intervention
        Returns what is to be in force, anew for every run; None: nothing.
    rows
        Rows a run; None: as many as memory likes.

    Raises
    ------
    CourseError
        If a hook or place will not do, or the stream is changed elsewhere than at ``hook``.
    """
    first, last = depth(lab, hook), depth(lab, until)
    check_places(tokens, places)
    if first > last:
        raise CourseError(f"hook={hook!r} lies behind {until!r}; give one that lies before it.")
    if rows is not None and rows < 1:
        raise CourseError(f"rows={rows} must be at least 1, or None.")
    halves = [f"blocks.{j}.hook_{half}_out" for half in ("attn", "mlp") for j in range(first, last)]
    most = min(_LOGITS // lab.d_vocab, _TOKENS.get(lab.device.type, 16384)) // tokens.shape[1]
    for some in torch.arange(len(tokens)).split(rows or max(1, most)):
        kept, logits = _run(lab, tokens[some], places[some.to(places.device)], [hook, until, *halves], intervention)
        written = torch.stack([kept[name] for name in halves]) if halves else kept[hook].new_zeros(0, *kept[hook].shape)
        both = kept[hook].new_zeros(2, len(some), lab.n_layers, lab.d_model)
        both[:, :, first:last] = written.unflatten(0, (2, last - first)).transpose(1, 2)
        _check_sum(lab, kept[hook], both, kept[until], (hook, until))
        yield Part(some, kept[hook], both[0], both[1], kept[until], logits)


def _run(lab: Lab, tokens: Int[Tensor, "n pos"], places: Int[Tensor, " n"], hooks: list[str],
         intervention: Intervention | None) -> tuple[dict[str, Tensor], Float[Tensor, "n d_vocab"]]:
    kept: dict[str, Tensor] = {}

    def keep(name: str, activation: Tensor) -> None:
        kept[name] = at(activation, places)  # nothing else of it, or a long text would fill the memory

    with intervention() if intervention else contextlib.nullcontext():
        # Within the block, so that these hooks come after the intervention's and see what it made.
        logits = lab.run(tokens, hooks=[(name, partial(keep, name)) for name in dict.fromkeys(hooks)])
    if missing := [name for name in hooks if name not in kept]:
        raise CourseError(f"{lab.name} has no {missing[0]}; the account needs attention and MLPs that add to it.")
    return kept, at(logits, places)


def _check_sum(lab: Lab, start: Tensor, both: Tensor, end: Tensor, names: tuple[str, str]) -> None:
    wrong = (start + both.sum((0, 2)) - end).abs().max()
    largest = max(float(x.abs().max()) for x in (start, both, end))
    if not wrong <= _ROUNDING * torch.finfo(lab.dtype).eps * largest:
        raise CourseError(f"the stream at {names[1]!r} is not that at {names[0]!r} plus what the blocks between wrote "
                          f"(off by {float(wrong):.2g}); an intervention must act at {names[0]!r} alone, in a model "
                          "whose attention and MLPs add to the stream one behind the other.")
