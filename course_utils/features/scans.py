"""What every neuron does in several tasks, and how the model fares when some of them stand still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from course_utils.errors import CourseError
from course_utils.lab import Lab, token_losses
from course_utils.lessons import task_prompts

_BATCH = 64  # prompts run at a time


class Prompts(NamedTuple):
    """Prompts of several tasks, padded to one length."""

    tasks: tuple[str, ...]
    tokens: Int[Tensor, "n pos"]
    """BOS first."""
    mask: Bool[Tensor, "n pos"]
    """True on text: neither BOS nor padding."""
    task: Int[np.ndarray, " n"]
    """Number of each prompt's task."""
    opening: Int[np.ndarray, " n"]
    """One number for prompts that begin with the same two tokens: clusters, not independent cases."""

    @property
    def openings(self) -> dict[str, int]:
        """Count the different openings of each task."""
        return {name: len(set(self.opening[self.task == i].tolist())) for i, name in enumerate(self.tasks)}


def prompts_of(lab: Lab, tasks: Mapping[str, Sequence[str]], n: int, n_tokens: int) -> Prompts:
    """Read prompts of several tasks; the arguments are those of `task_prompts`.

    Raises
    ------
    CourseError
        If there are not two tasks, or one is unknown.
    """
    found = task_prompts(lab, tasks, n, n_tokens)
    if len(found) < 2:
        raise CourseError(f"tasks has {len(found)} entry; give two or more, or there is nothing to tell apart.")
    rows = [row[0].cpu() for task in found.values() for row in task]
    tokens = pad_sequence(rows, batch_first=True, padding_value=lab.bos)
    mask = torch.arange(tokens.shape[1]) < torch.tensor([[len(row)] for row in rows])
    mask[:, 0] = False
    opening = np.unique(tokens[:, 1:3].numpy(), axis=0, return_inverse=True)[1].ravel()
    task = np.repeat(np.arange(len(found)), [len(task) for task in found.values()])
    return Prompts(tuple(found), tokens, mask, task, opening)


def deal_openings(prompts: Prompts, n_folds: int = 3, seed: int = 0) -> Int[np.ndarray, " n"]:
    """Deal the openings of each task to folds at random: no opening of a task stands in two of them.

    Raises
    ------
    CourseError
        If a task has fewer openings than there are folds.
    """
    rng, folds = np.random.default_rng(seed), np.empty(len(prompts.task), int)
    for i, (name, count) in enumerate(prompts.openings.items()):
        if count < n_folds:
            raise CourseError(f"n_folds={n_folds}: the prompts of {name!r} have only {count} openings.")
        mine = prompts.task == i
        order = rng.permutation(np.unique(prompts.opening[mine]))
        folds[mine] = [int(np.flatnonzero(order == o)[0]) % n_folds for o in prompts.opening[mine]]
    return folds


def strengths(lab: Lab, prompts: Prompts, hooks: Sequence[str], signed: bool = False) -> Float[np.ndarray, "n units"]:
    """Return each unit's mean size over a prompt's tokens, hook after hook; ``signed``: the mean value itself."""
    found = []
    for tokens, mask in zip(prompts.tokens.split(_BATCH), prompts.mask.split(_BATCH), strict=True):
        seen: list[Tensor] = []
        keep = mask[..., None]

        def add(a: Tensor, seen: list = seen, keep: Tensor = keep) -> None:
            a = a.flatten(2).float().cpu()
            seen.append(((a if signed else a.abs()) * keep).sum(1))

        lab.run(tokens, hooks=[(hook, add) for hook in hooks])
        found.append(torch.cat(seen, 1) / mask.sum(1, keepdim=True))
    return torch.cat(found).numpy()


def losses_without(lab: Lab, prompts: Prompts, hooks: Sequence[str], units: Sequence[int],
                   still: Float[np.ndarray, " units"]) -> Float[np.ndarray, " n"]:
    """Return each prompt's loss (nats a token) with some units held at given values on every token.

    Parameters
    ----------
    lab, prompts, hooks
        As in `strengths`, whose columns number the units.
    units
        Which are held; none: the clean loss.
    still
        The value of every unit, e.g. its mean: ``strengths(..., signed=True).mean(0)``.

    Raises
    ------
    CourseError
        If there is no such unit.
    """
    widths = [lab.capture(prompts.tokens[:1, :2], hook).shape[-1] for hook in hooks]
    ends = np.cumsum(widths)
    wanted = np.unique(np.asarray(units, dtype=int))
    if len(wanted) and not (0 <= wanted[0] and wanted[-1] < ends[-1]):
        raise CourseError(f"units must lie in 0 to {ends[-1] - 1}; given {wanted[0]} to {wanted[-1]}.")
    edits = []
    for hook, end, width in zip(hooks, ends, widths, strict=True):
        mine = wanted[(wanted >= end - width) & (wanted < end)]
        if len(mine):
            edits.append((hook, _holding(torch.from_numpy(mine - (end - width)), torch.from_numpy(still[mine]))))
    found = []
    for tokens, mask in zip(prompts.tokens.split(_BATCH), prompts.mask.split(_BATCH), strict=True):
        tokens, mask = tokens.to(lab.device), mask.to(lab.device)
        found.append(token_losses(lab.run(tokens, hooks=edits), tokens, mask).sum(1) / mask.sum(1))
    return torch.cat(found).float().cpu().numpy()


def _holding(index: Tensor, value: Tensor) -> object:
    def hold(a: Tensor) -> Tensor:
        a = a.clone()
        a[..., index.to(a.device)] = value.to(a)
        return a

    return hold
