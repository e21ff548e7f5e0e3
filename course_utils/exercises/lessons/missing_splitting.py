"""Notebook 07, split and absorbed: the parents of a wide dictionary's latents, and who took a missed token over."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from course_utils.exercises.book import Exercise

family = Exercise("07.5", "parents and children", stars=2, minutes=10, lines=4, hints=(
    "Bring the rows of both decoders to length 1; then one matrix product gives all cosines. Each wide latent's "
    "candidate is the narrow one with the largest.",
    "`best, parent = (normalize(wide) @ normalize(narrow).T).max(1)`; where `best` is too small the parent becomes "
    "-1; `torch.bincount(..., minlength=len(narrow))` counts the others."))


@family.reference
def parents(narrow, wide, least):
    """Return each wide latent's nearest narrow one (-1 if its cosine is below least), and the children of each."""
    best, parent = (normalize(wide) @ normalize(narrow).T).max(1)
    return torch.where(best >= least, parent, -1), torch.bincount(parent[best >= least], minlength=len(narrow))


@family.right
def _(narrow, wide, least):
    cosine = torch.cosine_similarity(wide[:, None], narrow[None], dim=2)
    parent = cosine.argmax(1)
    parent[cosine.amax(1) < least] = -1
    children = (parent[:, None] == torch.arange(len(narrow))).sum(0)
    return parent, children


@family.right
def _(narrow, wide, least):
    parent, children = [], [0] * len(narrow)
    for row in wide:
        cosine = narrow @ row / (narrow.norm(dim=1) * row.norm())
        nearest = int(cosine.argmax()) if cosine.max() >= least else -1
        parent.append(nearest)
        if nearest >= 0:
            children[nearest] += 1
    return torch.tensor(parent), torch.tensor(children)


@family.wrong(
    "products, not cosines",
    "You compare dot products. A long row then is near to everything: bring rows to length 1 first.")
def _(narrow, wide, least):
    best, parent = (wide @ narrow.T).max(1)
    return torch.where(best >= least, parent, -1), torch.bincount(parent[best >= least], minlength=len(narrow))


@family.wrong(
    "the other way round",
    "You looked for each *narrow* latent's nearest wide one. A parent has many children, but a child one parent: "
     "ask each wide latent.")
def _(narrow, wide, least):
    best, child = (normalize(narrow, dim=1) @ normalize(wide, dim=1).T).max(1)
    return torch.where(best >= least, child, -1), torch.bincount(child[best >= least], minlength=len(wide))


@family.wrong(
    "opposite directions count",
    "You take the cosine's size without its sign. A latent that points the opposite way takes away what the other "
     "adds; it is no part of it.")
def _(narrow, wide, least):
    best, parent = (normalize(wide, dim=1) @ normalize(narrow, dim=1).T).abs().max(1)
    return torch.where(best >= least, parent, -1), torch.bincount(parent[best >= least], minlength=len(narrow))


@family.wrong(
    "everyone has a parent",
    "You give every wide latent a parent, however far away. In any space something is nearest; below `least` it is "
     "none.")
def _(narrow, wide, least):
    parent = (normalize(wide, dim=1) @ normalize(narrow, dim=1).T).argmax(1)
    return parent, torch.bincount(parent, minlength=len(narrow))


@family.wrong(
    "all that are near",
    "You count every pair above `least`. A wide latent then is the child of several: it belongs to the nearest "
     "only.")
def _(narrow, wide, least):
    cosine = normalize(wide, dim=1) @ normalize(narrow, dim=1).T
    best, parent = cosine.max(1)
    return torch.where(best >= least, parent, -1), (cosine >= least).sum(0)


@family.cases
def _(rng):
    yield torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.2, 0.1], [-1.0, -5.0]]), 0.8
    narrow = torch.from_numpy(rng.normal(size=(5, 4))) * torch.tensor([[0.3], [1.0], [4.0], [1.0], [1.0]])
    wide = narrow[[0, 0, 1, 2, 2, 2, 4]] + 0.5 * torch.from_numpy(rng.normal(size=(7, 4)))
    wide = torch.cat([wide, torch.from_numpy(rng.normal(size=(4, 4))), -narrow[3:4]])
    yield narrow, wide, 0.7
    yield narrow, wide, 0.3
    yield torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [3.0, 4.0], [-1.0, -1.0]]), 1.0


taken = Exercise("07.6", "who took it over?", stars=3, minutes=15, lines=5, hints=(
    "Per token: what does each latent add along the direction? Only additions count. Which adds most, and is it most "
    "enough?",
    "`added = (f * along).clamp(min=0)`; `most, which = added.max(1)`. It took the token over if `most` is positive "
    "and at least half of `added.sum(1)`, if its `cosine` is at least `least`, and if `f[:, main]` is zero on all "
    "main latents."))


@taken.reference
def taken_over_by(f, along, cosine, main, least):
    """Return the latent that alone carries a missed token, or -1; f [n d_sae], along, cosine [d_sae], main a list."""
    added = (f * along).clamp(min=0)
    most, which = added.max(1)
    alone = (most > 0) & (most >= 0.5 * added.sum(1)) & (cosine[which] >= least)
    return torch.where(alone & (f[:, main] == 0).all(1), which, -1)


@taken.right
def _(f, along, cosine, main, least):
    found = []
    for row in f:
        added = [max(float(a * b), 0.0) for a, b in zip(row, along, strict=True)]
        most = max(added)
        which = added.index(most)
        good = most > 0 and most >= sum(added) / 2 and float(cosine[which]) >= least
        found.append(which if good and not any(row[m] > 0 for m in main) else -1)
    return torch.tensor(found)


@taken.right
def _(f, along, cosine, main, least):
    added = torch.relu(f @ torch.diag(along))
    which = added.argmax(1)
    part = added.gather(1, which[:, None])[:, 0] / added.sum(1)  # nan where nothing is added
    missed = f[:, main].sum(1) == 0
    which[~(missed & (part >= 0.5) & (cosine[which] >= least))] = -1
    return which


@taken.wrong(
    "not only missed tokens",
    "On some of these tokens a main latent fires. Then nothing was taken over: the class has its latent.")
def _(f, along, cosine, main, least):
    added = (f * along).clamp(min=0)
    most, which = added.max(1)
    alone = (most > 0) & (most >= 0.5 * added.sum(1)) & (cosine[which] >= least)
    return torch.where(alone, which, -1)


@taken.wrong(
    "one main latent is enough",
    "You call a token missed as soon as *one* of the main latents is silent. They share the class among them; "
     "missed means that all are silent.")
def _(f, along, cosine, main, least):
    added = (f * along).clamp(min=0)
    most, which = added.max(1)
    alone = (most > 0) & (most >= 0.5 * added.sum(1)) & (cosine[which] >= least)
    return torch.where(alone & (f[:, main] == 0).any(1), which, -1)


@taken.wrong(
    "the strongest latent",
    "You take the latent with the largest *value*. It may have nothing to do with the class: what counts is what it "
     "adds along the direction, value times `along`.")
def _(f, along, cosine, main, least):
    most, which = f.max(1)
    added = (f * along).clamp(min=0)
    alone = (most > 0) & (added.gather(1, which[:, None])[:, 0] >= 0.5 * added.sum(1)) & (cosine[which] >= least)
    return torch.where(alone & (f[:, main] == 0).all(1), which, -1)


@taken.wrong(
    "no alignment asked",
    "A latent of another subject may add a little along any direction, and if nothing else does, it is the most. It "
     "took the class over only if its own direction is near: `cosine` at least `least`.")
def _(f, along, cosine, main, least):
    added = (f * along).clamp(min=0)
    most, which = added.max(1)
    alone = (most > 0) & (most >= 0.5 * added.sum(1))
    return torch.where(alone & (f[:, main] == 0).all(1), which, -1)


@taken.wrong(
    "not alone",
    "The largest is not enough: if five latents add a fifth each, the class is spread out, not taken over. Ask for "
     "half of all that is added.")
def _(f, along, cosine, main, least):
    most, which = (f * along).clamp(min=0).max(1)
    alone = (most > 0) & (cosine[which] >= least)
    return torch.where(alone & (f[:, main] == 0).all(1), which, -1)


@taken.wrong(
    "what is taken away counts",
    'Some latents point against the direction and take away from it. Their negative part makes your sum too small, '
     'and "half of it" too easy: count what is added only.')
def _(f, along, cosine, main, least):
    added = f * along
    most, which = added.max(1)
    alone = (most > 0) & (most >= 0.5 * added.sum(1)) & (cosine[which] >= least)
    return torch.where(alone & (f[:, main] == 0).all(1), which, -1)


@taken.cases
def _(rng):
    along, cosine = torch.tensor([2.0, 1.0, -1.0, 0.5]), torch.tensor([0.9, 0.6, -0.4, 0.1])
    yield torch.tensor([[0.0, 3.0, 0.0, 1.0], [1.0, 5.0, 0.0, 0.0]]), along, cosine, [0], 0.3
    yield torch.tensor([[0.0, 1.0, 9.0, 1.0], [0.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 6.0]]), along, cosine, [0], 0.3
    f = torch.from_numpy(rng.exponential(size=(40, 7)) * (rng.random((40, 7)) < 0.35))
    along = torch.from_numpy(rng.normal(0.3, 1.0, 7))
    cosine = along / along.abs().max() * torch.from_numpy(rng.uniform(0.3, 1.0, 7))
    yield f, along, cosine, [2, 5], 0.2
    spread = torch.tensor([[0.0, 2.2, 2.0, 0.0, 2.0], [0.0, 2.2, 2.0, 5.0, 2.0], [0.0, 3.0, 1.0, 1.0, 2.5]])
    yield spread, torch.tensor([2.0, 1.0, 1.0, -1.0, 1.0]), torch.tensor([0.9, 0.6, 0.5, -0.4, 0.5]), [0], 0.3
    # Exactly half, and exactly as near as asked, are enough.
    yield (torch.tensor([[0.0, 2.0, 0.0, 4.0], [0.0, 2.0, 0.0, 4.5]]), torch.tensor([2.0, 1.0, -1.0, 0.5]),
           torch.tensor([0.9, 0.5, -0.4, 0.1]), [0], 0.5)
