"""Align: train the subspace in which an attribute can be interchanged (distributed alignment search, DAS).

What it finds was looked for with the model's own answers: it says that there is such a subspace, and not that anything
simpler points to it. A fair test therefore takes entities that the search never saw.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from course_utils.errors import CourseError
from course_utils.interventions.interchange import Pairs, swap, tasks_of
from course_utils.interventions.spaces import Space, Subspace
from course_utils.lab import Lab


class Aligned(NamedTuple):
    """What `das` found."""

    space: Subspace
    loss: Float[np.ndarray, " steps"]
    """Cross-entropy of the wanted answers at each step, in nats; with ``keep`` the sum of both."""


def das(lab: Lab, hook: str, pairs: Pairs, k: int, keep: Pairs | None = None, steps: int = 200, rows: int = 32,
        lr: float = 0.05, seed: int = 0) -> Aligned:
    """Search the subspace whose interchange makes the model say the source's answer (distributed alignment search).

    Only the subspace is trained: the model's weights stay as they are and collect no gradients.

    Parameters
    ----------
    lab, hook
        As in `swap`.
    pairs
        Training questions about the attribute; none of them may come again in a test.
    k
        Dimensions of the subspace.
    keep
        Questions about other attributes, whose answer must stay the base's (RAVEL's multi-task DAS).
    steps, rows, lr
        Steps of Adam, pairs drawn for each, and the rate, which falls to zero.
    seed
        Draws where the search begins, and the pairs.

    Raises
    ------
    CourseError
        If the pairs do not fit the model, or a number is out of range.

    References
    ----------
    Geiger et al. 2024, Finding alignments between interpretable causal variables and distributed neural
    representations, arXiv 2303.02536.
    """
    tasks = [(task, torch.cat([part.sources(lab, hook) for part in task.batches(64)]))
             for task in tasks_of(lab, pairs=pairs, keep=keep)]
    width = tasks[0][1].shape[1]
    if not 1 <= k <= width or min(steps, rows) < 1 or not 0 < lr < float("inf"):
        raise CourseError(f"{k=} must lie in 1 to {width}, {steps=} and {rows=} be at least 1, and {lr=} be positive.")
    generator, losses = torch.Generator().manual_seed(seed), []
    raw = torch.linalg.qr(torch.randn(width, k, generator=generator)).Q.requires_grad_()
    adam = torch.optim.Adam([raw], lr)
    for step in tqdm(range(steps), desc="DAS", unit="step", delay=2, leave=False):
        with torch.enable_grad():
            space, loss = Subspace(torch.linalg.qr(raw).Q), torch.zeros(())
            for task, source in tasks:
                drawn = torch.randperm(len(source), generator=generator)[:rows]
                loss = loss + _loss(lab, hook, task.take(drawn), source[drawn], space)
            # Only what leads to the subspace is differentiated: nothing gathers in the model's own .grad.
            (raw.grad,) = torch.autograd.grad(loss, [raw])
        adam.param_groups[0]["lr"] = lr * (1 - step / steps)
        adam.step()
        losses.append(loss.item())
    return Aligned(Subspace(torch.linalg.qr(raw.detach()).Q), np.array(losses))


def _loss(lab: Lab, hook: str, pairs: Pairs, source: Tensor, space: Space) -> Tensor:
    with swap(lab, hook, source, pairs.base_place, space):
        logits = lab.model(lab.checked(pairs.base))
    ends = pairs.base_end.to(lab.device)
    said = logits[torch.arange(len(ends), device=lab.device), ends]
    return cross_entropy(said.float(), pairs.want.to(lab.device)).cpu()
