"""Interventions: causal facts. What is added arrives, what is not touched stays, and nothing stays behind."""

from __future__ import annotations

import pytest
import torch

from course_utils.errors import CourseError
from course_utils.interventions import ablate, divert, generate, splice, steer

HOOK = "blocks.1.hook_resid_post"


def make_sae(family: str, hook: str, d_in: int, d_sae: int = 64):
    """A random sae-lens SAE of a family."""
    import sae_lens
    from sae_lens.saes.sae import SAEMetadata

    extra = {"TopK": {"k": 8}}.get(family, {})
    config = getattr(sae_lens, f"{family}SAEConfig")(d_in=d_in, d_sae=d_sae, device="cpu", **extra,
                                                     metadata=SAEMetadata(hook_name=hook))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sae = getattr(sae_lens, f"{family}SAE")(config)
        for p in sae.parameters():
            torch.nn.init.normal_(p, std=0.3)
    return sae.requires_grad_(False)


@pytest.fixture(scope="module")
def sae():
    return make_sae("Standard", HOOK, 32)


@pytest.fixture(scope="module")
def batch(small_lab):
    return next(small_lab.batches(400))


def hooks_left(lab) -> bool:
    return any(point.fwd_hooks or point._forward_hooks for point in lab.model.hook_dict.values())


@pytest.mark.parametrize("family", ["Standard", "TopK", "JumpReLU", "Gated"])
def test_splice_with_error_term_reproduces_the_clean_logits(small_lab, batch, family):
    sae, clean = make_sae(family, HOOK, 32), small_lab.logits(batch.tokens)
    with splice(small_lab, sae, error_term=True):
        torch.testing.assert_close(small_lab.logits(batch.tokens), clean, atol=1e-4, rtol=0)
    with splice(small_lab, sae):
        spliced = small_lab.logits(batch.tokens)
    assert torch.equal(spliced[:, 0], clean[:, 0]) and (spliced[:, 1:] - clean[:, 1:]).abs().max() > 0.1
    assert torch.equal(small_lab.logits(batch.tokens), clean)


@pytest.mark.parametrize("hook, d_in", [("blocks.1.attn.hook_z", 32), ("blocks.1.mlp.hook_post", 128),
                                        ("blocks.1.hook_attn_out", 32)])
def test_splice_at_any_site_is_the_saes_own_reconstruction(small_lab, batch, hook, d_in):
    sae, x = make_sae("Standard", hook, d_in), small_lab.capture(batch.tokens, hook)
    with splice(small_lab, sae):
        spliced = small_lab.capture(batch.tokens, hook)
    flat = x.flatten(2)
    torch.testing.assert_close(spliced.flatten(2)[:, 1:], sae(flat)[:, 1:], atol=1e-5, rtol=1e-4)
    assert torch.equal(spliced[:, 0], x[:, 0])


def test_inactive_latents_and_none_change_no_bit(small_lab, sae, batch):
    clean = small_lab.logits(batch.tokens)
    f = sae.encode(small_lab.capture(batch.tokens, HOOK)[:, 1:])
    assert (f > 0).any()
    dead = make_sae("Standard", HOOK, 32)
    dead.b_enc.data[:10] = -1e6
    for latents in ([], list(range(10))):
        with ablate(small_lab, dead, latents):
            assert torch.equal(small_lab.logits(batch.tokens), clean)


def test_ablation_takes_exactly_the_latents_share_away(small_lab, sae, batch):
    x = small_lab.capture(batch.tokens, HOOK)
    f = sae.encode(x)
    latent = int(f[:, 1:].sum((0, 1)).argmax())
    with ablate(small_lab, sae, [latent]):
        zeroed = small_lab.capture(batch.tokens, HOOK)
    expected = x - f[..., latent, None] * sae.W_dec[latent]
    torch.testing.assert_close(zeroed[:, 1:], expected[:, 1:], atol=1e-4, rtol=1e-4)
    assert torch.equal(zeroed[:, 0], x[:, 0])
    means = f[:, 1:].mean((0, 1))
    with ablate(small_lab, sae, torch.tensor([latent]), mode="mean", means=means):
        averaged = small_lab.capture(batch.tokens, HOOK)
    torch.testing.assert_close(averaged[:, 1:], (expected + means[latent] * sae.W_dec[latent])[:, 1:],
                               atol=1e-4, rtol=1e-4)
    with ablate(small_lab, sae, [latent], error_term=False):
        f[..., latent] = 0
        torch.testing.assert_close(small_lab.capture(batch.tokens, HOOK)[:, 1:], sae.decode(f)[:, 1:],
                                   atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("given", [True, False])
def test_resampling_draws_values_of_real_tokens_only(small_lab, sae, given):
    batch = next(b for b in small_lab.batches(3000, batch_tokens=400) if not b.mask.all())
    x = small_lab.capture(batch.tokens, HOOK)
    f, error = sae.encode(x), x - sae.decode(sae.encode(x))
    latents, mask = list(range(sae.cfg.d_sae)), batch.mask if given else None  # of itself it leaves padding out
    with ablate(small_lab, sae, latents, mode="resample", mask=mask, seed=1):
        first = small_lab.capture(batch.tokens, HOOK)
        assert torch.equal(first, small_lab.capture(batch.tokens, HOOK))
    donated = first - error  # every latent resampled together: each token now decodes some donor's latents
    real = batch.mask.clone()
    real[:, 0] = False
    away = torch.cdist(donated[:, 1:].flatten(0, 1), sae.decode(f[real]), compute_mode="donot_use_mm_for_euclid_dist")
    assert away.min(1).values.max() < 1e-3 * donated.norm(dim=-1).mean()
    with ablate(small_lab, sae, latents, mode="resample", mask=mask, seed=2):
        assert not torch.equal(first, small_lab.capture(batch.tokens, HOOK))


@pytest.mark.parametrize("hook, width", [(HOOK, 32), ("blocks.1.attn.hook_z", 32), ("blocks.0.hook_resid_pre", 32),
                                         ("blocks.1.hook_attn_out", 32)])
def test_steering_adds_exactly_the_direction(small_lab, batch, hook, width):
    direction, x = torch.linspace(-1, 1, width), small_lab.capture(batch.tokens, hook).flatten(2)
    with steer(small_lab, hook, direction, 3.0):
        steered = small_lab.capture(batch.tokens, hook).flatten(2)
    torch.testing.assert_close(steered[:, 1:] - x[:, 1:], (3 * direction).expand_as(x[:, 1:]), atol=1e-5, rtol=0)
    assert torch.equal(steered[:, 0], x[:, 0])
    with steer(small_lab, hook, direction, 3.0, positions=[2, -1]):
        chosen = small_lab.capture(batch.tokens, hook).flatten(2)
    touched = (chosen != x).any(-1).any(0).nonzero()[:, 0].tolist()
    assert touched == [2, x.shape[1] - 1]


def test_scale_zero_changes_no_bit_and_steering_nests(small_lab, batch):
    direction, clean = torch.ones(32), small_lab.logits(batch.tokens)
    with steer(small_lab, HOOK, direction, 0):
        assert torch.equal(small_lab.logits(batch.tokens), clean)
    with steer(small_lab, HOOK, direction, 5.0):
        assert not torch.equal(small_lab.logits(batch.tokens), clean)
        with steer(small_lab, HOOK, direction, -5.0):
            torch.testing.assert_close(small_lab.logits(batch.tokens), clean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_are_gone_however_the_block_ends(small_lab, sae, batch, error):
    clean = small_lab.logits(batch.tokens)
    for context in (splice(small_lab, sae), ablate(small_lab, sae, [0]), steer(small_lab, HOOK, torch.ones(32), 9.0)):
        with pytest.raises(error), context:
            assert hooks_left(small_lab)
            raise error
        assert not hooks_left(small_lab)
    assert torch.equal(small_lab.logits(batch.tokens), clean)


def test_generation_is_greedy_at_zero_and_repeats_with_its_seed(small_lab):
    tokens = small_lab.encode("the dog")
    for _ in range(6):
        tokens = torch.cat([tokens, small_lab.logits(tokens)[:, -1:].argmax(-1)], 1)
    new = tokens[0, small_lab.encode("the dog").shape[1] :].tolist()
    end = small_lab.tokenizer.eos_token_id
    expected = small_lab.text_of(new[: new.index(end)] if end in new else new)
    assert generate(small_lab, "the dog", 6, temperature=0, n=2) == [expected] * 2
    drawn = generate(small_lab, "the dog", 12, seed=1, n=4)
    assert drawn == generate(small_lab, "the dog", 12, seed=1, n=4) != generate(small_lab, "the dog", 12, seed=2, n=4)
    assert len(set(drawn)) > 1


def test_generation_stops_at_the_end_of_text_and_of_the_context(small_lab):
    end = small_lab.tokenizer.eos_token_id

    def only(token):
        return "unembed.hook_out", lambda logits: logits.index_fill(-1, torch.tensor([token]), 1e6)

    with small_lab.hooked(only(end)):
        assert generate(small_lab, "the dog", 30, n=2) == ["", ""]
    letter = small_lab.encode(".")[0, 1].item()
    with small_lab.hooked(only(letter)):
        assert generate(small_lab, "." * 60, 30) == ["..."]  # BOS + 60 + 3 = the context of 64


def test_a_real_model_tells_a_story_and_steering_changes_it(stories_lab):
    prompt = "Once upon a time, there was a little"
    plain = generate(stories_lab, prompt, 20, temperature=0)
    assert plain[0].startswith((" girl", " boy"))
    direction = torch.zeros(64)
    direction[3] = 1.0
    with steer(stories_lab, "blocks.2.hook_resid_post", direction, 60.0):
        assert generate(stories_lab, prompt, 20, temperature=0) != plain
    assert generate(stories_lab, prompt, 20, temperature=0) == plain


def test_bad_input_gets_a_sentence(small_lab, sae, batch):
    def enter(context):
        with context:
            small_lab.logits(batch.tokens)

    cases = [
        (lambda: enter(ablate(small_lab, sae, [0], mode="men")), "mode='men'.*'mean'"),
        (lambda: enter(ablate(small_lab, sae, [64])), r"latents=\[64\] must lie in 0 to 63"),
        (lambda: enter(ablate(small_lab, sae, [0], mode="mean")), "needs means="),
        (lambda: enter(splice(small_lab, make_sae("Standard", HOOK, 16))), "width 16, but this hook's have 32"),
        (lambda: enter(splice(small_lab, make_sae("Standard", "blocks.7.hook_resid_post", 32))), "hook='blocks.7"),
        (lambda: enter(steer(small_lab, "blocks.1.resid", torch.ones(32), 1)), "hook='blocks.1.resid'"),
        (lambda: enter(steer(small_lab, HOOK, torch.ones(31), 1)), r"shape \[31\]; .* width 32"),
        (lambda: enter(steer(small_lab, HOOK, torch.full((32,), float("nan")), 1)), "finite"),
        (lambda: enter(steer(small_lab, HOOK, torch.ones(32), 1, positions=[99])), r"positions=\[99\] must lie"),
        (lambda: generate(small_lab, ""), "empty"),
        (lambda: generate(small_lab, "." * 63), "fills the context of 64"),
        (lambda: generate(small_lab, "." * 70), "at most 63"),
        (lambda: generate(small_lab, "the", temperature=-1.0), "temperature=-1.0"),
    ]
    for call, message in cases:
        with pytest.raises(CourseError, match=message):
            call()
        assert not hooks_left(small_lab)


@pytest.mark.parametrize("how", [{}, {"mode": "resample", "seed": 3}, {"error_term": False}])
def test_ablation_only_somewhere_changes_nothing_elsewhere(small_lab, sae, batch, how):
    x, latents = small_lab.capture(batch.tokens, HOOK), list(range(20))
    only = torch.rand(batch.tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    with ablate(small_lab, sae, latents, **how):
        everywhere, logits = small_lab.capture(batch.tokens, HOOK), small_lab.logits(batch.tokens)
    with ablate(small_lab, sae, latents, only=only, **how):
        found = small_lab.capture(batch.tokens, HOOK)
    assert only[:, 0].any() and torch.equal(found, torch.where(only[..., None], everywhere, x))
    assert not torch.equal(found[only], x[only]) and torch.equal(found[:, 0], x[:, 0])  # BOS stays whatever is asked
    with ablate(small_lab, sae, latents, only=torch.ones_like(only), **how):
        assert torch.equal(small_lab.logits(batch.tokens), logits)
    clean = small_lab.logits(batch.tokens)
    with ablate(small_lab, sae, latents, only=torch.zeros_like(only), **how):
        assert torch.equal(small_lab.logits(batch.tokens), clean)


def test_what_is_diverted_is_the_latents_activity_along_other_rows(small_lab, sae, batch):
    x, latents = small_lab.capture(batch.tokens, HOOK), [5, 2, 40]
    f = sae.encode(x)
    rows = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    with divert(small_lab, sae, latents, rows):
        found = small_lab.capture(batch.tokens, HOOK)
    by_hand = x - sum(f[..., i, None] * row for i, row in zip(latents, rows, strict=True))
    torch.testing.assert_close(found[:, 1:], by_hand[:, 1:], atol=1e-4, rtol=1e-4)
    assert torch.equal(found[:, 0], x[:, 0]) and (found[:, 1:] - x[:, 1:]).abs().max() > 0.1
    with divert(small_lab, sae, torch.tensor(latents), sae.W_dec[latents]):
        own = small_lab.logits(batch.tokens)
    with ablate(small_lab, sae, latents):
        torch.testing.assert_close(own, small_lab.logits(batch.tokens), atol=1e-3, rtol=1e-3)
    clean = small_lab.logits(batch.tokens)
    for given, none in (([], torch.zeros(0, 32)), (latents, torch.zeros(3, 32))):
        with divert(small_lab, sae, given, none):
            assert torch.equal(small_lab.logits(batch.tokens), clean)


def test_an_sae_that_joins_the_heads_itself_is_taken_as_one_that_does_not(small_lab, batch):
    hook, latents, rows = "blocks.1.attn.hook_z", [3, 7], torch.ones(2, 32)
    plain, joins = make_sae("Standard", hook, 32), make_sae("Standard", hook, 32)
    joins.turn_on_forward_pass_hook_z_reshaping()
    only = torch.arange(batch.tokens.shape[1]) % 2 == torch.arange(len(batch.tokens))[:, None] % 2
    for way in (lambda sae: ablate(small_lab, sae, latents, only=only),
                lambda sae: divert(small_lab, sae, latents, rows)):
        found = []
        for sae in (plain, joins):
            with way(sae):
                found.append(small_lab.capture(batch.tokens, hook))
        torch.testing.assert_close(*found)
        assert (found[0] - small_lab.capture(batch.tokens, hook)).abs().max() > 0.1


def test_what_does_not_fit_where_or_along_what_gets_a_sentence(small_lab, sae, batch):
    n, pos = batch.tokens.shape
    cases = [
        (ablate(small_lab, sae, [0], only=torch.ones(n, pos - 1, dtype=torch.bool)),
         rf"only has shape \({n}, {pos - 1}\); the tokens have \({n}, {pos}\)"),
        (divert(small_lab, sae, [0], torch.ones(2, 32)), r"rows has shape \[2, 32\]; give \[1, 32\] finite numbers"),
        (divert(small_lab, sae, [0], torch.ones(1, 31)), r"rows has shape \[1, 31\]"),
        (divert(small_lab, sae, [0], torch.full((1, 32), float("nan"))), "finite numbers, a row for each latent"),
        (divert(small_lab, sae, [64], torch.ones(1, 32)), r"latents=\[64\] must lie in 0 to 63"),
    ]
    for context, message in cases:
        with pytest.raises(CourseError, match=message), context:
            small_lab.logits(batch.tokens)
        assert not hooks_left(small_lab)
