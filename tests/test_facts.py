"""Facts: prompts against the world's own lists, what the organism knows, and pairs for interchange."""

import random
import sys

import pytest
import torch
import yaml

from course_utils.causality.facts import facts, half, kinds, pairs
from course_utils.errors import CourseError
from course_utils.interventions.interchange import Pairs
from course_utils.paths import DATA

MODULE = sys.modules["course_utils.causality.facts"]  # the package may have a function of that name
ENTRIES = yaml.safe_load((DATA / "prompts" / "facts.yaml").read_text(encoding="utf-8"))
by_kind = pytest.mark.parametrize("kind", ENTRIES["world"])


@pytest.fixture(scope="module")
def asked(lab):
    return facts(lab)


def cells(lab, fact):
    """Read the right answers off the world's list, not off the tokens."""
    words = lab.world.lists[fact.kind]
    row = next(row for row in words.rows if row[0][0] == fact.entity)
    return row[words.columns.index(fact.attribute)]


def test_kinds_are_those_of_the_file(lab, stories_lab):
    assert kinds(lab) == {kind: list(entry["asks"]) for kind, entry in ENTRIES["world"].items()}
    assert list(kinds(stories_lab)) == ["country", "city", "animal"]
    assert len(kinds(lab)) >= 3 and min(map(len, kinds(lab).values())) >= 2


@by_kind
def test_everything_of_a_kind_is_asked_once(lab, asked, kind):
    mine = [fact for fact in asked if fact.kind == kind]
    things = [row[0][0] for row in lab.world.lists[kind].rows]
    expected = [(thing, attribute) for attribute in ENTRIES["world"][kind]["asks"] for thing in things]
    assert [(fact.entity, fact.attribute) for fact in mine] == expected
    again = facts(lab, kind)
    assert all(torch.equal(a.tokens, b.tokens) and a[4:] == b[4:] for a, b in zip(mine, again, strict=True))


@by_kind
def test_a_prompt_names_the_thing_once_and_gives_nothing_away(lab, asked, kind):
    words = lab.world.lists[kind]
    for fact in (fact for fact in asked if fact.kind == kind):
        row = next(row for row in words.rows if row[0][0] == fact.entity)
        names = {form for column in words.names for form in row[words.columns.index(column)]}
        ids = fact.tokens[0].tolist()
        text = lab.text_of(ids[1:])
        before = lab.text_of(ids[1 : fact.entity_place + 1])
        assert ids[0] == lab.bos and fact.end == len(ids) - 1 > fact.entity_place > 0
        assert any(before.lower().endswith(name.lower()) for name in names)  # the name ends there
        assert not any(f" {name} " in f"{text[len(before):]} " for name in names)
        given = {form for column, cell in zip(words.columns, row, strict=True) if column not in words.names
                 for form in cell if len(form) > 2 and column in ENTRIES["world"][kind]["asks"]}
        told = text.lower().replace(before.lower(), "")
        assert not [form for form in given if f" {form.lower()} " in f" {told} "], text


def test_up_to_the_name_all_prompts_of_a_thing_are_alike(asked):
    starts = {}
    for fact in asked:
        starts.setdefault((fact.kind, fact.entity), set()).add(tuple(fact.tokens[0, : fact.entity_place + 1].tolist()))
    assert all(len(start) == 1 for start in starts.values())


def test_right_means_the_models_top_token_begins_the_lists_answer(lab, asked):
    for fact in random.Random(0).sample(asked, 60):
        said = lab.token_strings[lab.logits(fact.tokens)[0, -1].argmax().item()]
        answers = [f" {form}" for form in cells(lab, fact)]
        assert fact.right == any(answer.startswith(said) for answer in answers)
        assert any(answer.startswith(lab.token_strings[fact.answer]) for answer in answers)


@by_kind
def test_the_organism_knows_each_attribute(asked, kind):
    for attribute in ENTRIES["world"][kind]["asks"]:
        mine = [fact for fact in asked if (fact.kind, fact.attribute) == (kind, attribute)]
        assert sum(fact.right for fact in mine) >= 0.9 * len(mine), attribute
        assert len({fact.answer for fact in mine}) >= 6  # a guess is right on few


def test_without_its_weights_it_knows_nothing(lab):
    from course_utils.lab import random_twin

    twin = facts(random_twin(lab), "animal")
    assert sum(fact.right for fact in twin) < 0.2 * len(twin)
    with pytest.raises(CourseError, match=r"kind='occupation': organism \(random weights\) knows no two different"):
        pairs(random_twin(lab), "occupation", 10)


@by_kind
def test_pairs_are_known_and_their_answers_differ(lab, asked, kind):
    known = {(tuple(f.tokens[0].tolist()), f.answer): f for f in asked if f.kind == kind and f.right}
    sides = {}
    for split in ("train", "heldout"):
        found = pairs(lab, kind, 40, split=split)
        assert list(found) == list(ENTRIES["world"][kind]["asks"])
        for attribute, some in found.items():
            assert isinstance(some, Pairs) and len(some.base) == 40
            some.check(lab, "pairs")
            seen = set()
            for base, base_place, end, source, source_place, want, stay in zip(*some, strict=True):
                asks = known[tuple(base[: end + 1].tolist()), stay.item()]
                rest = source.tolist()
                gives = next(f for (row, answer), f in known.items() if answer == want
                             and tuple(rest[: len(row)]) == row and set(rest[len(row):]) <= {lab.bos})
                assert asks.attribute == gives.attribute == attribute and asks.entity != gives.entity
                assert want != stay and (base_place, source_place) == (asks.entity_place, gives.entity_place)
                assert not set(cells(lab, asks)) & set(cells(lab, gives))
                seen.add((asks.entity, gives.entity))
            assert len(seen) == 40
            sides.setdefault(split, set()).update(name for pair in seen for name in pair)
    assert not sides["train"] & sides["heldout"]
    assert abs(len(sides["train"]) - len(sides["heldout"])) <= 3


def test_halves_by_hash():
    names = {f"thing {i}" for i in range(31)}
    train, heldout = half(names, "train"), half(names, "heldout")
    assert train | heldout == names and not train & heldout and len(train) == 16
    assert half(names | {"one more"}, "train") - {"one more"} != set(sorted(names)[:16])  # not by the alphabet


def test_a_seed_draws_the_pairs(lab):
    first, again, other = (pairs(lab, "country", 30, seed=seed)["capital"] for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first.base.shape != other.base.shape or not torch.equal(first.base, other.base)
    assert len(pairs(lab, "company", 10_000)["product"].base) == 42  # all pairs of seven companies


def test_swapping_all_at_the_name_gives_the_other_answer(lab):
    """The causal fact that pairs are made for: the whole stream at the name decides."""
    from course_utils.interventions.interchange import interchange_scores
    from course_utils.interventions.spaces import Whole

    for some in pairs(lab, "animal", 40, split="heldout").values():
        assert interchange_scores(lab, "hook_embed", Whole(), some).cause.mean() > 0.9


def test_written_answers_are_whole_and_differ():
    assert sum(len(entry["answers"]) for entry in ENTRIES["words"].values()) >= 60
    for entry in ENTRIES["words"].values():
        prompts = [f"{entry['first']} {ask}" for ask in entry["asks"].values()]
        assert all(prompt.count("{e}") == 1 and prompt == prompt.strip() for prompt in prompts)
        assert len(entry["answers"]) >= 12 and len(prompts) >= 2
        for thing, answers in entry["answers"].items():
            assert list(answers) == list(entry["asks"]) and thing not in answers.values()
        for attribute in entry["asks"]:
            assert len({answers[attribute] for answers in entry["answers"].values()}) >= 5


def test_written_prompts_in_gpt2s_tokens(gpt2):
    found = facts(gpt2)
    assert len(found) == sum(len(e["asks"]) * len(e["answers"]) for e in ENTRIES["words"].values())
    for fact in found:
        ids, answer = fact.tokens[0].tolist(), ENTRIES["words"][fact.kind]["answers"][fact.entity][fact.attribute]
        assert gpt2.text_of(ids[1 : fact.entity_place + 1]).endswith(f" {fact.entity}")
        assert not gpt2.text_of(ids[1:]).endswith(" ")
        said = gpt2.token_strings[fact.answer]
        assert said.startswith(" ") and f" {answer}".startswith(said) and said.strip()
    for kind, entry in ENTRIES["words"].items():  # first tokens tell the answers apart
        for attribute in entry["asks"]:
            pair = {(f.answer, entry["answers"][f.entity][attribute]) for f in found
                    if (f.kind, f.attribute) == (kind, attribute)}
            clash = len(pair) - len({token for token, _ in pair})
            assert clash <= 2, (kind, attribute)


def test_a_model_of_stories_is_asked_and_knows_little(stories_lab):
    found = facts(stories_lab, "animal")
    assert len(found) == 24
    for fact in found:
        text = stories_lab.text_of(fact.tokens[0, 1 : fact.entity_place + 1].tolist())
        assert text.endswith(f" {fact.entity}")
    assert sum(fact.right for fact in found) < 8


def test_bad_input_gets_a_sentence(lab, stories_lab, monkeypatch):
    for ask in (facts, lambda *a: pairs(*a, 5)):
        with pytest.raises(CourseError, match="kind='animals' is not known; nearest: 'animal'"):
            ask(lab, "animals")
        with pytest.raises(CourseError, match="kind='landmark' is not known"):
            ask(stories_lab, "landmark")
    with pytest.raises(CourseError, match="n=0 must be at least 1 pair"):
        pairs(lab, "animal", 0)
    with pytest.raises(CourseError, match="split='test' is not known; allowed: 'train', 'heldout'"):
        pairs(lab, "animal", 5, split="test")
    others = {name: topic for name, topic in lab.world.topics.items() if name in ("animals", "python_code")}
    monkeypatch.setattr(lab.world, "topics", others)
    assert list(kinds(lab)) == ["animal"]
    monkeypatch.setattr(lab.world, "topics", {})
    with pytest.raises(CourseError, match="world has none of the topics of data/prompts/facts.yaml"):
        kinds(lab)


def test_a_mere_blank_is_no_answer(stories_lab, monkeypatch):
    blank = next(i for i, text in enumerate(stories_lab.token_strings) if text == " ")
    monkeypatch.setattr(MODULE, "_asked", lambda lab, kind: iter(
        [(MODULE.Fact("city", "x", "country", lab.encode("Once"), 1, blank, False), set(range(lab.d_vocab)))]))
    monkeypatch.setattr(type(stories_lab), "logits", lambda self, tokens: torch.nn.functional.one_hot(
        torch.full_like(tokens, blank), self.d_vocab).float())
    assert not facts(stories_lab, "city")[0].right
