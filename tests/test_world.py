"""The world: what its templates print, what its labels say, and what its entropy claims."""

import itertools
import math
import random
import re

import numpy as np
import pytest

from course_utils.errors import CourseError
from course_utils.organism import World, build_tokenizer
from course_utils.organism.sampler import is_held_out


@pytest.fixture(scope="module")
def world():
    return World.load()


def small(**topic):
    return World(
        {
            "lists": {
                "animal": {"columns": ["name", "home"], "rows": [["tiger", "jungle"], ["owl", "wood"], ["ox", "wood"]]},
                "word": {"columns": ["word", "mood"], "sentiment": "mood",
                         "rows": [["good", "positive"], ["bad", "negative"]]},
            },
            "topics": {"t": {"begin": ["{^@a} lives in the {a.home}."], "draws": {"a": "animal"}, "subject": "a",
                             **topic}},
        }
    )


def documents(world, n, **options):
    return list(itertools.islice(world.documents(**options), n))


def test_the_world_is_as_large_as_the_course_needs(world):
    templates = sum(len(t.begin) + len(t.then) + len(t.end) for t in world.topics.values())
    words = {text.strip().lower() for text in world.sampler.text_of[257:] if text.strip().isalpha()}
    assert len(world.topics) >= 40 and templates >= 250 and len(words) >= 1_500


@pytest.mark.parametrize("topic", list(World.load().topics))
def test_the_tokenizer_reads_every_topic_back(world, topic):
    tokenizer = build_tokenizer(world.vocabulary)
    assert len(tokenizer) == len(world.vocabulary)
    for document in documents(world, 60, seed=7, topic=topic, labels=True):
        assert tokenizer(document.text)["input_ids"] == document.ids
        assert tokenizer.decode(document.ids) == document.text
        assert all(len(column) == len(document.ids) for column in document.labels.values())
        assert len(document.ids) <= 126


def test_any_text_encodes_and_decodes(world):
    tokenizer = build_tokenizer(world.vocabulary)
    for text in ("Zyzzyva!\n\n\tnaïve café 😀 123", "", " ", "日本語"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_documents_repeat_by_seed_and_splits_differ(world):
    first = [d.text for d in documents(world, 20, seed=3)]
    assert first == [d.text for d in documents(world, 20, seed=3, labels=True, entropy=True)]
    assert first != [d.text for d in documents(world, 20, seed=4)]
    assert not set(first) & {d.text for d in documents(world, 200, seed=3, split="heldout") if len(d.ids) > 25}


def test_rare_concepts_are_rare_and_frequent_ones_frequent(world):
    counts, total = {}, 0
    for document in documents(world, 12_000, labels=True):
        total += len(document.ids)
        for entity in filter(None, document.labels["entity"]):
            counts[entity] = counts.get(entity, 0) + 1
    rates = sorted(n / total * 1e6 for n in counts.values())
    assert rates[len(rates) // 20] <= 50 and rates[-1] >= 1_000


def test_labels_say_what_the_text_says(world):
    for document in documents(world, 300, labels=True, seed=5):
        texts = [world.sampler.text_of[i].strip() for i in document.ids]
        subjects = [s for s in document.labels["subject"] if s]
        assert len(set(subjects)) <= 1
        for text, digit in zip(texts, document.labels["digit"], strict=True):
            assert digit == (int(text) if text.isdigit() and text.isascii() else None)
        assert document.labels["sentence_pos"][0] == 0 and set(document.labels["topic"]) == {document.topic}


def test_the_subject_is_known_only_after_its_first_mention():
    document = documents(small(then=["It is [old|young]."], length=[1, 1]), 1, labels=True)[0]
    assert document.labels["subject"][:2] == [None, None]  # the article, and the name itself
    assert set(document.labels["subject"][2:]) == {document.labels["entity"][1]}
    assert document.labels["entity"][0] is None


def test_the_entropy_of_a_document_is_its_surprise():
    world = small()
    weights = np.array([1, 1 / 2, 1 / 3]) / (1 + 1 / 2 + 1 / 3)
    expected = {"A tiger lives in the jungle.": weights[0], "An owl lives in the wood.": weights[1],
                "An ox lives in the wood.": weights[2]}  # fmt: skip
    for document in documents(world, 50, entropy=True):
        assert math.isclose(document.entropy, -math.log(expected[document.text]))


def test_a_fact_shown_before_the_name_is_paid_for_once():
    world = small(begin=["In the {a.home} lives {@a}."])
    for document in documents(world, 30, entropy=True):
        rank = ["tiger", "owl", "ox"].index(document.text.split()[-1][:-1])
        assert math.isclose(document.entropy, -math.log([6 / 11, 3 / 11, 2 / 11][rank]))


def test_the_entropy_is_the_mean_surprise_of_whole_texts():
    # Oracle: with few possible texts, the frequency of each text estimates its probability.
    world = small(
        draws={"a": "animal", "m": {"positive": 0.7, "negative": 0.3}},
        then=["It is {word/m}.", "It [sleeps|eats]."],
        length=[0, 2],
    )
    drawn = documents(world, 20_000, entropy=True)
    counts = {}
    for document in drawn:
        counts.setdefault(document.text, []).append(document.entropy)
    plug_in = -sum(len(v) / len(drawn) * math.log(len(v) / len(drawn)) for v in counts.values())
    assert all(np.ptp(v) < 1e-9 for v in counts.values())
    assert abs(np.mean([d.entropy for d in drawn]) - plug_in) < 0.02


def test_sentiment_follows_the_choice_and_its_opposite():
    world = small(draws={"a": "animal", "m": {"positive": 0.5, "negative": 0.5}}, sentiment="m",
                  begin=["{^a} was {word/!m}, but now it is {word/m}."])  # fmt: skip
    for document in documents(world, 40, labels=True):
        own = [w for w in document.labels["word_sentiment"] if w]
        assert own[0] != own[1] == document.labels["doc_sentiment"][0]


def test_held_out_sums_never_occur(world):
    topic = world.topics["addition"]
    rng = random.Random(0)
    for _ in range(2_000):
        env = world.sampler.draws(topic, rng)
        assert not any(is_held_out(rule, env) for rule in topic.held_out)
    assert topic.held_out


def test_planted_bias_is_in_the_documents(world):
    topic, counts = world.topics["occupations"], {}
    rng = random.Random(1)
    lean = topic.draws["o"].list.column("lean", "here")
    for _ in range(6_000):
        env = world.sampler.draws(topic, rng)
        counts.setdefault(topic.draws["o"].list.rows[env["o"]][lean][0], []).append(env["gender"] == 0)
    for group, expected in (("female", 0.8), ("male", 0.2), ("neutral", 0.5)):
        assert abs(np.mean(counts[group]) - expected) < 0.04


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"begin": ["The {b} runs."]}, "slot='b' is not known"),
        ({"begin": ["The {a.hom} runs."]}, "nearest: 'home'"),
        ({"begin": ["The [old {a} runs."]}, "bracket without a partner"),
        ({"begin": ["The big{a} runs."]}, "put a blank between"),
        ({"begin": []}, "needs a sentence in 'begin'"),
        ({"draws": {"a": "animals"}}, "nearest: 'animal'"),
        ({"draws": {"a": {"list": "animal", "where": {"home": "sea"}}}}, "no row of list animal"),
        ({"draws": {"a": "animal", "m": {"x": -1}}}, "must map each value to its probability"),
        ({"derive": {"c": "a + z"}}, "must be 'x + y'"),
        ({"lenght": [1, 2]}, "nearest: 'length'"),
        ({"begin": ["{a} " * 130]}, "more than 126"),
    ],
)
def test_a_mistake_in_the_yaml_is_named(change, message):
    with pytest.raises(CourseError, match=re.escape(message)):
        documents(small(**change), 1)


def test_an_instructor_can_plant_a_concept(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "lists:\n  dragon: {columns: [name, food], rows: [[drake, gold], [wyvern, sheep]]}\n"
        "topics:\n  dragons: {draws: {d: dragon}, subject: d, begin: ['The {d} eats {d.food}.']}\n"
    )
    texts = {d.text for d in documents(World.load(tmp_path), 50)}
    assert texts == {"The drake eats gold.", "The wyvern eats sheep."}


def test_a_folder_without_yaml_and_bad_yaml_are_refused(tmp_path):
    with pytest.raises(CourseError, match="No .*yaml"):
        World.load(tmp_path)
    (tmp_path / "bad.yaml").write_text("lists: [")
    with pytest.raises(CourseError, match="bad.yaml is not valid YAML"):
        World.load(tmp_path)
