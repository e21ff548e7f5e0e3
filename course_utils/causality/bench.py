"""The whole trial: many concepts, every way of removing, every null, several dictionaries; kept as JSON.

Concepts come one after the other; each is written as soon as it is there, and a run that was cut off goes on. What is
kept can be made again: `recheck` draws concepts and nulls anew and compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from course_utils.activations import Activations, harvest
from course_utils.causality.occasions import knowable, occasions
from course_utils.causality.removal import (
    BY_ANSWER,
    BY_WORD,
    DIFF,
    LEACE,
    RANDOM,
    Dictionary,
    Tools,
    concept_table,
    dictionary,
    null_ways,
    put_in,
    tools,
    way,
)
from course_utils.causality.trials import Ground, Rows, answers, asked_there, damage, ground, mixed, rows_of
from course_utils.errors import CourseError
from course_utils.features import Table
from course_utils.interventions import ablate
from course_utils.lab import Lab

FEW = 4  # latents that count as few: nulls, modes and the verdict are about so many
ABOVE = {BY_WORD: "above 0.2", BY_ANSWER: "above 0.05"}  # all latents of such an F1, or that hold up so many nats
NEIGHBOURS, EACH = 4, 4  # other concepts whose answers should stay, and places of each


@dataclass(frozen=True)
class Plan:
    """What is tried, and on how much."""

    hook: str
    concepts: tuple[str, ...]
    n: int = 16  # places of each split and concept
    n_text: int = 1000  # tokens that never mention the concept
    n_tokens: int = 60_000  # training text that latents and directions are learned on
    least: float = 0.5  # probability of the word that counts as saying it
    ks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    doses: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    n_null: int = 100  # draws of each null
    seed: int = 0


@dataclass(frozen=True)
class Cell:
    """One way on one concept."""

    way: str
    setting: str
    remains: float
    """Of the advantage over all scored places; of what is put in, what the advantage gains elsewhere, as a share."""
    p: float
    """Mean probability of the word there."""
    others: float | None = None
    """Share that remains of other concepts' advantages."""
    damage: float | None = None
    """Mean KL(clean ‖ now) on text without the concept, in nats a token."""


@dataclass(frozen=True)
class Found:
    """All about one concept."""

    concept: str
    advantage: float
    """Mean clean advantage at the scored places, in nats."""
    cells: tuple[Cell, ...]
    nulls: Mapping[str, tuple[float, ...]]
    """Null → share that remains, draw by draw."""
    dictionaries: Mapping[str, tuple[float, ...]]
    """SAE → share that remains with the `ks` latents off that the answer hangs on."""
    detectors: Mapping[str, tuple[float, float]]
    """SAE → training F1 of its best detector of the concept, and the share that remains with that one latent off."""

    def cell(self, way: str, setting: str) -> Cell:
        """Return one cell."""
        for cell in self.cells:
            if (cell.way, cell.setting) == (way, setting):
                return cell
        raise CourseError(f"way={way!r}, setting={setting!r} was not tried; tried: "
                          f"{', '.join(sorted({f'{c.way} {c.setting}' for c in self.cells}))}.")


@dataclass(frozen=True)
class Sweep:
    """All concepts of one model, and what they were made by."""

    model: str
    weights: str
    """SHA-256 of the model's weights."""
    plan: Plan
    saes: Mapping[str, str]
    """SAE → a checksum of its weights; the first is the one that all ways use."""
    found: tuple[Found, ...] = field(default=())

    def column(self, way: str, setting: str, what: str = "remains") -> np.ndarray:
        """Return one number a concept, [concepts]."""
        return np.array([getattr(f.cell(way, setting), what) for f in self.found], dtype=float)

    def null(self, name: str) -> np.ndarray:
        """Return the mean over concepts of each draw of a null, [draws]."""
        return np.array([f.nulls[name] for f in self.found]).mean(0)


    def detector(self, sae: str) -> tuple[np.ndarray, np.ndarray]:
        """Return F1 of each concept's best detector in one of the dictionaries, and what remains without it."""
        f1, remains = np.array([f.detectors[sae] for f in self.found]).T
        return f1, remains

    def lost(self, null: str) -> np.ndarray:
        """Return what a null's draws lose of each concept's advantage on average, [concepts]."""
        return 1 - np.array([np.mean(f.nulls[null]) for f in self.found])

    def removed(self, sae: str, k: int) -> np.ndarray:
        """Return what k latents of one of the dictionaries hold up of each concept's advantage, [concepts]."""
        return 1 - np.array([f.dictionaries[sae][self.plan.ks.index(k)] for f in self.found])

    def ladder(self, way: str) -> tuple[np.ndarray, np.ndarray]:
        """Return damage and share removed of each concept at every k or dose of a way, both ``[concepts steps]``.

        Step 0, nothing, stands in front; a damage that falls with the dose, by noise, is held at the one before.
        """
        settings = [f"{d:g}" for d in self.plan.doses] if way in (DIFF, LEACE) else [f"k={k}" for k in self.plan.ks]
        damage, remains = (np.array([self.column(way, s, what) for s in settings]).T for what in ("damage", "remains"))
        start = np.zeros((len(damage), 1))
        return np.maximum.accumulate(np.hstack([start, damage]), 1), np.hstack([start, 1 - remains])


def mark(sae: Any) -> str:
    """Return a checksum of an SAE's weights that survives another machine: of its decoder, to three digits."""
    import hashlib

    return hashlib.sha256(sae.W_dec.detach().float().cpu().numpy().round(3).tobytes()).hexdigest()[:16]


def ways(plan: Plan) -> list[tuple[str, str]]:
    """Name all ways of removing that a plan tries."""
    latents = [(name, f"k={k}") for name in (BY_WORD, BY_ANSWER) for k in plan.ks] + [*ABOVE.items()]
    modes = [(BY_ANSWER, f"k={FEW}, {how}") for how in ("mean", "resample", "without the error")]
    return latents + modes + [(name, f"{dose:g}") for name in (DIFF, LEACE) for dose in plan.doses]


def additions(plan: Plan) -> list[tuple[str, str]]:
    """Name all that a plan puts in."""
    return [(BY_WORD, "k=1"), *((BY_ANSWER, f"k={k}") for k in plan.ks[2::2]), (DIFF, "1"), (RANDOM, "1")]


def one_concept(lab: Lab, plan: Plan, g: Ground, t: Tools, others: Rows, share: float = 1.0,
                rng: np.random.Generator | None = None) -> Found:
    """Try everything on one concept; ``share`` of the null draws (chosen by ``rng``), the rest NaN."""
    base, _ = answers(lab, g.score)
    theirs, put = answers(lab, others)[0], asked_there(others, g.score)
    before, cells = answers(lab, put)[0], []
    for name, setting in ways(plan):
        with way(lab, t, name, setting)():
            now, p = answers(lab, g.score)
            cells.append(Cell(name, setting, float(now.sum() / base.sum()), float(p.mean()),
                              float(answers(lab, others)[0].sum() / theirs.sum()), damage(lab, g)))
    with ablate(lab, t.dictionary.sae, t.by_answer[:FEW], only=g.score.only_place):
        now, p = answers(lab, g.score)
    cells.append(Cell(BY_ANSWER, f"k={FEW}, only at the place", float(now.sum() / base.sum()), float(p.mean())))
    for name, setting in additions(plan):
        with put_in(lab, t, name, setting, plan.seed)():
            now, p = answers(lab, put)
        cells.append(Cell(f"put in: {name}", setting, float((now - before).mean() / base.mean()), float(p.mean())))
    nulls = {}
    for name, draws in null_ways(lab, t, FEW, plan.n_null, plan.seed).items():
        taken = np.ones(len(draws), bool) if rng is None else rng.random(len(draws)) < share
        nulls[name] = tuple(_remains(lab, g, draw, base) if take else float("nan")
                            for draw, take in zip(draws, taken, strict=True))
    return Found(g.concept, float(base.mean()), tuple(cells), nulls, {}, {})


def _remains(lab: Lab, g: Ground, intervention: Any, base: Any) -> float:
    with intervention():
        return float(answers(lab, g.score)[0].sum() / base.sum())


class Bench:
    """What all concepts of a plan share: the harvest, the dictionaries, and each concept's places."""

    def __init__(self, lab: Lab, plan: Plan, saes: Mapping[str, Any], acts: Activations | None = None) -> None:
        if len({*plan.concepts}) < max(2, len(plan.concepts)) or not saes:
            raise CourseError(f"concepts={plan.concepts!r} with {len(saes)} SAEs: give two or more concepts, each "
                              "once, as each is also tried on the others, and an SAE.")
        self.lab, self.plan = lab, plan
        self.acts = harvest(lab, plan.hook, plan.n_tokens, labels=True) if acts is None else acts
        self.table: Table = concept_table(lab, self.acts, list(plan.concepts))
        self.dictionaries: dict[str, Dictionary] = {name: dictionary(sae, self.acts, self.table)
                                                    for name, sae in saes.items()}
        self._near: dict[str, Rows] = {}

    @property
    def main(self) -> Dictionary:
        """The SAE that all ways use."""
        return next(iter(self.dictionaries.values()))

    def ground(self, concept: str) -> Ground:
        """Return a concept's places and text."""
        return ground(self.lab, concept, self.plan.n, self.plan.n_text, self.plan.least, self.plan.seed)

    def tools(self, g: Ground, of: Dictionary | None = None) -> Tools:
        """Return what the training text says of a concept."""
        return tools(self.lab, g, self.acts, self.table, of or self.main)

    def others(self, concept: str) -> Rows:
        """Return places of the next concepts of the plan."""
        names, i = self.plan.concepts, self.plan.concepts.index(concept)
        near = [names[(i + j) % len(names)] for j in range(1, min(NEIGHBOURS, len(names) - 1) + 1)]
        for name in (n for n in near if n not in self._near):
            found = occasions(self.lab, name, EACH, "heldout", self.plan.seed, 1)
            self._near[name] = rows_of(self.lab, knowable(self.lab, found, 0.0))
        return mixed(self.lab, [self._near[name] for name in near])

    def try_all(self, concept: str, share: float = 1.0, rng: np.random.Generator | None = None) -> Found:
        """Try everything on one concept, with every dictionary."""
        g = self.ground(concept)
        found = one_concept(self.lab, self.plan, g, self.tools(g), self.others(concept), share, rng)
        base = answers(self.lab, g.score)[0]
        for name, of in self.dictionaries.items():
            t = self.tools(g, of)
            found.dictionaries[name] = tuple(_remains(self.lab, g, way(self.lab, t, BY_ANSWER, f"k={k}"), base)
                                             for k in self.plan.ks)
            found.detectors[name] = (float(t.scores[BY_WORD].max()),
                                     _remains(self.lab, g, way(self.lab, t, BY_WORD, "k=1"), base))
        return found
