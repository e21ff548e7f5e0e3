"""Labels: where a value stands, what can be asked for, and words found across tokens."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import torch

from course_utils.concepts import Labels, domain_of, word_labels, word_list_labels, word_lists
from course_utils.concepts.labels import _taxonomy
from course_utils.errors import CourseError
from course_utils.organism import World

DOCUMENTS = [
    {"topic": ["sea", "sea", "sea"], "entity": [None, "animal:crab", None], "digit": [None, None, 7]},
    {"topic": ["war", "war"], "entity": ["animal:tiger", "animal:crab"], "digit": [0, None]},
]


def test_masks_say_where_a_concept_is():
    labels = Labels.from_documents(DOCUMENTS)
    assert len(labels) == 5
    assert labels.mask("topic:sea").tolist() == [True, True, True, False, False]
    assert labels.mask("entity:animal:crab").tolist() == [False, True, False, False, True]
    assert labels.mask("digit:0").tolist() == [False, False, False, True, False]
    assert labels.columns["entity"].tolist() == [-1, 0, -1, 1, 0] and labels.columns["entity"].dtype == np.int32
    expected = ["topic:sea", "topic:war", "entity:animal:crab", "entity:animal:tiger", "digit:7", "digit:0"]
    assert labels.concepts() == expected


def test_bos_has_no_label():
    labels = Labels.from_documents(DOCUMENTS, bos=True)
    assert labels.columns["topic"].tolist() == [-1, 0, 0, 0, -1, 1, 1]


def test_concat_gives_what_one_go_would():
    parts = [Labels.from_documents([document]) for document in reversed(DOCUMENTS)]
    joined, whole = Labels.concat(parts), Labels.from_documents(DOCUMENTS[::-1])
    assert joined.concepts() == whole.concepts()
    assert all(np.array_equal(joined.columns[c], whole.columns[c]) for c in whole.columns)


def test_selecting_rows():
    labels = Labels.from_documents(DOCUMENTS)
    for rows in (slice(1, 4), np.array([1, 2, 3]), labels.columns["topic"] >= 0):
        assert np.array_equal(labels[rows].mask("topic:sea"), labels.mask("topic:sea")[rows])
    assert len(labels[2]) == 1 and labels[2].concepts() == labels.concepts()


@pytest.mark.parametrize("concept", ["entity:animal:crap", "entity", "planet:mars"])
def test_unknown_concepts_name_the_nearest(concept):
    with pytest.raises(CourseError, match=f"concept={concept!r}.*'"):
        Labels.from_documents(DOCUMENTS).mask(concept)
    with pytest.raises(CourseError, match="'entity:animal:crab'"):
        Labels.from_documents(DOCUMENTS).mask("entity:animal:crap")


def test_word_lists_are_sound():
    lists = word_lists()
    sizes = Counter(lists.values())
    assert len(sizes) >= 60 and len(lists) > 2000 and min(sizes.values()) >= 13
    assert lists["tiger"] == "animals" and lists["monday"] == "days"


def test_word_lists_refuse_a_word_with_two_concepts(tmp_path):
    (tmp_path / "a.yaml").write_text("fruit: [orange]\ncolours: [orange]\n")
    with pytest.raises(CourseError, match="'orange' stands under 'fruit' and 'colours'"):
        word_lists(tmp_path)
    (tmp_path / "a.yaml").write_text("words: [yes]\n")
    with pytest.raises(CourseError, match="True under 'words' must be one word"):
        word_lists(tmp_path)


@pytest.mark.parametrize("which", ["small_lab", "stories_lab"])
def test_words_are_found_across_tokens(which, request):
    lab = request.getfixturevalue(which)
    text = "The dogs saw a Red cart. On monday dog"
    tokens = lab.encode(text)[0]
    labels = word_list_labels(lab, tokens)
    found = {}
    for concept in ("animals", "colours", "days", "vehicles"):
        ids = torch.where(torch.from_numpy(labels.mask(f"word_list:{concept}")), tokens, lab.bos)
        found[concept] = "".join(lab.token_strings[i] for i in ids.tolist()).split()
    # Every token of the word and no other, whole words only (no car in cart), plural and capitals too.
    assert found == {"animals": ["dogs", "dog"], "colours": ["Red"], "days": ["monday"], "vehicles": []}


def test_a_word_does_not_reach_across_documents(small_lab):
    tokens = small_lab.encode("do")[0], small_lab.encode("g")[0]
    assert not word_list_labels(small_lab, torch.cat(tokens)).mask("word_list:animals").any()


# --- many concepts at a time ----------------------------------------------------------------------------------------


def test_a_kind_is_any_of_its_values():
    labels = Labels.from_documents(DOCUMENTS)
    assert labels.mask("entity:animal").tolist() == [False, True, False, True, True]


def test_a_matrix_holds_the_masks_in_one_order_whatever_came_first():
    labels, turned = Labels.from_documents(DOCUMENTS), Labels.from_documents(DOCUMENTS[::-1])
    found = labels.matrix()
    assert found.names == turned.matrix().names == (
        "topic:sea", "topic:war", "entity:animal:crab", "entity:animal:tiger", "digit:0", "digit:7")
    for name, column in zip(found.names, found.on.T, strict=True):
        assert column.tolist() == labels.mask(name).tolist()
    assert labels.matrix(min_count=2).names == ("topic:sea", "topic:war", "entity:animal:crab")
    assert labels.matrix(columns=["digit"]).names == ("digit:0", "digit:7")
    chosen = labels.matrix(["topic:war", "entity:animal"])
    assert chosen.names == ("topic:war", "entity:animal") and chosen.on.sum(0).tolist() == [2, 3]
    with pytest.raises(CourseError, match="column='topics' is not known; nearest: 'topic'"):
        labels.matrix(columns=["topics"])
    with pytest.raises(CourseError, match="no concept stands on min_count=9"):
        labels.matrix(min_count=9)


def test_form_is_not_a_concept_unless_asked_for():
    labels = Labels.from_documents([{"topic": ["sea"], "template": ["a.1"], "sentence_pos": [0], "frequency": [2]}])
    assert labels.matrix().names == ("topic:sea",) and labels.matrix(columns=["template"]).names == ("template:a.1",)


def test_labels_side_by_side():
    labels = Labels.from_documents(DOCUMENTS)
    other = Labels.from_documents([{"half": ["left"] * 2 + ["right"] * 3}])
    assert (labels | other).matrix(["half:left", "topic:sea"]).on.sum(0).tolist() == [2, 3]
    with pytest.raises(CourseError, match="for 5 and for 2 tokens"):
        labels | other[:2]


def test_the_taxonomy_names_what_exists():
    world = World.load()
    known = {*world.topics, *world.lists, *word_lists().values()}
    assert set(_taxonomy()) <= known and len(set(_taxonomy().values())) >= 15
    assert domain_of("topic:fruit") != domain_of("topic:pets") == domain_of("entity:animal:tiger")
    assert domain_of("attribute:food:deer") is domain_of("topic:opinions") is None
    assert sum(domain_of(f"topic:{name}") is not None for name in world.topics) >= 0.9 * len(world.topics)


def test_domains_join_what_belongs_together():
    labels = Labels.from_documents([{"topic": ["pets", "birds", "fruit", "opinions"],
                                     "entity": [None, "bird:owl", "planet:mars", None]}])
    found = labels.domains()
    assert found.names == ("animals", "plants_and_food")
    assert found.on.tolist() == [[True, False], [True, False], [False, True], [False, False]]
    assert labels.domains(["entity"]).names == ("animals", "space")
    with pytest.raises(CourseError, match="no concept of a domain"):
        labels[3:].domains()


def test_words_are_concepts_too(small_lab):
    tokens = small_lab.encode("the dog saw the cat")[0]
    labels = word_labels(small_lab, tokens)
    texts = [small_lab.token_strings[i] for i in tokens.tolist()]
    for text in set(texts[1:]):
        assert labels.mask(f"word:{text}").tolist() == [other == text for other in texts]
    assert labels.columns["word"][0] == -1  # BOS says nothing
    assert labels.matrix(columns=["word"]).on.sum(1).tolist() == [0] + [1] * (len(tokens) - 1)


def test_fifty_thousand_tokens_take_less_than_a_second(stories_lab):
    tokens = torch.cat([batch.tokens[batch.mask] for batch in stories_lab.batches(50_000)])
    stories_lab.token_strings, word_lists()  # noqa: B018  (made once a model)
    begun = time.process_time()
    labels = word_list_labels(stories_lab, tokens)
    assert time.process_time() - begun < 1
    assert len(labels) == len(tokens) and len(labels.matrix(min_count=20).names) >= 30
