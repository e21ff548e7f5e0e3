"""Reading latents: where one is active, and how well it stands for a concept."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from course_utils.activations import Activations
from course_utils.errors import CourseError
from course_utils.lab import Lab

CHUNK = 2**14


class Scores(NamedTuple):
    """How well "this latent is active" says "this token carries the concept", one number a latent."""

    precision: Float[Tensor, " d_sae"]
    """Of the tokens on which the latent is active, the share that carries the concept; 0 if it never is."""
    recall: Float[Tensor, " d_sae"]
    """Of the tokens that carry the concept, the share on which the latent is active."""
    f1: Float[Tensor, " d_sae"]
    """Harmonic mean of both."""


class Example(NamedTuple):
    """One token in its context."""

    before: str
    token: str
    after: str
    activation: float


def concept_scores(sae: Any, acts: Activations, concept: Bool[Tensor, " n"]) -> Scores:
    """Score every latent as a detector of one concept, BOS left out.

    Choose a latent on one harvest and report its score on another: the best of a thousand is lucky as well as good.

    Parameters
    ----------
    sae
        Any sae-lens SAE of the harvest's width.
    acts
        Where to score, ``n`` rows.
    concept
        Which rows carry the concept, e.g. ``torch.from_numpy(acts.labels.mask("topic:french"))``.

    Raises
    ------
    CourseError
        If the mask has another length than the harvest, or no usable row carries the concept.
    """
    if len(concept) != len(acts):
        raise CourseError(f"concept has {len(concept)} rows; the harvest has {len(acts)}.")
    rows = acts.usable
    if not concept[rows].any():
        raise CourseError("concept stands on no token of this harvest; take a more frequent one or more tokens.")
    both = torch.zeros(sae.cfg.d_sae)
    active = torch.zeros(sae.cfg.d_sae)
    with torch.no_grad():
        for part in rows.split(CHUNK):
            on = (sae.encode(acts.x[part].to(sae.W_dec)) > 0).float().cpu()
            both += concept[part].float() @ on
            active += on.sum(0)
    n = float(concept[rows].sum())
    return Scores(both / active.clamp(min=1), both / n, 2 * both / (active + n))


def latent_values(sae: Any, acts: Activations, latent: int) -> Float[Tensor, " n"]:
    """Return one latent's value on every row of a harvest; 0 on BOS rows, which no SAE here is trained on.

    Raises
    ------
    CourseError
        If there is no such latent.
    """
    if not 0 <= latent < sae.cfg.d_sae:
        raise CourseError(f"latent={latent} must lie in 0 to {sae.cfg.d_sae - 1}.")
    with torch.no_grad():
        values = [sae.encode(part.to(sae.W_dec))[:, latent].float().cpu() for part in acts.x.split(CHUNK)]
    return torch.cat(values) * ~acts.is_bos


def top_examples(lab: Lab, sae: Any, acts: Activations, latent: int, n: int = 10, context: int = 8) -> list[Example]:
    """Return the tokens on which a latent is most active, one a document, strongest first.

    Parameters
    ----------
    lab
        Gives the text of tokens.
    sae
        Any sae-lens SAE of the harvest's width.
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
        if int(acts.doc[i]) in seen:
            continue
        seen.add(int(acts.doc[i]))
        first = max(i - context, i - int(acts.pos[i]) + 1)
        row_end = int((acts.pos[i + 1 : i + 1 + context] == 0).int().argmax()) if (
            acts.pos[i + 1 : i + 1 + context] == 0).any() else context
        before, here, after = (lab.text_of(acts.tokens[a:b].tolist()) for a, b in (
            (first, i), (i, i + 1), (i + 1, i + 1 + row_end)))
        found.append(Example(before, here, after, float(values[i])))
    return found
