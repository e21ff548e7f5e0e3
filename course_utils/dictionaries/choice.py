"""Which step trains an SAE: one in closed form where there is one for its settings, else the library's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from course_utils.dictionaries.steps import AutogradStep, TopKStep
from course_utils.dictionaries.steps_dense import GatedStep, JumpReLUStep, L1Step
from course_utils.errors import CourseError
from course_utils.lab.machine import multiplies_bfloat16

CLOSED = {"standard": L1Step, "topk": TopKStep, "batchtopk": TopKStep, "jumprelu": JumpReLUStep, "gated": GatedStep}
# Fields of the library's configs whose other values the closed forms do not know; a field that a family lacks is None.
_USUAL = {"normalize_activations": {"none", "expected_average_only_in"}, "reshape_activations": {"none"},
          "rescale_acts_by_decoder_norm": {True}, "lp_norm": {1}, "dtype": {"float32"}, "pre_act_loss_coefficient": {},
          "jumprelu_sparsity_loss_mode": {"step", "quadratic"}, "jumprelu_ste_to_input": {False}}


def choose(wanted: str, kind: str, sae: Any, step_input: Callable[..., Any], aux_rows: int | None) -> Any:
    """Return the step for an SAE, ``wanted`` being one of `recipes.STEPS`.

    Raises
    ------
    CourseError
        If a precision was asked for and there is no closed form for these settings.
    """
    device = sae.W_dec.device
    fits = kind in CLOSED and device.type == "cpu" and all(getattr(sae.cfg, name, None) in {*values, None}
                                                           for name, values in _USUAL.items())
    if wanted == "library" or (wanted == "auto" and not fits):
        return AutogradStep(sae, step_input)
    if not fits:
        raise CourseError(f"step={wanted!r} is for {', '.join(CLOSED)} with their usual options on a CPU, not for "
                          f"kind={kind!r} on {device.type} with these; give step='auto' or 'library'.")
    half = wanted == "bfloat16" or (wanted == "auto" and multiplies_bfloat16(device))
    return CLOSED[kind](sae, torch.bfloat16 if half else torch.float32, aux_rows)
