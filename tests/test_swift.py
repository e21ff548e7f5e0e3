"""The fast harvest: what rounding does to it, and when it must not be taken."""

import pytest
import torch

from course_utils.activations import harvest, swift
from course_utils.activations.swift import Swift
from course_utils.errors import CourseError

HOOK = "blocks.1.hook_resid_post"


@pytest.mark.parametrize("hook", ["blocks.0.hook_resid_pre", HOOK, "blocks.2.hook_resid_pre"])
@pytest.mark.parametrize("which", ["small_lab", "stories_lab"])
def test_only_rounding_separates_it_from_the_hooks(which, hook, request, monkeypatch):
    lab = request.getfixturevalue(which)
    exact, fast = (harvest(lab, hook, 700, precision=p) for p in ("float32", "bfloat16"))
    difference, deviation = fast.x - exact.x, exact.x - exact.x[exact.usable].mean(0)
    assert difference[exact.usable].norm() < 0.02 * deviation[exact.usable].norm()
    if "0" not in hook:  # there is only a lookup before block 0
        assert difference.abs().max() > 0
    assert torch.equal(fast.tokens, exact.tokens) and torch.equal(fast.pos, exact.pos)
    batch = next(lab.batches(700))
    monkeypatch.setattr(swift, "_pack", lambda *_: None)
    with torch.no_grad():  # without autocast and packed weights, the same function
        x, expected = Swift.of(lab, hook, "bfloat16")(batch.tokens), lab.capture(batch.tokens, hook)
    assert torch.allclose(x[batch.mask], expected[batch.mask], atol=1e-3 * float(expected.norm(dim=-1).mean()))


def test_exact_values_wherever_rounding_was_not_asked_for_or_cannot_be(small_lab, monkeypatch):
    exact = harvest(small_lab, HOOK, 300, precision="float32").x
    assert torch.equal(harvest(small_lab, HOOK, 300).x, exact)  # a small model
    inner = "blocks.1.mlp.hook_post"
    assert torch.equal(harvest(small_lab, inner, 300, precision="bfloat16").x, harvest(small_lab, inner, 300).x)
    monkeypatch.setattr(swift, "WORTHWHILE", 0)
    monkeypatch.setattr(swift, "multiplies_bfloat16", lambda _: True)
    assert not torch.equal(harvest(small_lab, HOOK, 300).x, exact)
    monkeypatch.setattr(swift, "multiplies_bfloat16", lambda _: False)
    assert torch.equal(harvest(small_lab, HOOK, 300).x, exact)


def test_an_intervention_is_harvested_as_it_is(small_lab):
    with small_lab.hooked(("blocks.0.hook_resid_post", lambda x: 2 * x)):
        fast, exact = (harvest(small_lab, HOOK, 300, precision=p).x for p in ("bfloat16", "float32"))
    assert torch.equal(fast, exact) and not torch.allclose(exact, harvest(small_lab, HOOK, 300).x, atol=0.1)


def test_weights_changed_through_the_bridge_are_seen(small_lab):
    weight = small_lab.model.blocks[0].attn.v.original_component.weight
    before = weight.detach().clone()
    try:
        weight.data.neg_()
        exact, fast = (harvest(small_lab, HOOK, 300, precision=p).x for p in ("float32", "bfloat16"))
        assert 0 < (fast - exact).norm() < 0.02 * (exact - exact.mean(0)).norm()
    finally:
        weight.data.copy_(before)


def test_plain_code_that_does_something_else_is_not_trusted(small_lab, monkeypatch):
    plain = swift._plain

    def other(config):
        model = plain(config)
        for block in model.transformer.h:
            block.mlp.act = torch.nn.Identity()
        return model

    monkeypatch.setattr(swift, "_plain", other)
    assert Swift.of(small_lab, HOOK, "bfloat16") is None
    exact, fast = (harvest(small_lab, HOOK, 300, precision=p).x for p in ("float32", "bfloat16"))
    assert torch.equal(fast, exact)


def test_on_disk_the_two_are_not_mixed_up(small_lab, tmp_path):
    stored = harvest(small_lab, HOOK, 500, precision="bfloat16", directory=tmp_path)
    assert torch.equal(stored.x, harvest(small_lab, HOOK, 500, precision="bfloat16").x)
    with pytest.raises(CourseError, match="products 'bfloat16', not None"):
        harvest(small_lab, HOOK, 500, precision="float32", directory=tmp_path)
    with pytest.raises(CourseError, match="precision='float16' is not known"):
        harvest(small_lab, HOOK, 500, precision="float16")
