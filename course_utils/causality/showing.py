"""What notebook 09 does over and over: many ways on one concept, the same ways at many sites, spaces compared.

Each function loops over what the other modules do once, and returns numbers; nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from course_utils.activations import Activations, harvest
from course_utils.causality.account import Account, Trace, account, trace
from course_utils.causality.attributes import spaces, told
from course_utils.causality.bench import FEW, Bench
from course_utils.causality.facts import facts, pairs
from course_utils.causality.removal import BY_ANSWER, NULLS, Tools, dictionary, null_ways, tools, way
from course_utils.causality.trials import Ground, answers, damage
from course_utils.errors import CourseError
from course_utils.evidence import Estimate, bootstrap_ratio
from course_utils.interventions import Interchange, Pairs, Space, Whole, das, interchange_scores
from course_utils.lab import Lab


def try_ways(bench: Bench, g: Ground, t: Tools, tried: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Take one concept away in several ways.

    Parameters
    ----------
    bench, g, t
        From `Bench`, its `ground` and its `tools`.
    tried
        Names and settings, as `way` takes them.

    Returns
    -------
    list
        For each what remains of the advantage, the word's mean probability, what other concepts keep of theirs, and the
        damage to unrelated text in nats a token.
    """
    lab, near = bench.lab, bench.others(g.concept)
    base, theirs = (answers(lab, rows)[0].sum() for rows in (g.score, near))
    found = []
    for name, setting in tried:
        with way(lab, t, name, setting)():
            now, p = answers(lab, g.score)
            found.append({"way": name, "setting": setting, "remains": float(now.sum() / base),
                          "P(word)": float(p.mean()), "damage": damage(lab, g),
                          "others keep": float(answers(lab, near)[0].sum() / theirs)})
    return found


class Site(NamedTuple):
    """One place of the stream, with what was learned and measured there."""

    hook: str
    acts: Activations
    tools: Tools
    clean: Trace
    accounts: dict[str, Account]
    """By way."""


def accounts_at(bench: Bench, g: Ground, layers: Sequence[int], ready: Callable[[str], Any],
                ways: Sequence[tuple[str, str]]) -> dict[int, Site]:
    """Account for the same ways of removing behind several blocks, each with an SAE of its own.

    Parameters
    ----------
    bench, g
        As in `try_ways`.
    layers
        Behind which blocks.
    ready
        ``ready(hook)`` returns an SAE.
    ways
        Names and settings.
    """
    lab, rows, found = bench.lab, g.score, {}
    for layer in tqdm(layers, desc="account", unit="site", delay=2, leave=False):
        hook = f"blocks.{layer}.hook_resid_post"
        here = hook == bench.plan.hook
        acts = bench.acts if here else harvest(lab, hook, bench.plan.n_tokens, labels=True)
        t = tools(lab, g, acts, bench.table, bench.main if here else dictionary(ready(hook), acts))
        clean = trace(lab, rows.tokens, rows.places, rows.to, hook)
        found[layer] = Site(hook, acts, t, clean, {
            name: account(lab, rows.tokens, rows.places, rows.to, hook, way(lab, t, name, setting), clean)
            for name, setting in ways})
    return found


def repair(bench: Bench, site: Site, concepts: Sequence[str]) -> dict[str, Estimate]:
    """Say over several concepts which share of a direct effect later parts take back; also for a null's latents.

    Parameters
    ----------
    bench, site
        From `Bench` and `accounts_at`.
    concepts
        Which; the unit of the interval.
    """
    lab, sums = bench.lab, []
    for concept in tqdm(concepts, desc="repair", unit="concept", delay=2, leave=False):
        g = bench.ground(concept)
        t, rows = tools(lab, g, site.acts, bench.table, site.tools.dictionary), g.score
        off = [way(lab, t, BY_ANSWER, f"k={FEW}"), *null_ways(lab, t, FEW, 4)[NULLS[0]]]
        clean = trace(lab, rows.tokens, rows.places, rows.to, site.hook)
        found = [account(lab, rows.tokens, rows.places, rows.to, site.hook, each, clean) for each in off]
        sums.append([(float((a.direct - a.total).mean()), float(a.direct.mean())) for a in found])
    mine, theirs = np.array(sums)[:, 0], np.array(sums)[:, 1:].sum(1)  # [concepts 2] each
    return {f"{FEW} latents": bootstrap_ratio(*mine.T), "latents that fire as often": bootstrap_ratio(*theirs.T)}


class Swapped(NamedTuple):
    """One attribute through one kind of space."""

    attribute: str
    name: str
    size: int
    """Coordinates, latents or dimensions, as chosen on the training half."""
    space: Space
    scores: Interchange
    """On things of the other half."""


def attribute_pairs(lab: Lab, kind: str, attributes: Sequence[str],
                    n: int) -> tuple[dict[str, Pairs], dict[str, Pairs]]:
    """Return pairs of the training half of things and of the other, for attributes that a model knows in both.

    Values that no training thing has are left out of the other half: nothing learned could write them.

    Raises
    ------
    CourseError
        If the model knows fewer than two of the attributes.
    """
    learn, test = (pairs(lab, kind, n, split=split) for split in ("train", "heldout"))
    kept = {}
    for name in (a for a in attributes if a in learn and a in test):
        seen = torch.isin(test[name].want, learn[name].want).nonzero()[:, 0]
        if len(seen):
            kept[name] = test[name].take(seen)
    if len(kept) < 2:
        raise CourseError(f"{lab.name} knows fewer than two of {', '.join(attributes)} of things of kind {kind!r}, so "
                          "that nothing can be interchanged.")
    return {name: learn[name] for name in kept}, kept


def swap_attributes(bench: Bench, kind: str, learn: Mapping[str, Pairs], test: Mapping[str, Pairs],
                    ks: Sequence[int], k_das: int, steps: int, seed: int = 0) -> list[Swapped]:
    """Interchange each attribute through every kind of space; sizes are chosen on the training half.

    Parameters
    ----------
    bench
        Its hook, its training text and its SAE.
    kind, learn, test
        From `attribute_pairs`.
    ks
        Sizes to choose among, for neurons, latents, DiffMean and probe.
    k_das, steps, seed
        Dimensions and training of `das`.
    """
    lab, hook, found = bench.lab, bench.plan.hook, []

    def scores(space: Space, of: Mapping[str, Pairs], attribute: str) -> Interchange:
        return interchange_scores(lab, hook, space, of[attribute], rest(of, attribute))

    def rest(of: Mapping[str, Pairs], attribute: str) -> Pairs:
        return Pairs.joined([p for name, p in of.items() if name != attribute], lab.bos)

    known = facts(lab, kind)
    for attribute in learn:
        candidates = dict(spaces(told(lab, bench.acts, known, attribute), bench.main.sae, ks, seed))
        trained = das(lab, hook, learn[attribute], k_das, rest(learn, attribute), steps, seed=seed)
        candidates["DAS"] = {k_das: trained.space}
        candidates["all of it"] = {lab.d_model: Whole()}
        for name, by_size in candidates.items():
            rated = {k: scores(space, learn, attribute).disentangle for k, space in by_size.items()}
            k = max(rated, key=rated.get)
            found.append(Swapped(attribute, name, k, by_size[k], scores(by_size[k], test, attribute)))
    return found

