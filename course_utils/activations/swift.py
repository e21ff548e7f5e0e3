"""The residual stream of a large model, several times as fast as through the hooks, in bfloat16.

The bridge computes each piece of a block by itself, so that it can be hooked; a harvest of the residual stream needs
none of that. Here the same weights run through the model's plain Hugging Face code:

1. Products run in bfloat16, by autocast; the residual stream and the layer norms stay in float32. On GPT-2 small this
   moves an activation by .9 % of its distance from the mean.
2. Attention is one kernel instead of eight.
3. On a CPU the weights are laid out once as the processor's bfloat16 units read them, and bias and GELU are added in
   the same kernel (oneDNN, which torch.compile also calls): a fifth less time in all. It is GELU itself, not the
   approximation by tanh that GPT-2 uses, which takes longer; they differ by .0003 of an activation's distance.
4. `Swift.of` compares a few tokens with the bridge before anything is harvested, and returns None where they differ.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.lab import Lab
from course_utils.lab.machine import multiplies_bfloat16

WORTHWHILE = 50_000_000  # weights; below, seconds are few and the exact values of the hooks are worth more
TOLERANCE = 0.05  # five times what rounding does


class _Reached(Exception):
    """Leaves the forward pass behind the wanted block."""


@dataclass
class Swift:
    """A model without hooks; ``weights`` are those of the lab's model, not copies."""

    model: torch.nn.Module
    weights: dict[str, Tensor]
    block: torch.nn.Module
    after: bool  # whether the hook is behind the block or before it

    @classmethod
    def of(cls, lab: Lab, hook: str, precision: str) -> Swift | None:
        """Return the fast way to a hook, or None where there is none that is known to give the same."""
        found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", hook)
        wanted = precision == "bfloat16" or (lab.n_params >= WORTHWHILE and multiplies_bfloat16(lab.device))
        hooked = any(point.fwd_hooks for point in lab.model.hook_dict.values())
        if precision == "float32" or not (found and wanted) or hooked or lab.dtype != torch.float32:
            return None
        model = _plain(lab.model.original_model.config)
        blocks = next((m for m in model.modules()
                       if isinstance(m, torch.nn.ModuleList) and len(m) == lab.n_layers), None)
        if blocks is None:
            return None
        del blocks[int(found[1]) + 1:]
        there = {name.replace("._original_component", ""): t for name, t in _tensors(lab.model.original_model)}
        if lab.device.type == "cpu" and torch.backends.mkldnn.is_available():
            _pack(model, there)
        weights = {name: there[name] for name, _ in _tensors(model) if name in there}
        swift = cls(model, weights, blocks[-1], found[2] == "post")
        return swift if swift._agrees(lab, hook) else None

    def _agrees(self, lab: Lab, hook: str) -> bool:
        tokens = torch.arange(1, 1 + min(32, lab.n_ctx, lab.d_vocab - 1), device=lab.device)[None]
        expected = lab.capture(tokens, hook).float()
        try:
            with torch.autocast(lab.device.type, torch.bfloat16):
                difference = self(tokens).float() - expected
        except (RuntimeError, KeyError, TypeError, AttributeError):  # an architecture that wants something else
            return False
        return bool(difference.norm() < TOLERANCE * (expected - expected.mean(1, keepdim=True)).norm())

    @torch.no_grad()
    def __call__(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """Run up to the hook; to be called under autocast, which rounds each weight once as long as it lasts."""
        caught = []

        def keep(*seen: Any) -> None:
            caught.append(seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1])
            raise _Reached

        register = self.block.register_forward_hook if self.after else self.block.register_forward_pre_hook
        handle = register(keep)
        try:
            with contextlib.suppress(_Reached):
                torch.func.functional_call(self.model, self.weights, (tokens,), {"use_cache": False})
        finally:
            handle.remove()
        return caught[0]


def _tensors(model: torch.nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]


def _plain(config: Any) -> torch.nn.Module:
    """Build a model without weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


class _Packed(torch.nn.Module):
    """A linear layer in bfloat16, its weight [out in] laid out for the processor."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: bool) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16().contiguous())
        self.bias = None if bias is None else bias.detach().bfloat16()
        self.then = ("gelu", [], "none") if gelu else ("none", [], "")

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch out"]:
        """Multiply, add the bias, and bend."""
        return torch.ops.mkldnn._linear_pointwise(x.bfloat16(), self.weight, self.bias, *self.then)


def _pack(model: torch.nn.Module, there: dict[str, Tensor]) -> None:
    """Put packed layers in place of the blocks' linear ones, with GELU inside where it comes right behind one."""
    for path, module in list(model.named_modules()):
        bent = type(getattr(module, "act", None)).__name__ == "NewGELUActivation" and hasattr(module, "c_fc")
        if bent:
            module.act = torch.nn.Identity()
        for name, child in list(module.named_children()):
            weight = there.get(f"{path}.{name}.weight")
            if weight is not None and path and type(child).__name__ in ("Conv1D", "Linear"):
                weight = weight.T if type(child).__name__ == "Conv1D" else weight  # Conv1D keeps [in out]
                packed = _Packed(weight, there.get(f"{path}.{name}.bias"), bent and name == "c_fc")
                setattr(module, name, packed)
