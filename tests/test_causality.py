"""The accounting of recovery: its parts sum, each is what it is called, and the nulls match what they should."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from test_interventions import hooks_left, make_sae

from course_utils.causality import (
    Account,
    account,
    carriers,
    deal_rows,
    density_matched,
    effects,
    norm_matched,
    reformed,
    shares,
    taken_back,
    target,
    trace,
)
from course_utils.errors import CourseError
from course_utils.interventions import ablate, steer
from course_utils.lab.anatomy import anatomy, record

LABS = ("small_lab", "stories_lab")  # LayerNorm, added positions; RMSNorm, turned positions, gated MLPs


@pytest.fixture(params=LABS)
def lab(request):
    return request.getfixturevalue(request.param)


def asked(lab, against: bool = False):
    """Rows of text, a place in each, and what is asked there."""
    batch = next(lab.batches(300))
    rng = np.random.default_rng(0)
    places = torch.tensor([int(rng.integers(1, n)) for n in batch.mask.sum(1)])
    answers = [[int(i) for i in rng.choice(lab.d_vocab, 1 + row % 2, replace=False)] for row in range(len(places))]
    other = rng.integers(lab.d_vocab, size=len(places)).tolist() if against else None
    return batch.tokens, places, target(lab, answers, other)


def direction(lab, seed: int = 0):
    return torch.randn(lab.d_model, generator=torch.Generator().manual_seed(seed))


def projected_out(lab, hook):
    v = torch.nn.functional.normalize(direction(lab), dim=0)

    def without(x):
        return torch.cat([x[:, :1], (x - (x @ v)[..., None] * v)[:, 1:]], dim=1)

    return lab.hooked((hook, without))


def interventions(lab, hook):
    sae = make_sae("Standard", hook, lab.d_model)
    return {"steer": lambda: steer(lab, hook, direction(lab), 3.0), "project": lambda: projected_out(lab, hook),
            "ablate": lambda: ablate(lab, sae, list(range(20)))}


def at(x, places):
    return x[torch.arange(len(places)), places]


@pytest.mark.parametrize("kind", ["steer", "project", "ablate"])
@pytest.mark.parametrize("hook", ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre", "blocks.0.hook_resid_pre"])
def test_parts_sum_to_the_change_of_the_true_logits(lab, hook, kind):
    tokens, places, to = asked(lab, against=kind == "ablate")
    intervention = interventions(lab, hook)[kind]
    found = account(lab, tokens, places, to, hook, intervention)
    clean = at(lab.logits(tokens), places)
    with intervention():
        change = at(lab.logits(tokens), places) - clean
    zero = 0 if to.minus is not None else change.mean(1)
    expected = torch.stack([row[plus[plus >= 0]].mean() for row, plus in zip(change, to.plus, strict=True)]) - zero
    if to.minus is not None:
        expected = expected - change.gather(1, to.minus)[:, 0]
    torch.testing.assert_close(found.total, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(sum(found.parts().values()), found.total, atol=1e-4, rtol=0)
    assert all(part.abs().max() > 1e-3 for part in found.parts().values())  # nothing is there by name only
    before = int(hook.split(".")[1]) + hook.endswith("post")
    assert not found.attention[:, :before].any() and not found.mlp[:, :before].any()
    assert found.attention[:, before:].any(0).all() and found.mlp[:, before:].any(0).all()


def test_the_direct_effect_is_the_logit_lens(lab):
    hook, c = "blocks.0.hook_resid_post", 3.0
    tokens, places, to = asked(lab)
    found = account(lab, tokens, places, to, hook, lambda: steer(lab, hook, direction(lab), c))
    norm, W_U = anatomy(lab, 1).norm, anatomy(lab, 1).W_U
    end = at(lab.capture(tokens, f"blocks.{lab.n_layers - 1}.hook_resid_post"), places)
    v = c * direction(lab)
    if norm.centred:
        end, v = end - end.mean(-1, keepdim=True), v - v.mean()
    logits = ((v * norm.w) @ W_U) / (end.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    torch.testing.assert_close(found.direct, to.read(logits.detach()).float(), atol=1e-4, rtol=0)


def test_behind_the_last_block_all_is_direct_or_the_norms(lab):
    hook = f"blocks.{lab.n_layers - 1}.hook_resid_post"
    tokens, places, to = asked(lab)
    found = account(lab, tokens, places, to, hook, lambda: steer(lab, hook, direction(lab), 3.0))
    assert not found.attention.any() and not found.mlp.any() and found.norm.abs().max() > 1e-3
    torch.testing.assert_close(found.direct + found.norm, found.total, atol=1e-4, rtol=0)


@pytest.mark.parametrize("frozen", [("attn", "mlp"), ("attn",)])
def test_what_is_frozen_takes_nothing_back(lab, frozen):
    hook = "blocks.0.hook_resid_post"
    tokens, places, to = asked(lab)
    halves = [f"blocks.{j}.hook_{half}_out" for j in range(1, lab.n_layers) for half in frozen]
    clean = record(lab, tokens, halves)

    @contextlib.contextmanager
    def steered():
        pairs = [(name, lambda _, name=name: clean[name]) for name in halves]
        with steer(lab, hook, direction(lab), 3.0), lab.hooked(*pairs):
            yield

    free = account(lab, tokens, places, to, hook, lambda: steer(lab, hook, direction(lab), 3.0), rows=len(tokens))
    found = account(lab, tokens, places, to, hook, steered, rows=len(tokens))
    torch.testing.assert_close(found.direct, free.direct)
    assert not found.attention.any() and free.attention.any()
    assert found.mlp.any() == ("mlp" not in frozen)
    torch.testing.assert_close(found.direct + found.mlp.sum(1) + found.norm, found.total, atol=1e-4, rtol=0)


def test_a_clean_trace_serves_many_and_the_size_of_a_run_is_of_no_account(small_lab):
    lab, hook = small_lab, "blocks.1.hook_resid_post"
    tokens, places, to = asked(lab)
    clean = trace(lab, tokens, places, to, hook)
    for intervention in interventions(lab, hook).values():
        whole = account(lab, tokens, places, to, hook, intervention)
        again = account(lab, tokens, places, to, hook, intervention, clean=clean, rows=2)
        for one, other in zip(whole, again, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_what_is_taken_back_is_a_ratio_of_sums():
    direct, norm = torch.tensor([-2.0, -1.0, -4.0, 0.0]), torch.tensor([0.5, 0.25, 1.0, 0.0])
    attention = torch.tensor([[0.0, 1.0], [0.0, 0.5], [1.0, 1.0], [0.0, 0.0]])
    mlp = torch.tensor([[-0.2, 0.0], [0.0, -0.1], [0.0, -0.4], [0.0, 0.0]])
    found = Account(direct + norm + attention.sum(1) + mlp.sum(1), direct, attention, mlp, norm)
    assert torch.equal(found.recovered.isnan(), torch.tensor([False, False, False, True]))
    assert found.recovered[0] == pytest.approx((1.0 - 0.2 + 0.5) / 2)
    means = effects(found, docs=[7, 7, 8, 8], n_boot=200)
    assert means["direct"].value == pytest.approx(-7 / 4) and means["direct"].n == 2
    assert sum(e.value for e in means.values()) == pytest.approx(2 * means["total"].value)
    back = taken_back(found, docs=[7, 7, 8, 8], n_boot=200)
    assert {name: round(e.value, 4) for name, e in back.items()} == {
        "attention": 0.5, "MLP": -0.1, "final norm": 0.25, "together": 0.65}
    assert back["attention"].n == 2 and back["attention"].low == pytest.approx(0.5)  # the same share in both documents
    assert back["MLP"].high - back["MLP"].low < 1e-3  # and of the MLPs


def test_shares_sum_and_are_what_each_latent_writes(small_lab):
    hook = "blocks.1.hook_resid_post"
    x = small_lab.capture(next(small_lab.batches(300)).tokens, hook)[:, 1:].flatten(0, 1)
    v, mean = direction(small_lab), x.mean(0)
    unit = v / v.norm()
    for family in ("Standard", "TopK", "JumpReLU"):
        sae = make_sae(family, hook, 32)
        f = sae.encode(x)
        f = f.to_dense() if f.is_sparse else f
        found = shares(sae, x, 5 * v, [3, 1], mean)
        torch.testing.assert_close(found.total, (x - mean) @ unit, atol=1e-4, rtol=0)
        torch.testing.assert_close(sum(found.parts().values()), found.total, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.latents, f[:, [3, 1]] * (sae.W_dec @ unit)[[3, 1]], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.bias, ((sae.b_dec - mean) @ unit).expand(len(x)), atol=1e-4, rtol=0)
        torch.testing.assert_close(found.error, (x - sae.decode(f)) @ unit, atol=1e-4, rtol=0)
        wrote = f.mean(0) * (sae.W_dec @ unit)
        most = carriers(sae, x, v, n=3)
        assert [c.latent for c in most] == wrote.argsort(descending=True)[:3].tolist()
        assert most[0].amount == pytest.approx(float(wrote.max()), abs=1e-4)
        everyone = shares(sae, x, v, range(64), mean)
        torch.testing.assert_close(everyone.others, torch.zeros(len(x)), atol=1e-4, rtol=0)


def test_shares_of_an_sae_that_normalises_each_row(small_lab):
    import sae_lens
    from sae_lens.saes.sae import SAEMetadata

    hook = "blocks.1.hook_resid_post"
    config = sae_lens.StandardSAEConfig(d_in=32, d_sae=64, device="cpu", normalize_activations="layer_norm",
                                        metadata=SAEMetadata(hook_name=hook))
    sae = sae_lens.StandardSAE(config)
    sae.load_state_dict(make_sae("Standard", hook, 32).state_dict())
    sae.requires_grad_(False)
    x = small_lab.capture(next(small_lab.batches(300)).tokens, hook)[:, 1:].flatten(0, 1)
    found = shares(sae, x, direction(small_lab), range(64), x.mean(0))
    torch.testing.assert_close(sum(found.parts().values()), found.total, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.others, torch.zeros(len(x)), atol=1e-3, rtol=0)  # each row in its own unit
    assert found.latents.sum(1).std() > 0.1


@pytest.mark.parametrize("kind", ["steer", "ablate"])
def test_both_readings_of_a_later_site_sum_to_its_change(lab, kind):
    hook, later = "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"
    tokens, places, _ = asked(lab)
    sae, v = make_sae("Standard", later, lab.d_model), direction(lab, 1)
    intervention = interventions(lab, hook)[kind]
    found = reformed(lab, sae, tokens, places, v, hook, intervention, [2, 5])
    before = {name: at(lab.capture(tokens, name), places) for name in (hook, later)}
    with intervention():
        change = {name: at(lab.capture(tokens, name), places) - before[name] for name in before}
        after = at(lab.capture(tokens, later), places)
    unit = v / v.norm()
    torch.testing.assert_close(found.total, change[later] @ unit, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.straight, change[hook] @ unit, atol=1e-4, rtol=0)
    for reading in (found.ways(), found.parts()):
        torch.testing.assert_close(sum(reading.values()), found.total, atol=1e-4, rtol=0)
    mine = ((sae.encode(after) - sae.encode(before[later])) * (sae.W_dec @ unit))[:, [2, 5]]
    torch.testing.assert_close(found.latents, mine, atol=1e-4, rtol=1e-4)
    assert found.attention[:, 1].any() and found.mlp[:, 1].any()
    assert not found.mlp[:, [0, *range(2, lab.n_layers)]].any()


def test_partners_fire_as_often_and_none_is_drawn_that_must_not_be():
    rng = np.random.default_rng(0)
    density = torch.from_numpy(10 ** rng.uniform(-5, -0.5, 1000)).float()
    dead, exclude = list(range(40)), list(range(40, 80))
    density[dead] = 0.0
    latents = torch.arange(100, 116)
    drawn = density_matched(density, latents, n=200, seed=1, exclude=exclude)
    assert drawn.shape == (200, 16) and torch.equal(drawn, density_matched(density, latents, 200, 1, exclude))
    assert not torch.equal(drawn, density_matched(density, latents, 200, 2, exclude))
    assert not {*drawn.unique().tolist()} & {*dead, *exclude, *latents.tolist()}
    assert all(len(set(row)) == 16 for row in drawn.tolist())
    log = density.log()
    away = (log[drawn] - log[latents]).abs().mean()
    rest = torch.from_numpy(rng.choice(np.arange(116, 1000), (200, 16)))
    assert away < 0.2 < 2 < (log[rest] - log[latents]).abs().mean()
    assert all(len(column.unique()) >= 20 for column in drawn.T)  # no latent has but one partner
    # Sixteen latents of one density share their neighbours, and each draw still names sixteen.
    density[latents] = 0.01
    crowded = density_matched(density, latents, n=50)
    assert all(len(set(row)) == 16 for row in crowded.tolist()) and (log[crowded] - np.log(0.01)).abs().max() < 1


def test_dealt_rows_are_other_latents_and_random_directions_are_as_long():
    W = torch.nn.functional.normalize(torch.randn(30, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    W = W * torch.arange(1, 31)[:, None]  # a row's length says whose it is
    dealt = deal_rows(W, [4, 7], n=300, seed=3)
    owner = dealt.norm(dim=-1).round().long() - 1
    assert torch.equal(dealt, W[owner]) and torch.equal(dealt, deal_rows(W, [4, 7], n=300, seed=3))
    assert sorted(owner.unique().tolist()) == [i for i in range(30) if i not in (4, 7)]
    assert (owner[:, 0] != owner[:, 1]).all()
    random = norm_matched(W[:3], n=2000, seed=3)
    torch.testing.assert_close(random.norm(dim=-1), W[:3].norm(dim=1).expand(2000, 3))
    assert (random / W[:3].norm(dim=1)[:, None]).mean(0).abs().max() < 0.05  # no direction is preferred


def test_bad_input_gets_a_sentence(small_lab):
    lab, hook = small_lab, "blocks.1.hook_resid_post"
    tokens, places, to = asked(lab)
    sae, v, density = make_sae("Standard", hook, 32), direction(lab), torch.full((64,), 0.1)
    n, x = len(tokens), torch.randn(4, 32)

    def run(places=places, to=to, hook=hook, acts=hook, **more):
        return account(lab, tokens, places, to, hook, lambda: steer(lab, acts, v, 3.0), **more)

    def formed(**more):
        given = {"direction": v, "hook": "blocks.0.hook_resid_post", "latents": [0]} | more
        return reformed(lab, sae, tokens, places, intervention=lambda: steer(lab, given["hook"], v, 1.0), **given)

    ends = f"must lie in 1 to {tokens.shape[1] - 1}"
    cases = [
        (lambda: run(places * 0), f"places hold 0: position 0 is BOS.*{ends}"),
        (lambda: run(places * 0 - 1), f"places hold -1: no such position; they {ends}"),
        (lambda: run(places + 99), f"no such position; they {ends}"),
        (lambda: run(places[1:]), f"{n - 1} places for {n} rows"),
        (lambda: run(to=to.of(torch.arange(2))), f"target has 2 rows, tokens {n}"),
        (lambda: run(hook="blocks.1.hook_mlp_out"), "residual stream; give blocks.0.hook_resid_pre or "),
        (lambda: run(hook="blocks.1.hook_resid_mid"), "no place of the residual stream.* j from 0 to 2"),
        (lambda: run(hook="blocks.9.hook_resid_post"), "hook='blocks.9.hook_resid_post' is not known; nearest"),
        (lambda: run(hook="blocks.0.hook_resid_post"), "must act at 'blocks.0.hook_resid_post' alone"),
        (lambda: run(rows=0), "rows=0"),
        (lambda: run(clean=trace(lab, tokens[:2], places[:2], to.of(torch.arange(2)), hook)), "trace the same rows"),
        (lambda: target(lab, [3, []]), "one is empty"),
        (lambda: target(lab, [3, 99999]), "answers hold id 99999; tiny_gpt2.* knows 0 to"),
        (lambda: target(lab, [3, 4], [5]), "answers has 2 rows, against 1"),
        (lambda: shares(sae, x, v[:7], [0], x[0]), r"direction has shape \[7\]; give \[32\]"),
        (lambda: shares(sae, x, v * 0, [0], x[0]), "not all 0"),
        (lambda: shares(sae, x, v, [64], x[0]), r"latents=\[64\] must lie in 0 to 63"),
        (lambda: shares(sae, x, v, [1, 1], x[0]), "name one twice"),
        (lambda: shares(sae, torch.randn(4, 16), v, [1], torch.zeros(32)), "width 32; x has 16"),
        (lambda: shares(sae, x, v, [1], torch.zeros(16)), "mean has shape"),
        (lambda: carriers(sae, x, v, 0), "n=0 must be at least 1"),
        (lambda: formed(hook=hook), "does not lie behind"),
        (lambda: formed(latents=[-1]), "must lie in 0 to 63"),
        (lambda: density_matched(density, [64], 1), "must lie in 0 to 63"),
        (lambda: density_matched(density, [0, 0], 1), "name one twice"),
        (lambda: density_matched(density, [0], 0), "n=0 must be at least 1"),
        (lambda: density_matched(density * 99, [0], 1), "from 0 to 1"),
        (lambda: density_matched(density, [0], 1, exclude=range(50)), "14 latents are left .* need 20"),
        (lambda: density_matched(torch.where(torch.arange(64) < 1, 0.0, density), [0], 1), "a dead one has no match"),
        (lambda: deal_rows(sae.W_dec, range(40), 1), "rows of 24 others"),
        (lambda: norm_matched(sae.W_dec, 0), "n=0"),
    ]
    for call, message in cases:
        with pytest.raises(CourseError, match=message):
            call()
        assert not hooks_left(lab)
