"""Passages against their text, scores against scikit-learn, raters on latents whose meaning was planted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array
from sklearn.metrics import roc_auc_score

from course_utils.activations import harvest
from course_utils.errors import CourseError
from course_utils.features import quantile_examples
from course_utils.raters import (
    Column,
    Explanation,
    Passage,
    Rater,
    Reader,
    WordRater,
    active,
    auroc,
    band_rows,
    bands,
    detection_questions,
    domain_words,
    examples,
    fuzzing_questions,
    judge,
    log_odds,
    panel,
    quiet_rows,
    shown_to,
    words_of,
)


@pytest.fixture(scope="module")
def acts(lab):
    return harvest(lab, lab.middle_hook, 40_000, labels=False)


@pytest.fixture(scope="module")
def reader(lab, acts):
    return Reader(lab, acts, context=5)


def planted(reader, *words, noise=0.0, seed=0):
    """Make a latent that fires on some words, and on others at random."""
    rng = np.random.default_rng(seed)
    text = np.array(reader.strings, dtype=object)[reader.tokens]
    on = np.isin(text, words) | (rng.random(len(reader)) < noise)
    return csc_array((on * rng.uniform(1, 2, len(reader)))[:, None])


def test_a_passage_is_the_text_around_its_token(lab, acts, reader):
    usable = acts.usable
    for row in (0, 7, len(reader) // 2, len(reader) - 1):
        p = reader.passage(row)
        assert p.token == lab.token_strings[int(acts.tokens[usable[row]])] and p.values == ()
        at = int(usable[row])
        low = max(at - 5, at - int(acts.pos[at]) + 1)
        assert p.tokens[: p.at] == tuple(lab.token_strings[t] for t in acts.tokens[low:at].tolist())
        behind = acts.pos[at + 1 : at + 6]
        stop = (behind == 0).nonzero()
        n = int(stop[0]) if len(stop) else len(behind)
        after = acts.tokens[at + 1 : at + 1 + n].tolist()
        assert p.tokens[p.at + 1 :] == tuple(lab.token_strings[t] for t in after)


def test_values_stand_on_their_tokens_and_a_blind_passage_has_none(reader):
    column = active(planted(reader, " people"), 0)
    p = reader.passage(int(column.rows[3]), column)
    assert [v > 0 for v in p.values] == [token == " people" for token in p.tokens]
    assert p.value == pytest.approx(column.values[3]) and p.blind().values == () and p.blind().tokens == p.tokens
    assert p.marked() == p.text[: len("".join(p.tokens[: p.at]))] + " <<people>>" + "".join(p.tokens[p.at + 1 :])


def test_bands_hold_all_of_the_activity_in_order():
    values = np.random.default_rng(0).exponential(size=103)
    cut = bands(Column(np.arange(103), values), 5)
    assert [len(b.rows) for b in cut] == [21, 21, 21, 20, 20]
    assert all(a.values.min() >= b.values.max() for a, b in zip(cut, cut[1:], strict=False))
    assert sorted(np.concatenate([b.rows for b in cut])) == list(range(103))


def test_the_examples_are_those_of_quantile_examples(lab, acts, reader):
    dense = np.zeros(len(acts), dtype=np.float32)
    column = active(planted(reader, " people", " small", noise=0.05), 0)
    dense[acts.usable.numpy()[column.rows]] = column.values
    theirs = quantile_examples(lab, None, replace(acts, x=torch.from_numpy(dense)[:, None]), 0, 4, 3, 5, seed=2)
    ours = [reader.passages(rows, column) for rows in band_rows(column, reader.doc, 4, 3, seed=2)]
    assert [[round(p.value, 4) for p in part] for part in ours] == [
        [round(e.activation, 4) for e in band.examples] for band in theirs]
    assert [p.token for p in ours[0]] == [e.token for e in theirs[0].examples]


def test_quiet_rows_leave_the_whole_passage_silent(reader):
    column = active(planted(reader, " people", noise=0.01), 0)
    rows = quiet_rows(column, reader, 12, np.random.default_rng(0))
    assert len({int(reader.doc[r]) for r in rows}) == 12
    assert all(sum(reader.passage(r, column).values) == 0 for r in rows)
    with pytest.raises(CourseError, match="only 0 documents hold a passage on which the unit is silent"):
        quiet_rows(Column(np.arange(len(reader)), np.ones(len(reader))), reader, 2, np.random.default_rng(0))


def test_questions_are_blind_balanced_and_true(reader):
    latents = planted(reader, " people", noise=0.02)
    column = active(latents, 0)
    rows = {reader.passage(int(r)).tokens for r in column.rows}
    asked = detection_questions(reader, column, 8)
    assert asked.truth.sum() == 8 and len(asked.truth) == 16 and not any(p.values for p in asked.passages)
    assert all(p.tokens in rows for p in asked.passages[:8])
    asked = fuzzing_questions(reader, active(planted(reader, " people"), 0), 8)
    assert [p.token == " people" for p in asked.passages] == asked.truth.tolist() == [True] * 8 + [False] * 8
    assert all(" people" in p.tokens and not p.values for p in asked.passages)
    with pytest.raises(CourseError, match="fires in .* documents; 90000 are needed"):
        detection_questions(reader, column, 90000)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=4, max_size=30))
@settings(max_examples=40, deadline=None)
def test_auroc_is_scikit_learns(pairs):
    pairs += [(1, True), (2, False)]
    scores, truth = (np.array(column) for column in zip(*pairs, strict=True))
    ours = auroc(scores[None].astype(float), truth[None])
    assert ours[0] == pytest.approx(roc_auc_score(truth, scores))


def test_log_odds_name_what_is_preferred_and_shrink_what_was_hardly_seen():
    everywhere = np.array([500.0, 400, 90, 10])
    odds = log_odds(np.array([5.0, 0, 40, 5]), everywhere)
    assert odds.argmax() == 3 and odds[0] < 0 and odds[1] < odds[0]
    assert np.isfinite(log_odds(np.zeros(4), everywhere)).all() and abs(log_odds(np.zeros(4), everywhere)).max() < 1e-9
    assert abs(log_odds(np.array([0.0, 0, 0, 1]), everywhere, 100)).max() < abs(
        log_odds(np.array([0.0, 0, 0, 1]), everywhere, 1)).max()


def test_a_rater_of_words_finds_the_planted_word_and_is_scored_for_it(reader):
    latents = csc_array(np.column_stack([planted(reader, w).toarray()[:, 0] for w in (" people", " small", " often")]))
    rater = WordRater(reader)
    assert isinstance(rater, Rater)
    said = rater.explain(examples(reader, active(latents, 0)))
    assert max(said.on, key=said.on.get) == " people" and "'people'" in said.text
    found = judge(rater, reader, latents, reader, latents, [0, 1, 2], n=8, n_shuffles=4)
    assert (found.fuzzing > 0.95).all() and (found.detection > 0.8).all()
    assert found.detection_null.shape == (4, 3) and found.fuzzing_null.mean() < 0.65
    assert found.detection.mean() > found.detection_null.mean() + 0.2
    again = judge(rater, reader, latents, reader, latents, [0, 1, 2], n=8, n_shuffles=4)
    assert np.array_equal(found.detection_null, again.detection_null)


def test_a_latent_without_meaning_scores_no_better_than_another(reader):
    rng = np.random.default_rng(0)
    latents = csc_array((rng.random((len(reader), 12)) < 0.02) * rng.uniform(1, 2, (len(reader), 12)))
    found = judge(WordRater(reader), reader, latents, reader, latents[rng.permutation(len(reader))], range(12), n=8)
    assert abs(found.detection.mean() - 0.5) < 0.1 and abs(found.fuzzing.mean() - found.fuzzing_null.mean()) < 0.1


def test_a_deal_leaves_nobody_his_own(reader):
    from course_utils.raters.scoring import _derangement

    for seed in range(20):
        order = _derangement(7, np.random.default_rng(seed))
        assert sorted(order) == list(range(7)) and (order != np.arange(7)).all()


def test_words_of_tokens_are_whole_words():
    p = Passage((" Li", "ly", " saw", " a", " dog", "s", ".", "\n"), 1)
    assert words_of(p) == ["lily", "lily", "saw", "a", "dogs", "dogs", "", ""]


def test_choosing_follows_the_words_and_a_prime_as_far_as_it_pulls(reader):
    shown = [Passage((" the", " dog", "s"), 1)] * 6 + [Passage((" red", " apple"), 1)] * 4
    options = {"animals": ["dog", "cat"], "fruit": ["apple"], "days": ["monday"]}
    assert WordRater(reader).choose(shown, options) == WordRater(reader).choose(shown, options, "fruit") == "animals"
    assert WordRater(reader, pull=0.3).choose(shown, options, "fruit") == "fruit"
    assert WordRater(reader, pull=0.3).choose(shown, options, "days") == "animals"
    assert WordRater(reader).choose([Passage((" two",), 0)] * 5, options) is None
    assert WordRater(reader).fits([Passage((" dog", " ran"), 1)], ["dog"]) == 0.5


def test_clarity_is_the_share_that_one_word_is_in(reader):
    rater = WordRater(reader)
    assert rater.rate([Passage((" dog",), 0)] * 10) == 5 and rater.rate([]) == 1
    assert rater.rate([Passage((f" w{i}",), 0) for i in range(10)]) == 1
    assert rater.rate([Passage((" dog",), 0)] * 5 + [Passage((f" w{i}",), 0) for i in range(5)]) == 3


def test_a_panel_sees_what_it_should_and_agrees_on_a_clear_latent(reader):
    made = ((" people", 0.0), (" people", 0.02), (" small", 0.0))
    latents = csc_array(np.column_stack([planted(reader, w, noise=n).toarray()[:, 0] for w, n in made]))
    for half in (0, 1):
        for strongest in (True, False):
            shown = shown_to(reader, latents, 1, half, strongest)
            assert len(shown) == 10 and all(p.value > 0 for p in shown)
    top = shown_to(reader, latents, 1, 0, True)
    column = active(latents, 1)
    even = column.values[reader.doc[column.rows] % 2 == 0]
    assert top[0].value == pytest.approx(even.max()) and [p.value for p in top] == sorted((p.value for p in top))[::-1]
    found = panel(WordRater(reader), reader, latents, [0, 2], {"folk": ["people", "man"], "sizes": ["small"]})
    assert found.labels == [["folk", "sizes"]] * 4 and found.clarity == [[5, 5]] * 4


def test_domains_have_the_words_of_their_lists():
    found = domain_words()
    assert "tiger" in found["animals"] and "monday" in found["calendar"] and None not in found


def test_bad_input_is_named(lab, acts, reader):
    with pytest.raises(CourseError, match="context=-1 must be at least 0"):
        Reader(lab, acts, context=-1)
    with pytest.raises(CourseError, match="latent=1 must lie in 0 to 0"):
        active(planted(reader, " people"), 1)
    with pytest.raises(CourseError, match="bands=0 must be at least 1"):
        bands(Column(np.arange(2), np.ones(2)), 0)
    with pytest.raises(CourseError, match="n_words=0 must be at least 1"):
        WordRater(reader, n_words=0)
    with pytest.raises(CourseError, match="units has 1 entries"):
        judge(WordRater(reader), reader, planted(reader, " people"), reader, planted(reader, " people"), [0])


# --- a chat model ---------------------------------------------------------------------------------------------------

TEMPLATE = "{% for m in messages %}user: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}it:{% endif %}"


@pytest.fixture(scope="module")
def chat_folder(tiny_gpt2, tmp_path_factory):
    """The tiny GPT-2, whose weights are random, dressed as a chat model that reads 1,024 tokens."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("chat")
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_gpt2.directory))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, n_positions=2048, vocab_size=len(tokenizer),
                                   bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chat(chat_folder):
    from course_utils.raters import ChatRater

    return ChatRater(chat_folder, device="cpu", batch=3, max_tokens=6)


@pytest.mark.filterwarnings("ignore")
def test_a_chat_model_answers_alike_in_any_batch_and_every_time(chat):
    prompts = ["the dog", "a much longer prompt with many more words in it, about a cat", "two"]
    together = chat.ask(prompts, 5)
    assert together == [chat.ask([p], 5)[0] for p in prompts] == chat.ask(prompts, 5)


@pytest.mark.filterwarnings("ignore")
def test_answers_of_a_model_that_babbles_count_as_unread(chat, reader):
    latents = csc_array(np.column_stack([planted(reader, w).toarray()[:, 0] for w in (" people", " small")]))
    before = chat.unread
    found = judge(chat, reader, latents, reader, latents, [0, 1], n_examples=1, n=2, n_shuffles=1)
    assert isinstance(chat, Rater) and np.isfinite(found.detection).all()
    assert chat.unread > before and (found.detection == 0.5).all()
    assert chat.choose(examples(reader, active(latents, 0), 1, 2), {"animals": [], "fruit": []}, "fruit") in (
        None, "animals", "fruit")


def test_questions_hold_what_is_asked_and_the_prime(chat, monkeypatch):
    asked = []
    monkeypatch.setattr(chat, "ask", lambda prompts, *_: asked.extend(prompts) or ["yes"] * len(prompts))
    p = Passage((" a", " dog", " ran"), 1, (0.0, 2.0, 0.0))
    assert chat.detect(Explanation("fires on dogs"), [p.blind()]) == [1.0]
    assert chat.fuzz(Explanation("fires on dogs"), [p.blind()]) == [1.0]
    chat.explain([p])
    chat.choose([p], {"animals": [], "fruit": []}, "fruit")
    assert "fires on dogs" in asked[0] and "<<" not in asked[0].split("passage?")[1]
    assert "a <<dog>> ran" in asked[1] and "a <<dog>> ran (10)" in asked[2]
    assert "wrote: fruit" in asked[3] and "A. animals\nB. fruit\nC. nothing in particular" in asked[3]


@pytest.mark.parametrize(("answer", "read"), [("Yes.", 1), ("no, it is not", -1), ("It is. Yes", 1), ("yes and no", 0),
                                              ("", 0), ("Nobody knows", 0)])
def test_yes_and_no_are_read_from_words(answer, read):
    from course_utils.raters.chat import read_yes_or_no

    assert read_yes_or_no(answer) == read


@pytest.mark.parametrize(("answer", "read"), [
    ("B", "fruit"), ("(B) because", "fruit"), ("I think it is animals", "animals"), ("The best letter is C", "days"),
    ("animals or fruit", None), ("Z", None), ("", None)])
def test_letters_and_labels_are_read(answer, read):
    from course_utils.raters.chat import read_letter

    assert read_letter(answer, {"A": "animals", "B": "fruit", "C": "days"}) == read


def test_what_is_no_chat_model_is_refused(tiny_gpt2, tmp_path, chat):
    from course_utils.raters import ChatRater

    with pytest.raises(CourseError, match="cannot be opened as a chat model"):
        ChatRater(tmp_path / "missing", device="cpu")
    with pytest.raises(CourseError, match="has no chat template"):
        ChatRater(tiny_gpt2.directory, device="cpu")
    with pytest.raises(CourseError, match="reads 2048, its answer included"):
        chat.ask(["word " * 4000])
    with pytest.raises(CourseError, match="options has 30 labels"):
        chat.choose([], {str(i): [] for i in range(30)})
