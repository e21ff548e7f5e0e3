"""One detector a concept, chosen on training text: its score on held-out text, with an interval over documents."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.errors import CourseError, one_of
from course_utils.evidence.estimates import Estimate, bootstrap_sums, group_index, group_sums
from course_utils.features.scores import Cells, UnitScores, score_pairs
from course_utils.features.units import Table, Units, column

CRITERIA = ("f1", "auroc")


class Detection(NamedTuple):
    """The chosen detector of each concept, scored on text that chose neither it nor its threshold."""

    names: tuple[str, ...]
    """Concepts."""
    unit: Int[Tensor, " concepts"]
    """The unit chosen on the training split."""
    threshold: Float[Tensor, " concepts"]
    """It says "on" at or above this value."""
    auroc: Float[Tensor, " concepts"]
    precision: Float[Tensor, " concepts"]
    recall: Float[Tensor, " concepts"]
    f1: Float[Tensor, " concepts"]
    """All four on the held-out split."""
    counts: Float[np.ndarray, "docs concepts 3"]
    """Tokens of each held-out document that carry the concept and are said to, that are said to, that carry it."""

    def select(self, kind: str) -> Detection:
        """Keep the concepts that are ``kind`` or begin with it, e.g. ``"entity"`` or ``"entity:animal"``."""
        keep = [i for i, name in enumerate(self.names) if name == kind or name.startswith(kind + ":")]
        if not keep:
            raise one_of("kind", kind, self.names)
        return Detection(tuple(self.names[i] for i in keep), *(part[keep] for part in self[1:7]), self.counts[:, keep])


def _counts(values: list[np.ndarray], threshold: np.ndarray, table: Table) -> Float[np.ndarray, "docs concepts 3"]:
    index = group_index(table.doc, len(table.doc))
    on = table.on.cpu().numpy()
    parts = []
    for j, v in enumerate(values):
        says = v >= threshold[j]
        parts.append(group_sums(np.stack([says & on[:, j], says, on[:, j]], axis=1).astype(float), index))
    return np.stack(parts, axis=1)


def best_units(scores: UnitScores, heldout: Units, heldout_concepts: Table, by: str = "f1") -> Detection:
    """Choose the best unit for each concept on the training split, and report it on the held-out one.

    The best of a thousand is lucky as well as good: its luck stays behind on the split that chose it.

    Parameters
    ----------
    scores
        From `score_units`.
    heldout, heldout_concepts
        The held-out split that was given to it.
    by
        ``"f1"``, or ``"auroc"`` (which misleads for units that are zero on most tokens).
    """
    if by not in CRITERIA:
        raise one_of("by", by, CRITERIA)
    unit = torch.nan_to_num(getattr(scores.train, by), nan=-1.0).argmax(0)
    return _detection(scores, unit, heldout, heldout_concepts)


def score_detectors(train: Units, concepts: Table, heldout: Units, heldout_concepts: Table) -> Detection:
    """Score detectors made for one concept each, column j for concept j; only thresholds are left to choose.

    Parameters
    ----------
    train, concepts
        What the detectors say on the training split ``[n concepts]``, e.g. ``x @ directions.T``; and the concepts.
    heldout, heldout_concepts
        The same of the held-out split.
    """
    pairs = score_pairs(train, concepts, heldout, heldout_concepts)
    unit = torch.arange(len(pairs.names))
    scores = UnitScores(pairs.names, *(_diagonal(part) for part in pairs[1:]))
    return _detection(scores, unit, heldout, heldout_concepts)


def _diagonal(part: Any) -> Any:
    """Spread ``[1 c]`` over rows, so that entry (j, j) is the j-th, without copying."""
    return part.expand(part.shape[1], -1) if isinstance(part, Tensor) else Cells(*map(_diagonal, part))


def _detection(scores: UnitScores, unit: Tensor, heldout: Units, table: Table) -> Detection:
    at = unit, torch.arange(len(unit))
    values = {u: column(heldout, u) for u in set(unit.tolist())}
    threshold = scores.threshold[at]
    counts = _counts([values[u] for u in unit.tolist()], threshold.numpy(), table)
    return Detection(scores.names, unit, threshold, *(cell[at] for cell in scores.heldout), counts)


def _f1(sums: np.ndarray, own: np.ndarray) -> Any:
    """Return the mean F1 over concepts from sums ``[..., 3 c]``.

    A concept that a resample lacks counts as on the data themselves, ``own [c]``: left out, the rare and badly detected
    ones would be missing most often, and the interval would lie too high.
    """
    both, says, on = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)
    return np.where(on > 0, 2 * both / np.maximum(says + on, 1), own).mean(-1)


def _flat(detection: Detection) -> np.ndarray:
    return detection.counts.reshape(len(detection.counts), -1)


def mean_f1(detection: Detection, kind: str | None = None, *, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """Return the mean F1 over concepts, with an interval over held-out documents.

    Parameters
    ----------
    detection
        From `best_units` or `score_detectors`.
    kind
        Only concepts that begin so, e.g. ``"topic"``.
    n_boot, seed
        Resamples of documents.
    """
    chosen = detection if kind is None else detection.select(kind)
    own = chosen.f1.double().numpy()
    return bootstrap_sums(_flat(chosen), lambda s: _f1(s, own), n_boot=n_boot, seed=seed)


def concept_f1(detection: Detection, concept: str, *, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """Return the F1 for one concept, with an interval over held-out documents.

    Raises
    ------
    CourseError
        If the concept was not scored, or stands in so few documents that some resample lacks it.
    """
    if concept not in detection.names:
        raise one_of("concept", concept, detection.names)
    counts = detection.counts[:, detection.names.index(concept)]
    return bootstrap_sums(counts, lambda s: 2 * s[..., 0] / np.where(s[..., 2] > 0, s[..., 1] + s[..., 2], 0),
                          n_boot=n_boot, seed=seed)


def f1_difference(a: Detection, b: Detection, kind: str | None = None, *, n_boot: int = 1000,
                  seed: int = 0) -> Estimate:
    """Return how much higher the mean F1 of ``a`` is than that of ``b``, both on the same resampled documents.

    Raises
    ------
    CourseError
        If they were not scored for the same concepts on the same text.
    """
    a, b = (d if kind is None else d.select(kind) for d in (a, b))
    if a.names != b.names or not np.array_equal(a.counts[..., 2], b.counts[..., 2]):
        raise CourseError("both must be scored for the same concepts on the same held-out text.")
    width, own = 3 * len(a.names), [d.f1.double().numpy() for d in (a, b)]
    return bootstrap_sums(np.concatenate([_flat(a), _flat(b)], axis=1),
                          lambda s: _f1(s[..., :width], own[0]) - _f1(s[..., width:], own[1]), n_boot=n_boot, seed=seed)
