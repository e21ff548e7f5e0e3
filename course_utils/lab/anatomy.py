"""A model's weights under one set of names, and its activations: what one needs to compute a model by hand.

GPT-2 and Llama differ less than their files do. What one of them lacks is here what changes nothing: Llama adds a
position of zero and biases of zero, GPT-2 turns its queries by an angle of zero (cosine 1, sine 0), and multiplies its
MLP's neurons by a gate of one. So one formula serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.lab.hooked import HookedModel


class Norm(NamedTuple):
    """A LayerNorm (``centred``) or an RMSNorm."""

    w: Float[Tensor, " d_model"]
    b: Float[Tensor, " d_model"]
    eps: float
    centred: bool


class Block(NamedTuple):
    """One block: attention reads ``norm1`` of the stream, the MLP ``norm2``, and both add to the stream.

    The MLP is ``(act(x @ W_in + b_in) * (x @ W_gate + b_gate)) @ W_out + b_out``.
    """

    norm1: Norm
    W_Q: Float[Tensor, "head d_model d_head"]
    b_Q: Float[Tensor, "head d_head"]
    W_K: Float[Tensor, "head d_model d_head"]
    b_K: Float[Tensor, "head d_head"]
    W_V: Float[Tensor, "head d_model d_head"]
    b_V: Float[Tensor, "head d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    b_O: Float[Tensor, " d_model"]
    norm2: Norm
    W_in: Float[Tensor, "d_model d_mlp"]
    b_in: Float[Tensor, " d_mlp"]
    W_gate: Float[Tensor, "d_model d_mlp"]
    b_gate: Float[Tensor, " d_mlp"]
    W_out: Float[Tensor, "d_mlp d_model"]
    b_out: Float[Tensor, " d_model"]


class Anatomy(NamedTuple):
    """All weights of a model, for prompts of a given length."""

    W_E: Float[Tensor, "d_vocab d_model"]
    W_pos: Float[Tensor, "pos d_model"]
    """Added to the embeddings; zero where positions are turned."""
    cos: Float[Tensor, "pos d_head"]
    """Of the angles by which queries and keys are turned; one where positions are added."""
    sin: Float[Tensor, "pos d_head"]
    """Zero where positions are added."""
    act: Callable[[Tensor], Tensor]
    blocks: list[Block]
    norm: Norm
    W_U: Float[Tensor, "d_model d_vocab"]
    b_U: Float[Tensor, " d_vocab"]


def record(lab: HookedModel, tokens: Int[Tensor, "batch pos"], hooks: Iterable[str]) -> dict[str, Tensor]:
    """Run the model once and return the activations of several hooks, in the order asked; those that fire."""
    kept: dict[str, Tensor] = {}
    names = list(hooks)
    lab.run(tokens, hooks=[(name, partial(kept.__setitem__, name)) for name in names])
    return {name: kept[name] for name in names if name in kept}  # a model computes in an order of its own


def anatomy(lab: HookedModel, n_pos: int) -> Anatomy:
    """Return a model's weights by their names in the course.

    Parameters
    ----------
    lab
        The opened model, GPT-2- or Llama-like: blocks one behind the other, a norm in front of each half.
    n_pos
        Length of the prompts, BOS included.

    Raises
    ------
    CourseError
        If the model is built differently.
    """
    model, cfg = lab.model, lab.model.cfg
    if not 1 <= n_pos <= lab.n_ctx:
        raise CourseError(f"n_pos={n_pos} must lie between 1 and the context, {lab.n_ctx}.")
    if getattr(cfg, "parallel_attn_mlp", False) or cfg.normalization_type not in ("LN", "RMS"):
        raise CourseError(f"{lab.name} is built differently from GPT-2 and Llama (blocks or norms).")
    from transformers.activations import ACT2FN

    with torch.no_grad():
        blocks = [_block(lab, model.blocks[i]) for i in range(lab.n_layers)]
        added = "hook_pos_embed" in record(lab, _blank(lab, n_pos), ["hook_pos_embed"])
        zero = model.W_E.new_zeros(n_pos, lab.d_model)
        d_head = blocks[0].W_Q.shape[-1]
        cos, sin = _turns(lab, n_pos, d_head)
        return Anatomy(model.W_E, model.pos_embed.weight[:n_pos] if added else zero, cos, sin, ACT2FN[cfg.act_fn],
                       blocks, _norm(lab, model.ln_final), model.W_U, model.b_U)


def _blank(lab: HookedModel, n_pos: int) -> Tensor:
    return torch.full((1, n_pos), lab.bos, device=lab.device)


def _turns(lab: HookedModel, n_pos: int, d_head: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the rotary angles, [pos d_head]."""
    names = [name for name in ("rotary_emb.hook_cos", "rotary_emb.hook_sin") if name in lab.hook_names]
    if not names:
        one = torch.ones(n_pos, d_head, device=lab.device, dtype=lab.dtype)
        return one, torch.zeros_like(one)
    cos, sin = record(lab, _blank(lab, n_pos), names).values()
    return cos[0], sin[0]


def _norm(lab: HookedModel, norm: Any) -> Norm:
    w = norm.weight
    b = getattr(norm, "bias", None)
    return Norm(w, torch.zeros_like(w) if b is None else b, float(lab.model.cfg.eps),
                lab.model.cfg.normalization_type == "LN")


def _block(lab: HookedModel, block: Any) -> Block:
    attn, mlp, n_heads = block.attn, block.mlp, lab.model.cfg.n_heads

    def heads(kind: str) -> tuple[Tensor, Tensor]:
        """Return a weight and its bias for every head; heads that share a key or value each get it."""
        w, b = getattr(attn, f"W_{kind}"), getattr(attn, f"b_{kind}")
        b = w.new_zeros(w.shape[0], w.shape[2]) if b is None else b
        each = n_heads // w.shape[0]
        return w.repeat_interleave(each, 0), b.repeat_interleave(each, 0)

    def bias(b: Tensor | None, n: int) -> Tensor:
        return attn.W_O.new_zeros(n) if b is None else b

    d_model, d_mlp = mlp.W_in.shape
    if mlp.W_gate is None:  # a gate of one
        inner = mlp.W_in, bias(mlp.b_in, d_mlp), mlp.W_in.new_zeros(1, 1).expand(d_model, d_mlp), bias(None, d_mlp) + 1
    else:  # the gate is what goes through the activation, so that the names change places
        inner = mlp.W_gate, bias(None, d_mlp), mlp.W_in, bias(mlp.b_in, d_mlp)
    return Block(_norm(lab, block.ln1), *heads("Q"), *heads("K"), *heads("V"), attn.W_O, bias(attn.b_O, d_model),
                 _norm(lab, block.ln2), *inner, mlp.W_out, bias(mlp.b_out, d_model))
