"""Training all instances at once: gradients by hand for the toys, automatic ones for anything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from course_utils.errors import CourseError
from course_utils.toy.models import Toy, losses


class Training(NamedTuple):
    """What a training run gives back."""

    toy: Toy
    """The trained weights."""
    loss: Float[Tensor, "logged instances"]
    """Each instance's loss on its own batch, at the logged steps."""
    steps: list[int]
    """The logged steps."""


class _Gradient:
    """Gradients by hand (step 3 above), in buffers that are made once: allocating them would take most of the time."""

    def __init__(self, toy: Toy, n: int, importance: Tensor, relu: bool):
        instances, m, f = toy.W.shape
        self.h, self.back = torch.empty(instances, m, n), torch.empty(instances, m, n)
        self.out, self.d = torch.empty(instances, f, n), torch.empty(instances, f, n)
        self.scale, self.relu = 2 * importance / n, relu

    def __call__(self, toy: Toy, x: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.scale[:, None, :]
        torch.bmm(toy.W, x, out=self.h)
        torch.baddbmm(toy.b[:, :, None], toy.W.mT, self.h, out=self.out)
        torch.sub(self.out.relu_() if self.relu else self.out, x, out=self.d)
        if self.relu:
            self.d.mul_(self.out.sign_())
        torch.bmm(toy.W * scale, self.d, out=self.back)
        return torch.baddbmm(scale * (self.h @ self.d.mT), self.back, x.mT), self.scale * self.d.sum(2)


def train(toy: Toy, draw: Callable[[int], Tensor], importance: Float[Tensor, "#instances f"] | None = None, *,
          steps: int = 2000, lr: float | int = 0.01, relu: bool = True, log_every: int = 0) -> Training:
    """Train every instance at once, each on its own batches; the toys given stay as they are.

    Parameters
    ----------
    toy
        Where to start, e.g. :func:`new_toys`.
    draw
        Step → batch ``[instances n f]``, e.g. :func:`batches`; equally large at every step.
    importance
        Weight of each feature in the loss; all 1 by default.
    steps, lr
        Number of Adam's steps, and the learning rate of the first; it falls to zero along a cosine.
    relu
        False trains the linear model x' = Wᵀ W x + b.
    log_every
        Log the loss before every so many steps, and before the last; 0: the last only.

    Raises
    ------
    CourseError
        If steps or lr are not positive, or a batch does not fit the toys.
    """
    weights = Toy(toy.W.clone(), toy.b.clone())
    importance = torch.ones(1, weights.b.shape[1]) if importance is None else importance
    compute, logged, at = None, [], []

    def gradient(step: int) -> tuple[Tensor, Tensor]:
        nonlocal compute
        x = draw(step)
        compute = compute or _Gradient(weights, _fitting(x, weights), importance, relu)
        if step == steps - 1 or log_every and step % log_every == 0:
            logged.append(losses(weights, x, importance, relu=relu))
            at.append(step)
        return compute(weights, x.mT)

    _descend(weights, gradient, steps, lr)
    return Training(weights, torch.stack(logged), at)


def fit(weights: Sequence[Tensor], loss: Callable[[Sequence[Tensor], int], Tensor], *, steps: int = 2000,
        lr: float | int = 0.01) -> list[Tensor]:
    """Train any other toy, by automatic differentiation, as :func:`train` does it by hand.

    Parameters
    ----------
    weights
        Where to start: tensors whose first axis is the instance. They stay as they are.
    loss
        ``loss(weights, step)`` returns the losses ``[instances]``.
    steps, lr
        As in :func:`train`.
    """
    weights = [w.clone().requires_grad_() for w in weights]
    _descend(weights, lambda step: torch.autograd.grad(loss(weights, step).sum(), weights), steps, lr)
    return [w.detach() for w in weights]


def _descend(weights: Sequence[Tensor], gradient: Callable[[int], Sequence[Tensor]], steps: int,
             lr: float | int) -> None:
    if steps < 1 or lr <= 0:
        raise CourseError(f"steps={steps} and lr={lr} must be positive.")
    optimizer = torch.optim.Adam(weights, lr=lr, fused=True)
    for step in tqdm(range(steps), "toys", delay=2, leave=False, mininterval=0.5):
        for w, g in zip(weights, gradient(step), strict=True):
            w.grad = g.contiguous()  # fused Adam walks through memory and pairs weights with gradients by their place
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.step()


def _fitting(x: Tensor, toy: Toy) -> int:
    instances, _, f = toy.W.shape
    if x.ndim != 3 or (x.shape[0], x.shape[2]) != (instances, f):
        raise CourseError(f"the batch has shape {tuple(x.shape)}; these toys need [{instances} n {f}].")
    return x.shape[1]
