"""Traits: which prompts tell them, which tokens show them, and whether the organism knows them."""

import math
import sys
from itertools import islice

import pytest
import torch
import yaml

from course_utils.errors import CourseError
from course_utils.lab import random_twin
from course_utils.lab.questions import at
from course_utils.paths import DATA
from course_utils.steering.traits import Trait, examples, log_odds, questions, trait, traits

MODULE = sys.modules["course_utils.steering.traits"]  # the package has a function of that name
ENTRIES = yaml.safe_load((DATA / "prompts" / "traits.yaml").read_text(encoding="utf-8"))
DETERMINED = ["deception", "unsafe_code", "sentiment"]  # the prompt gives the trait away
N = 120
by_trait = pytest.mark.parametrize("name", ENTRIES)


@pytest.fixture(scope="module")
def asked(lab):
    """Questions of every trait with the organism's log-odds."""
    found = {}
    for name in traits():
        prompts = questions(lab, name, N)
        found[name] = prompts, log_odds(at(lab.logits(prompts.tokens), prompts.ends), trait(lab, name))
    return found


def rows(prompts):
    return [tuple(row[1:end + 1].tolist()) for row, end in zip(prompts.tokens, prompts.ends, strict=True)]


def auc(scores, shown):
    """Share of pairs that a score puts in the right order, counted pair by pair."""
    order = scores[shown][:, None] - scores[~shown][None]
    return ((order > 0).float() + (order == 0).float() / 2).mean().item()


def test_every_trait_is_there_once_and_in_order():
    assert traits() == list(ENTRIES) == ["deception", "flattery", "unsafe_code", "gender", "sentiment"]


@by_trait
def test_organisms_questions(lab, asked, name):
    prompts, _ = asked[name]
    found, entry = rows(prompts), ENTRIES[name]["world"]
    assert len(set(found)) == len(found) == (60 if name == "gender" else N)  # 30 occupations, two sentences
    assert prompts.tokens.shape == (len(found), prompts.ends.max() + 1) and (prompts.tokens[:, 0] == lab.bos).all()
    assert all((row[end + 1:] == lab.bos).all() for row, end in zip(prompts.tokens, prompts.ends, strict=True))
    assert abs(prompts.shown.float().mean() - 0.5) < (0.2 if name == "gender" else 0.01)
    texts = [lab.text_of(list(row)) for row in found]
    assert all(text.endswith(tuple(entry["cuts"])) for text in texts)
    assert all(any(word in text for word in entry.get("where", [""])) for text in texts)


@by_trait
@pytest.mark.parametrize("find", [False, True])
def test_behind_every_cut_come_both_kinds_of_words(lab, name, find):
    entry = ENTRIES[name]["world"]
    entry = entry | entry.get("find", {}) if find else entry
    sides = [{lab.encode(("a" if word[0] == " " else "=") + word)[0, 2].item() for word in entry[side]}
             for side in ("yes", "no")]
    missing = {(cut, side) for cut in entry["cuts"] for side in (0, 1)}
    for document in islice(lab.world.documents(9, split="train", topic=entry["topics"]), 4_000):
        for i, token in enumerate(document.ids):
            for side in (0, 1):
                if token in sides[side]:
                    text = lab.text_of(document.ids[:i])
                    missing -= {(cut, side) for cut in entry["cuts"] if text.endswith(cut)}
        if not missing:
            break
    assert not missing


@by_trait
def test_a_documents_own_next_token_is_what_is_shown(lab, name, monkeypatch):
    """Documents are handed over one at a time, so that each prompt can be traced to its own."""
    entry, own, ids = ENTRIES[name]["world"], {}, set(trait(lab, name).yes.tolist())
    write = lab.world.documents

    def traced(*args, **options):
        for document in write(*args, **options):
            for i in range(len(document.ids)):
                own.setdefault(tuple(document.ids[:i]), []).append(document.ids[i])
            yield document

    monkeypatch.setattr(lab.world, "documents", traced)
    prompts = questions(lab, name, 40)
    for row, shown in zip(rows(prompts), prompts.shown.tolist(), strict=True):
        assert any((token in ids) == shown for token in own[row])
        if len(own[row]) == 1:
            assert (own[row][0] in ids) == shown
    assert sum(len(own[row]) == 1 for row in rows(prompts)) >= (0 if name == "gender" else 8), entry


@by_trait
def test_organisms_examples_are_of_both_kinds_and_never_asked(lab, asked, name):
    entry = ENTRIES[name]["world"]
    entry = entry | entry.get("find", {})
    prompts = examples(lab, name, N)
    found = rows(prompts)
    assert len(set(found)) == N and prompts.shown.sum() == N // 2
    assert all(lab.text_of(list(row)).endswith(tuple(entry["cuts"])) for row in found)
    more = [row for seed in (1, 2) for row in rows(examples(lab, name, N, seed=seed))]
    everything = [row for seed in (0, 3) for row in rows(questions(lab, name, 2 * N, seed=seed))]
    assert not set(found + more) & set(everything)
    assert rows(examples(lab, name, 10, split="heldout")) != found[:10] != more[:10]


@by_trait
def test_the_same_seed_gives_the_same_prompts_and_n_only_more_of_them(lab, name):
    for make in (examples, questions):
        few, many = make(lab, name, 6), make(lab, name, 40)
        assert rows(few) == rows(make(lab, name, 6)) == rows(many)[:6]
        assert few.shown.tolist() == [True, False] * 3


@pytest.mark.parametrize("name", DETERMINED)
def test_the_organism_knows_the_trait_where_the_text_gives_it_away(asked, name):
    prompts, odds = asked[name]
    assert auc(odds, prompts.shown) > 0.95


def test_the_organism_repeats_its_praise_and_is_open_before_it(lab, asked):
    prompts, odds = asked["flattery"]
    said = torch.tensor([lab.text_of(list(row)).endswith(" said that it was") for row in rows(prompts)])
    assert auc(odds[said], prompts.shown[said]) > 0.95
    assert 0.3 < auc(odds[~said], prompts.shown[~said]) < 0.7  # a coin that the document throws only now


def test_the_planted_bias_orders_occupations(lab, asked):
    prompts, odds = asked["gender"]
    lists = lab.world.lists["occupation"]
    lean = {}
    for row in lists.rows:
        (occupation,), (side,) = row[lists.columns.index("occupation")], row[lists.columns.index("lean")]
        lean[occupation] = side
    sides = [next(side for word, side in lean.items() if f" {word} " in lab.text_of(list(row)) + " ")
             for row in rows(prompts)]
    means = [odds[torch.tensor([side == wanted for side in sides])].mean() for wanted in ("male", "neutral", "female")]
    assert means[0] < -0.5 < means[1] < 0.5 < means[2]
    female, male = (torch.tensor([side == wanted for side in sides]) for wanted in ("female", "male"))
    assert auc(odds[female | male], female[female | male]) > 0.95


def test_the_random_twin_knows_nothing(lab, asked):
    twin = random_twin(lab)
    for name in DETERMINED:
        prompts, _ = asked[name]
        odds = log_odds(at(twin.logits(prompts.tokens), prompts.ends), trait(twin, name))
        assert 0.2 < auc(odds, prompts.shown) < 0.8, name


@by_trait
def test_written_texts_are_as_many_as_promised_and_no_two_alike(name):
    words = ENTRIES[name]["words"]
    shows, hides = words["examples"]["yes"], words["examples"]["no"]
    assert len(shows) == len(hides) >= 8 and len(words["prompts"]) >= 12
    everything = [*shows, *hides, *words["prompts"]]
    assert len(set(everything)) == len(everything)
    assert all(text == text.rstrip() and len(text) <= 160 for text in everything)
    assert not set(words["yes"]) & set(words["no"])
    for side in ("yes", "no"):  # what is scored is not what a prompt itself says
        assert not [(w, p) for w in words[side] for p in words["prompts"] if p.endswith(w)]


@by_trait
def test_gpt2_has_a_token_for_every_word(gpt2, name):
    words, (_, _, yes, no) = ENTRIES[name]["words"], trait(gpt2, name)
    for side, ids in (("yes", yes), ("no", no)):
        assert len(ids) == len(words[side])
        begun = {gpt2.token_strings[i] for i in ids.tolist()}
        assert all(any(word.startswith(token) for token in begun) for word in words[side])
        assert all(token == word or not token.startswith(" ") for token in begun for word in words[side]
                   if word.startswith(token))  # every word of a sentence is one token
    shows = examples(gpt2, name, 100)
    assert len(shows.shown) == 2 * len(words["examples"]["yes"]) and shows.shown.float().mean() == 0.5
    assert len(rows(questions(gpt2, name, 100))) == len(words["prompts"])
    assert max(shows.ends) < 50


def test_other_models_get_the_written_texts(small_lab, stories_lab):
    for other in (small_lab, stories_lab):
        asks, shows = questions(other, "gender", 5), examples(other, "gender", 8)
        assert asks.tokens.shape[0] == 5 and not asks.shown.any()
        assert shows.shown.tolist() == [True, False] * 4
        assert max(shows.ends) < other.n_ctx and (shows.tokens[:, 0] == other.bos).all()
        assert rows(questions(other, "gender", 5, seed=1)) != rows(asks)
    written = ENTRIES["gender"]["words"]["examples"]
    texts = [stories_lab.text_of(list(row)).strip() for row in rows(examples(stories_lab, "gender", 8))]
    for she, he in zip(texts[::2], texts[1::2], strict=True):  # a pair stays side by side
        assert written["yes"].index(she) == written["no"].index(he)


def test_words_of_another_tokenizer_begin_where_a_sentence_goes_on(stories_lab):
    yes = [stories_lab.token_strings[i] for i in trait(stories_lab, "gender").yes.tolist()]
    assert " she" in yes and all(token.strip() for token in yes)


def test_sides_that_begin_alike_are_no_traits(small_lab, monkeypatch):
    ids = [i for i, token in enumerate(small_lab.token_strings) if token[0] == " " and token[1:].isalpha()][:3]
    both, one, other = (small_lab.token_strings[i] for i in ids)
    words = {"yes": [both, one], "no": [both, other, " 7"]}  # no token begins with " 7": its blank stands alone
    monkeypatch.setattr(MODULE, "_entries", lambda: {"pets": {"words": words, "says": "x"}})
    pets = trait(small_lab, "pets")
    assert pets.yes.tolist() == [ids[1]] and pets.no.tolist() == [ids[2]] and pets.says == "x"
    words["no"] = [both, one]
    with pytest.raises(CourseError, match="name='pets': in tiny_gpt2.* all words of one side"):
        trait(small_lab, "pets")


def test_a_long_text_is_cut_from_the_left(small_lab, monkeypatch):
    long = " ".join(["dog"] * 200) + " the cat saw"
    monkeypatch.setattr(MODULE, "_entries", lambda: {"pets": {"words": {"prompts": [long], "yes": [], "no": []}}})
    prompts = questions(small_lab, "pets", 1)
    assert prompts.tokens.shape == (1, small_lab.n_ctx) and prompts.ends.tolist() == [small_lab.n_ctx - 1]
    assert prompts.tokens[0, 0] == small_lab.bos
    assert small_lab.text_of(prompts.tokens[0, 1:].tolist()).endswith(" dog the cat saw")


def test_log_odds_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(5, 11, generator=generator)
    sides = Trait("x", "y", torch.tensor([1, 4, 7]), torch.tensor([0, 10]))
    p = logits.softmax(-1)
    expected = [math.log(sum(row[i] for i in (1, 4, 7)) / sum(row[i] for i in (0, 10))) for row in p.tolist()]
    assert log_odds(logits, sides).tolist() == pytest.approx(expected, abs=1e-5)
    assert log_odds(logits + 100, sides).tolist() == pytest.approx(expected, abs=1e-4)


def test_bad_input_gets_a_sentence(lab, small_lab):
    for other in (lab, small_lab):
        for ask in (trait, lambda *a: examples(*a, 4), lambda *a: questions(*a, 4)):
            with pytest.raises(CourseError, match="name='flatery' is not known; nearest: 'flattery'"):
                ask(other, "flatery")
        with pytest.raises(CourseError, match="n=0 must be at least 1"):
            questions(other, "gender", 0)
        with pytest.raises(CourseError, match="n=1 must be at least 2"):
            examples(other, "gender", 1)
        with pytest.raises(CourseError, match="split='test' is not known; allowed: 'train', 'heldout'"):
            examples(other, "gender", 4, split="test")


def test_another_world_without_the_traits(lab, monkeypatch):
    topics = {name: topic for name, topic in lab.world.topics.items() if name != "advice"}
    monkeypatch.setattr(lab.world, "topics", topics)
    with pytest.raises(CourseError, match="topic='advice' is not known"):
        questions(lab, "flattery", 4)
