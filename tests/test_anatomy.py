"""Weights under one set of names give the model's own logits; twins differ in one place."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_utils.errors import CourseError
from course_utils.lab.anatomy import anatomy, record
from course_utils.lab.questions import at, questions, twins

NAMES = {"name": "names", "ask": "The {relation} dog and the {subject} saw", "relation": "red", "instead": "happy",
         "turned": "A {subject} ran to the {relation} dog",
         "answers": {"cat": "a", "dog": "b", "apples": "the", "Monday": "two"}}
STORIES = {"name": "pronouns", "ask": "One day, {subject} wanted to {relation} with", "relation": "play",
           "instead": "saw", "answers": {"Lily": "her", "Timmy": "his", "Mia": "her", "Max": "his", "Zebedee": "its"}}


def normed(x, norm):
    return F.layer_norm(x, x.shape[-1:], norm.w, norm.b, norm.eps) if norm.centred else \
        F.rms_norm(x, x.shape[-1:], norm.w, norm.eps) + norm.b


def logits_from(m, tokens):
    """Compute the model from its anatomy with PyTorch's own attention and norms, another way than notebook 01's."""
    def turned(x):
        half = x.shape[-1] // 2
        return x * m.cos + torch.cat([-x[..., half:], x[..., :half]], -1) * m.sin

    x = m.W_E[tokens] + m.W_pos
    for b in m.blocks:
        seen = normed(x, b.norm1)[:, None]  # [batch 1 pos d_model]
        q, k, v = seen @ b.W_Q + b.b_Q[:, None], seen @ b.W_K + b.b_K[:, None], seen @ b.W_V + b.b_V[:, None]
        z = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        x = x + (z @ b.W_O).sum(1) + b.b_O
        seen = normed(x, b.norm2)
        x = x + (m.act(seen @ b.W_in + b.b_in) * (seen @ b.W_gate + b.b_gate)) @ b.W_out + b.b_out
    return normed(x, m.norm) @ m.W_U + m.b_U


@pytest.fixture(params=["small_lab", "stories_lab"])
def any_lab(request):
    return request.getfixturevalue(request.param)


@torch.no_grad()
def test_the_anatomy_gives_the_models_logits(any_lab):
    tokens = torch.randint(any_lab.d_vocab, (2, 9), generator=torch.Generator().manual_seed(0))
    m = anatomy(any_lab, 9)
    torch.testing.assert_close(logits_from(m, tokens), any_lab.logits(tokens), rtol=1e-4, atol=1e-4)


def test_what_a_model_lacks_changes_nothing(small_lab, stories_lab):
    gpt2, llama = anatomy(small_lab, 5), anatomy(stories_lab, 5)
    assert gpt2.W_pos.abs().sum() > 0 and not gpt2.sin.any() and bool((gpt2.cos == 1).all())
    assert not llama.W_pos.any() and llama.sin.any() and not llama.norm.centred and gpt2.norm.centred
    assert not gpt2.blocks[0].W_gate.any() and bool((gpt2.blocks[0].b_gate == 1).all())
    assert llama.blocks[0].W_K.shape == llama.blocks[0].W_Q.shape  # shared keys are repeated for every head


def test_anatomy_refuses_a_length_that_no_prompt_has(small_lab):
    with pytest.raises(CourseError, match="n_pos=99 must lie between 1 and the context, 64"):
        anatomy(small_lab, 99)


def test_record_returns_what_capture_returns(small_lab):
    tokens = small_lab.encode("the cat ran to the dog")
    hooks = ["blocks.2.hook_mlp_out", "blocks.0.hook_resid_post", *(f"blocks.1.attn.hook_{x}" for x in "qkv")]
    found = record(small_lab, tokens, hooks)
    assert list(found) == hooks  # as asked, not as computed
    for hook in hooks:
        assert torch.equal(found[hook], small_lab.capture(tokens, hook))


def test_at_takes_one_place_of_each_row():
    x = torch.arange(24.0).view(3, 4, 2)
    assert torch.equal(at(x, torch.tensor([0, 3, 1])), torch.stack([x[0, 0], x[1, 3], x[2, 1]]))


def test_padding_changes_no_answer(stories_lab):
    asked = questions(stories_lab, STORIES, 9)
    assert asked.right.dtype == bool and asked.answers[0] == "her" and asked.right[:4].all() and not asked.right[4]
    for tokens, end, subject in zip(asked.tokens, asked.ends, STORIES["answers"], strict=True):
        alone = stories_lab.encode(f"One day, {subject} wanted to play with")
        assert torch.equal(alone[0], tokens[: end + 1])
        torch.testing.assert_close(at(stories_lab.logits(tokens[None]), end[None]), stories_lab.logits(alone)[:, -1])


def test_twins_differ_in_their_place_only(stories_lab):
    pairs = twins(stories_lab, STORIES, 9)
    assert len(pairs.clean) == 4  # the one that the model does not know is left out
    where = pairs.where
    assert all(where["the subject"][row, end] and not where["the subject"][row, end + 1 :].any()
               for row, end in enumerate(pairs.subject_ends))
    for row, (clean, end) in enumerate(zip(pairs.clean, pairs.ends, strict=True)):
        rows = clean, pairs.subject[row], pairs.relation[row]
        one, two, three = (stories_lab.text_of(ids[1 : end + 1].tolist()).split() for ids in rows)
        assert [a for a, b in zip(one, two, strict=True) if a != b] == [one[2]]
        assert [(a, b) for a, b in zip(one, three, strict=True) if a != b] == [("play", "saw")]
        assert STORIES["answers"][one[2]] != STORIES["answers"][two[2]]
        assert bool(where["the last token"][row, end]) and where["the last token"][row].sum() == 1
        assert sum(mask[row, : end + 1].int() for mask in where.values()).tolist() == [1] * (int(end) + 1)
        assert not any(mask[row, end + 1 :].any() for mask in where.values())


def test_a_seed_chooses_the_twins(stories_lab):
    first, same, other = (twins(stories_lab, STORIES, 9, seed=seed) for seed in (0, 0, 3))
    assert torch.equal(first.subject, same.subject) and torch.equal(first.clean, other.clean)


def test_twins_refuse_words_of_unlike_length_and_too_few_answers(stories_lab):
    with pytest.raises(CourseError, match="instead='elephant' have different numbers of tokens"):
        twins(stories_lab, STORIES | {"instead": "elephant"}, 9)
    nobody = STORIES | {"answers": dict.fromkeys(STORIES["answers"], "zebra")}
    with pytest.raises(CourseError, match="too few of the questions about pronouns"):
        twins(stories_lab, nobody, 9)
    asked = STORIES | {"answers": {name: f"z{i}" for i, name in enumerate(STORIES["answers"])}}
    assert len(twins(stories_lab, asked, 4, wrong_too=True).clean) >= 2


def test_the_other_word_order_is_another_form(small_lab):
    asked = questions(small_lab, NAMES, 4, "turned")
    assert small_lab.text_of(asked.tokens[0, 1 : asked.ends[0] + 1].tolist()) == "A cat ran to the red dog"
    assert isinstance(asked.right, np.ndarray) and len(asked.right) == 4
