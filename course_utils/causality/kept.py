"""Make, keep, read and check a `bench.Sweep`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from course_utils.activations import Activations
from course_utils.causality.bench import Bench, Cell, Found, Plan, Sweep, mark
from course_utils.errors import CourseError
from course_utils.evidence import kept
from course_utils.lab import Lab

TABLES = ("nulls", "dictionaries", "detectors")  # of `Found`: name → numbers


def sweep(lab: Lab, plan: Plan, saes: Mapping[str, Any], file: str | os.PathLike | None = None,
          acts: Activations | None = None) -> Sweep:
    """Try every way, null and dictionary on every concept of a plan.

    Parameters
    ----------
    lab
        The opened model and its text.
    plan
        What to try.
    saes
        Name → SAE at the plan's hook. All ways use the first; of the others only the latents that the answer hangs on.
    file
        JSON that gets each concept as soon as it is there; concepts that it holds already are not tried again.
    acts
        The plan's training harvest, if it is there already.

    Raises
    ------
    CourseError
        If the file belongs to another model, plan or set of SAEs, or a concept has too few places.
    """
    whole = Sweep(lab.name, lab.fingerprint, plan, {name: mark(sae) for name, sae in saes.items()})
    done = {f.concept: f for f in _begun(whole, file)}
    if {*plan.concepts} - {*done}:
        bench = Bench(lab, plan, saes, acts)
        for concept in tqdm(plan.concepts, desc="causality", unit="concept", disable=lab.quiet or None):
            if concept in done:
                continue
            done[concept] = bench.try_all(concept)
            if file is not None:
                save(replace(whole, found=tuple(done[c] for c in plan.concepts if c in done)), file)
    return replace(whole, found=tuple(done[c] for c in plan.concepts))


def _begun(whole: Sweep, file: str | os.PathLike | None) -> tuple[Found, ...]:
    if file is None or not Path(file).is_file():
        return ()
    found = load(file)
    if replace(found, found=()) != whole or [*found.saes] != [*whole.saes]:  # all ways use the first
        raise CourseError(f"{str(file)!r} holds the sweep of another model, plan or SAE; give another file, or remove "
                          "it.")
    return found.found


def save(whole: Sweep, file: str | os.PathLike) -> None:
    """Write a sweep as JSON, whole or not at all; numbers to five digits."""
    head = {"model": whole.model, "weights": whole.weights, "plan": asdict(whole.plan), "saes": dict(whole.saes)}
    kept.write(file, head, found=[kept.rounded(asdict(f)) for f in whole.found])


def load(file: str | os.PathLike) -> Sweep:
    """Read what `save` wrote.

    Raises
    ------
    CourseError
        If it is no sweep, or was cut short.
    """
    with kept.reading(file, "sweep") as content:
        found = []
        for f in content.pop("found"):
            tables = [{key: tuple(v) for key, v in f[part].items()} for part in TABLES]
            found.append(Found(f["concept"], f["advantage"], tuple(Cell(**cell) for cell in f["cells"]), *tables))
        return Sweep(**content | {"plan": Plan(**content["plan"])}, found=tuple(found))


def kept_sweep(lab: Lab) -> Sweep | None:
    """Return the sweep that is shipped for these very weights (``course causality``), or None."""
    return kept.shipped("causality", lab.fingerprint, load)


class Checked(NamedTuple):
    """What `recheck` found."""

    concepts: tuple[str, ...]
    """Drawn and tried again."""
    n: int
    """Numbers compared."""
    off: float
    """The largest difference."""


def recheck(lab: Lab, whole: Sweep, saes: Mapping[str, Any], share: float = 0.1, seed: int = 0,
            acts: Activations | None = None) -> Checked:
    """Try a random part of a sweep again and compare: a share of the concepts, and of these the same share of nulls.

    Parameters
    ----------
    lab
        The opened model.
    whole
        From `kept_sweep`.
    saes
        Those of the sweep that are at hand, by their names there, the first first.
    share, seed
        How much, and what draws it.
    acts
        As in `sweep`.

    Raises
    ------
    CourseError
        If an SAE is another than the sweep's.
    """
    strange = [name for name, sae in saes.items() if whole.saes.get(name) != mark(sae)]
    if strange or [*saes][:1] != [*whole.saes][:1]:
        raise CourseError(f"saes[{(strange or [*saes, ''])[0]!r}] is not the SAE that the sweep used; give those of "
                          f"its names, {[*whole.saes][0]!r} first.")
    rng = np.random.default_rng(seed)
    names = rng.choice(whole.plan.concepts, max(1, round(share * len(whole.plan.concepts))), replace=False)
    bench, known, off = Bench(lab, whole.plan, saes, acts), {f.concept: f for f in whole.found}, []
    for concept in names.tolist():
        again, before = bench.try_all(concept, share, rng), known[concept]
        both = [(again.advantage, before.advantage)]
        for a, b in zip(again.cells, before.cells, strict=True):
            both += [(x, y) for x, y in zip(asdict(a).values(), asdict(b).values(), strict=True)
                     if isinstance(x, float)]
        for part in ("nulls", "dictionaries"):
            for name, values in getattr(again, part).items():
                both += zip(values, getattr(before, part)[name], strict=True)
        new, old = np.array(both, dtype=float).T
        gaps = np.abs(new - old)[np.isfinite(new)]  # draws that were left out are NaN
        off += np.where(np.isfinite(gaps), gaps, np.inf).tolist()
    return Checked(tuple(names.tolist()), len(off), max(off))
