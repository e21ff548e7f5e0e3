"""Closed forms of the families whose products are all dense: ``standard``, ``jumprelu``, ``gated``.

Each computes the library's own losses and their gradients (``tests/test_steps.py`` compares them), without a graph and
with every product in the faster precision (`steps`). The latents are gone through in pieces, there and back.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from course_utils.dictionaries.steps import Outcome, Step

# Elements of a piece, so that each stays below 32 MB in bfloat16: from there on the allocator fetches every tensor from
# the system, which clears it first. A third of the step.
PIECE = 2**23


def pieces(n: int, width: int) -> list[slice]:
    """Cut the latents so that a piece holds about `PIECE` values of a batch of ``n``."""
    size = max(1, PIECE // n)
    return [slice(i, i + size) for i in range(0, width, size)]


def where_above_0(condition: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
    """Return ``values`` where the condition is above 0, else 0: a fifth of the time of a product with a mask."""
    out = torch.empty_like(values) if out is None else out
    return torch.ops.aten.threshold_backward.grad_input(values, condition, 0, grad_input=out)


class L1Step(Step):
    """The step of ``standard``."""

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "batch d"], coefficients: dict[str, Any], dead: Bool[Tensor, " d_sae"],
                 n_steps: int, logging: bool) -> Outcome:
        """Encode and decode all pieces, then go back through them."""
        decoder, centred, n, l1 = self.sae.W_dec, self.centred(x), len(x), coefficients["l1"] / len(x)
        norms, read, parts = decoder.norm(dim=1), centred.to(self.dtype), pieces(len(x), len(decoder))
        half = [(self.encoder[p].to(self.dtype), decoder[p].to(self.dtype)) for p in parts]
        latents, residual = [], self.sae.b_dec - x
        for p, (down, up) in zip(parts, half, strict=True):
            latents.append(torch.addmm(self.sae.b_enc[p].to(self.dtype), read, down.T).relu_())
            residual += latents[-1] @ up
        d_out = residual * (2 / n)
        d_out16, total = d_out.to(self.dtype), torch.cat([f.sum(0) for f in latents]).float()
        d_encoder, d_decoder, d_bias = torch.empty_like(decoder), torch.empty_like(decoder), torch.empty_like(total)
        for p, (_, up), f in zip(parts, half, latents, strict=True):
            d_pre = torch.addmm((l1 * norms[p]).to(self.dtype), d_out16, up.T)
            where_above_0(f, d_pre, out=d_pre)
            d_encoder[p], d_decoder[p] = d_pre.T @ read, f.T @ d_out16
            d_bias[p] = d_pre.sum(0)
        d_decoder += decoder * (l1 * total / norms)[:, None]
        mse = residual.square().sum() / n
        self.leave(d_encoder, d_bias, d_decoder, d_out)
        active = sum((f > 0).sum() for f in latents) / n if logging else None
        return Outcome(mse + l1 * (total * norms).sum(), mse, residual + x, total > 0, active)


class JumpReLUStep(Step):
    """The step of ``jumprelu`` (Rajamanoharan et al. 2024, "Jumping Ahead"), with the losses "step" and "quadratic".

    A latent is its pre-activation where that exceeds its threshold. The jump has no slope, so what the threshold gets
    is an estimate from the pre-activations within half a bandwidth of it, about (there, the slope is 1 / bandwidth).
    """

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "batch d"], coefficients: dict[str, Any], dead: Bool[Tensor, " d_sae"],
                 n_steps: int, logging: bool) -> Outcome:
        """Encode and decode all pieces, count the active latents of each row, then go back through the pieces."""
        sae, n, parts = self.sae, len(x), pieces(len(x), len(dead))
        threshold = sae.threshold.clamp_(min=0)  # as the library's step does first: below 0 negative values would pass
        read, up, down = (t.to(self.dtype) for t in (self.centred(x), sae.W_dec, self.encoder))
        rows, bias = threshold.to(self.dtype), (sae.b_enc - threshold).to(self.dtype)
        kept, residual, active = [], sae.b_dec - x, torch.zeros(n)
        for p in parts:
            over = torch.addmm(bias[p], read, down[p].T)  # by how much each pre-activation exceeds its threshold
            kept.append((over, where_above_0(over, over + rows[p])))
            residual += kept[-1][1] @ up[p]
            active += kept[-1][1].sign().sum(1)
        d_out = residual * (2 / n)
        d_out16, penalty, d_active = d_out.to(self.dtype), *self.sparsity(active, coefficients["l0"])
        d_encoder, d_decoder, d_active = *torch.empty(2, *sae.W_dec.shape), d_active.to(self.dtype)
        d_bias, d_jump, total = torch.empty(3, len(dead))
        for p, (over, latents) in zip(parts, kept, strict=True):
            d_latents = d_out16 @ up[p].T
            d_pre = where_above_0(over, d_latents)
            d_encoder[p], d_decoder[p] = d_pre.T @ read, latents.T @ d_out16
            d_bias[p], total[p] = d_pre.sum(0), latents.sum(0)
            d_on = d_latents.mul_(rows[p]).add_(d_active[:, None])
            d_jump[p] = where_above_0(sae.bandwidth / 2 - over.abs(), d_on).sum(0)
        mse = residual.square().sum() / n
        self.leave(d_encoder, d_bias, d_decoder, d_out, b_enc=d_bias, threshold=-d_jump / sae.bandwidth)
        return Outcome(mse + penalty, mse, residual + x, total > 0, active.mean())

    def sparsity(self, active: Float[Tensor, " batch"], weight: float) -> tuple[Tensor, Float[Tensor, " batch"]]:
        """Return the penalty, and its gradient by each row's number of active latents."""
        if self.sae.cfg.jumprelu_sparsity_loss_mode == "step":
            return weight * active.mean(), torch.full_like(active, weight / len(active))
        above, weight = active - self.sae.cfg.target_l0, weight * 2 / self.sae.cfg.target_l0
        return weight * above.square().mean(), above * (2 * weight / len(active))


class GatedStep(Step):
    """The step of ``gated`` (Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated SAEs").

    One product h serves two paths: the gate, relu(h + b_gate), decides who is active and bears the penalty; the
    magnitude, relu(h · exp(r_mag) + b_mag), says how much. The gate alone must reconstruct x as well (the library does
    not hold the decoder fixed in that), so both go through the decoder as one batch of twice the length.
    """

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "batch d"], coefficients: dict[str, Any], dead: Bool[Tensor, " d_sae"],
                 n_steps: int, logging: bool) -> Outcome:
        """Encode and decode all pieces by both paths, then go back through them."""
        sae, n, l1, parts = self.sae, len(x), coefficients["l1"] / len(x), pieces(2 * len(x), len(dead))
        read, up, down = (t.to(self.dtype) for t in (self.centred(x), sae.W_dec, self.encoder))
        stretch, b_gate, b_mag = (t.to(self.dtype) for t in (sae.r_mag.exp(), sae.b_gate, sae.b_mag))
        norms, kept, residuals = sae.W_dec.norm(dim=1), [], (sae.b_dec - x).repeat(2, 1)
        for p in parts:
            h = read @ down[p].T
            gate = (h + b_gate[p]).relu_()
            latents = where_above_0(gate, (h * stretch[p]).add_(b_mag[p]).relu_())
            kept.append((h, torch.cat([latents, gate])))
            residuals += kept[-1][1] @ up[p]
        d_out = residuals * (2 / n)
        d_out16, d_encoder, d_decoder = d_out.to(self.dtype), torch.empty_like(sae.W_dec), torch.empty_like(sae.W_dec)
        d_gate, d_mag, d_r, total, fired = torch.empty(5, len(dead))
        for p, (h, both) in zip(parts, kept, strict=True):
            d_both = d_out16 @ up[p].T
            d_both[n:] += (l1 * norms[p]).to(self.dtype)
            magnitude, gate = where_above_0(both, d_both).split(n)
            d_gate[p], d_mag[p], d_r[p] = gate.sum(0), magnitude.sum(0), (magnitude * h).sum(0)
            total[p], fired[p] = both[n:].sum(0), both[:n].sum(0)
            d_encoder[p] = magnitude.mul_(stretch[p]).add_(gate).T @ read
            d_decoder[p] = both.T @ d_out16
        d_r, product = d_r * sae.r_mag.exp(), d_mag * sae.r_mag.exp() + d_gate
        d_decoder += sae.W_dec * (l1 * total / norms)[:, None]
        mse, by_gate = (half.square().sum() / n for half in residuals.split(n))
        self.leave(d_encoder, product, d_decoder, d_out, b_gate=d_gate, b_mag=d_mag, r_mag=d_r)
        active = sum((both[:n] > 0).sum() for _, both in kept) / n if logging else None
        return Outcome(mse + by_gate + l1 * (total * norms).sum(), mse, residuals[:n] + x, fired > 0, active)
