"""The accounting of recovery: what a change at one place does to an answer, and what later parts make of it.

With x the stream at the hook and T what is asked of the logits, a linear function of them with direction t:

1. r = x + Σ_j (attention_j + MLP_j), the stream at the end. The final norm divides it (less its mean, if it centres) by
   its size s, so that T = (r · u) / s + constant, with u = w ∘ (W_U t), less its mean where the norm centres.
2. Changed and clean run each have such a sum. Primes for the changed one, Δ for the difference:
   T' - T = Δx·u / s + Σ_j Δattention_j·u / s + Σ_j ΔMLP_j·u / s + r'·u (1/s' - 1/s).
3. These are the direct effect, what later attention adds, what later MLPs add, and what the final norm does by
   rescaling. Nothing is left over, and `compare` checks it against the true logits.

The split is a convention in one point: the first three are taken at the clean size, so that whatever depends on both
(a part and the size) is the norm's. Effects of parts on each other are the later part's.

Sources: McGrath et al. 2023, the Hydra effect, arXiv 2307.15771 (direct against total effect); Rushing & Nanda 2024,
explorations of self-repair, arXiv 2402.15390 (the final norm's part).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from course_utils.causality.stream import Intervention, Part, passes
from course_utils.causality.targets import Target
from course_utils.errors import CourseError
from course_utils.evidence.estimates import Estimate, bootstrap, bootstrap_ratio, group_index, group_sums
from course_utils.lab import Lab
from course_utils.lab.anatomy import anatomy

TOLERANCE = 1e-4  # by which the parts may miss the total, in float32 and for values of size 1


class Trace(NamedTuple):
    """How one run comes to its answers, row by row; all but ``target`` and ``scale`` are to be divided by ``scale``."""

    target: Float64[Tensor, " n"]
    """What is asked, from the true logits."""
    start: Float64[Tensor, " n"]
    """x · u at the hook."""
    attention: Float64[Tensor, "n layers"]
    """The same of what each later block's attention wrote; 0 for blocks before the hook."""
    mlp: Float64[Tensor, "n layers"]
    """The same of its MLP."""
    scale: Float64[Tensor, " n"]
    """By which the final norm divided."""

    @property
    def end(self) -> Float64[Tensor, " n"]:
        """All of r · u."""
        return self.start + self.attention.sum(1) + self.mlp.sum(1)


class Account(NamedTuple):
    """What an intervention did to the answers, row by row, and through what."""

    total: Float[Tensor, " n"]
    """Change of what is asked, from the true logits."""
    direct: Float[Tensor, " n"]
    """Of it, straight from the hook to the unembedding."""
    attention: Float[Tensor, "n layers"]
    """What the attention of each later block added; 0 for blocks before the hook."""
    mlp: Float[Tensor, "n layers"]
    """What its MLP added."""
    norm: Float[Tensor, " n"]
    """What the final norm did by dividing by another size."""

    def parts(self) -> dict[str, Float[Tensor, " n"]]:
        """Return the four parts by name; they sum to the total."""
        return {"direct": self.direct, "attention": self.attention.sum(1), "MLP": self.mlp.sum(1),
                "final norm": self.norm}

    @property
    def recovered(self) -> Float[Tensor, " n"]:
        """Share of the direct effect that the rest took back, 1 - total / direct; NaN where there is none."""
        return torch.where(self.direct == 0, torch.nan, 1 - self.total / self.direct)


def trace(lab: Lab, tokens: Int[Tensor, "n pos"], places: Int[Tensor, " _"], to: Target, hook: str,
          intervention: Intervention | None = None, rows: int | None = None) -> Trace:
    """Follow one run from a hook to the answers; parameters as in `account`, ``intervention=None`` for a clean run."""
    if len(to.plus) != len(tokens):
        raise CourseError(f"the target has {len(to.plus)} rows, tokens {len(tokens)}; make it for the same rows.")
    body = anatomy(lab, 1)
    norm, until = body.norm, f"blocks.{lab.n_layers - 1}.hook_resid_post"
    u = norm.w.detach().cpu().double() * to.vectors(body.W_U.detach())
    u = u - u.mean(1, keepdim=True) if norm.centred else u

    def follow(part: Part) -> tuple[Tensor, ...]:
        mine, end = u[part.rows], part.end.double()
        end = end - end.mean(1, keepdim=True) if norm.centred else end
        scale = (end.square().mean(1) + norm.eps).sqrt()
        attention, mlp = ((x.double() * mine[:, None]).sum(-1) for x in (part.attention, part.mlp))
        return to.of(part.rows).read(part.logits), (part.start.double() * mine).sum(1), attention, mlp, scale

    parts = [follow(part) for part in passes(lab, tokens, places, hook, until, intervention, rows)]
    return Trace(*(torch.cat(column) for column in zip(*parts, strict=True)))


def compare(clean: Trace, changed: Trace, tolerance: float = TOLERANCE) -> Account:
    """Split the change from one run to another.

    Parameters
    ----------
    clean, changed
        From `trace`, of the same rows and hook.
    tolerance
        By which the parts may miss the total, for values of size 1 (larger ones are rounded more).

    Raises
    ------
    CourseError
        If the runs are of different rows, or the parts do not sum to the total.
    """
    if clean.attention.shape != changed.attention.shape:
        raise CourseError(f"the runs have {len(clean.target)} and {len(changed.target)} rows; trace the same rows.")
    start, attention, mlp = (b - a for a, b in zip(clean[1:4], changed[1:4], strict=True))
    by = 1 / clean.scale
    norm = changed.end * (1 / changed.scale - by)
    found = changed.target - clean.target, start * by, attention * by[:, None], mlp * by[:, None], norm
    missed = (found[0] - found[1] - found[2].sum(1) - found[3].sum(1) - norm).abs()
    sizes = [run.target.abs() for run in (clean, changed)] + [(run.end / run.scale).abs() for run in (clean, changed)]
    if not (missed <= tolerance * torch.stack(sizes).amax(0).clamp(min=1)).all():
        raise CourseError(f"the parts miss the total by {float(missed.max()):.2g}; the account holds for models whose "
                          "logits are a linear map of one final norm (no cap on them, no scale of their own).")
    return Account(*(x.float() for x in found))


def account(
    lab: Lab, tokens: Int[Tensor, "n pos"], places: Int[Tensor, " _"], to: Target, hook: str,
    intervention: Intervention, clean: Trace | None = None, rows: int | None = None,
) -> Account:
    """Account for what an intervention at one place of the stream does to the answers.

    Parameters
    ----------
    lab
        The opened model, GPT-2- or Llama-like.
    tokens, places
        Rows of text, BOS first and padded behind, and the position in each at which the answer is read (its last token
        is the question's; the answer is the next one). Cut what stands behind the last place: nobody sees it there.
    to
        What is asked of the logits there, from `target`.
    hook
        Where the intervention acts: ``blocks.0.hook_resid_pre`` or any ``blocks.j.hook_resid_post``.
    intervention
        Returns it, e.g. ``lambda: ablate(lab, sae, latents)``. Entered anew for every run.
    clean
        ``trace`` of the same rows without it, so that many interventions need it once; None: it is made.
    rows
        Rows a run; None: as many as memory likes. What an intervention does to a row must not depend on which others
        run with it; of one that draws donors among them, give ``rows=len(tokens)``.

    Returns
    -------
    Account
        ``[n]``; the parts sum to the total within 1e-4.

    Raises
    ------
    CourseError
        If hook, place or target will not do, the intervention acts elsewhere, or the parts miss the total.
    """
    before = trace(lab, tokens, places, to, hook, None, rows) if clean is None else clean
    coarse = torch.finfo(lab.dtype).eps / torch.finfo(torch.float32).eps
    return compare(before, trace(lab, tokens, places, to, hook, intervention, rows), TOLERANCE * coarse)


def effects(found: Account, docs: Collection | None = None, *, n_boot: int = 1000,
            seed: int = 0) -> dict[str, Estimate]:
    """Return the mean over rows of the total (``"total"``) and of each part, with intervals; parameters as below."""
    return {name: bootstrap(part, docs, n_boot=n_boot, seed=seed)
            for name, part in ({"total": found.total} | found.parts()).items()}


def taken_back(found: Account, docs: Collection | None = None, *, n_boot: int = 1000,
               seed: int = 0) -> dict[str, Estimate]:
    """Return which share of the direct effect each later part takes back: - Σ part / Σ direct, over all rows.

    Only where the direct effect is far from 0 does this mean anything. A change that later blocks must read before it
    shows has hardly any; of that, and of random directions, compare the `effects` themselves.

    Parameters
    ----------
    found
        From `account`.
    docs
        The document (or subject) of each row, which are resampled; None: rows.
    n_boot, seed
        As in `bootstrap_ratio`.

    Returns
    -------
    dict
        ``"attention"``, ``"MLP"``, ``"final norm"`` and ``"together"``, the sum of the three: 1 - Σ total / Σ direct.
        Negative: it adds to the damage.
    """
    parts = found.parts()
    direct = parts.pop("direct")
    parts["together"] = found.total - direct
    columns = np.stack([direct.double().numpy(), *(-part.double().numpy() for part in parts.values())], axis=1)
    sums = group_sums(columns, group_index(docs, len(direct)))
    return {name: bootstrap_ratio(sums[:, i], sums[:, 0], n_boot=n_boot, seed=seed)
            for i, name in enumerate(parts, start=1)}
