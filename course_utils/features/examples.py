"""Reading a unit: tokens in context over the whole range of its activity, and what it does to the logits."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course_utils.activations import Activations
from course_utils.errors import CourseError
from course_utils.features.latents import latent_values
from course_utils.lab import Lab
from course_utils.lab.anatomy import anatomy


class Example(NamedTuple):
    """One token in its context."""

    before: str
    token: str
    after: str
    activation: float


class Band(NamedTuple):
    """Examples from one stretch of a latent's activity."""

    low: float
    """Lowest activation of the band."""
    high: float
    """Highest."""
    examples: list[Example]


class LogitEffects(NamedTuple):
    """What a direction does to the logits."""

    logits: Float[Tensor, " d_vocab"]
    """Less their mean, which softmax does not see."""
    top: list[tuple[str, float]]
    """The tokens that it raises most, with by how much."""
    bottom: list[tuple[str, float]]
    """Those that it lowers most, the lowest first."""


def top_examples(lab: Lab, sae: Any, acts: Activations, latent: int, n: int = 10, context: int = 8) -> list[Example]:
    """Return the tokens on which a latent is most active, one a document, strongest first.

    Parameters
    ----------
    lab
        Gives the text of tokens.
    sae
        Any sae-lens SAE of the harvest's width; None: ``latent`` is a coordinate of the activations, e.g. a neuron.
    acts
        Where to look.
    latent
        Which latent.
    n
        How many examples at most; fewer if it is active in fewer documents.
    context
        Tokens shown on each side, within the same row of text.

    Raises
    ------
    CourseError
        If there is no such latent.
    """
    values, found, seen = latent_values(sae, acts, latent), [], set()
    for i in values.argsort(descending=True).tolist():
        if values[i] <= 0 or len(found) == n:
            break
        if int(acts.doc[i]) not in seen:
            seen.add(int(acts.doc[i]))
            found.append(example(lab, acts, i, float(values[i]), context))
    return found


def example(lab: Lab, acts: Activations, row: int, activation: float | int, context: int = 8) -> Example:
    """Show one row of a harvest with at most ``context`` tokens of its own row of text on each side."""
    first = max(row - context, row - int(acts.pos[row]) + 1)
    new = (acts.pos[row + 1 : row + 1 + context] == 0).nonzero()[:, 0]
    last = row + 1 + (int(new[0]) if len(new) else context)
    before, here, after = (lab.text_of(acts.tokens[a:b].tolist())
                           for a, b in ((first, row), (row, row + 1), (row + 1, last)))
    return Example(before, here, after, float(activation))


def quantile_examples(
    lab: Lab, sae: Any, acts: Activations, latent: int, bands: int = 5, n: int = 3, context: int = 8, seed: int = 0
) -> list[Band]:
    """Return examples from the whole range of a latent's activity: the top alone flatters.

    Parameters
    ----------
    lab, sae, acts, latent, context
        As in `top_examples`.
    bands
        Into how many bands the tokens on which it is active are cut by activation, equally many in each.
    n
        Examples drawn at random from each band, one a document.
    seed
        Draws them.

    Returns
    -------
    list of Band
        Strongest first; none if the latent is never active.

    References
    ----------
    Examples over intervals of activation: Bricken et al. 2023, Towards Monosemanticity.
    """
    if min(bands, n) < 1:
        raise CourseError(f"{bands=} and {n=} must be at least 1.")
    values = latent_values(sae, acts, latent)
    order = values.argsort(descending=True)[: int((values > 0).sum())]
    generator, found = torch.Generator().manual_seed(seed), []
    for part in order.tensor_split(bands):
        if not len(part):
            continue
        drawn, seen = [], set()
        for i in part[torch.randperm(len(part), generator=generator)].tolist():
            if len(drawn) < n and int(acts.doc[i]) not in seen:
                seen.add(int(acts.doc[i]))
                drawn.append(i)
        examples = [example(lab, acts, i, float(values[i]), context) for i in sorted(drawn, key=lambda i: -values[i])]
        found.append(Band(float(values[part[-1]]), float(values[part[0]]), examples))
    return found


def final_scale(lab: Lab, n_tokens: int = 2000) -> float:
    """Return the size by which the final norm typically divides the residual stream: harmonic mean, BOS left out."""
    norm = anatomy(lab, 1).norm
    inverse = []
    for batch in lab.batches(n_tokens):
        x = lab.capture(batch.tokens, f"blocks.{lab.n_layers - 1}.hook_resid_post")[:, 1:][batch.mask[:, 1:]].float()
        x = x - x.mean(-1, keepdim=True) if norm.centred else x
        inverse.append((x.square().mean(-1) + norm.eps).rsqrt())
    return 1 / float(torch.cat(inverse).mean())


def logit_effects(lab: Lab, direction: Float[Tensor, " d_model"], k: int = 10,
                  scale: float | int | None = None) -> LogitEffects:
    """Return what adding a direction to the residual stream does to the logits directly, past all later blocks.

    Parameters
    ----------
    lab
        The opened model.
    direction
        In the residual stream, e.g. ``sae.W_dec[latent]``; its length counts.
    k
        How many tokens to list at each end.
    scale
        By which the final norm divides; None: `final_scale`. What later blocks make of the direction is not in it.

    Raises
    ------
    CourseError
        If the direction is not as long as the residual stream is wide.
    """
    if len(direction) != lab.d_model:
        raise CourseError(f"direction has length {len(direction)}; the residual stream has {lab.d_model}.")
    parts = anatomy(lab, 1)
    with torch.no_grad():
        v = direction.detach().to(parts.W_U)
        v = v - v.mean() if parts.norm.centred else v
        logits = ((v * parts.norm.w / (final_scale(lab) if scale is None else scale)) @ parts.W_U).float().cpu()
    logits = logits - logits.mean()
    order = logits.argsort(descending=True).tolist()
    top, bottom = ([(lab.token_strings[i], float(logits[i])) for i in ids[:k]] for ids in (order, order[::-1]))
    return LogitEffects(logits, top, bottom)
