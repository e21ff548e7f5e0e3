"""What each latent stands for according to the labels, and how much of its activity that explains, band by band.

A latent is *inside* its concept on the tokens that carry it. The concept is chosen on one text and everything is
counted on another, because the best of many concepts is lucky as well as good.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csc_array, csr_array
from torch import Tensor

from course_utils.activations import Activations
from course_utils.concepts import Labels, domain_of
from course_utils.errors import CourseError
from course_utils.evidence.estimates import group_index
from course_utils.features.units import columns_of
from course_utils.raters.words import log_odds

SEEN = 20  # a latent that fires on fewer held-out tokens, or in fewer than DOCS documents, is not judged
DOCS = 5
NEVER = ("sentence_pos", "frequency")  # columns that say nothing that a latent could mean


class Carried(NamedTuple):
    """Which concepts each of ``n`` tokens carries, sparse: many concepts, few on each token."""

    names: tuple[str, ...]
    on: csc_array
    """``[n concepts]``, 1 where the token carries the concept."""


class Reading(NamedTuple):
    """What each latent stands for, ``m`` latents in all."""

    names: tuple[str, ...]
    """Concepts that were tried."""
    concept: Int[np.ndarray, " m"]
    """The one with the best F1 on the training text, "active" taken as "it is there"."""
    precision: Float[np.ndarray, " m"]
    """Share of the held-out tokens on which it is active that carry the concept."""
    recall: Float[np.ndarray, " m"]
    """Share of the concept's held-out tokens on which it is active."""
    f1: Float[np.ndarray, " m"]
    inside: Float[np.ndarray, " m"]
    """Share of its held-out activation, summed over tokens, that falls on the concept."""
    by_band: Float[np.ndarray, "m bands"]
    """The same within each band of activity, equally many tokens in each, the strongest first."""
    judged: np.ndarray
    """Which latents fire often enough to be judged, ``[m]``."""

    def of(self, latent: int) -> str:
        """Name a latent's concept."""
        return self.names[self.concept[latent]]


def carried(acts: Activations, columns: Sequence[str] | None = None) -> Carried:
    """Lay every concept of some columns side by side, for the usable rows of a harvest.

    A value that begins with its kind counts twice, for itself and for its kind: ``entity:animal:tiger`` and
    ``entity:animal``.

    Parameters
    ----------
    acts
        A harvest with labels.
    columns
        Columns of its labels; None: all but position and frequency.
    """
    if acts.labels is None:
        raise CourseError("this harvest has no labels; harvest with labels=True.")
    labels: Labels = acts.labels[acts.usable]
    names, rows, columns_ = [], [], []
    for column in [c for c in labels.columns if c not in NEVER] if columns is None else columns:
        codes, values = labels.columns[column], labels.names[column]
        here = np.flatnonzero(codes >= 0)
        kinds = sorted({value.partition(":")[0] for value in values if ":" in value})
        kind_of = np.array([kinds.index(v.partition(":")[0]) if ":" in v else -1 for v in values] or [-1])
        for part, shown in ((codes[here], values), (kind_of[codes[here]], kinds)):
            rows.append(here[part >= 0])
            columns_.append(part[part >= 0] + len(names))
            names += [f"{column}:{value}" for value in shown]
    at = np.concatenate(rows), np.concatenate(columns_)
    return Carried(tuple(names), csc_array((np.ones(len(at[0]), np.float32), at), shape=(len(labels), len(names))))


def aligned(carrying: Carried, names: Sequence[str]) -> Carried:
    """Put concepts into another order; one that stands nowhere here gets an empty column."""
    place = {name: i for i, name in enumerate(carrying.names)}
    empty = len(carrying.names)
    wider = csc_array((carrying.on.data, carrying.on.indices, np.append(carrying.on.indptr, carrying.on.indptr[-1])),
                      shape=(carrying.on.shape[0], empty + 1))
    return Carried(tuple(names), wider[:, [place.get(name, empty) for name in names]])


def best_concepts(latents: csc_array, carrying: Carried, min_count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each latent, the concept with the best F1 of "active", and that F1.

    Parameters
    ----------
    latents
        ``[n m]``, sparse; active means above zero.
    carrying
        The concepts of the same rows.
    min_count
        Tokens on which a concept must stand to be tried.
    """
    active, count = latents > 0, np.asarray(carrying.on.sum(0)).ravel()
    both = (active.T.astype(np.float32) @ carrying.on).tocsr()  # [m c], sparse
    fires = np.asarray(active.sum(0)).ravel()
    which, best = np.zeros(latents.shape[1], dtype=int), np.zeros(latents.shape[1])
    for i in range(latents.shape[1]):
        part = slice(both.indptr[i], both.indptr[i + 1])
        where = both.indices[part]
        f1 = np.where(count[where] >= min_count, 2 * both.data[part] / (fires[i] + count[where]), 0.0)
        if len(f1):
            which[i], best[i] = where[f1.argmax()], f1.max()
    return which, best


def read_latents(train: csc_array, train_concepts: Carried, heldout: csc_array, heldout_concepts: Carried,
                 doc: Tensor | np.ndarray, *, n_bands: int = 5, min_count: int = 20) -> Reading:
    """Find what each latent stands for on one text, and count on another how much of its activity that explains.

    Parameters
    ----------
    train, train_concepts
        Latents (`sae_latents`) and concepts (`carried`) of the text on which the concept is chosen.
    heldout, heldout_concepts
        The same of the text that is counted.
    doc
        Document of each held-out row.
    n_bands
        Into how many bands the firings are cut.
    min_count
        Training tokens on which a concept must stand to be tried.

    Raises
    ------
    CourseError
        If the splits do not fit together.
    """
    if train.shape[1] != heldout.shape[1]:
        raise CourseError(f"the splits have {train.shape[1]} and {heldout.shape[1]} latents; give those of one SAE.")
    for latents, concepts, name in ((train, train_concepts, "training"), (heldout, heldout_concepts, "held-out")):
        if latents.shape[0] != concepts.on.shape[0]:
            raise CourseError(f"{name} latents have {latents.shape[0]} rows, its concepts {concepts.on.shape[0]}; "
                              "give those of one harvest.")
    which, _ = best_concepts(train, train_concepts, min_count)
    there = aligned(heldout_concepts, train_concepts.names).on.tocsc()
    documents, m = group_index(doc, heldout.shape[0]), heldout.shape[1]
    precision, recall, inside, judged = (np.zeros(m) for _ in range(4))
    by_band, on = np.zeros((m, n_bands)), np.zeros(heldout.shape[0], dtype=bool)
    for i, (rows, values) in enumerate(columns_of(heldout)):
        marked = there.indices[there.indptr[which[i]] : there.indptr[which[i] + 1]]
        on[marked] = True
        hit = on[rows]
        on[marked] = False
        precision[i], recall[i] = hit.sum() / max(len(rows), 1), hit.sum() / max(len(marked), 1)
        inside[i] = values[hit].sum() / max(values.sum(), 1e-12)
        order = np.argsort(-values, kind="stable")
        for b, part in enumerate(np.array_split(order, n_bands)):
            by_band[i, b] = values[part][hit[part]].sum() / max(values[part].sum(), 1e-12)
        judged[i] = len(rows) >= SEEN and len(np.unique(documents[rows])) >= DOCS
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return Reading(train_concepts.names, which, precision, recall, f1, inside, by_band, judged.astype(bool))


def elsewhere(heldout: csc_array, concepts: Carried, reading: Reading) -> Float[np.ndarray, " m"]:
    """Return the share of each latent's activation on tokens that are about something unrelated to its concept.

    Unrelated: the token belongs to some domain of the taxonomy (`domain_of`), and not to the concept's. NaN for a
    latent whose concept, such as " the", belongs to none.
    """
    domain = [domain_of(name) for name in concepts.names]
    kinds = sorted({d for d in domain if d})
    pairs = [(i, kinds.index(d)) for i, d in enumerate(domain) if d]
    sorting = csr_array((np.ones(len(pairs)), np.array(pairs, dtype=int).reshape(-1, 2).T), (len(domain), len(kinds)))
    member = ((concepts.on @ sorting) > 0).astype(np.float32).tocsc()  # [n kinds]
    some = np.asarray(member.sum(1)).ravel() > 0
    total = np.maximum(np.asarray(heldout.sum(0)).ravel(), 1e-12)
    about = (heldout.T @ some) / total
    own = (heldout.T @ member).toarray() / total[:, None]
    place = np.array([kinds.index(d) if (d := domain_of(reading.of(i))) else -1 for i in range(len(reading.concept))])
    return np.where(place >= 0, about - own[np.arange(len(place)), place], np.nan)


def typical_words(concepts: Carried, tokens: np.ndarray, strings: Sequence[str], concept: str, n: int = 30) -> set[str]:
    """Return the words that a concept's tokens prefer, by log-odds times count: what a word-list rater knows of it."""
    on = aligned(concepts, [concept]).on.toarray()[:, 0] > 0
    everywhere = np.bincount(tokens, minlength=len(strings)).astype(float)
    there = np.bincount(tokens[on], minlength=len(strings)).astype(float)
    order = np.argsort(-there * log_odds(there, everywhere), kind="stable")[:n]
    return {strings[i].strip().lower() for i in order if there[i] > 0 and re.search(r"\w", strings[i])}


def as_often(train: Float[Tensor, "n _"], heldout: Float[Tensor, "k _"],
             density: Float[np.ndarray, " _"]) -> tuple[csc_array, csc_array]:
    """Make dense units as sparse as latents are: unit j keeps what exceeds the value that it tops on density[j].

    Parameters
    ----------
    train, heldout
        Units (neurons, projections on directions) on two texts; the first says from which value on.
    density
        Share of the training tokens on which each shall be active.
    """
    if not train.shape[1] == heldout.shape[1] == len(density):
        raise CourseError(f"there are {train.shape[1]} and {heldout.shape[1]} units and {len(density)} densities; "
                          "there must be as many of each.")
    n, columns = len(train), train.detach().float().T.contiguous().numpy()
    rank = np.clip(np.round(np.asarray(density) * n), 0, n - 1).astype(int)
    bar = torch.tensor([np.partition(column, n - 1 - r)[n - 1 - r] for column, r in zip(columns, rank, strict=True)])
    return tuple(csr_array((part.float() - bar).clamp(min=0).numpy()).tocsc() for part in (train, heldout))
