"""A card index: what cards of all latents need, worked out once in one pass over a harvest, so that a card is quick."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.sparse import csc_array

from course_utils.activations import Activations, harvest
from course_utils.cards.readings import Carried, best_concepts, carried
from course_utils.errors import CourseError, one_of
from course_utils.features import Cofiring, LogitEffects, Neighbour, cofiring, final_scale, logit_effects, neighbours
from course_utils.features.units import sae_latents
from course_utils.lab import Lab
from course_utils.raters.passages import Passage, Reader, active, band_rows, bands

SORTS = ("number", "density", "score", "strength")


class BandOf(NamedTuple):
    """One stretch of a latent's activity, with passages from it."""

    low: float
    high: float
    n: int
    """How many tokens lie in it."""
    inside: float | None
    """Share of its activation that falls on the latent's concept; None if there are no labels."""
    passages: list[Passage]


class Facts(NamedTuple):
    """Everything that stands on a latent's card."""

    latent: int
    model: str
    hook: str
    n_tokens: int
    """Tokens that were read, BOS left out."""
    density: float
    """Share of them on which it is active."""
    peak: float
    """Its highest activation."""
    concept: str
    """The concept that it fits best on this very text; empty if there are no labels."""
    f1: float
    histogram: tuple[list[int], float]
    """Counts of its activations in equal steps from 0, and the width of a step."""
    bands: list[BandOf]
    logits: LogitEffects | None
    """None where the SAE does not read the residual stream."""
    neighbours: list[tuple[Neighbour, str]]
    """Latents with near decoder directions, and what they fire on."""
    cofiring: list[tuple[Cofiring, str]]


class CardIndex:
    """Cards of all latents of one SAE, over one harvest.

    Parameters
    ----------
    lab
        The opened model.
    sae
        Any sae-lens SAE.
    acts
        Where examples come from; None: 30,000 held-out tokens of the SAE's hook.
    hook
        Needed only where the SAE does not say which hook it reads.
    context
        Tokens at most on each side of an example.

    Raises
    ------
    CourseError
        If the SAE is not as wide as the harvest.
    """

    def __init__(self, lab: Lab, sae: Any, acts: Activations | None = None, hook: str | None = None,
                 context: int = 8) -> None:
        if acts is None:
            hook = hook or getattr(getattr(sae.cfg, "metadata", None), "hook_name", None) or lab.middle_hook
            acts = harvest(lab, hook, 30_000, split="heldout", labels=True)
        if sae.W_dec.shape[1] != acts.x.shape[1]:
            raise CourseError(f"the SAE reads {sae.W_dec.shape[1]} dimensions, the harvest of {acts.hook} has "
                              f"{acts.x.shape[1]}; give a harvest of the SAE's hook.")
        self.lab, self.sae, self.hook, self.acts = lab, sae, acts.hook, acts
        self.latents: csc_array = sae_latents(sae, acts)
        self.reader = Reader(lab, acts, context)
        self.density: Float[np.ndarray, " m"] = np.diff(self.latents.indptr) / max(self.latents.shape[0], 1)
        self.carried: Carried | None = carried(acts) if acts.labels is not None else None
        self.concept, self.f1 = (best_concepts(self.latents, self.carried) if self.carried is not None else
                                 (np.zeros(len(self), dtype=int), np.zeros(len(self))))

    def __len__(self) -> int:
        """Count the latents."""
        return self.latents.shape[1]

    @cached_property
    def scale(self) -> float | None:
        """The size by which the final norm divides; None if the SAE does not write to the residual stream."""
        return final_scale(self.lab) if "resid" in self.hook and self.acts.x.shape[1] == self.lab.d_model else None

    @cached_property
    def strength(self) -> Float[np.ndarray, " m"]:
        """Highest activation of each latent."""
        top = np.zeros(len(self))
        for i, (a, b) in enumerate(zip(self.latents.indptr[:-1], self.latents.indptr[1:], strict=True)):
            top[i] = self.latents.data[a:b].max(initial=0)
        return top

    def concept_of(self, latent: int) -> str:
        """Name the concept that a latent fits best on this text; empty without labels, or for a silent latent."""
        return self.carried.names[self.concept[latent]] if self.carried is not None and self.f1[latent] else ""

    @cached_property
    def top_tokens(self) -> list[str]:
        """Return the token on which each latent is most active, all its activity on it taken together."""
        found, tokens, strings = [], self.reader.tokens, self.reader.strings
        for a, b in zip(self.latents.indptr[:-1], self.latents.indptr[1:], strict=True):
            sums = np.bincount(tokens[self.latents.indices[a:b]], self.latents.data[a:b]) if b > a else np.zeros(0)
            found.append(strings[int(sums.argmax())] if len(sums) else "")
        return found

    def name_of(self, latent: int) -> str:
        """Say in a few words what a latent is: its strongest token, and its concept."""
        return f"{self.top_tokens[latent]!r} {self.concept_of(latent)}".strip() if self.density[latent] else "silent"

    def search(self, text: str = "", sort: str = "number") -> list[int]:
        """Return the latents whose concept or strongest token contains a text, in some order; silent ones last.

        Parameters
        ----------
        text
            Small and capital letters count alike; empty: all latents.
        sort
            ``"number"``, or the highest first by ``"density"``, ``"score"`` (F1) or ``"strength"``.
        """
        if sort not in SORTS:
            raise one_of("sort", sort, SORTS)
        wanted = text.strip().lower()
        kept = [i for i in range(len(self)) if wanted in self.name_of(i).lower()]
        key = {"number": -np.arange(len(self)), "density": self.density, "score": self.f1, "strength": self.strength}
        return sorted(kept, key=lambda i: (self.density[i] == 0, -key[sort][i]))

    def facts(self, latent: int, n_bands: int = 5, n: int = 3, k: int = 8, seed: int = 0) -> Facts:
        """Put a latent's card together.

        Parameters
        ----------
        latent
            Which.
        n_bands, n, seed
            Bands of activity, examples in each, and what draws them.
        k
            Tokens at each end of the logit effects; neighbours are five.

        Raises
        ------
        CourseError
            If there is no such latent.
        """
        column = active(self.latents, latent)
        on = np.zeros(len(self.reader), dtype=bool)
        if self.carried is not None:
            start, end = self.carried.on.indptr[[self.concept[latent], self.concept[latent] + 1]]
            on[self.carried.on.indices[start:end]] = True
        rows = band_rows(column, self.reader.doc, n_bands, n, seed)
        cut = [BandOf(float(band.values.min()), float(band.values.max()), len(band.rows),
                      float(band.values[on[band.rows]].sum() / band.values.sum()) if self.carried else None,
                      self.reader.passages(chosen, column))
               for band, chosen in zip(bands(column, n_bands), rows, strict=True)]
        peak = float(column.values.max(initial=0))
        counts = np.histogram(column.values, bins=24, range=(0, peak))[0].tolist() if peak else []
        effects = None if self.scale is None else logit_effects(self.lab, self.sae.W_dec[latent], k, self.scale)
        near = [(other, self.name_of(other.latent)) for other in neighbours(self.sae, latent)]
        beside = [(other, self.name_of(other.latent)) for other in cofiring(self.latents, latent)] if peak else []
        return Facts(latent, self.lab.name, self.hook, len(self.reader), float(self.density[latent]), peak,
                     self.concept_of(latent), float(self.f1[latent]), (counts, peak / 24), cut, effects, near, beside)

    def card(self, latent: int, **options: Any) -> Any:
        """Return a latent's `FeatureCard`; options are those of `facts`."""
        from course_utils.cards.page import FeatureCard

        return FeatureCard(self.facts(latent, **options))
