"""Ways to take a concept away at one site, each by name and strength, and what each does: the table of notebook 09.

For one concept `Tools` holds what was learned on the training text: which latents detect it, which its answers hang on,
its DiffMean, and the eraser (LEACE) of two columns: being the concept's word, and standing right before it. A *way* is
a name and a setting; `way` turns it into an intervention.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.activations import Activations
from course_utils.causality.choosing import attribution
from course_utils.causality.density import deal_rows, density_matched, norm_matched
from course_utils.causality.stream import Intervention
from course_utils.causality.trials import Ground, carries
from course_utils.dictionaries.reading import encode, hook_of
from course_utils.errors import CourseError, one_of
from course_utils.features import Table, mean_differences, sae_latents, score_units
from course_utils.interventions import Eraser, ablate, divert, erase, leace, steer
from course_utils.lab import Lab

BY_WORD, BY_ANSWER = "latents by what they fire on", "latents by what hangs on them"
DIFF, LEACE, RANDOM = "DiffMean", "LEACE", "random direction"
MODES = ("", "mean", "resample", "without the error")
NULLS = ("density-matched latents", "norm-matched directions", "shuffled decoder")


class Dictionary(NamedTuple):
    """An SAE with what of it does not depend on a concept."""

    sae: Any
    means: Float[Tensor, " d_sae"]
    """Mean of each latent on the training text."""
    f1: Float[Tensor, "d_sae concepts"] | None
    """Training F1 of each latent for each concept; None where nobody asks which detect it."""


class Tools(NamedTuple):
    """What the training text says of one concept at one site."""

    dictionary: Dictionary
    by_word: Int[Tensor, " d_sae"]
    """Latents, the best detector of the concept's tokens (training F1) first."""
    by_answer: Int[Tensor, " d_sae"]
    """Latents, the one that most of the answer hangs on (`attribution` on training places) first."""
    scores: Mapping[str, Float[Tensor, " d_sae"]]
    """By which each ranking sorts: training F1, and nats of the advantage."""
    density: Float[Tensor, " d_sae"]
    """Share of tokens on which each is active, *in the training rows where the concept is asked for*."""
    diff: Float[Tensor, " d"]
    """DiffMean: mean at the concept's tokens less mean elsewhere."""
    written: Float[Tensor, " d_sae"]
    """Each latent's mean at the concept's tokens less that elsewhere; times its decoder row, its part of DiffMean."""
    project: Eraser
    """Takes DiffMean's component out, to the mean's."""
    eraser: Eraser
    """LEACE of both columns."""

    def latents(self, name: str, setting: str) -> Int[Tensor, " k"]:
        """Return the latents that a setting names: ``"k=4"``, or ``"above 0.1"``, all whose score is above that."""
        orders = {BY_WORD: self.by_word, BY_ANSWER: self.by_answer}
        if name not in orders:
            raise one_of("name", name, orders)
        order, found = orders[name], re.fullmatch(r"k=(\d+)|above (\S+)", setting)
        if not found:
            raise CourseError(f"setting={setting!r} names no latents; give 'k=4' or 'above 0.1'.")
        if found[1]:
            return order[: int(found[1])]
        return order[self.scores[name][order] > _number(found[2])]


def _number(setting: str) -> float:
    try:
        return float(setting)
    except ValueError as error:
        raise CourseError(f"setting={setting!r} must be a number, e.g. '0.5'.") from error


def dictionary(sae: Any, acts: Activations, concepts: Table | None = None) -> Dictionary:
    """Read an SAE on the training text; with ``concepts``, also how well each latent detects each."""
    units = sae_latents(sae, acts)
    means = torch.from_numpy(np.asarray(units.mean(axis=0)).ravel()).float()
    f1 = None if concepts is None else score_units(units, concepts, units, concepts).train.f1
    return Dictionary(sae, means, f1)


def concept_table(lab: Lab, acts: Activations, concepts: list[str]) -> Table:
    """Say which usable tokens carry which concepts, for concepts named as in `occasions`."""
    on = torch.stack([carries(lab, acts, name)[acts.usable] for name in concepts], dim=1)
    return Table(tuple(concepts), on, acts.doc[acts.usable])


def tools(lab: Lab, g: Ground, acts: Activations, concepts: Table, of: Dictionary) -> Tools:
    """Learn on the training text what a concept is at the site of an SAE.

    Parameters
    ----------
    lab
        The opened model.
    g
        From `ground`.
    acts
        A harvest of the training text at the SAE's hook.
    concepts
        `concept_table` of it.
    of
        From `dictionary`, with F1 of these concepts (without, `by_word` is empty).
    """
    column, x = concepts.names.index(g.concept), acts.x[acts.usable]
    on = concepts.on[:, column]
    before = torch.zeros_like(on)
    before[:-1] = on[1:] & (concepts.doc[1:] == concepts.doc[:-1])
    diff = mean_differences(x, Table((g.concept,), on[:, None], concepts.doc))[0]
    unit = (diff / diff.norm()).double()
    scores = {BY_ANSWER: attribution(lab, of.sae, g.choose.tokens, g.choose.places, g.choose.to)}
    if of.f1 is not None:
        scores[BY_WORD] = of.f1[:, column]
    orders = [scores[name].argsort(descending=True) if name in scores else torch.empty(0, dtype=torch.long)
              for name in (BY_WORD, BY_ANSWER)]
    f = encode(of.sae, x[on].to(of.sae.W_dec))
    written = (f.mean(0).cpu() - of.means) * len(on) / int((~on).sum())
    return Tools(of, *orders, scores, _density(lab, of.sae, g), diff, written,
                 Eraser(torch.outer(unit, unit), x.double().mean(0), 1), leace(x, torch.stack([on, before], 1)))


def _density(lab: Lab, sae: Any, g: Ground) -> Float[Tensor, " d_sae"]:
    x = lab.capture(g.choose.tokens, hook_of(lab, sae, None)).flatten(2)
    real = torch.arange(x.shape[1]) <= g.choose.places[:, None]
    real[:, 0] = False
    return (encode(sae, x[real.to(x.device)].to(sae.W_dec)) > 0).float().mean(0).cpu()


def way(lab: Lab, t: Tools, name: str, setting: str) -> Intervention:
    """Return an intervention by its name and setting.

    Parameters
    ----------
    lab, t
        The opened model and what was learned.
    name
        One of the two rankings of latents, ``"DiffMean"`` or ``"LEACE"``.
    setting
        For latents ``"k=4"`` or ``"above 0.1"`` (all with such a score), with ``", mean"``, ``", resample"`` or
        ``", without the error"`` behind it; for the others a strength such as ``"0.5"`` (1 takes all of it, 2 turns it
        around).

    Raises
    ------
    CourseError
        If there is no such way.
    """
    hook, sae = hook_of(lab, t.dictionary.sae, None), t.dictionary.sae
    if name in (DIFF, LEACE):
        return partial(erase, lab, hook, t.project if name == DIFF else t.eraser, strength=_number(setting))
    if name not in (BY_WORD, BY_ANSWER):
        raise one_of("name", name, (BY_WORD, BY_ANSWER, DIFF, LEACE))
    which, _, how = setting.partition(", ")
    if how not in MODES:
        raise one_of("setting", how, MODES[1:])
    latents = t.latents(name, which)
    if how == "mean":
        return partial(ablate, lab, sae, latents, "mean", t.dictionary.means)
    if how == "resample":
        return partial(ablate, lab, sae, latents, "resample")
    return partial(ablate, lab, sae, latents, error_term=how != "without the error")


def null_ways(lab: Lab, t: Tools, k: int, n: int, seed: int = 0) -> dict[str, list[Intervention]]:
    """Return ``n`` draws of each null of removing the ``k`` latents that the answer hangs on.

    Other latents that fire as often in such text; random directions as long as the latents' decoder rows, taken away
    where and as strongly as the latents fire; the same with the rows of other latents.
    """
    sae, latents = t.dictionary.sae, t.by_answer[:k]
    alive = latents[t.density[latents] > 0]
    dealt = {NULLS[1]: norm_matched(sae.W_dec[alive], n, seed), NULLS[2]: deal_rows(sae.W_dec, alive, n, seed)}
    found = {NULLS[0]: [partial(ablate, lab, sae, drawn) for drawn in density_matched(
        t.density, alive, n, seed, exclude=latents)]}
    return found | {name: [partial(divert, lab, sae, alive, rows) for rows in each] for name, each in dealt.items()}


def put_in(lab: Lab, t: Tools, name: str, setting: str, seed: int = 0) -> Intervention:
    """Return the intervention that adds what a concept's tokens hold to all text: sufficiency, at the dose of DiffMean.

    Parameters
    ----------
    lab, t
        The opened model and what was learned.
    name, setting
        ``"DiffMean"``; a ranking of latents with ``"k=4"``: their share of DiffMean (`Tools.written`); or
        ``"random direction"``, as long as DiffMean. For all but latents ``setting`` is the dose, 1 the natural one.
    seed
        Draws the random direction.
    """
    hook, sae = hook_of(lab, t.dictionary.sae, None), t.dictionary.sae
    if name in (DIFF, RANDOM):
        vector = t.diff if name == DIFF else norm_matched(t.diff[None], 1, seed)[0, 0]
        return partial(steer, lab, hook, vector, _number(setting))
    latents = t.latents(name, setting)
    return partial(steer, lab, hook, t.written[latents].to(sae.W_dec) @ sae.W_dec[latents], 1.0)
