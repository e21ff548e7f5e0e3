"""What an SAE is trained by, and on what: settings checked once, and activations as a sequence of equal batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from course_utils.activations import Activations
from course_utils.errors import CourseError, one_of

HEAD = 16  # batches that scale and mean are estimated from
STEPS = ("auto", "float32", "bfloat16", "library")
POOL = 32  # batches of a stream that are mixed with one another

# Best explained variance at width 1,024 on a real model's d = 64 activations, 600,000 samples; see `rate`.
_PEAK_RATE = {"standard": 3e-3, "gated": 3e-3, "matching_pursuit": 3e-3}


@dataclass(frozen=True)
class Recipe:
    """Every setting that the final weights depend on."""

    kind: str
    width: int
    k: int | float
    lr: int | float | None
    l1: int | float | None
    n_samples: int
    batch_size: int
    seed: int
    aux_rows: int | None
    options: dict[str, Any]
    step: str = "auto"
    scaled: bool = True
    centred: bool = True
    freeze_decoder: bool = False

    def __post_init__(self) -> None:
        """Refuse settings out of range, each in a sentence."""
        for name, least in {"width": 1, "n_samples": 1, "batch_size": 1, "seed": 0, "aux_rows": 1}.items():
            given = getattr(self, name)
            if not (given is None and name == "aux_rows") and (given != int(given) or given < least):
                raise CourseError(f"{name}={given} must be a whole number of at least {least}.")
        if not 1 <= self.k <= self.width:  # NaN fails as well
            raise CourseError(f"k={self.k} must lie in 1 to width={self.width}: the latents active on a token.")
        if self.k != int(self.k) and "batchtopk" not in self.kind:
            raise CourseError(f"k={self.k} must be a whole number for kind={self.kind!r}.")
        if self.l1 is not None and not 0 <= self.l1 < math.inf:
            raise CourseError(f"l1={self.l1} must be a number of at least 0; below 0 it would reward activity.")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise CourseError(f"lr={self.lr} must be a number above 0.")
        if self.step not in STEPS:
            raise one_of("step", self.step, STEPS)
        if self.n_samples < self.batch_size:
            raise CourseError(f"n_samples={self.n_samples} is less than one batch; give at least "
                              f"batch_size={self.batch_size}.")

    @property
    def n_steps(self) -> int:
        """Number of whole batches in ``n_samples``."""
        return self.n_samples // self.batch_size

    @property
    def warm_up(self) -> int:
        """Steps in which the rate rises: 5 %."""
        return self.n_steps // 20

    @property
    def decay(self) -> int:
        """Steps in which the rate falls to zero: the last 20 %."""
        return self.n_steps // 5

    @property
    def dead_window(self) -> int:
        """Steps without firing after which a latent counts as dead: an eighth of the training, at most 1,000."""
        return min(1000, max(10, self.n_steps // 8))

    def rate(self, d: int) -> float:
        """Return Adam's peak rate for activations of width ``d``.

        Adam moves every weight by about the rate: a row of ``d`` weights turns sqrt(d) times as far. Wide dictionaries
        want less (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section A.3).
        """
        peak = _PEAK_RATE.get(self.kind, 6e-3)
        return self.lr or peak * min(1, math.sqrt(64 / d)) * min(1, math.sqrt(1024 / self.width))

    def family_settings(self, d: int) -> dict[str, Any]:
        """Return fields of the library's configs, for all families at once.

        Penalties weigh against a squared error of about ``d`` and latents of about sqrt(d), so they grow with those;
        their values at d = 64 bring L0 near 16 on a real model's activations at width 1,024.
        """
        root, late = math.sqrt(d / 64), self.n_steps // 10
        k = self.k if "batchtopk" in self.kind else int(self.k)
        return {
            "k": k, "max_iterations": k, "decoder_init_norm": 1.0,  # .1, the library's, leaves ten times more dead
            "matryoshka_widths": sorted({max(1, self.width // n) for n in (8, 4, 2, 1)}),
            "l1_coefficient": {"gated": 1.4}.get(self.kind, 1.2) * root if self.l1 is None else self.l1,
            "l1_warm_up_steps": late, "jumprelu_sparsity_loss_mode": "quadratic", "target_l0": float(self.k),
            "l0_coefficient": 0.2 * d / 64, "l0_warm_up_steps": late,
            "jumprelu_bandwidth": 0.3 * root, "jumprelu_init_threshold": 0.5 * root,
            # A running mean that starts at 0: at the library's .01 a run of some hundred steps ends far too low.
            "topk_threshold_lr": max(0.01, min(1.0, 20 / self.n_steps))}

    def settings(self, **data: Any) -> dict[str, Any]:
        """Name what a checkpoint must agree with: the settings, and marks of the data they met."""
        return asdict(self) | data


def check_kind(kind: str, families: Iterable[str]) -> None:
    """Refuse an unknown family, listing all of them."""
    if kind not in families:
        raise one_of("kind", kind, families, limit=len(list(families)))


def passes(acts: Any, n_samples: int | None, batch_size: int, times: int = 3) -> int:
    """Return ``n_samples``, or three passes over a harvest; a stream's length nobody knows.

    Raises
    ------
    CourseError
        If a stream comes without ``n_samples``, or a harvest is smaller than a batch.
    """
    if isinstance(acts, Activations):
        if len(acts.usable) < batch_size:
            raise CourseError(f"acts hold {len(acts.usable)} activations, fewer than one batch of "
                              f"batch_size={batch_size}; harvest more tokens or make the batch smaller.")
        return times * len(acts.usable) if n_samples is None else n_samples
    if n_samples is None:
        raise CourseError("n_samples is needed with a stream: the learning rate is planned by it; give a number.")
    return n_samples


def as_activations(acts: Any) -> Any:
    """Wrap a bare tensor as a harvest without BOS; leave a harvest or a stream as it is."""
    if not isinstance(acts, Tensor):
        return acts
    if acts.ndim != 2:
        raise CourseError(f"acts has shape {tuple(acts.shape)}; give [n, d_model].")
    ones = torch.ones(len(acts), dtype=torch.long)
    return Activations(acts.float(), ones, ones, ones, None, "unknown", "unknown")


def source(acts: Any, size: int, seed: int) -> tuple[list[Tensor], Callable[[int], Iterator[Tensor]]]:
    """Return the first batches, to measure, and a way to the batches from a given step on.

    Raises
    ------
    CourseError
        If a stream ends before one whole batch, or a row is not finite.
    """
    if isinstance(acts, Activations):
        check_finite(acts.x)
        return list(islice(acts.batches(size, seed), HEAD)), lambda start: acts.batches(size, seed, start=start)
    stream = rebatched(acts, size, seed)
    head = list(islice(stream, HEAD))
    if not head:
        raise CourseError(f"acts ended before one batch of batch_size={size} was full; give more activations.")
    # A stream cannot be wound forward: what was trained on before is read again and passed over.
    return head, lambda start: islice(chain(head, stream), start, None)


def rebatched(stream: Iterable[Tensor], size: int, seed: int) -> Iterator[Float[Tensor, "batch d"]]:
    """Mix a stream of tensors of any length in a pool, and cut batches from the pool's shuffled half."""
    generator, pool, held, seen = torch.Generator().manual_seed(seed), [], 0, 0
    for chunk in chain(stream, [None]):
        if chunk is not None:
            if chunk.ndim != 2 or (pool and chunk.shape[1] != pool[0].shape[1]):
                raise CourseError(f"acts yielded shape {tuple(chunk.shape)} after {seen} rows; every tensor must be "
                                  f"[batch, {pool[0].shape[1] if pool else 'd_model'}].")
            check_finite(chunk, seen)
            pool, held, seen = [*pool, chunk], held + len(chunk), seen + len(chunk)
            if held < POOL * size:
                continue
        if not pool:
            return
        mixed = torch.cat(pool)[torch.randperm(held, generator=generator).to(pool[0].device)]
        serve = held // size if chunk is None else held // size - POOL // 2
        for i in range(serve):
            yield mixed[i * size : (i + 1) * size]
        pool, held = [mixed[serve * size :]], held - serve * size


def check_finite(x: Float[Tensor, "n d"], before: int = 0) -> None:
    """Refuse NaN and infinity, naming the first such row; rows are counted from ``before``."""
    for start in range(0, len(x), 2**16):
        bad = ~torch.isfinite(x[start : start + 2**16]).all(-1)
        if bad.any():
            row = before + start + int(bad.nonzero()[0])
            raise CourseError(f"acts hold NaN or infinity in row {row}; find where it comes from (half precision "
                              "overflows, for one) before training on it.")
