"""The same fact read from four places: activations, latents, reconstruction, error; and how often it is told right."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from course_utils.activations import Activations
from course_utils.errors import CourseError
from course_utils.evidence.estimates import group_index
from course_utils.features.probes import linear_probes
from course_utils.features.residue import residue
from course_utils.features.units import Table, Units, sae_latents

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)


def readings(sae: Any, acts: Activations) -> dict[str, Units]:
    """Return what a probe may read of each usable row: ``raw``, ``latents``, ``reconstruction`` and ``error``."""
    found = residue(sae, acts)
    return {"raw": found.x, "latents": sae_latents(sae, acts), "reconstruction": found.x_hat, "error": found.error}


def told_right(x: Units, table: Table, x_new: Units, new: Table, penalties: tuple[float, ...] = PENALTIES,
               seed: int = 0) -> Float[np.ndarray, "docs probes 4"]:
    """Fit a linear probe a column and count, by held-out document, what it tells right.

    A probe says "on" where its odds exceed those of the training tokens, so that the commoner answer gets no credit.

    Parameters
    ----------
    x, table
        Training units, and what to tell of them.
    x_new, new
        The same of held-out text; one column is the truth for all probes (which may be fitted to shuffled ones).
    penalties, seed
        Of `linear_probes`.

    Returns
    -------
    numpy.ndarray
        Tokens that are on and told so, tokens that are on, tokens that are off and told so, tokens that are off.
    """
    if new.on.shape[1] not in (1, len(table.names)):
        raise CourseError(f"new must have 1 column or {len(table.names)}; it has {new.on.shape[1]}.")
    probes = linear_probes(x, table, penalties=penalties, seed=seed)
    says, truth = probes.values(x_new) > torch.logit(table.on.double().mean(0)), new.on
    cells = torch.stack(torch.broadcast_tensors(says & truth, truth, ~says & ~truth, ~truth), 2).double()
    docs = torch.from_numpy(group_index(new.doc, len(new.doc)))
    sums = torch.zeros(int(docs.max()) + 1, *cells.shape[1:], dtype=torch.double)
    return sums.index_add_(0, docs, cells).numpy()


def balanced(sums: Float[np.ndarray, "*draws 4"]) -> Any:
    """Return the mean of the shares told right among tokens that are on and that are off; guessing gives a half."""
    return (sums[..., 0] / sums[..., 1] + sums[..., 2] / sums[..., 3]) / 2


def pooled(tables: list[Float[np.ndarray, "docs 4"]]) -> tuple[Float[np.ndarray, "docs k"], Any]:
    """Lay the sums of several runs side by side, with the mean of their `balanced` as a statistic of the row sums."""
    k = len(tables)

    def mean(sums: np.ndarray) -> Any:
        return balanced(sums.reshape(*sums.shape[:-1], k, 4)).mean(-1)

    return np.concatenate(tables, axis=1), mean
