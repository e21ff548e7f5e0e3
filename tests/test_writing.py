"""Writing with a cache: the same text as without, whatever is in force; and steering row by row."""

from __future__ import annotations

import pytest
import torch
from test_interventions import HOOK, hooks_left, make_sae

from course_utils import lab as room
from course_utils.errors import CourseError
from course_utils.interventions import ablate, generate, reads, sample, splice, steer

PROMPTS = ["the dog", "the cat saw a red dog and the happy apples", "two apples ran"]


@pytest.fixture(scope="module")
def direction():
    return torch.linspace(-1, 1, 32)


def interventions(lab, direction):
    sae = make_sae("Standard", HOOK, 32)
    return {"nothing": lambda: steer(lab, HOOK, direction, 0), "steer": lambda: steer(lab, HOOK, direction, 2.0),
            "only some positions": lambda: steer(lab, HOOK, direction, 4.0, positions=[1, 9, 14]),
            "from a position on": lambda: steer(lab, HOOK, direction, 4.0, positions=slice(6, None)),
            "clamp": lambda: steer(lab, HOOK, sae.W_dec[3], 5.0, clamp=reads(sae, 3)),
            "splice": lambda: splice(lab, sae), "ablate": lambda: ablate(lab, sae, list(range(40)))}


@pytest.mark.parametrize("name", ["nothing", "steer", "only some positions", "from a position on", "clamp", "splice",
                                  "ablate"])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_cache_changes_no_text(small_lab, direction, name, temperature):
    texts = []
    for cache in (True, False):
        with interventions(small_lab, direction)[name]():
            texts.append(sample(small_lab, PROMPTS, 12, temperature, seed=1, n=3, cache=cache))
    assert torch.equal(texts[0].tokens, texts[1].tokens) and torch.equal(texts[0].end, texts[1].end)
    assert small_lab.past is None and not hooks_left(small_lab)


def test_a_cache_gives_the_logits_of_the_whole_context(stories_lab):
    tokens = stories_lab.encode("Once upon a time, there was a little girl")
    whole, memory, place = stories_lab.logits(tokens), None, 0
    for size in (4, 1, 3, tokens.shape[1] - 8):
        logits, memory = stories_lab.follow(tokens[:, place : place + size], memory)
        place += size
        torch.testing.assert_close(logits, whole[:, place - 1], atol=1e-4, rtol=1e-4)
    assert stories_lab.past is None


def test_prompts_of_any_length_are_written_as_if_alone(small_lab):
    together = sample(small_lab, PROMPTS, 10, seed=3, n=2)
    draws = torch.rand(6, 10, generator=torch.Generator().manual_seed(3))
    alone = [ids for i, prompt in enumerate(PROMPTS)
             for ids in sample(small_lab, prompt, 10, n=2, draws=draws[2 * i : 2 * i + 2]).continuations()]
    assert together.continuations() == alone
    for row, prompt in enumerate(p for p in PROMPTS for _ in range(2)):
        ids = small_lab.encode(prompt)[0]
        assert together.start[row] == len(ids) and torch.equal(together.tokens[row, : len(ids)], ids)
        assert (together.tokens[row, together.end[row] :] == small_lab.bos).all()


def test_each_row_is_steered_by_its_own_direction_and_dose(small_lab, direction):
    tokens = small_lab.encode("the dog saw a cat").expand(3, -1)
    own, dose = torch.stack([direction, -direction, direction.flip(0)]), torch.tensor([2.0, 0.0, 0.5])
    with steer(small_lab, HOOK, own, dose):
        together = small_lab.logits(tokens)
    for row in range(3):
        with steer(small_lab, HOOK, own[row], float(dose[row])):
            torch.testing.assert_close(together[row], small_lab.logits(tokens[:1])[0], atol=1e-4, rtol=1e-4)


def test_clamping_brings_a_latent_to_a_value_and_leaves_the_rest(small_lab):
    sae, tokens = make_sae("Standard", HOOK, 32), small_lab.encode("the dog saw a cat")
    sae.W_dec.data = torch.linalg.pinv(sae.W_enc.data)  # so that what is written is what is read, latent by latent
    sae.b_enc.data.zero_(), sae.b_dec.data.zero_()
    x, read = small_lab.capture(tokens, HOOK), reads(sae, 5)
    w = sae.W_dec[5]
    with steer(small_lab, HOOK, w, 7.0, clamp=read):
        y = small_lab.capture(tokens, HOOK)
    torch.testing.assert_close(y[:, 1:], (x + (7.0 - read(x))[..., None] * w)[:, 1:], atol=1e-4, rtol=1e-4)
    assert torch.equal(y[:, 0], x[:, 0])
    with steer(small_lab, HOOK, w, 0, clamp=read):  # off: scale 0 of a clamp is not nothing
        off = small_lab.capture(tokens, HOOK)
    torch.testing.assert_close(off[:, 1:], (x - read(x)[..., None] * w)[:, 1:], atol=1e-4, rtol=1e-4)
    with pytest.raises(CourseError, match="latent=64 must lie in 0 to 63"):
        reads(sae, 64)


def test_several_hooks_take_one_direction_or_one_each(small_lab, direction):
    tokens, hooks = small_lab.encode("the dog"), ["blocks.0.hook_resid_post", "blocks.2.hook_resid_post"]
    with steer(small_lab, hooks, [direction, -direction], 2.0):
        both = small_lab.logits(tokens)
    with steer(small_lab, hooks[0], direction, 2.0), steer(small_lab, hooks[1], -direction, 2.0):
        torch.testing.assert_close(small_lab.logits(tokens), both)
    with steer(small_lab, hooks, direction, 2.0):
        assert not torch.equal(small_lab.logits(tokens), both)
    with pytest.raises(CourseError, match="1 for 2 hooks"), steer(small_lab, hooks, [direction], 1.0):
        pass


def test_a_row_ends_behind_a_token_that_holds_the_stop(small_lab):
    plain = sample(small_lab, "the dog", 40, seed=5, n=8)
    stopped = sample(small_lab, "the dog", 40, seed=5, n=8, stop="a")
    ended = 0
    for long, short in zip(plain.continuations(), stopped.continuations(), strict=True):
        assert long[: len(short)] == short
        holds = ["a" in small_lab.token_strings[i] for i in short]
        assert not any(holds[:-1])
        ended += bool(holds) and holds[-1]
    assert ended > 0


def test_draws_follow_the_distribution(small_lab):
    prompt = small_lab.encode("the dog")
    chance = torch.softmax(small_lab.logits(prompt)[0, -1], -1)
    written = sample(small_lab, prompt, 1, n=4000, seed=0)
    first = written.tokens[written.end > written.start, prompt.shape[1]]
    share = torch.bincount(first, minlength=small_lab.d_vocab) / 4000
    share[small_lab.tokenizer.eos_token_id] = chance[small_lab.tokenizer.eos_token_id]
    assert (share - chance).abs().max() < 4 * 0.5 / 4000**0.5


def test_nothing_is_left_when_writing_breaks_off(small_lab, direction):
    def fail(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), small_lab.hooked((HOOK, fail)):
        sample(small_lab, "the dog", 4)
    assert small_lab.past is None and not hooks_left(small_lab)
    state = torch.get_rng_state()
    generate(small_lab, "the dog", 4, n=2)
    assert torch.equal(state, torch.get_rng_state())  # no global state is drawn from


def test_what_does_not_fit_gets_a_sentence(small_lab, direction):
    def enter(*given, **named):
        with steer(small_lab, *given, **named):
            small_lab.logits(small_lab.encode("the dog").expand(2, -1))

    cases = [
        (lambda: sample(small_lab, [], 4), "prompts is empty"),
        (lambda: sample(small_lab, "the", 0), "max_new_tokens=0"),
        (lambda: sample(small_lab, "the", 4, draws=torch.rand(2, 4)), r"\[2, 4\]; 1 rows of 4 tokens"),
        (lambda: enter(HOOK, torch.ones(3, 32), 1.0), "for the 2 rows of this run"),
        (lambda: enter(HOOK, direction, torch.ones(3)), "scale holds 3 numbers"),
        (lambda: enter(HOOK, direction, torch.tensor([1.0, float("inf")])), "finite"),
    ]
    for call, message in cases:
        with pytest.raises(CourseError, match=message):
            call()
        assert not hooks_left(small_lab)


def test_a_memory_that_keeps_nothing_is_said_before_it_spoils_a_text(small_lab, monkeypatch):
    (first, *_) = [part for part in small_lab.model.modules() if "_update_kv_cache" in vars(part)]
    monkeypatch.setattr(first, "_update_kv_cache", lambda k, v, **_: (k, v))
    with pytest.raises(CourseError, match="keeps 0 of 4 positions: these versions of transformers"):
        small_lab.follow(torch.tensor([[small_lab.bos, 5, 6, 7]]))


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_memory_is_found_by_its_old_name_and_its_new_one(name):
    k, memory = torch.zeros(2), torch.ones(3)
    found = room._remember(lambda k, v, past_key_values=None, **_: (k, past_key_values), k, k, **{name: memory}, more=1)
    assert found[1] is memory
