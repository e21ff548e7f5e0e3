"""Where an attribute of a thing might stand: candidate spaces for interchange, learned from ordinary text.

1. ``told(lab, acts, known, attribute)``: what stands at names of things in ordinary text, with the attribute's value
   of each, for one half of the things.
2. Coordinates and latents are ranked by how much an attribute's values differ in them, between-class over within-class
   variance. Class means (differences of means) and a multinomial probe each give directions, the strongest first.
3. ``spaces(...)`` makes the k best of each into a `Space`; a trained one (`das`) looks at the model's answers instead.

The comparison is that of Huang et al. 2024, RAVEL, arXiv 2402.17700; on GPT-2 small that of Chaudhary and Geiger
2024, arXiv 2409.04478.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.activations import Activations
from course_utils.causality.facts import Fact, half
from course_utils.dictionaries.reading import encode
from course_utils.errors import CourseError
from course_utils.interventions import Coordinates, Latents, Space, Subspace
from course_utils.lab import Lab

NEURONS, LATENTS, MEANS, PROBE = "neurons", "latents", "DiffMean", "probe"


class Told(NamedTuple):
    """What stands at names of things, with one attribute's value of each."""

    x: Float[Tensor, "n d"]
    value: Int[Tensor, " n"]
    """Numbered from 0; things with the same answer share it."""


def told(lab: Lab, acts: Activations, known: Sequence[Fact], attribute: str, split: str = "train") -> Told:
    """Collect activations at names of things whose attribute the model knows.

    Parameters
    ----------
    lab
        The opened model.
    acts
        A harvest. Where its labels name entities, their tokens in ordinary text are taken; elsewhere the names in the
        questions themselves, one a question.
    known
        From `facts`, of one kind.
    attribute
        Which.
    split
        Which half of the things (`half`).

    Raises
    ------
    CourseError
        If fewer than two values are told.
    """
    mine = half({fact.entity for fact in known}, split)
    facts = {fact.entity: fact for fact in known if fact.attribute == attribute and fact.right and fact.entity in mine}
    values = {token: i for i, token in enumerate(dict.fromkeys(fact.answer for fact in facts.values()))}
    if len(values) < 2:
        raise CourseError(f"attribute={attribute!r}: {lab.name} knows fewer than two values of it in the {split} half; "
                          "take another.")
    labelled = acts.labels is not None and "entity" in acts.labels.columns
    return (_in_text(acts, facts, values) if labelled else
            Told(torch.cat([lab.capture(fact.tokens, acts.hook).flatten(2)[:, fact.entity_place].float().cpu()
                            for fact in facts.values()]),
                 torch.tensor([values[fact.answer] for fact in facts.values()])))


def _in_text(acts: Activations, facts: Mapping[str, Fact], values: Mapping[int, int]) -> Told:
    labels = acts.labels[acts.usable]
    value_of = {f"{fact.kind}:{name}": values[fact.answer] for name, fact in facts.items()}
    of_code = np.array([value_of.get(name, -1) for name in labels.names["entity"]] + [-1])
    value = of_code[labels.columns["entity"]]  # code -1, no entity, is the last entry
    keep = torch.from_numpy(np.flatnonzero(value >= 0))
    if len(np.unique(value[keep])) < 2:
        raise CourseError("the harvest tells fewer than two values of the attribute; take more tokens.")
    return Told(acts.x[acts.usable][keep], torch.from_numpy(value)[keep])


def separation(x: Float[Tensor, "n units"], value: Int[Tensor, " n"]) -> Float[Tensor, " units"]:
    """Return the variance between the values' means over that within them, for every unit; 0 for constant units."""
    x = x.double()  # else a constant unit's rounding would be taken for a difference
    means, of = _class_means(x, value)
    between = (means[of] - x.mean(0)).square().mean(0)
    within = (x - means[of]).square().mean(0)
    return torch.where(between > 0, between / within.clamp(min=1e-12), 0.0).float()


def _class_means(x: Float[Tensor, "n units"], value: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Return the mean of every value that occurs, and which of them each row has."""
    found, of = value.unique(return_inverse=True)
    sums = torch.zeros(len(found), x.shape[1], dtype=x.dtype).index_add_(0, of, x)
    return sums / torch.bincount(of)[:, None], of


def spaces(there: Told, sae: Any, ks: Sequence[int], seed: int = 0) -> Mapping[str, dict[int, Space]]:
    """Make the candidate spaces of an attribute at several sizes.

    Parameters
    ----------
    there
        From `told`.
    sae
        An SAE of the same hook.
    ks
        Sizes: coordinates, latents, or dimensions (at most one less than there are values).
    seed
        Of the probe's solver.

    Returns
    -------
    dict
        Name → size → space, for neurons (coordinates of the stream), latents, DiffMean and probe.
    """
    x, value = there
    f = encode(sae, x.to(sae.W_dec)).cpu()
    ranked = [separation(units, value).argsort(descending=True) for units in (x, f)]
    means, _ = _class_means(x, value)
    directions = {MEANS: _strongest(means - means.mean(0)), PROBE: _strongest(_probe(x, value, seed))}
    return {NEURONS: {k: Coordinates(ranked[0][:k]) for k in ks},
            LATENTS: {k: Latents(sae, ranked[1][:k]) for k in ks}} | {
            name: {k: Subspace(basis[:, :k]) for k in ks} for name, basis in directions.items()}


def _strongest(rows: Float[Tensor, "values d"]) -> Float[Tensor, "d rank"]:
    """Return an orthonormal basis of what rows span, the direction in which they differ most first."""
    _, size, right = torch.linalg.svd(rows.double(), full_matrices=False)
    return right[size > 1e-6 * size[0]].T.float()


def _probe(x: Float[Tensor, "n d"], value: Int[Tensor, " n"], seed: int) -> Float[Tensor, "values d"]:
    from sklearn.linear_model import LogisticRegression  # lazy: takes a second to import

    size = float(x.std(0).mean())
    fit = LogisticRegression(C=0.1, max_iter=200, random_state=seed).fit((x / size).numpy(), value.numpy())
    rows = np.atleast_2d(fit.coef_)  # of two values only one; of more they sum to zero, but for the solver's rounding
    return torch.from_numpy(rows - rows.mean(0) * (len(rows) > 1)).float()
