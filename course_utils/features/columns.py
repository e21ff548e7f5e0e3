"""Two more columns of labels, the word itself and the kind of what is named; and the first rows of a harvest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from course_utils.activations import Activations
from course_utils.concepts import Labels, word_labels
from course_utils.errors import CourseError
from course_utils.lab import Lab


def enriched(lab: Lab, acts: Activations) -> Activations:
    """Return a harvest with two more columns of labels, the activations shared.

    ``word`` is the token's own text (`word_labels`): what a unit can know without any context. ``category``, where the
    text's answer key names entities, is the kind of what a token names: ``"animal"`` for ``"entity:animal:tiger"``.

    Raises
    ------
    CourseError
        If the harvest has no labels.
    """
    if acts.labels is None:
        raise CourseError("this harvest has no labels; harvest with labels=True.")
    labels = acts.labels | word_labels(lab, acts.tokens)
    if "entity" in labels.columns:
        kinds = [name.partition(":")[0] for name in labels.names["entity"]]
        names = list(dict.fromkeys(kinds))
        # The extra last entry is where code -1 points: it stays -1.
        code = np.array([*(names.index(kind) for kind in kinds), -1], dtype=np.int32)
        labels = labels | Labels({"category": code[labels.columns["entity"]]}, {"category": names})
    return replace(acts, labels=labels)


def head(acts: Activations, n: int) -> Activations:
    """Return the first rows of a harvest, up to ``n`` usable ones (BOS comes on top); nothing is copied.

    Raises
    ------
    CourseError
        If ``n`` is below 1.
    """
    if n < 1:
        raise CourseError(f"n={n} must be at least 1 row.")
    end = int(acts.usable[min(n, len(acts.usable)) - 1]) + 1
    return replace(acts, x=acts.x[:end], tokens=acts.tokens[:end], doc=acts.doc[:end], pos=acts.pos[:end],
                   labels=None if acts.labels is None else acts.labels[:end])
