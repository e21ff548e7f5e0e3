"""Occasions: what stands at them in the documents that they were cut from, and that a model can know it."""

import pytest
import torch

from course_utils.causality.mentions import LISTS, again
from course_utils.causality.occasions import WINDOW, concept_list, elsewhere, knowable, occasions, says
from course_utils.concepts import word_list_labels, word_lists
from course_utils.errors import CourseError

TIGER = "entity:animal:tiger"


@pytest.fixture
def read(lab, monkeypatch):
    """Keep every document that the world hands out, in order, stream by stream."""
    streams, write = [], lab.world.documents

    def traced(*args, **options):
        kept = []
        if options["split"] != "count":  # the world counts its own words once
            streams.append(kept)
        for document in write(*args, **options):
            kept.append(document)
            yield document

    monkeypatch.setattr(lab.world, "documents", traced)
    return streams


def rows(occ):
    return [tuple(row[1 : place + 2].tolist()) for row, place in zip(occ.tokens, occ.places, strict=True)]


def of(value, concept):
    return value is not None and f"entity:{value}:".startswith(f"{concept}:")


@pytest.mark.parametrize("concept", [TIGER, "entity:country", "entity:landmark:Golden Gate Bridge"])
@pytest.mark.parametrize("split", ["heldout", "train"])
def test_the_next_token_begins_another_mention(lab, read, concept, split):
    occ = occasions(lab, concept, 40, split=split)
    assert len(occ.tokens) == 40 and occ.concept == concept and occ.doc.unique().numel() == 40  # one a document
    assert len(set(rows(occ))) == 40 and (occ.tokens[:, 0] == lab.bos).all() and occ.places.min() > 0
    assert (occ.tokens[torch.arange(40), occ.places + 1] == occ.target).all()
    for row, place, number in zip(rows(occ), occ.places.tolist(), occ.doc.tolist(), strict=True):
        document = read[0][number]
        assert tuple(document.ids[: place + 1]) == row  # BOS stands before it
        on = [of(value, concept) for value in document.labels["entity"]]
        assert on[place] and not on[place - 1]  # a mention begins
        assert any(on[: place - 1])  # and there was one before
    padding = torch.arange(occ.tokens.shape[1])[None] > occ.places[:, None] + 1
    assert (occ.tokens[padding] == lab.bos).all() and not padding.all(0).any()


def test_an_attribute_is_a_concept_too(lab, read):
    occ = occasions(lab, "attribute:home:jungle", 12)
    for place, number in zip(occ.places.tolist(), occ.doc.tolist(), strict=True):
        labels = read[0][number].labels["attribute"]
        assert labels[place] == "home:jungle" and "home:jungle" in labels[: place - 1]


def test_a_splits_documents_are_its_own_and_a_seed_chooses_among_them(lab):
    here, there = (occasions(lab, TIGER, 60, split=split) for split in ("heldout", "train"))
    assert rows(here) != rows(there)
    assert rows(here) == rows(occasions(lab, TIGER, 60)) and rows(here)[:20] == rows(occasions(lab, TIGER, 20))
    assert rows(here) != rows(occasions(lab, TIGER, 60, seed=1))


def test_a_word_is_looked_for_among_the_tokens(lab, read):
    occ = occasions(lab, "word: tiger", 20)
    tiger = lab.token_strings.index(" tiger")
    assert (occ.target == tiger).all() and all(tiger in row[:-2] for row in rows(occ))


def test_again_against_a_loop():
    marks = [None, "a", "a", None, "b", "a", "a", "b", None, None, None, "a", "b", "b"]
    for window in range(2, 15):
        expected = {}
        for i, mark in enumerate(marks):
            row = marks[max(0, i + 1 - window) : i]
            if mark and row[-1:] != [mark] and mark in row and marks[i - 1] != mark:
                expected.setdefault(mark, []).append(i)
        assert again(marks, window) == expected
    assert again(marks, 14)["a"] == [5, 11] and again(marks, 14)["b"] == [7, 12]
    assert not again(["a", "a", "a"], 10) and not again([], 10)


def test_knowable_keeps_what_the_model_says(lab):
    occ = occasions(lab, "entity:fruit", 60)
    kept = knowable(lab, occ, 0.6)
    alone = []  # each row by itself, up to the place
    for row, place, target in zip(occ.tokens, occ.places.tolist(), occ.target.tolist(), strict=True):
        alone.append(lab.logits(row[None, : place + 1])[0, -1].softmax(-1)[target].item())
    assert says(lab, occ).tolist() == pytest.approx(alone, abs=1e-5)
    expected = [row for row, p in zip(rows(occ), alone, strict=True) if p >= 0.6]
    assert rows(kept) == expected and 0 < len(expected) < 60
    assert kept.doc.tolist() == [d for d, p in zip(occ.doc.tolist(), alone, strict=True) if p >= 0.6]
    assert len(knowable(lab, occ, 0).tokens) == 60
    with pytest.raises(CourseError, match="entity:fruit.*least=1 at none of 60"):
        knowable(lab, occ, 1)
    with pytest.raises(CourseError, match="least=1.5 must be a probability"):
        knowable(lab, occ, 1.5)


def test_nothing_is_learned_from_what_comes_after_the_place(lab):
    occ = occasions(lab, TIGER, 20)
    spoilt = occ.tokens.clone()
    spoilt[torch.arange(spoilt.shape[1])[None] > occ.places[:, None]] = 7
    assert torch.allclose(says(lab, occ), says(lab, occ._replace(tokens=spoilt)), atol=1e-6)


def test_elsewhere_is_other_text(lab, read):
    tokens, mask = elsewhere(lab, TIGER, 6_000)
    assert mask[:, 1:].sum() == 6_000 and mask[:, 0].all() and (tokens[~mask] == lab.bos).all()
    documents = {tuple(d.ids): d for d in read[0]}
    texts = [tuple(row[1 : int(n)].tolist()) for row, n in zip(tokens, mask.sum(1), strict=True)]
    assert not [row for row in texts[:-1] if TIGER[7:] in documents[row].labels["entity"]]
    assert TIGER[7:] in [value for d in read[0] for value in d.labels["entity"]]  # and some were passed over
    assert len({documents[row].topic for row in texts[:-1]}) > 30
    assert not {row for row in texts} & set(rows(occasions(lab, TIGER, 20)))
    word = lab.token_strings.index(" the")
    assert not (elsewhere(lab, "word: the", 500)[0] == word).any()


def test_twenty_five_concepts_of_several_kinds(lab):
    names = concept_list(lab, 25)
    assert len(set(names)) == 25 and names[0] == TIGER and names == concept_list(lab, 25)
    kinds = [name.split(":")[1] for name in names]
    assert {"animal", "country", "landmark", "fruit"} <= set(kinds) and max(map(kinds.count, kinds)) <= 5
    for name in names:
        places = knowable(lab, occasions(lab, name, 16))
        assert len(places.tokens) >= 12, name  # and the model does know
        key = name.removeprefix("entity:")
        words = lab.world.lists[key.partition(":")[0]]
        row = words.rows[[words.key(i) for i in range(len(words.rows))].index(key)]
        begins = {form.split()[0] for column in words.names for form in row[words.columns.index(column)]}
        assert {lab.token_strings[i].strip().lower() for i in places.target.tolist()} <= {b.lower() for b in begins}


def test_a_thing_of_two_names_is_not_asked_for(lab):
    """After the United States the model may say America: that would look like a lost concept."""
    names = concept_list(lab, 60)
    assert not {"entity:country:the United States", "entity:landmark:Statue of Liberty"} & set(names)
    assert "entity:landmark:Golden Gate Bridge" in names  # or Golden Gate, which begins alike
    says_it = says(lab, occasions(lab, "entity:country:the United States", 60))
    assert 0.3 < says_it.mean() < 0.7 < says(lab, occasions(lab, "entity:country:France", 60)).mean()


def test_stories(stories_lab):
    names = concept_list(stories_lab, 12)
    words = [name for name in names if name.startswith("word: ")]
    assert len(words) >= 2 and all(word_lists()[name[6:]] in LISTS for name in words)
    assert all(name in {f"word_list:{concept}" for concept in LISTS} for name in names[len(words):])
    assert concept_list(stories_lab, 2) == words[:2] and len(set(names)) == 12
    assert all(len(occasions(stories_lab, name, 8).tokens) == 8 for name in names)
    for name in [*words, "word: Lily"]:
        occ = occasions(stories_lab, name, 20)
        token = stories_lab.token_strings.index(name[5:])
        assert (occ.target == token).all() and all(token in row[:-2] for row in rows(occ))
        assert occ.tokens.shape[1] <= WINDOW and len(occ.doc.unique()) == len(occ.doc) >= 8
        assert not (elsewhere(stories_lab, name, 300)[0] == token).any()
        assert not {*rows(occ)} & {*rows(occasions(stories_lab, name, 20, split="train"))}
    assert len(knowable(stories_lab, occasions(stories_lab, "word: Lily", 40, split="train"), 0.3).tokens) >= 8


def test_word_lists_on_any_text(stories_lab):
    occ = occasions(stories_lab, "word_list:animals", 10)
    for i, row in enumerate(rows(occ)):
        text = stories_lab.text_of(list(row))
        # The rest of the word comes after the place, so only the mention before can be read off the row.
        assert word_list_labels(stories_lab, torch.tensor(row[:-1])).mask("word_list:animals").any(), (i, text)
    tokens, mask = elsewhere(stories_lab, "word_list:animals", 1_000)
    assert mask[:, 1:].sum() == 1_000
    assert not word_list_labels(stories_lab, tokens[:-1]).mask("word_list:animals").any()


def test_a_long_documents_rows_are_short(small_lab):
    word = next(i for i, text in enumerate(small_lab.token_strings) if text[:1] == " " and len(text.strip()) > 1)
    occ = occasions(small_lab, f"word:{small_lab.token_strings[word]}", 30)
    assert occ.tokens.shape[1] <= small_lab.n_ctx and (occ.tokens[:, 0] == small_lab.bos).all()
    assert all(row[-1] == word and row[-2] != word and word in row[:-2] for row in rows(occ))
    assert occ.places.max() == small_lab.n_ctx - 2 and says(small_lab, occ).shape == (30,)  # from far into a document


def test_bad_input_gets_a_sentence(lab, stories_lab):
    for ask in (lambda *a, **b: occasions(*a, 10, **b), lambda *a, **b: elsewhere(*a, 10, **b)):
        for concept in ("topic:animals", "subject:animal:tiger", "tiger", ""):
            with pytest.raises(CourseError, match="is not what single words of organism's text are about; give entity"):
                ask(lab, concept)
        with pytest.raises(CourseError, match="'entity:animal:tigr' is not known; nearest: 'entity:animal:tiger'"):
            ask(lab, "entity:animal:tigr")
        with pytest.raises(CourseError, match="concept='word_list:animal' is not known; nearest: 'word_list:animals'"):
            ask(lab, "word_list:animal")
        with pytest.raises(CourseError, match="'dgo' is no token of organism"):
            ask(lab, "word:dgo")
        with pytest.raises(CourseError, match="give word_list"):
            ask(stories_lab, TIGER)
        with pytest.raises(CourseError, match="split='test' is not known; allowed: 'train', 'heldout'"):
            ask(lab, TIGER, split="test")
    for ask in (lambda n: occasions(lab, TIGER, n), lambda n: elsewhere(lab, TIGER, n), lambda n: concept_list(lab, n)):
        with pytest.raises(CourseError, match="must be at least 1"):
            ask(0)
    with pytest.raises(CourseError, match="split='test'"):
        concept_list(lab, 5, split="test")


def test_too_little_text_is_said_with_numbers(stories_lab, monkeypatch):
    with pytest.raises(CourseError, match=r"n=400: only \d+ concepts are mentioned again in 8 documents"):
        concept_list(stories_lab, 400)
    with pytest.raises(CourseError, match=r"concept='word: Timmy': \d+ documents of the heldout text mention it again"):
        occasions(stories_lab, "word: Timmy", 4_000, least=4_000)
    with pytest.raises(CourseError, match=r"the heldout text has only \d+ tokens without 'word: day'"):
        elsewhere(stories_lab, "word: day", 10_000_000)
