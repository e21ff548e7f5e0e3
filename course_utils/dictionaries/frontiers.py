"""Faithfulness against sparsity, family by family: the frontier that a choice of family moves along.

Each point is an SAE trained to a given L0 (`matching`) and judged on held-out text (`evaluation`). The levers found for
the first seed serve the others, whose L0 then differs a little: it is measured, not assumed. Points are written as they
come, and a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from course_utils.activations import harvest
from course_utils.dictionaries.evaluation import evaluate
from course_utils.dictionaries.matching import train_at_l0
from course_utils.errors import CourseError
from course_utils.evidence import kept
from course_utils.evidence.estimates import Estimate, bootstrap_ratio
from course_utils.lab import Lab

FAMILIES = {"L1": "standard", "TopK": "topk", "BatchTopK": "batchtopk", "JumpReLU": "jumprelu", "Gated": "gated"}
MEASURES = ("l0", "explained_variance", "ce_recovered_mean", "ce_recovered_zero", "cost", "dead")


@dataclass(frozen=True)
class Plan:
    """What is trained, and on how much."""

    hook: str
    l0s: tuple[int | float, ...] = (8, 16, 32, 64)
    seeds: int = 2
    width: int = 1024
    n_tokens: int = 200_000  # harvested to train on
    n_samples: int = 400_000  # trained on, repeats included
    batch_size: int = 1024
    n_judged: int = 20_000  # held-out tokens
    families: tuple[str, ...] = tuple(FAMILIES)


@dataclass(frozen=True)
class Point:
    """One SAE of the frontier."""

    family: str
    target: int | float
    seed: int
    lever: str
    """Which setting led to the L0, ..."""
    value: int | float
    """... and what it was."""
    measures: dict[str, Estimate] = field(default_factory=dict)
    """`MEASURES`; ``cost`` is spliced minus clean loss, nats a token, paired by document."""


@dataclass(frozen=True)
class Frontier:
    """All points for one model, and what they were made by."""

    model: str
    weights: str
    """SHA-256 of the model's weights."""
    plan: Plan
    points: tuple[Point, ...]

    def mean(self, measure: str) -> dict[tuple[str, int | float], Estimate]:
        """Return the mean over seeds of a measure by family and target L0; the interval is the range over the seeds."""
        found: dict[tuple[str, int | float], list[float]] = {}
        for point in self.points:
            found.setdefault((point.family, point.target), []).append(point.measures[measure].value)
        return {key: Estimate(float(np.mean(v)), min(v), max(v), len(v)) for key, v in found.items()}


def family_frontier(lab: Lab, plan: Plan, file: str | os.PathLike | None = None) -> Frontier:
    """Train every family at every L0 with every seed, and judge each SAE.

    Parameters
    ----------
    lab
        The opened model and its text.
    plan
        What to train.
    file
        JSON that gets each point as soon as it is there; points that it holds already are not trained again.

    Raises
    ------
    CourseError
        If the file belongs to another model or plan, or `train_at_l0` refuses a setting.
    """
    from course_utils.dictionaries import train_sae

    done = _begun(lab, plan, file)
    acts = harvest(lab, plan.hook, plan.n_tokens, labels=False)
    held = harvest(lab, plan.hook, plan.n_judged, split="heldout", labels=False)
    wanted = [(f, t, s) for f in plan.families for t in plan.l0s for s in range(plan.seeds)]
    known: dict[str, list] = {}
    settings = {"width": plan.width, "n_samples": plan.n_samples, "batch_size": plan.batch_size}
    for family, target, seed in tqdm(wanted, desc="frontier", unit="SAE", disable=lab.quiet or None):
        if (family, target, seed) in done:
            continue
        first, kind = done.get((family, target, 0)), FAMILIES[family]
        if first is None:
            found = train_at_l0(acts, held, target, kind, known=known.get(family, ()), seed=seed, **settings)
            known[family], run, lever, value = found.tried, found.run, found.lever, found.value
        else:
            lever, value = first.lever, first.value
            run = train_sae(acts, kind=kind, seed=seed, **{"k": max(1, round(target))} | settings | {lever: value})
        done[family, target, seed] = Point(family, target, seed, lever, value, _judge(lab, run.sae, plan.n_judged))
        if file is not None:
            save(Frontier(lab.name, lab.fingerprint, plan, tuple(done[key] for key in wanted if key in done)), file)
    return Frontier(lab.name, lab.fingerprint, plan, tuple(done[key] for key in wanted))


def _judge(lab: Lab, sae: Any, n_tokens: int) -> dict[str, Estimate]:
    e = evaluate(lab, sae, n_tokens)
    cost = bootstrap_ratio(e.document_losses[:, 1] - e.document_losses[:, 0], e.document_tokens)
    return {name: cost if name == "cost" else getattr(e, name) for name in MEASURES}


def _begun(lab: Lab, plan: Plan, file: str | os.PathLike | None) -> dict[tuple[str, int | float, int], Point]:
    if file is None or not Path(file).is_file():
        return {}
    found = load(file)
    if (found.weights, found.plan) != (lab.fingerprint, plan):
        raise CourseError(f"{str(file)!r} holds the frontier of another model or plan; give another file, "
                          "or remove it.")
    return {(p.family, p.target, p.seed): p for p in found.points}


def save(frontier: Frontier, file: str | os.PathLike) -> None:
    """Write a frontier as JSON, whole or not at all; measures to five digits."""
    head = {"model": frontier.model, "weights": frontier.weights, "plan": asdict(frontier.plan)}
    kept.write(file, head, points=[vars(p) | {"measures": kept.rounded(p.measures)} for p in frontier.points])


def load(file: str | os.PathLike) -> Frontier:
    """Read what `save` wrote.

    Raises
    ------
    CourseError
        If it is no frontier, or was cut short.
    """
    with kept.reading(file, "frontier") as content:
        points = [p | {"measures": {n: Estimate(*x[:3], int(x[3])) for n, x in p["measures"].items()}}
                  for p in content.pop("points")]
        return Frontier(**content | {"plan": Plan(**content["plan"])}, points=tuple(Point(**p) for p in points))


def kept_frontier(lab: Lab) -> Frontier | None:
    """Return the frontier that is shipped for these very weights (``course saes frontier``), or None."""
    return kept.shipped("frontier", lab.fingerprint, load)
