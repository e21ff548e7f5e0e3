"""The training loop: what the library's ``SAETrainer`` does, in its order, able to stop and resume anywhere.

It knows the library only by what it is handed (`Parts`), writes no logs but its own rows, and loads no pickle.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from course_utils.dictionaries import checkpoints
from course_utils.dictionaries.recipes import Recipe
from course_utils.dictionaries.steps import Outcome
from course_utils.errors import CourseError

Rows = list[dict[str, int | float]]


class Parts(NamedTuple):
    """What the library supplies for one family."""

    sae: Any
    """Its TrainingSAE, initialised."""
    gradients: Callable[..., Outcome]
    """One of `steps`, with ``weights``: what Adam is to move."""
    rates: list[float]
    """Learning rate of every step."""
    coefficients: dict[str, Any]
    """Schedules of the loss's weights, by name: ``value``, ``step()``, ``load_state_dict()``."""


class BatchTopK(torch.nn.Module):
    """The library's BatchTopK (but for ties), without sorting every pre-activation: a third off a step on a CPU.

    The last threshold bounds the search for the next: only what lies above four fifths of it is sorted.
    """

    def __init__(self, k: int | float) -> None:
        super().__init__()
        self.k, self.last = k, 0.0

    def forward(self, x: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_sae"]:
        """Keep the ``k * batch`` largest positive values: ``k`` a row on average."""
        n, flat = int(self.k * len(x)), x.detach().flatten()
        candidates = flat[flat > 0.8 * self.last]
        if len(candidates) < n:
            candidates = flat[flat > 0]
        if len(candidates) <= n:
            return x.relu()
        threshold = candidates.topk(n, sorted=False).values.min()
        self.last = float(threshold)
        return x * (x >= threshold)


def rates(scheduler: Callable[..., Any], recipe: Recipe, d: int) -> list[float]:
    """Return the learning rate of every step by the library's scheduler; a list, so that resuming needs no state."""
    peak = recipe.rate(d)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = scheduler("constant", optimizer, recipe.n_steps, peak, recipe.warm_up, recipe.decay, peak, 1)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates an argument that its own SequentialLR passes on
        for _ in range(recipe.n_steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    return found


class Trainer:
    """One SAE in training, with everything that the next step depends on."""

    def __init__(self, recipe: Recipe, parts: Parts, scale: float, heldout: Tensor | None = None) -> None:
        self.recipe, self.sae, self.gradients, self.rates, self.coefficients = recipe, *parts
        self.scale, self.steps, self.heldout = scale, 0, heldout
        self.device = self.sae.W_dec.device
        frozen = {"W_dec"} if recipe.freeze_decoder else set()
        self.weights = {name: w for name, w in parts.gradients.weights.items() if name not in frozen}
        self.adam = torch.optim.Adam(self.weights.values(), lr=parts.rates[0], fused=True)
        self.since_fired = torch.zeros(recipe.width, device=self.device)

    @property
    def dead(self) -> Tensor:
        """Latents that have not fired for the recipe's window."""
        return self.since_fired > self.recipe.dead_window

    def step(self, batch: Float[Tensor, "batch d"], logging: bool) -> tuple[Tensor, Outcome]:
        """Take one step in the order of ``SAETrainer._train_step``; return the scaled batch and what was found."""
        x = batch.to(self.device, torch.float32) * self.scale
        self.adam.param_groups[0]["lr"] = self.rates[self.steps]
        weights = {name: c.value for name, c in self.coefficients.items()}
        out = self.gradients(x, weights, self.dead, self.steps, logging)
        self.since_fired.add_(1).masked_fill_(out.fired, 0)
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        self.adam.step()
        self.adam.zero_grad()
        for c in self.coefficients.values():
            c.step()
        self.steps += 1
        return x, out

    @torch.no_grad()
    def row(self, x: Float[Tensor, "batch d"], out: Outcome) -> dict[str, int | float]:
        """Sum a step up for the log."""
        row = {"step": self.steps, "samples": self.steps * self.recipe.batch_size, "loss": out.loss.item(),
               "mse": out.mse.item(), "l0": out.l0.item(), "explained_variance": _explained(x, out.reconstruction),
               "dead": self.dead.float().mean().item()}
        if self.heldout is None:
            return row
        x = self.heldout.to(self.device, torch.float32) * self.scale
        latents = self.sae.encode(x)
        return row | {"heldout_l0": (latents != 0).sum().item() / len(x),
                      "heldout_explained_variance": _explained(x, self.sae.decode(latents))}

    def tensors(self) -> dict[str, Tensor]:
        """Name all tensors that the next step depends on."""
        named = {f"sae.{name}": t for name, t in self.sae.state_dict().items()} | {"since_fired": self.since_fired}
        for name, parameter in self.weights.items():
            named |= {f"adam.{name}.{key}": t for key, t in self.adam.state[parameter].items()}
        return named

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Put a checkpoint back, copying into tensors of our own: a mapped file's alignment changes the last bits."""
        self.steps = step
        self.since_fired.copy_(tensors["since_fired"])
        self.sae.load_state_dict({n[4:]: t for n, t in tensors.items() if n.startswith("sae.")})
        for name, parameter in self.weights.items():
            prefix = f"adam.{name}."
            saved = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            self.adam.state[parameter] = {n: t.to(parameter.device, copy=True) for n, t in saved.items()}
        for c in self.coefficients.values():
            c.load_state_dict({"current_step": step})


def _explained(x: Float[Tensor, "n d"], reconstruction: Float[Tensor, "n d"]) -> float:
    return 1 - ((reconstruction - x).square().sum() / (x - x.mean(0)).square().sum()).item()


def run(trainer: Trainer, batches: Callable[[int], Iterator[Tensor]], settings: dict[str, Any], folder: Path | None,
        checkpoint_every: int, log_every: int, on_log: Callable[[Rows], object] | None) -> tuple[Rows, float]:
    """Train to the end, from the newest checkpoint if there is one; return the log and the seconds it took.

    Parameters
    ----------
    trainer
        A fresh one.
    batches
        Maps a step to the batches from there on.
    settings
        What a checkpoint must have been made with.
    folder
        Where checkpoints are, or None.
    checkpoint_every, log_every, on_log
        As in `dictionaries.train_sae`.
    """
    for name, given in {"log_every": log_every, "checkpoint_every": checkpoint_every}.items():
        if given < 1:
            raise CourseError(f"{name}={given} must be at least 1.")
    log, before, steps = [], 0.0, trainer.recipe.n_steps
    if folder is not None and (saved := checkpoints.newest(folder, settings)):
        log, before = saved[1]["log"], saved[1]["seconds"]
        trainer.restore(saved[0], saved[1]["step"])
    begun, size, written = time.perf_counter() - before, trainer.recipe.batch_size, trainer.steps
    with tqdm(total=steps * size, initial=trainer.steps * size, unit="act", unit_scale=True,
              desc=f"{trainer.recipe.kind} SAE", delay=2, leave=False) as bar:
        for batch in islice(batches(trainer.steps), steps - trainer.steps):
            logging = (trainer.steps + 1) % log_every == 0 or trainer.steps + 1 == steps
            found = trainer.step(batch, logging)
            bar.update(size)
            if logging:
                log.append(trainer.row(*found))
                said = {name: f"{log[-1][name]:.3g}" for name in ("explained_variance", "l0", "dead")}
                bar.set_postfix(said, refresh=False)  # a refresh would show the bar before its delay is over
                if on_log is not None:
                    on_log(log)
            if folder is not None and (trainer.steps % checkpoint_every == 0 or trainer.steps == steps):
                _write(trainer, settings, folder, log, begun)
                written = trainer.steps
    if trainer.steps < steps:
        warnings.warn(f"the stream of activations ended after {trainer.steps * size:,} of n_samples={steps * size:,}; "
                      "the SAE has learned from those, at a rate that was never lowered.", stacklevel=3)
    if folder is not None and written < trainer.steps:
        _write(trainer, settings, folder, log, begun)
    return log, time.perf_counter() - begun


def _write(trainer: Trainer, settings: dict[str, Any], folder: Path, log: Rows, begun: float) -> None:
    facts = {"settings": settings, "step": trainer.steps, "log": log, "seconds": time.perf_counter() - begun}
    checkpoints.write(folder, trainer.steps, trainer.tensors(), facts)
