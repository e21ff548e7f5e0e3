"""Find out what an SAE reads, by trying.

The splice check of `evaluate` cannot tell: reconstruction + error gives the clean logits whatever the SAE was fed. So
every reading that is in use is tried on the same text:

1. Preprocess x, encode, decode, undo the preprocessing.
2. Measure what is left unexplained of x less its mean over ``d_model``, for all readings alike: some are handed that
   mean, and must gain nothing by it.
3. An SAE is misread if another reading leaves less than half as much unexplained; or if another explains about as much
   by less than half as many latents, as where activations come in too long. Both must hold in 97.5 % of resamples of
   documents. A merely bad SAE is bad at all readings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.dictionaries.evaluation import explained_variance
from course_utils.dictionaries.reading import decode, hook_of, laid_flat, reads_centred
from course_utils.errors import CourseError
from course_utils.evidence.estimates import Estimate, bootstrap_sums, group_index, group_sums
from course_utils.lab import Lab

MUCH = 0.5  # misread: another reading leaves less than this share unexplained, or needs less than this share of latents
ALIKE = 1.5  # about as much: what is unexplained grows by less than this factor
LITTLE = 0.02  # of the variance: not worth a word
ROWS = 1024

# A reading gives, for each activation, what to subtract from it and what to multiply the rest by.
Reading = Callable[[Tensor], tuple[Tensor | float, Tensor | float]]
READINGS: dict[str, tuple[str, str, Reading]] = {
    "raw": ("activations as they are", "", lambda x: (0.0, 1.0)),
    "centred": ("centred activations (less their mean over d_model)",
                "load_sae does that by the SAE's metadata, dictionaries.reading.fold_centring in any case",
                lambda x: (x.mean(-1, keepdim=True), 1.0)),
    "scaled": ("activations scaled to a mean length of sqrt(d_model)",
               "sae.fold_activation_norm_scaling_factor({factor:.4g}) puts that into its weights",
               lambda x: (0.0, x.shape[-1] ** 0.5 / x.norm(dim=-1).mean())),
    "unit_norm": ("activations each scaled to length sqrt(d_model)",
                  "its config must say normalize_activations='constant_norm_rescale'",
                  lambda x: (0.0, x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True))),
    "layer_norm": ("layer-normed activations (each less its mean, over its standard deviation)",
                   "its config must say normalize_activations='layer_norm'",
                   lambda x: (x.mean(-1, keepdim=True), 1 / (x.std(-1, keepdim=True) + 1e-5))),
}


class Preprocessing(NamedTuple):
    """What `preprocessing_check` found; printed, it is one sentence."""

    ok: bool
    """No reading explains clearly more than the one the SAE is opened with."""
    reads: str
    """The reading that fits: ``"raw"``, or a name among `READINGS`."""
    explained_variance: dict[str, Estimate]
    """By reading; of x less its mean over ``d_model``, and without BOS."""
    l0: dict[str, float]
    """Active latents a token, by reading."""
    factor: float
    """What ``"scaled"`` multiplies by."""
    said: str
    """The verdict in a sentence."""

    def __str__(self) -> str:
        """Return the sentence."""
        return self.said


def preprocessing_check(
    lab: Lab, sae: Any, hook: str | None = None, n_tokens: int = 2000, n_boot: int = 1000, seed: int = 0
) -> Preprocessing:
    """Check that an SAE is fed what it was trained on.

    Parameters
    ----------
    lab
        The opened model, with text.
    sae
        Any sae-lens SAE.
    hook
        Where it belongs; None: where its metadata says.
    n_tokens
        Held-out tokens to try the readings on.
    n_boot, seed
        Resamples of documents for the 95 % intervals.

    Returns
    -------
    Preprocessing
        ``print`` it for the verdict.

    Raises
    ------
    CourseError
        If the hook is not on this model, its width is not the SAE's, or there are fewer than two documents.
    """
    hook = hook_of(lab, sae, hook)
    x, doc = _activations(lab, sae, hook, n_tokens)
    y = (x - x.mean(0)).double()
    y = y - y.mean(-1, keepdim=True)
    readings = {name: reading(x) for name, (_, _, reading) in READINGS.items()}
    tried = [_tried(sae, x, *how) for how in readings.values()]
    table = torch.cat([torch.ones_like(y[:, :1]), y.square().sum(1, keepdim=True), y, *tried], 1).cpu().numpy()
    sums, d = group_sums(table, group_index(doc, len(doc))), 2 + y.shape[1]
    unexplained = {name: d + 2 * i for i, name in enumerate(READINGS)}  # columns; the count of latents lies beside

    def estimate(columns: list[int], statistic: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        return bootstrap_sums(sums[:, columns], statistic, n_boot=n_boot, seed=seed)

    found = {name: estimate([0, at, *range(1, d)], explained_variance) for name, at in unexplained.items()}
    l0 = {name: float(sums[:, at + 1].sum() / sums[:, 0].sum()) for name, at in unexplained.items()}

    def better(name: str) -> bool:
        if found[name].low <= 0 or found["raw"].value > 1 - LITTLE / 10:
            return False
        ratio = estimate([unexplained[name], unexplained["raw"]], lambda s: s[..., 0] / s[..., 1]).high
        return (ratio < MUCH and found[name].value - found["raw"].value > LITTLE) or (
            ratio < ALIKE and l0[name] < MUCH * l0["raw"])

    reads = max(filter(better, READINGS), key=lambda name: found[name].value, default="raw")
    factor = float(readings["scaled"][1])
    return Preprocessing(reads == "raw", reads, found, l0, factor, _sentence(sae, reads, found, l0, factor))


def _activations(lab: Lab, sae: Any, hook: str, n_tokens: int) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    parts, docs = [], []
    for batch in lab.batches(n_tokens, "heldout"):
        keep = batch.mask[:, 1:]
        parts.append(laid_flat(lab.capture(batch.tokens, hook), sae)[:, 1:][keep.to(sae.W_dec.device)])
        docs.append(batch.doc[:, None].expand(keep.shape)[keep.cpu()])
    if not parts:
        raise CourseError(f"{lab.text_source} holds no held-out documents; give more text.")
    return torch.cat(parts), torch.cat(docs)


@torch.no_grad()
def _tried(sae: Any, x: Float[Tensor, "n d"], shift: Tensor | float, factor: Tensor | float) -> Float[Tensor, "n 2"]:
    """Return each activation's squared error at a reading (without its mean over ``d_model``) and active latents."""
    back, active = [], []
    for rows in ((x - shift) * factor).split(ROWS):
        latents = sae.encode(rows)
        back.append(decode(sae, latents, rows))
        active.append((latents != 0).sum(1))
    residual = (x - shift - torch.cat(back) / factor).double()
    error = (residual - residual.mean(1, keepdim=True)).square().sum(1)
    return torch.stack([error, torch.cat(active).double()], 1)


def _sentence(sae: Any, reads: str, found: dict[str, Estimate], l0: dict[str, float], factor: float) -> str:
    what, remedy, _ = READINGS[reads]
    given = f"{found['raw']:.2f}"
    if reads != "raw":
        return (f"This SAE reads {what}: of their variance it explains {found[reads]:.2f} by {l0[reads]:.1f} latents a "
                f"token, but {given} by {l0['raw']:.1f} as it is opened; {remedy.format(factor=factor)}.")
    if found["raw"].value < MUCH:
        return (f"No preprocessing makes this SAE explain clearly more than {given} of the variance: it is poor, or at "
                "the wrong hook, rather than misread.")
    what = "centred activations (its encoder sees to that)" if reads_centred(sae) else what
    return f"This SAE is opened rightly: it reads {what}, and explains {given} of their variance."
