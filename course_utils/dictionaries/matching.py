"""Training at a given L0: families may be compared only where they are equally sparse.

1. What steers a family is its lever: ``k`` itself in the topk families, the target of jumprelu's quadratic loss, the
   weight of the penalty elsewhere.
2. Short runs find the lever: log L0 is nearly straight in the log of the lever, so a secant arrives in two or three.
   They take as many steps as the full run, for schedules and weights go by steps, but with a quarter of the batch.
   L0 is measured on activations that are never trained on.
3. One full run. Where L0 is another with the whole batch, the difference, now known, is allowed for in a second one,
   and a third is found by the secant through both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course_utils.activations import Activations
from course_utils.dictionaries.recipes import Recipe, as_activations, check_kind, passes
from course_utils.errors import CourseError

FULL = 3  # full runs, at most
LEAST = 1e-2  # stands for an L0 of 0, which has no logarithm
CHUNK = 2**14


class Trial(NamedTuple):
    """One run on the way."""

    value: float
    """What the lever was set to."""
    l0: float
    """Active latents a sample, on held-out activations."""
    n_samples: int


class Matched(NamedTuple):
    """What `train_at_l0` found."""

    run: Any
    """The last full run, as `dictionaries.train_sae` returns it."""
    l0: float
    """Its active latents a sample, on held-out activations."""
    lever: str
    """Which setting steered it: ``k``, ``l1``, ``l0_coefficient`` or ``target_l0``."""
    value: float
    """What that was set to."""
    tried: list[Trial]
    """All runs, short ones first; hand them on as ``known`` to spare trials at another L0."""
    reached: bool
    """Whether ``l0`` is within the tolerance."""
    said: str
    """The same in a sentence, to be said where it was not reached."""


def lever_of(kind: str, mode: str = "quadratic") -> tuple[str, float]:
    """Return the setting that steers a family's L0, and the slope of log L0 over its log to begin with."""
    if kind in ("standard", "gated"):
        return "l1", -2.0
    if kind == "jumprelu":
        return ("target_l0", 1.0) if mode == "quadratic" else ("l0_coefficient", -1.0)
    return "k", 1.0


def measured_l0(sae: Any, held: Activations | Float[Tensor, "n d"]) -> float:
    """Return the active latents a sample on held-out activations, BOS left out."""
    held = as_activations(held)
    with torch.no_grad():
        active = [(sae.encode(held.x[rows].to(sae.W_dec)) != 0).sum().item() for rows in held.usable.split(CHUNK)]
    return sum(active) / len(held.usable)


def solve(trials: Sequence[Trial], l0: int | float, slope: float) -> float:
    """Return the lever's value at which the trials say that L0 will be ``l0``: a secant in logarithms.

    Parameters
    ----------
    trials
        At least one.
    l0
        The target.
    slope
        Of that line where there is but one trial, or where two say the contrary.
    """
    ahead = math.copysign(1.0, slope)
    points = sorted((ahead * math.log(t.value), math.log(max(t.l0, LEAST) / l0)) for t in trials)
    brackets = [(low, high) for low, high in pairwise(points) if low[1] <= 0 < high[1]]
    if brackets:  # once there is one, it is never left
        (x, y), (x2, y2) = min(brackets, key=lambda pair: pair[1][1] - pair[0][1])
        return math.exp(ahead * (x - y * (x2 - x) / (y2 - y)))
    (x, y), *others = points if points[0][1] > 0 else points[::-1]  # the outermost on the target's side
    steep = abs(slope)
    if others and others[0][0] != x:
        found = (others[0][1] - y) / (others[0][0] - x)
        steep = found if found > 0.1 * steep else steep
    return math.exp(ahead * (x - max(-2.0, min(2.0, y / steep))))


def train_at_l0(
    acts: Activations | Float[Tensor, "n d_model"], held: Activations | Float[Tensor, "m d_model"],
    l0: int | float = 16, kind: str = "jumprelu", *, tolerance: int | float = 0.05, trials: int = 4,
    trial_samples: int | None = None, known: Iterable[Trial] = (), **settings: Any,
) -> Matched:
    """Train an SAE that has a given number of active latents a sample.

    Parameters
    ----------
    acts
        What to train on; a stream, which cannot be read twice, will not do.
    held
        What L0 is measured on.
    l0, tolerance
        The target, and how far from it is near enough: .05 is 5 %.
    kind
        One of `dictionaries.families`. In the topk families the lever is ``k``: set to ``l0``, with no trials.
    trials, trial_samples
        At most so many short runs, 2 to 6, on so many activations each; None: a quarter of ``n_samples``.
    known
        The ``tried`` of other calls with the same data and settings; two full runs among them spare the short ones.
    **settings
        Of `dictionaries.train_sae`, the lever and ``checkpoint`` excepted.

    Raises
    ------
    CourseError
        On a setting out of range, or what `dictionaries.train_sae` refuses.
    """
    search = _Search(as_activations(acts), held, l0, kind, tolerance, settings)
    if not 2 <= trials <= 6:
        raise CourseError(f"trials={trials} must lie in 2 to 6: the short runs that one full run may cost.")
    if search.lever == "k":
        return search.result([search.train(l0, search.full)])
    found: list[tuple[Any, Trial]] = []
    if search.lever == "target_l0":
        # It names the L0 itself, and mostly reaches it at once. Far from it, L0 is no line in the lever: a pull that is
        # too strong for the number of steps blows an SAE up, and what other targets tried would lead there.
        found.append(search.train(search.start, search.full))
        if search.near(found[-1][1]):
            return search.result(found)
    else:
        search.tried += known
    short = min(search.full, trial_samples or search.full // 4)
    for _ in range(0 if len(search.runs(search.full)) > 1 else trials):
        if any(search.near(t) for t in search.runs(short)):
            break
        search.train(search.propose(short), short)
    while len(found) < FULL and not (found and search.near(found[-1][1])):
        found.append(search.train(search.propose_full(short), search.full))
    return search.result(found)


class _Search:
    """The lever of one family on one set of activations, and what was tried of it."""

    def __init__(
        self, acts: Any, held: Any, l0: int | float, kind: str, tolerance: int | float, settings: dict[str, Any]
    ) -> None:
        from course_utils.dictionaries import families

        check_kind(kind, families())
        if not isinstance(acts, Activations):
            raise CourseError("acts is a stream, which can be read once only; give a harvest or a tensor.")
        self.acts, self.held, self.l0, self.tolerance, self.settings = acts, held, l0, tolerance, dict(settings)
        self.lever, self.slope = lever_of(kind, settings.get("jumprelu_sparsity_loss_mode", "quadratic"))
        self.size, width, d = settings.get("batch_size", 1024), settings.get("width", 1024), acts.x.shape[1]
        if given := sorted({self.lever, "k", "checkpoint"} & {*settings}):
            raise CourseError(f"{given[0]} is set by train_at_l0 itself; give l0, and leave {given[0]} out.")
        if not 0 < l0 <= width:
            raise CourseError(f"l0={l0} must lie in 1 to width={width}: the latents active on a sample.")
        if not 0 < tolerance < 1:
            raise CourseError(f"tolerance={tolerance} must lie between 0 and 1; .05 is 5 %.")
        self.full = passes(acts, self.settings.pop("n_samples", None), self.size)
        self.settings |= {"kind": kind, "k": l0 if self.lever == "k" else max(1, round(l0))}
        usual = Recipe(kind, width, self.settings["k"], None, None, self.full, self.size, 0, None, {})
        start = usual.family_settings(d)["l1_coefficient" if self.lever == "l1" else "l0_coefficient"]
        # Penalties are set for some 16 active latents.
        self.start = l0 if self.slope == 1 else start * (l0 / 16) ** (1 / self.slope)
        self.tried: list[Trial] = []

    def train(self, value: int | float, n_samples: int) -> tuple[Any, Trial]:
        """Train with the lever at a value, and take note of where it led."""
        from course_utils.dictionaries import train_sae

        batch = max(1, self.size * n_samples // self.full)
        run = train_sae(self.acts, n_samples=n_samples, **self.settings | {self.lever: value, "batch_size": batch})
        self.tried.append(Trial(value, measured_l0(run.sae, self.held), n_samples))
        return run, self.tried[-1]

    def runs(self, n_samples: int) -> list[Trial]:
        """Return the trials of one length."""
        return [t for t in self.tried if t.n_samples == n_samples]

    def near(self, trial: Trial) -> bool:
        """Say whether a trial's L0 is within the tolerance."""
        return abs(trial.l0 / self.l0 - 1) <= self.tolerance

    def propose(self, short: int) -> int | float:
        """Return the lever's next value by the short runs."""
        return solve(self.runs(short), self.l0, self.slope) if self.runs(short) else self.start

    def propose_full(self, short: int) -> int | float:
        """Return the lever's next value by the full runs, or by short ones and what a full run differed from them."""
        full, value = self.runs(self.full), self.propose(short)
        if len(full) > 1 or not self.runs(short):
            return solve(full, self.l0, self.slope) if full else value
        for one in full:
            value *= one.value / solve(self.runs(short), max(one.l0, LEAST), self.slope)
        return value

    def result(self, found: list[tuple[Any, Trial]]) -> Matched:
        """Choose the nearest of the full runs, and sum up."""
        run, best = min(found, key=lambda pair: abs(pair[1].l0 - self.l0))
        said = (f"{self.settings['kind']}: L0 is {best.l0:.1f} for a target of {self.l0:g} "
                f"({100 * (best.l0 / self.l0 - 1):+.0f} %), with {self.lever} = {best.value:.4g}")
        said += "." if self.near(best) else f": outside {100 * self.tolerance:g} %; allow more or longer trials."
        return Matched(run, best.l0, self.lever, best.value, self.tried, self.near(best), said)
