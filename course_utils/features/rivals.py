"""Comparing detectors: several seeds as one, and what F1 is worth when labels belong to other documents."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from course_utils.errors import CourseError
from course_utils.features.chosen import Detection
from course_utils.features.units import Table, Units, column, donor_rows


def pooled(*detections: Detection) -> Detection:
    """Put detections of the same concepts on the same text side by side, e.g. of SAEs that differ in their seed.

    `mean_f1` and `f1_difference` of the result are means over all of them, each resample drawing the same documents.

    Raises
    ------
    CourseError
        If there are none, or they were not scored for the same concepts on the same text.
    """
    if not detections:
        raise CourseError("there are no detections to pool; give one or more.")
    first = detections[0]
    for other in detections[1:]:
        if other.names != first.names or not np.array_equal(other.counts[..., 2], first.counts[..., 2]):
            raise CourseError("all must be scored for the same concepts on the same held-out text.")
    parts = (torch.cat([d[i] for d in detections]) for i in range(1, 7))
    return Detection(first.names * len(detections), *parts, np.concatenate([d.counts for d in detections], axis=1))


def shuffled_f1(detection: Detection, heldout: Units, concepts: Table, *, n: int = 100,
                seed: int = 0) -> Float[np.ndarray, " draws"]:
    """Return the mean F1 when every held-out document is given the labels of another, position by position.

    Detectors, thresholds and the concepts' frequencies stay; only the tie between text and label goes. The same seed
    gives the same shuffles, so that differences between detections can be taken draw by draw.

    Parameters
    ----------
    detection
        From `best_units` or `score_detectors`.
    heldout, concepts
        The held-out split that was given to it.
    n, seed
        Shuffles, and what draws them.

    Raises
    ------
    CourseError
        If the units or the table are not those of the detection.
    """
    if concepts.names != detection.names or heldout.shape[0] != len(concepts.on):
        raise CourseError("give the held-out units and the table that this detection was scored on.")
    if n < 1:
        raise CourseError(f"n={n} must be at least 1 shuffle (100 is usual).")
    cache = {u: column(heldout, u) for u in set(detection.unit.tolist())}
    threshold = detection.threshold.numpy()
    said = [np.flatnonzero(cache[u] >= threshold[c]) for c, u in enumerate(detection.unit.tolist())]
    rows, concept = np.concatenate(said), np.repeat(np.arange(len(said)), [len(part) for part in said])
    labels, count = concepts.on.cpu().numpy(), np.array([len(part) for part in said])
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        donor = donor_rows(concepts.doc, rng).numpy()
        hits = np.bincount(concept, labels[donor[rows], concept], minlength=len(said))
        carried = np.bincount(donor, minlength=len(labels)) @ labels
        found.append(float(np.mean(2 * hits / np.maximum(count + carried, 1))))
    return np.array(found)
