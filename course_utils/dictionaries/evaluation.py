"""Judge an SAE: is what it reconstructs what the model uses? On held-out text, with an interval for every figure.

1. Splice check: reconstruction + error in place of the activation must give the clean logits. If not, the hook is not
   where we think it is, and nothing below means anything.
2. Reconstruction: L0, explained variance, how often each latent fires, how many never do.
3. Faithfulness: the model's loss with the reconstruction spliced in, between the clean loss and that of two ablations.

Position 0 (BOS) keeps its own activation in all runs: no SAE here is trained on it, and heads rest on it. Intervals
resample whole documents (`estimates`), for tokens of one document are not independent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from course_utils.dictionaries.reading import as_read, decode, hook_of, laid_flat, reads_centred, warn_of_preprocessing
from course_utils.errors import CourseError
from course_utils.evidence.estimates import Estimate, bootstrap, bootstrap_sums, group_index, group_sums, resampled
from course_utils.lab import Lab, token_losses
from course_utils.lab.text import Batch

MEAN_TOKENS = 20_000  # training tokens that the mean for mean-ablation is taken over
_RARE = 40  # a latent that fires in more documents is practically never missing from a resample (e^-40)


class Evaluation(NamedTuple):
    """What `evaluate` found; cross-entropies (``ce_``) are nats a token, on non-BOS tokens."""

    splice_error: Estimate
    """Largest change of a logit when reconstruction + error replaces the activation; only rounding, if all is well."""
    l0: Estimate
    """Active latents a token."""
    explained_variance: Estimate
    """1 − Σ|residual|² / Σ|deviation from the mean|² without BOS. For an SAE that reads centred activations (`reading`)
    both sums leave out each activation's mean over d_model, which it is handed and the model ignores."""
    explained_variance_with_bos: Estimate
    """The same with BOS, whose norm usually rules both sums: shown because reports differ in it."""
    ce_clean: Estimate
    ce_spliced: Estimate
    ce_zero: Estimate
    """Activations set to zero."""
    ce_mean: Estimate
    """Activations set to their mean on training text."""
    ce_recovered_zero: Estimate
    """(ce_zero − ce_spliced) / (ce_zero − ce_clean). Flatters: zero is far from anything the model ever sees."""
    ce_recovered_mean: Estimate
    """The same against the mean; can be worse than guessing too, so read ``ce_spliced − ce_clean`` beside it."""
    dead: Estimate
    """Share of latents that fired on no token; the interval lies below, since more text can only wake some."""
    density: Float[np.ndarray, " d_sae"]
    """Share of tokens on which each latent fires."""
    n_tokens: int
    hook: str
    document_losses: Float[np.ndarray, "docs 4"]
    """Summed cross-entropy of each document: clean, spliced, zero, mean. Two SAEs judged on one text are compared pair
    by pair (`bootstrap_ratio` of the difference over ``document_tokens``), which is far sharper than two intervals."""
    document_tokens: Int[np.ndarray, " docs"]
    """Tokens of each document, BOS not counted."""


class _Rows(NamedTuple):
    """Sums over the tokens of each row of text, BOS apart."""

    doc: Int[np.ndarray, " rows"]
    n: Int[np.ndarray, " rows"]
    losses: Float[np.ndarray, "rows 4"]  # clean, spliced, zero, mean
    change: Float[np.ndarray, " rows"]  # largest |difference of logits| in the splice check
    squares: Float[np.ndarray, "rows k"]  # count, residual², deviation², deviation (d columns)
    squares_with_bos: Float[np.ndarray, "rows k"]
    fired: Int[np.ndarray, "rows d_sae"]


def evaluate(
    lab: Lab, sae: Any, n_tokens: int = 50_000, split: str = "heldout", hook: str | None = None, n_boot: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measure an SAE on a model and its text.

    Parameters
    ----------
    lab
        The opened model, with text.
    sae
        Any sae-lens SAE that takes raw activations.
    n_tokens
        Tokens of text to read (fewer if it ends before).
    split
        ``"heldout"`` or ``"train"``. The mean for mean-ablation always comes from ``"train"``.
    hook
        Where the SAE belongs; None: where ``sae.cfg.metadata.hook_name`` says.
    n_boot, seed
        Resamples of documents for the 95 % intervals.

    Returns
    -------
    Evaluation
        Every scalar an `Estimate` whose ``n`` counts documents.

    Raises
    ------
    CourseError
        If the hook is not on this model, its width is not the SAE's, or there are fewer than two documents.

    References
    ----------
    Recovered loss: Bricken et al. 2023, "Towards Monosemanticity".
    """
    hook = hook_of(lab, sae, hook)
    warn_of_preprocessing(sae)
    mean = _training_mean(lab, sae, hook, min(n_tokens, MEAN_TOKENS))
    parts = []
    # At GPT-2's vocabulary 2,048 rows of logits are 400 MB, and two such tensors are held.
    with tqdm(total=n_tokens, unit="tok", unit_scale=True, desc="evaluate", delay=2, leave=False) as bar:
        for batch in lab.batches(n_tokens, split, batch_tokens=min(2048, max(256, 2**26 // lab.d_vocab))):
            parts.append(_measure(lab, sae, hook, batch, mean))
            bar.update(int(parts[-1].n.sum()))
    if not parts:
        raise CourseError(f"split={split!r} of {lab.text_source} holds no documents; give more text.")
    rows = _Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return _summary(rows, hook, n_boot, seed)


def _training_mean(lab: Lab, sae: Any, hook: str, n_tokens: int) -> Float[Tensor, " d"]:
    total, n = torch.zeros(sae.cfg.d_in, dtype=torch.float64), 0
    for batch in lab.batches(n_tokens, "train"):
        x = laid_flat(lab.capture(batch.tokens, hook), sae)
        keep = _after_bos(batch.mask).to(x.device)
        total, n = total + x[keep].sum(0).cpu().double(), n + int(keep.sum())
    return (total / max(n, 1)).to(sae.W_dec)


def _after_bos(mask: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    keep = mask.clone()
    keep[:, 0] = False
    return keep


@torch.no_grad()
def _measure(lab: Lab, sae: Any, hook: str, batch: Batch, mean: Float[Tensor, " d"]) -> _Rows:
    """Run one batch five times: clean, splice check, spliced, zero, mean."""
    seen: list[Tensor] = []
    clean = lab.run(batch.tokens, hooks=[(hook, lambda a: seen.append(a.clone()))])
    given = as_read(seen[-1], sae)
    latents = sae.encode(given)
    x, reconstruction = given.flatten(2), decode(sae, latents, given).flatten(2)

    def logits(new: Tensor) -> Tensor:
        def put(activation: Tensor) -> Tensor:
            result = new.expand_as(x).reshape(activation.shape).to(activation, copy=True)
            result[:, 0] = activation[:, 0]
            return result

        return lab.run(batch.tokens, hooks=[(hook, put)])

    def loss(outcome: Tensor) -> np.ndarray:
        return _numpy(token_losses(outcome, batch.tokens, batch.mask).sum(1))

    change = (logits(reconstruction + (x - reconstruction)) - clean).abs().amax(-1) * batch.mask
    losses = [loss(clean), *(loss(logits(new)) for new in (reconstruction, torch.zeros_like(mean), mean))]
    mask, keep = batch.mask.to(x.device), _after_bos(batch.mask).to(x.device)
    deviation = x - mean
    if reads_centred(sae):  # it was handed the mean over d_model, and must gain nothing by it
        deviation = deviation - deviation.mean(-1, keepdim=True)
    fired = (latents != 0) & keep[..., None]
    return _Rows(_numpy(batch.doc, int), _numpy(keep.sum(1), int), np.stack(losses, 1), _numpy(change.amax(1)),
                 *(_squares(deviation, x - reconstruction, where) for where in (keep, mask)),
                 _numpy(fired.sum(1), np.int32))


def _numpy(x: Tensor, dtype: type = float) -> np.ndarray:
    return x.detach().cpu().double().numpy().astype(dtype)


def _squares(
    deviation: Float[Tensor, "batch pos d"], residual: Float[Tensor, "batch pos d"], keep: Bool[Tensor, "batch pos"]
) -> Float[np.ndarray, "batch k"]:
    """Sum what explained variance needs, row by row."""
    n = keep.sum(1, keepdim=True)
    squares = [(t.square().sum(-1) * keep).sum(1, keepdim=True) for t in (residual, deviation)]
    return _numpy(torch.cat([n, *squares, (deviation * keep[..., None]).sum(1)], dim=1))


def explained_variance(s: Float[np.ndarray, "*draws k"]) -> Float[np.ndarray, "*draws"] | float:
    """Return 1 − Σ|residual|² / Σ|deviation from the mean|².

    The columns of ``s`` are a count, Σ|residual|², Σ|y|² and Σy (d columns), where y is x less any constant vector.
    """
    n, residual, square, total = s[..., 0], s[..., 1], s[..., 2], s[..., 3:]
    return 1 - residual / (square - (total**2).sum(-1) / n)


def _summary(rows: _Rows, hook: str, n_boot: int, seed: int) -> Evaluation:
    index = group_index(rows.doc, len(rows.doc))
    n, *losses = group_sums(np.column_stack([rows.n, rows.losses]), index).T
    sizes = {"n_boot": n_boot, "seed": seed}

    def per_token(sums: np.ndarray) -> Estimate:
        return bootstrap_sums(np.stack([sums, n], 1), lambda s: s[..., 0] / s[..., 1], **sizes)

    def recovered(ablated: np.ndarray) -> Estimate:
        table = np.stack([ablated - losses[1], ablated - losses[0]], 1)
        return bootstrap_sums(table, lambda s: s[..., 0] / s[..., 1], **sizes)

    change = np.zeros(len(n))
    np.maximum.at(change, index, rows.change)
    fired = np.zeros((len(n), rows.fired.shape[1]), dtype=np.int64)
    np.add.at(fired, index, rows.fired)
    return Evaluation(
        bootstrap(change, statistic=np.max, **sizes), per_token(fired.sum(1)),
        *(bootstrap_sums(group_sums(s, index), explained_variance, **sizes)
          for s in (rows.squares, rows.squares_with_bos)),
        *map(per_token, losses), recovered(losses[2]), recovered(losses[3]),
        _dead(fired > 0, n_boot, seed), fired.sum(0) / n.sum(), int(n.sum()), hook, np.stack(losses, 1), n.astype(int))


def _dead(fired: Bool[np.ndarray, "docs d_sae"], n_boot: int, seed: int) -> Estimate:
    """Return the share of latents that fired in no document, with the basic (reflected) bootstrap interval.

    A resample leaves a third of the documents out, so it finds more dead latents, as our documents do against all text.
    The percentile interval would lie above the value; reflecting it (Davison and Hinkley 1997, section 5.2) corrects.
    """
    in_docs, width = fired.sum(0), fired.shape[1]
    value = float((in_docs == 0).mean())
    rare = fired[:, (in_docs > 0) & (in_docs <= _RARE)].astype(float)
    missing = (resampled(rare, n_boot, np.random.default_rng(seed)) == 0).sum(1) / width
    low, high = np.quantile(missing, [0.025, 0.975])
    return Estimate(value, max(0.0, value - float(high)), value - float(low) if value > low else value, len(fired))
