"""Feature cards: all that can be read of one latent, on one page; and what cards of many add up to.

1. ``index = CardIndex(lab, sae, acts)``: one pass over the text. ``index.card(i)``: a card, in a blink.
2. ``feature_card(lab, sae, i)`` makes both; ``.save("card.html")`` writes a page that needs nothing else.
3. ``read_latents``: for every latent, the concept that it stands for, and the share of its activity inside it, band by
   band. ``as_often`` makes neurons and random directions as sparse as latents, to be compared with them.
4. ``mentions``, ``peaks``: where a text names things of one class; how a latent takes the near neighbours of its thing.
"""

from __future__ import annotations

from typing import Any

from course_utils.activations import Activations
from course_utils.cards.index import CardIndex, Facts
from course_utils.cards.mentions import Mentions, best_for, mentions, peaks
from course_utils.cards.page import FeatureCard, excerpt
from course_utils.cards.readings import (
    Carried,
    Reading,
    aligned,
    as_often,
    best_concepts,
    carried,
    elsewhere,
    read_latents,
    typical_words,
)
from course_utils.lab import Lab

__all__ = [
    "CardIndex", "Carried", "Facts", "FeatureCard", "Mentions", "Reading", "aligned", "as_often", "best_concepts",
    "best_for", "carried", "elsewhere", "excerpt", "feature_card", "mentions", "peaks", "read_latents", "typical_words",
]


def feature_card(lab: Lab, sae: Any, latent: int, acts: Activations | CardIndex | None = None,
                 **options: Any) -> FeatureCard:
    """Return one latent's card.

    Parameters
    ----------
    lab
        The opened model.
    sae
        Any sae-lens SAE.
    latent
        Which.
    acts
        Where examples come from: a harvest of the SAE's hook; None: 30,000 held-out tokens. Or a `CardIndex`, which
        has read it already: for more than one card.
    **options
        Of `CardIndex.facts`: ``n_bands``, ``n``, ``k``, ``seed``.

    Raises
    ------
    CourseError
        If there is no such latent, or the harvest is not the SAE's.
    """
    index = acts if isinstance(acts, CardIndex) else CardIndex(lab, sae, acts)
    return index.card(latent, **options)
