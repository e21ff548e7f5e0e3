"""Steering measured: words found against a count by hand, costs against the loss, many pushes against one by one."""

from __future__ import annotations

import math

import pytest
import torch

from course_utils import steering
from course_utils.activations import harvest
from course_utils.errors import CourseError
from course_utils.features import random_directions
from course_utils.interventions import sample, steer

NAMES = ["topic:french", "topic:music", "entity:animal:tiger"]


@pytest.fixture(scope="module")
def acts(lab):
    return harvest(lab, lab.middle_hook, 20_000, labels=True)


@pytest.fixture(scope="module")
def words(lab, acts):
    return steering.lexicon(acts, NAMES, lab.d_vocab)


@pytest.fixture(scope="module")
def prompts(lab):
    return [lab.encode(text) for text in ("The weather in", "In the lesson", "One evening,")]


def test_a_lexicon_holds_the_tokens_that_are_mostly_about_the_concept(lab, acts, words):
    for name in NAMES:
        on, chosen = acts.labels.mask(name), set(words.ids(name).tolist())
        for token in torch.unique(acts.tokens).tolist():
            here = ((acts.tokens == token) & ~acts.is_bos).numpy()
            enough = here.sum() >= 5 and on[here].mean() >= 0.5
            assert (token in chosen) == enough
    text = lab.encode("Le chien est dans la maison. The tiger")
    on = words.marks(lab, text)[0, :, 2]
    marked = [lab.token_strings[i] for i in text[0, on].tolist()]
    assert [token.strip() for token in marked] == ["tiger"]


def test_the_usual_share_is_the_mean_over_documents_that_carry_the_label(lab, acts, words):
    found = steering.usual_share(lab, acts, words)
    marks = words.marks(lab, acts.tokens[None])[0]
    for c, name in enumerate(NAMES):
        on, shares = torch.from_numpy(acts.labels.mask(name)), []
        for doc in acts.doc.unique():
            rows = (acts.doc == doc) & ~acts.is_bos
            if on[rows].any():
                shares.append(float(marks[rows, c].float().mean()))
        assert float(found[c]) == pytest.approx(sum(shares) / len(shares), rel=1e-4)


def test_word_lists_mark_words_of_several_tokens(stories_lab):
    acts = harvest(stories_lab, "blocks.2.hook_resid_post", 6_000, labels=True)
    words = steering.lexicon(acts, ["word_list:animals"], stories_lab.d_vocab)
    tokens = stories_lab.encode("The elephants saw a red dog")
    marked = "".join(stories_lab.token_strings[i] for i, on in
                     zip(tokens[0].tolist(), words.marks(stories_lab, tokens)[0, :, 0], strict=True) if on)
    assert marked.split() == ["elephants", "dog"]


def test_the_cost_is_the_loss_of_what_was_written(lab, words, prompts):
    written = sample(lab, prompts, 12, seed=0, n=2)
    judged = steering.judge_text(lab, written, words, 12)
    for row in range(6):
        start, end = int(written.start[row]), int(written.end[row])
        chance = torch.log_softmax(lab.logits(written.tokens[row : row + 1, :end])[0], -1)
        losses = [-float(chance[i - 1, written.tokens[row, i]]) for i in range(start, end)]
        assert float(judged.cost[row]) == pytest.approx(sum(losses) / max(1, len(losses)), abs=1e-4)
        marks = words.marks(lab, written.tokens[row : row + 1, start:end])[0]
        torch.testing.assert_close(judged.share[row], marks.sum(0) / 12)


def test_real_text_is_judged_as_text_about_the_concept_and_noise_is_not(lab, acts, words, prompts):
    about = steering.texts_about(acts, "topic:french")[:3]
    carried = acts.labels.mask("topic:french")
    assert all(carried[(acts.doc == d).numpy()].any() for d in acts.doc[torch.from_numpy(carried)].unique())
    french = steering.judge_text(lab, steering.pasted(lab, prompts, about, 16), words, 16)
    music = steering.texts_about(acts, "topic:music")[:3]
    other = steering.judge_text(lab, steering.pasted(lab, prompts, music, 16), words, 16)
    assert (french.share[:, 0] > 0.3).all() and (other.share[:, 0] < 0.1).all()
    with pytest.raises(CourseError, match="2 texts for 3 prompts"):
        steering.pasted(lab, prompts, about[:2], 16)


def test_distinct_n_counts_repetitions():
    tokens = torch.tensor([[0, 1, 2, 1, 2, 1, 2], [0, 1, 2, 3, 4, 5, 6], [0, 1, 0, 0, 0, 0, 0]])
    assert steering.distinct(tokens, tokens > 0).tolist() == pytest.approx([2 / 5, 1.0, 1.0])


def test_divergence_is_zero_only_for_equal_predictions_and_has_a_direction():
    p, q = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]])
    assert float(steering.divergence(p, p)) == 0
    assert float(steering.divergence(p, q)) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert float(steering.divergence(q, p)) != pytest.approx(float(steering.divergence(p, q)))


def test_many_pushes_at_once_are_each_push_alone(lab, words, prompts, monkeypatch):
    from course_utils.steering import trying

    directions = random_directions(lab.d_model, 5)
    scales = [0.0, 1.0, 3.0, 6.0, 12.0]
    given = lab, lab.middle_hook, directions, scales, prompts, words, 2, 10, 7
    together = steering.try_out(*given)
    again = steering.try_out(lab, lab.middle_hook, directions, [1.0, 0.0, 0.0, 3.0, 0.0], *given[4:])
    assert torch.equal(again.cost[1], again.cost[2]) and torch.equal(again.cost[1], again.cost[4])
    torch.testing.assert_close(again.cost[1], together.cost[0], atol=1e-3, rtol=1e-3)
    monkeypatch.setattr(trying, "_ROWS", 6)  # one push at a time
    for a, b in zip(together[:3], steering.try_out(*given)[:3], strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    assert together.share.shape == (5, 3, 2, 3) and together.cost.shape == (5, 3, 2)
    draws = torch.rand(6, 10, generator=torch.Generator().manual_seed(7))
    with steer(lab, lab.middle_hook, directions[3], 6.0):
        alone = sample(lab, prompts, 10, n=2, draws=draws)
    cost = steering.judge_text(lab, alone, words, 10).cost.reshape(3, 2)
    torch.testing.assert_close(cost, together.cost[3], atol=1e-3, rtol=1e-3)
    assert together.cost[4].mean() > together.cost[0].mean() + 1  # a push of this size breaks text


def test_what_a_push_does_to_unrelated_text_grows_with_the_dose(lab):
    batch, direction = next(lab.batches(300)), torch.eye(lab.d_model)[:1].expand(3, -1)
    far = steering.side_effect(lab, lab.middle_hook, direction, [0.0, 2.0, 8.0], batch.tokens, batch.mask)
    assert float(far[0]) == 0 and 0 < far[1] < far[2]


def test_next_token_reads_behind_each_prompt(lab, prompts):
    padded = torch.nn.utils.rnn.pad_sequence([p[0] for p in prompts], batch_first=True, padding_value=lab.bos)
    ends = torch.tensor([p.shape[1] - 1 for p in prompts])
    direction = torch.eye(lab.d_model)[:2]
    found = steering.next_token(lab, lab.middle_hook, direction, [0.0, 5.0], padded, ends)
    for i, prompt in enumerate(prompts):
        torch.testing.assert_close(found[0, i], lab.logits(prompt)[0, -1], atol=1e-3, rtol=1e-3)
        with steer(lab, lab.middle_hook, direction[1], 5.0):
            torch.testing.assert_close(found[1, i], lab.logits(prompt)[0, -1], atol=1e-3, rtol=1e-3)


def test_spans_stand_where_the_words_do(lab, words, prompts):
    written = steering.pasted(lab, prompts[:1], [lab.encode("The tiger saw another tiger")[0, 1:].tolist()], 20)
    (text, hits), = steering.spans(lab, written, words, "entity:animal:tiger")
    assert [text[a:b].strip() for a, b in hits] == ["tiger", "tiger"]
    assert steering.texts(lab, written) == [text]


def test_what_does_not_fit_gets_a_sentence(lab, acts, words, prompts):
    hook, one = lab.middle_hook, torch.ones(1, lab.d_model)

    def inside():
        with steer(lab, hook, one[0], 1.0):
            steering.try_out(lab, hook, one, [1.0], prompts, words)

    cases = [(lambda: steering.try_out(lab, hook, one, [1.0, 2.0], prompts, words), "1 directions, 2 scales"),
             (lambda: steering.try_out(lab, hook, one, [1.0], [], words), "0 prompts"), (inside, "in force already"),
             (lambda: words.ids("topic:frensh"), "topic:french"),
             (lambda: steering.lexicon(acts, ["topic:frensh"], lab.d_vocab), "topic:french"),
             (lambda: steering.lexicon(harvest(lab, hook, 500, labels=False), NAMES, lab.d_vocab), "no labels")]
    for call, message in cases:
        with pytest.raises(CourseError, match=message):
            call()
