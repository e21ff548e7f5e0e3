"""GPT-2's function and its loss, written for a CPU: the same numbers as Hugging Face's (tested)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.organism.tokenizer import build_tokenizer

CHUNK = 512  # rows of logits at a time: 512 x 3,512 floats are near what the cache holds


def initial_weights(d: int, n_layers: int, n_ctx: int, n_vocab: int, seed: int) -> dict[str, Float[Tensor, "..."]]:
    """Draw GPT-2's initial weights under their Hugging Face names (float32)."""
    generator = torch.Generator().manual_seed(seed)
    small = 0.02 / math.sqrt(2 * n_layers)  # GPT-2: weights into the residual stream shrink with depth

    def normal(std: float, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * std

    # Ten times GPT-2's 0.02: with so few dimensions, words must be told apart before anything can be copied. From 0.02
    # the model needs more than twice the steps to find out that names come back.
    weights = {"wte.weight": normal(0.2, n_vocab, d), "wpe.weight": normal(0.01, n_ctx, d)}
    for layer in range(n_layers):
        at = f"h.{layer}."
        weights |= {
            at + "attn.c_attn.weight": normal(1 / math.sqrt(d) / 2, d, 3 * d),
            at + "attn.c_proj.weight": normal(small, d, d),
            at + "mlp.c_fc.weight": normal(1 / math.sqrt(d) / 2, d, 4 * d),
            at + "mlp.c_proj.weight": normal(small, 4 * d, d),
        }
        weights |= {
            at + name: torch.zeros(n)
            for name, n in (
                ("attn.c_attn.bias", 3 * d),
                ("attn.c_proj.bias", d),
                ("mlp.c_fc.bias", 4 * d),
                ("mlp.c_proj.bias", d),
            )
        }
    for norm in [f"h.{layer}.ln_{i}" for layer in range(n_layers) for i in (1, 2)] + ["ln_f"]:
        weights |= {norm + ".weight": torch.ones(d), norm + ".bias": torch.zeros(d)}
    return weights


class SoftmaxLoss(torch.autograd.Function):
    """Mean cross-entropy of ``x @ w.T``, with its gradient, a thousand rows at a time.

    The logits of a batch (4,096 × 3,512 numbers) do not fit the cache; piecewise they do, which takes a third of the
    time and needs no second pass: the gradient of softmax is known in closed form, probabilities less the target.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, target: Tensor) -> Tensor:
        """Return the loss and keep both gradients."""
        dx, dw, total = torch.empty_like(x), torch.zeros(w.shape), torch.zeros(())
        for rows_, here, grad in zip(x.split(CHUNK), target.split(CHUNK), dx.split(CHUNK), strict=True):
            scores = (rows_ @ w.T).float()
            right = torch.arange(len(here)), here
            top, chosen = scores.amax(-1, keepdim=True), scores[right]
            sums = scores.sub_(top).exp_().sum(-1, keepdim=True)
            total += (sums.log() + top).sum() - chosen.sum()
            scores = scores.mul_(1 / (sums * len(x))).to(x.dtype)
            scores[right] -= 1 / len(x)
            torch.mm(scores, w, out=grad)
            dw += scores.T @ rows_
        ctx.save_for_backward(dx, dw.to(w.dtype))
        return total / len(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scale the kept gradients."""
        dx, dw = ctx.saved_tensors
        return dx * upstream, dw * upstream, None


def residual(
    weights: dict[str, Tensor], tokens: Int[Tensor, "batch pos"], n_heads: int
) -> Float[Tensor, "batch pos d_model"]:
    """Run GPT-2 up to the final LayerNorm; times the tied embedding it equals Hugging Face's logits up to rounding."""
    batch, pos = tokens.shape
    x = F.embedding(tokens, weights["wte.weight"]) + weights["wpe.weight"][:pos]
    d, dtype = x.shape[-1], x.dtype
    causal = torch.full((pos, pos), float("-inf"), dtype=dtype).triu(1)
    for layer in range(sum(name.endswith("ln_1.bias") for name in weights)):

        def affine(x: Tensor, name: str, at: str = f"h.{layer}.") -> Tensor:
            return torch.addmm(weights[at + name + ".bias"], x, weights[at + name + ".weight"])

        q, k, v = (
            affine(_norm(weights, f"h.{layer}.ln_1", x).view(-1, d), "attn.c_attn")
            .view(batch, pos, 3, n_heads, d // n_heads)
            .permute(2, 0, 3, 1, 4)
            .reshape(3, batch * n_heads, pos, d // n_heads)
        )
        scores = torch.baddbmm(causal, q, k.transpose(1, 2), alpha=(d // n_heads) ** -0.5)
        z = torch.bmm(scores.softmax(-1), v).view(batch, n_heads, pos, d // n_heads).transpose(1, 2)
        x = x + affine(z.reshape(-1, d), "attn.c_proj").view(batch, pos, d)
        hidden = F.gelu(affine(_norm(weights, f"h.{layer}.ln_2", x).view(-1, d), "mlp.c_fc"), approximate="tanh")
        x = x + affine(hidden, "mlp.c_proj").view(batch, pos, d)
    return _norm(weights, "ln_f", x)


def _norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[name + ".weight"], weights[name + ".bias"])


def fast_dtype() -> torch.dtype:
    """Return bfloat16 where the CPU multiplies it natively, else float32."""
    return (
        torch.bfloat16
        if torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()
        else torch.float32
    )


def export(weights: dict[str, Tensor], n_heads: int, vocabulary: list[str], folder: Path) -> None:
    """Write weights and tokenizer as an ordinary Hugging Face GPT-2 directory.

    Raises
    ------
    CourseError
        If a weight is missing or unknown.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    n_ctx, d = weights["wpe.weight"].shape
    n_layers = sum(name.endswith("ln_1.bias") for name in weights)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=len(vocabulary), n_positions=n_ctx, n_embd=d, n_layer=n_layers, n_head=n_heads, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))  # fmt: skip
    found = model.load_state_dict({f"transformer.{k}": w.detach() for k, w in weights.items()}, strict=False)
    if found.unexpected_keys or set(found.missing_keys) - {"lm_head.weight"}:
        raise CourseError(f"These weights are not a GPT-2's: {found}.")
    model.tie_weights()
    model.save_pretrained(folder)
    build_tokenizer(vocabulary).save_pretrained(folder)
