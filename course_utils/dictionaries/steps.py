"""One step of training: the loss of a batch, and its gradients left in ``.grad``.

`AutogradStep` asks the library and serves every family. `TopKStep`, and those of `steps_dense`, compute the same losses
and gradients in closed form on a CPU (``tests/test_steps.py`` compares them); `choice` says which step serves. What
makes them fast, at d = 768 and width 24,576:

1. Products with all latents run in bfloat16 where the processor has it (seven times the rate of float32); weights,
   sums, losses and Adam stay in float32.
2. The top k of a row are looked for in the k groups of eight with the largest maxima, which must hold them: 43 ms
   instead of 157 for 4,096 rows.
3. Behind the selection a batch has k latents a row: decoding, and the gradients of both weights, are weighted sums of
   few rows (``embedding_bag``), 9 to 23 ms each, where a product with all latents takes 60 even in bfloat16.
4. The encoder is kept as [d_sae, d_model], so that a latent's weights lie side by side: no transposed copies of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import embedding_bag

from course_utils.dictionaries.selection import Selection, batchtopk, topk
from course_utils.lab.machine import Portions


class Outcome(NamedTuple):
    """What a step found, for the log and the schedules."""

    loss: Tensor
    mse: Tensor
    reconstruction: Float[Tensor, "batch d"]
    fired: Bool[Tensor, " d_sae"]
    l0: Tensor | None  # None where it costs a pass of its own and nothing is logged


class AutogradStep:
    """The step of the library's own class, by autograd; in portions where a batch is too much for the device's memory.

    What joins the rows of a batch (BatchTopK's threshold, the rows of AuxK) then joins those of a portion.
    """

    def __init__(self, sae: Any, step_input: Callable[..., Any]) -> None:
        self.sae, self.step_input, self.weights = sae, step_input, dict(sae.named_parameters())
        self.portions = Portions()

    def __call__(self, x: Float[Tensor, "batch d"], coefficients: dict[str, Any], dead: Bool[Tensor, " d_sae"],
                 n_steps: int, logging: bool) -> Outcome:
        """Run ``training_forward_pass`` and its backward."""
        given = {"coefficients": coefficients, "dead_neuron_mask": dead, "n_training_steps": n_steps,
                 "is_logging_step": logging}

        def attempt(most: int) -> Outcome:
            for weight in self.weights.values():
                weight.grad = None
            parts, shares = x.split(most), [len(part) / len(x) for part in x.split(most)]
            loss, mse, reconstruction, fired, l0 = zip(*(
                self._part(self.step_input(sae_in=part, **given), share)
                for part, share in zip(parts, shares, strict=True)), strict=True)
            return Outcome(sum(loss), sum(mse), torch.cat(reconstruction), torch.stack(fired).any(0), sum(l0))

        return self.portions(attempt, len(x))

    def _part(self, step_input: Any, share: float) -> Outcome:
        """Add a part's gradients; means are weighted by its share of the batch."""
        out = self.sae.training_forward_pass(step_input)
        (out.loss * share).backward()
        active = out.feature_acts.detach() != 0
        return Outcome(out.loss.detach() * share, out.losses["mse_loss"].detach() * share, out.sae_out.detach(),
                       active.any(0), active.sum() / len(active) * share)


def frugal(training_class: type, rows: int | None) -> type:
    """Return the library's class with AuxK, which revives dead latents, computed on a batch's first rows only.

    On all rows it costs as much as the rest of the step; its gradient needs no such precision.
    """
    if rows is None or not hasattr(training_class, "calculate_topk_aux_loss"):
        return training_class

    def calculate_aux_loss(self: Any, step_input: Any, **tensors: Tensor) -> Any:
        few = {name: t[:rows] for name, t in tensors.items()}
        return training_class.calculate_aux_loss(self, replace(step_input, sae_in=step_input.sae_in[:rows]), **few)

    return type(training_class.__name__, (training_class,), {"calculate_aux_loss": calculate_aux_loss})


class Step:
    """Weights of an SAE, laid out for the closed forms; ``sae`` sees every change of them."""

    def __init__(self, sae: Any, dtype: torch.dtype, aux_rows: int | None) -> None:
        self.sae, self.dtype, self.aux_rows, self.buffer = sae, dtype, aux_rows, torch.empty(0, dtype=dtype)
        self.encoder = torch.nn.Parameter(sae.W_enc.detach().T.contiguous())
        sae.W_enc.data = self.encoder.data.T
        self.weights = dict(sae.named_parameters()) | {"W_enc": self.encoder}

    def centred(self, x: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """Return what the encoder reads."""
        return x - self.sae.b_dec if self.sae.cfg.apply_b_dec_to_input else x

    def leave(self, encoder: Tensor, product: Tensor, decoder: Tensor, residual: Tensor, **others: Tensor) -> None:
        """Put the gradients where Adam looks for them.

        ``product`` is that by the encoder's products, summed over the batch; ``residual`` that by the reconstruction;
        ``others`` those of the family's own weights, None where that is ``b_enc``, whose gradient ``product`` is.
        """
        self.encoder.grad, self.sae.W_dec.grad = encoder, decoder
        for name, gradient in (others or {"b_enc": product}).items():
            getattr(self.sae, name).grad = gradient
        through = self.encoder.T @ product if self.sae.cfg.apply_b_dec_to_input else 0  # b_dec enters the encoder too
        self.sae.b_dec.grad = residual.sum(0) - through


class TopKStep(Step):
    """The step of ``topk`` and ``batchtopk``, without ever making the dense latents."""

    last = 0.0  # smallest value that BatchTopK kept in the step before

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "batch d"], coefficients: dict[str, Any], dead: Bool[Tensor, " d_sae"],
                 n_steps: int, logging: bool) -> Outcome:
        """Select, decode, and send the residual back through what was selected."""
        decoder, centred, n = self.sae.W_dec, self.centred(x), len(x)
        norms = decoder.norm(dim=1)
        row, latent, value = self.select(centred, norms)
        value = value.float() / norms[latent]  # the library's norms cancel behind the selection
        count = torch.bincount(row, minlength=n)
        with torch.enable_grad():
            value.requires_grad_()
            decoded = embedding_bag(latent, decoder.detach(), count.cumsum(0) - count, mode="sum",
                                    per_sample_weights=value)
        residual = decoded.detach() + self.sae.b_dec - x
        mse, d_out = residual.square().sum() / n, residual * (2 / n)
        (d_value,) = torch.autograd.grad(decoded, value, d_out)
        count = torch.bincount(latent, minlength=len(decoder))
        small = torch.int16 if len(decoder) < 2**15 else torch.int32  # sorted by radix: a third of the time of int64
        order, starts = latent.to(small).argsort(stable=True), count.cumsum(0) - count

        def by_latent(weight: Tensor, table: Tensor) -> Tensor:
            """Sum a table's rows over the places where each latent is active."""
            return embedding_bag(row[order], table, starts, mode="sum", per_sample_weights=weight[order])

        d_encoder, d_decoder = by_latent(d_value, centred), by_latent(value.detach(), d_out)
        d_bias = torch.zeros_like(self.sae.b_enc).index_add_(0, latent, d_value)
        loss = mse + self.revive(centred, residual, norms, dead, (d_encoder, d_bias, d_decoder))
        self.leave(d_encoder, d_bias, d_decoder, d_out)
        return Outcome(loss, mse, residual + x, count > 0, torch.tensor(len(row) / n))

    def select(self, centred: Float[Tensor, "batch d"], norms: Float[Tensor, " d_sae"]) -> Selection:
        """Find the active latents."""
        # Scaled by pieces that stay in the cache: 5 ms instead of 30.
        weights = torch.empty_like(self.encoder, dtype=self.dtype)
        for to, weight, norm in zip(*(t.split(1024) for t in (weights, self.encoder, norms[:, None])), strict=True):
            to.copy_(weight * norm)
        shape = (len(centred), len(norms))
        if self.buffer.shape != shape:
            self.buffer = torch.empty(shape, dtype=self.dtype)
        h = torch.addmm((self.sae.b_enc * norms).to(self.dtype), centred.to(self.dtype), weights.T, out=self.buffer)
        if self.sae.cfg.architecture() == "topk":
            return topk(h, self.sae.cfg.k)
        found = batchtopk(h, int(self.sae.cfg.k * len(h)), 0.9 * self.last)
        self.sae.update_topk_threshold(found.value.float())
        self.last = float(found.value.min()) if len(found.value) else 0.0
        return found

    def revive(self, centred: Tensor, residual: Tensor, norms: Tensor, dead: Tensor,
               gradients: tuple[Tensor, Tensor, Tensor]) -> Tensor | float:
        """Add AuxK (Gao et al. 2024, section A.2): dead latents reconstruct what is left over; return its loss."""
        dead = dead.nonzero()[:, 0]
        if not len(dead):
            return 0.0
        few, missing = centred[: self.aux_rows], -residual[: self.aux_rows]
        encoder, decoder, k = self.encoder[dead], self.sae.W_dec[dead], few.shape[1] // 2
        share = self.sae.cfg.aux_loss_coefficient * min(len(dead) / k, 1) / len(few)
        z = few @ encoder.T + self.sae.b_enc[dead]
        chosen = torch.zeros_like(z).scatter_(1, (z * norms[dead]).topk(min(k, len(dead)), sorted=False).indices, 1)
        z *= chosen
        left = z @ decoder - missing
        d_out = left * (2 * share)
        d_z = d_out @ decoder.T * chosen
        for gradient, part in zip(gradients, (d_z.T @ few, d_z.sum(0), z.T @ d_out), strict=True):
            gradient.index_add_(0, dead, part)
        return share * left.square().sum()
