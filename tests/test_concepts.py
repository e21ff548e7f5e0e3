"""Labels: where a value stands, what can be asked for, and words found across tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from course_utils.concepts import Labels, word_list_labels, word_lists
from course_utils.errors import CourseError

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
    assert len(set(lists.values())) >= 16 and len(lists) > 600
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
