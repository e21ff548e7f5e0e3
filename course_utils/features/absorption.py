"""Feature absorption: a latent for a class of things is silent on some of them, because another latent took it over.

After Chanin et al. 2024, "A is for Absorption" (arXiv 2409.14507), with an answer key in place of spelling:

1. The main latents of a class (fruit): on training text, the one whose firing has the best F1; then others, as long
   as "any of them fires" gains at least ``gain`` (their feature splits).
2. A held-out token is *known* if it belongs to the class and a linear probe on the activation says so.
3. It is *missed* if no main latent fires on it, though the activation holds the class.
4. It is *absorbed* if, of all that its latents add along the probe's direction, one latent alone adds at least
   ``share``, and that latent's decoder is aligned with the probe: cosine at least ``aligned`` / sqrt(d).

They measure the fourth step by ablation on the logits and call a cosine of .025 aligned, in a space of thousands of
dimensions; in a small one random directions are far nearer than that, so that ours is a multiple of their spread.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import normalize

from course_utils.errors import CourseError
from course_utils.evidence.estimates import Estimate, bootstrap_ratio, group_index, group_sums
from course_utils.features.scores import check
from course_utils.features.units import Table, Units

AT_MOST = 5  # main latents of a class


class Absorption(NamedTuple):
    """What happened to the known tokens of each class on held-out text."""

    names: tuple[str, ...]
    """Classes."""
    main: tuple[tuple[int, ...], ...]
    """Their main latents, best first."""
    known: Bool[Tensor, "n classes"]
    """Tokens of the class that the probe recognises."""
    missed: Bool[Tensor, "n classes"]
    """Known tokens on which no main latent fires."""
    absorber: Int[Tensor, "n classes"]
    """The latent that took a missed token over; -1 where none did."""
    doc: Int[Tensor, " n"]

    @property
    def absorbed(self) -> Bool[Tensor, "n classes"]:
        """Missed tokens that one aligned latent took over."""
        return self.absorber >= 0

    def events(self) -> list[tuple[int, int, int]]:
        """List row, class and absorbing latent of every absorbed token."""
        return [(row, c, int(self.absorber[row, c])) for row, c in self.absorbed.nonzero().tolist()]

    def rate(self, what: str = "absorbed", name: str | None = None, *, n_boot: int = 1000, seed: int = 0) -> Estimate:
        """Return the share of known tokens that are ``"missed"`` or ``"absorbed"``, with an interval over documents.

        Parameters
        ----------
        what
            Which tokens to count.
        name
            One class; None: all, every token counting once for each of its classes.
        n_boot, seed
            Resamples of documents.
        """
        pick = slice(None) if name is None else [self.names.index(name)]
        table = torch.stack([getattr(self, what)[:, pick].sum(1), self.known[:, pick].sum(1)], 1).double().numpy()
        return bootstrap_ratio(*_known_documents(table, self.doc).T, n_boot=n_boot, seed=seed)


def _known_documents(table: np.ndarray, doc: Tensor) -> np.ndarray:
    """Sum by document, keeping those with a known token: the others say nothing of a share of known ones."""
    sums = group_sums(table, group_index(doc, len(doc)))
    kept = sums[sums[:, 1] > 0]
    if len(kept) < 2:
        raise CourseError("fewer than two documents hold a known token; take more text or another class.")
    return kept


def firing(units: Units) -> csr_array:
    """Say where each unit is above zero, sparse by rows."""
    return csr_array(csr_array(units.detach().float().cpu().numpy()) > 0 if isinstance(units, Tensor) else units > 0)


def _count(fires: csr_array) -> np.ndarray:
    """Count the tokens on which each latent fires."""
    return np.bincount(fires.indices, minlength=fires.shape[1])


def _chosen(fires: csr_array, total: np.ndarray, truth: np.ndarray, gain: float | int) -> tuple[int, ...]:
    """Add latents to "any of them fires" as long as its F1 gains enough; what is said already, none can say anew."""
    chosen: list[int] = []
    said, best = np.zeros(len(truth), bool), 0.0
    while len(chosen) < AT_MOST:
        right = (said & truth).sum() + _count(fires[truth & ~said])
        f1 = 2 * right / (said.sum() + total - _count(fires[said]) + truth.sum())
        latent = int(f1.argmax())
        if f1[latent] - best < (gain if chosen else 1e-12):
            break
        best, said = float(f1[latent]), said | (fires[:, [latent]].toarray()[:, 0])
        chosen.append(latent)
    return tuple(chosen)


def takers(latents: Float[Tensor, "m d_sae"], decoder: Float[Tensor, "d_sae d"], direction: Float[Tensor, " d"],
           share: float = 0.5, aligned: float = 3.0) -> Int[Tensor, " m"]:
    """Say which latent alone carries a direction on each token, or -1.

    Parameters
    ----------
    latents
        Values on the tokens in question.
    decoder
        ``sae.W_dec``.
    direction
        What is carried, e.g. a probe's weights.
    share
        Of all that the token's latents add along it (what they take away not counted), the part that one must add.
    aligned
        Least cosine of its decoder row with the direction, in units of 1 / sqrt(d), the spread of random ones.
    """
    if not len(latents):
        return torch.zeros(0, dtype=torch.long)
    along = decoder.float() @ normalize(direction.float(), dim=0)  # [d_sae]
    pushed = (latents * along).clamp(min=0)
    most, which = pushed.max(1)
    cosine = along / decoder.float().norm(dim=1).clamp(min=1e-12)
    alone = (most > 0) & (most >= share * pushed.sum(1)) & (cosine[which] >= aligned / decoder.shape[1] ** 0.5)
    return torch.where(alone, which, -1)


def absorption(
    train: Units, classes: Table, heldout: Units, heldout_classes: Table, says: Bool[Tensor, "n classes"],
    directions: Float[Tensor, "classes d"], decoder: Float[Tensor, "d_sae d"], *, gain: float | int = 0.03,
    share: float = 0.5, aligned: float = 3.0,
) -> Absorption:
    """Count the known tokens of each class that its main latents miss, and those that another latent took over.

    Parameters
    ----------
    train, classes
        Latents and classes of the split on which main latents are chosen.
    heldout, heldout_classes
        The same of the split that is counted.
    says
        Where a probe on the held-out activations says "on".
    directions
        The probes' weights.
    decoder
        ``sae.W_dec``.
    gain, share, aligned
        As in the module.

    Raises
    ------
    CourseError
        If rows, classes or widths do not fit together.
    """
    check(train, classes, "training"), check(heldout, heldout_classes, "held-out")
    if says.shape != heldout_classes.on.shape or len(directions) != len(classes.names):
        raise CourseError("says must have the shape of the held-out classes, and directions one row a class.")
    if heldout.shape[1] != len(decoder) or directions.shape[1] != decoder.shape[1]:
        raise CourseError(f"decoder is {tuple(decoder.shape)}; it needs a row for each of {heldout.shape[1]} latents "
                          f"and a column for each of the directions' {directions.shape[1]} dimensions.")
    if not classes.on.any(0).all():
        empty = classes.names[int((~classes.on.any(0)).nonzero()[0])]
        raise CourseError(f"{empty!r} stands on no training token; take more tokens or leave it out.")
    fires = firing(train)
    total = _count(fires)
    main = [_chosen(fires, total, on, gain) for on in classes.on.T.cpu().numpy()]
    rows = heldout if isinstance(heldout, Tensor) else heldout.tocsr()
    known = heldout_classes.on & says
    missed, absorber = torch.zeros_like(known), torch.full(known.shape, -1)
    for c, latents in enumerate(main):
        at = known[:, c].nonzero()[:, 0]
        values = _dense(rows, at)
        silent = ~(values[:, list(latents)] > 0).any(1)
        missed[at[silent], c] = True
        absorber[at[silent], c] = takers(values[silent], decoder.cpu(), directions[c], share, aligned)
    return Absorption(heldout_classes.names, tuple(main), known, missed, absorber, heldout_classes.doc)


def _dense(rows: Any, at: Tensor) -> Float[Tensor, "m d_sae"]:
    return rows[at].float().cpu() if isinstance(rows, Tensor) else torch.from_numpy(rows[at.numpy()].toarray()).float()


def absorbed_by_chance(
    found: Absorption, heldout: Units, directions: Float[Tensor, "classes d"], decoder: Float[Tensor, "d_sae d"], *,
    share: float = 0.5, aligned: float = 3.0, n: int = 39, seed: int = 0,
) -> Float[np.ndarray, " draws"]:
    """Return the share of known tokens that would count as absorbed if classes had each other's directions: the null.

    Parameters
    ----------
    found
        From `absorption`; which tokens are missed stays.
    heldout, directions, decoder, share, aligned
        As given to it.
    n, seed
        How often directions are dealt anew among the classes (none keeps its own), and what deals them.
    """
    k = len(found.names)
    if k < 2:
        raise CourseError("1 class has no other direction to try; give two or more.")
    rows, rng = heldout if isinstance(heldout, Tensor) else heldout.tocsr(), np.random.default_rng(seed)
    values = [_dense(rows, missed.nonzero()[:, 0]) for missed in found.missed.T]
    draws = []
    for _ in range(n):
        order = rng.permutation(k)
        other = np.empty(k, int)
        other[order] = np.roll(order, 1)  # one cycle through all classes: nobody keeps its own
        taken = [takers(v, decoder.cpu(), directions[j], share, aligned) for v, j in zip(values, other, strict=True)]
        draws.append(sum(int((t >= 0).sum()) for t in taken) / max(int(found.known.sum()), 1))
    return np.array(draws)
