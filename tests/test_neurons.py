"""What notebook 05 adds: labels by word and kind, pooled and shuffled detectors, sightings, and the blind game."""

import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.sparse import csc_array
from sklearn.metrics import f1_score

from course_utils.activations import Activations, harvest
from course_utils.concepts import Labels
from course_utils.errors import CourseError
from course_utils.evidence import Estimate
from course_utils.features import Table, best_units, domain_table, f1_difference, mean_f1, polysemanticity, score_units
from course_utils.features.blind import NOTHING, SEVERAL, opinion, riddles
from course_utils.features.columns import enriched, head
from course_utils.features.rivals import pooled, shuffled_f1
from course_utils.features.sightings import sightings
from course_utils.lab import open_lab
from course_utils.plots import alt_text
from course_utils.plots.grouped import grouped_intervals

# --- columns of labels ----------------------------------------------------------------------------------------------


def test_a_harvest_gets_the_word_and_the_kind_of_what_is_named(small_lab):
    acts = harvest(small_lab, small_lab.middle_hook, 300, labels=False)
    entity = ["animal:tiger", None, "fruit:banana", "animal:cat"] * len(acts)
    acts = replace(acts, labels=Labels.from_documents([{"entity": entity[: len(acts)]}]))
    found = enriched(small_lab, acts).labels
    assert found.mask("category:animal").tolist() == acts.labels.mask("entity:animal").tolist()
    assert found.mask("category:fruit").tolist() == acts.labels.mask("entity:fruit:banana").tolist()
    assert (found.columns["category"] >= 0).tolist() == (acts.labels.columns["entity"] >= 0).tolist()
    words = np.array([*found.names["word"], ""])[found.columns["word"]]
    assert [w for w in words if w] == [small_lab.token_strings[t] for t in acts.tokens.tolist()
                                       if small_lab.token_strings[t] != "\n"]
    assert set(acts.labels.columns) == {"entity"}  # the harvest given is left alone


def test_without_an_answer_key_there_are_no_kinds(small_lab):
    acts = harvest(small_lab, small_lab.middle_hook, 300, labels=True)
    assert set(enriched(small_lab, acts).labels.columns) == {"word_list", "word"}
    with pytest.raises(CourseError, match="harvest with labels=True"):
        enriched(small_lab, replace(acts, labels=None))


def test_the_head_of_a_harvest_is_its_first_usable_rows(small_lab):
    acts = harvest(small_lab, small_lab.middle_hook, 400, labels=True)
    first = head(acts, 120)
    assert len(first.usable) == 120 and len(first) == len(first.labels) == len(first.doc) == len(first.pos)
    torch.testing.assert_close(first.x[first.usable], acts.x[acts.usable[:120]])
    assert first.tokens[first.usable].tolist() == acts.tokens[acts.usable[:120]].tolist()
    assert len(head(acts, 10**6).usable) == len(acts.usable) and head(replace(acts, labels=None), 5).labels is None
    with pytest.raises(CourseError, match="n=0 must be at least 1 row"):
        head(acts, 0)


# --- detectors ------------------------------------------------------------------------------------------------------


def split(seed, n=1200):
    generator = torch.Generator().manual_seed(seed)
    doc = torch.arange(n) // 20
    topic = torch.rand(n // 20, 3, generator=generator) < 0.4  # concepts hold for whole documents
    on = topic[doc] & (torch.rand(n, 3, generator=generator) < 0.6)
    x = torch.randn(n, 6, generator=generator) + 1.5 * torch.cat([on, on], 1)
    return x, Table(("k:a", "k:b", "m:c"), on, doc)


def detections():
    (xa, y), (xb, z) = split(0), split(1)
    halves = (xa[:, :3], xb[:, :3]), (xa[:, 3:], xb[:, 3:])
    return [(best_units(score_units(a, y, b, z), b, z), b, z) for a, b in halves]


def test_pooled_detections_are_the_mean_of_each():
    (one, _, _), (two, _, _) = detections()
    both = pooled(one, two)
    assert mean_f1(both).value == pytest.approx((mean_f1(one).value + mean_f1(two).value) / 2)
    assert mean_f1(both, "m").value == pytest.approx((one.f1[2] + two.f1[2]) / 2)
    gap, twice = f1_difference(both, pooled(one, one)), f1_difference(two, one)
    assert gap.value == pytest.approx(twice.value / 2) and gap.low == pytest.approx(twice.low / 2)  # the same documents
    with pytest.raises(CourseError, match="the same concepts on the same held-out text"):
        pooled(one, two.select("k"))
    with pytest.raises(CourseError, match="no detections"):
        pooled()


@pytest.mark.parametrize("form", [lambda x: x, lambda x: csc_array(x.clamp(min=0).numpy())])
def test_shuffled_f1_is_scikit_learns_on_labels_of_other_documents(form):
    (xa, y), (xb, z) = split(0), split(1)
    a, b = form(xa), form(xb)
    found = best_units(score_units(a, y, b, z), b, z)
    drawn = shuffled_f1(found, b, z, n=20, seed=3)
    rng = np.random.default_rng(3)
    dense = b.numpy() if isinstance(b, torch.Tensor) else b.toarray()
    for value in drawn[:5]:
        donor = rng.permutation(60)
        labels = z.on.numpy().reshape(60, 20, 3)[donor].reshape(-1, 3)
        theirs = [f1_score(labels[:, c], dense[:, int(found.unit[c])] >= float(found.threshold[c])) for c in range(3)]
        assert value == pytest.approx(np.mean(theirs))
    assert drawn.mean() < 0.8 * mean_f1(found).value and drawn.std() > 0
    assert drawn.tolist() == shuffled_f1(found, b, z, n=20, seed=3).tolist()
    assert drawn.tolist() != shuffled_f1(found, b, z, n=20, seed=4).tolist()


def test_shuffled_f1_refuses_what_does_not_belong_to_the_detection():
    (one, b, z), _ = detections()
    with pytest.raises(CourseError, match="scored on"):
        shuffled_f1(one, b[1:], z)
    with pytest.raises(CourseError, match="scored on"):
        shuffled_f1(one, b, z._replace(names=("x", "y", "z")))
    with pytest.raises(CourseError, match="n=0 must be at least 1"):
        shuffled_f1(one, b, z, n=0)


# --- sightings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["small_lab", "stories_lab"])
def test_sightings_are_the_words_and_what_the_model_holds_there(which, request):
    lab = request.getfixturevalue(which)
    words = {"dog": ["dog", "dogs"], "red": ["red"]}
    found = sightings(lab, words, n=12)
    assert found.names == ("dog", "red")
    for i in range(2):
        assert len(set(found.doc[found.name == i])) == 12
    for at in range(len(found.name)):
        row, place = found.rows[found.row[at]].tolist(), int(found.pos[at])
        read = lab.text_of(row[1 : place + 1])
        assert re.search(r"(?:^|[^a-z])(dogs?|red)[^a-z]*$", read.lower())[1] in words[found.names[found.name[at]]]
    hooks = [lab.middle_hook, "blocks.0.mlp.hook_post"]
    read = found.read(lab, hooks)
    for hook, x in zip(hooks, read, strict=True):
        for at in (0, 3, len(found.name) - 1):
            whole = lab.capture(found.rows[found.row[at]][None], hook)[0]
            torch.testing.assert_close(x[at], whole[found.pos[at]], atol=1e-4, rtol=1e-4)
    said = found.text(lab, 0)
    assert said.count("[") == 1 and found.names[found.name[0]][-1] in re.search(r"\[(.*)\]", said)[1].lower()


def test_a_word_is_whole_and_must_be_there(small_lab):
    with pytest.raises(CourseError, match="'cow' stands in 0 documents of the train text"):
        sightings(small_lab, {"dog": ["dog"], "cow": ["cow"]}, n=3)
    with pytest.raises(CourseError, match=r"words\['dog'\] holds 'big dog'"):
        sightings(small_lab, {"dog": ["big dog"]})
    with pytest.raises(CourseError, match="'do' stands in 0 documents"):
        sightings(small_lab, {"do": ["do"]}, n=3)


# --- the blind game -------------------------------------------------------------------------------------------------


@pytest.fixture
def judged():
    """Units that serve one domain, two, and none, on documents of one domain each."""
    names = "arts", "home", "money", "sport", "war", "sea"

    def text(seed, n=9000):
        generator = torch.Generator().manual_seed(seed)
        doc = torch.arange(n) // 15
        domain = torch.randint(6, (n // 15,), generator=generator)[doc]
        noise = torch.rand(n, 3, generator=generator)
        x = noise + 2 * torch.stack([domain == 0, (domain == 1) | (domain == 4), domain == 9], 1)
        return x, Table(names, torch.nn.functional.one_hot(domain, 6) > 0, doc)

    (xa, _), (xb, domains) = text(0), text(1)
    pos = torch.ones(len(xb), dtype=torch.long)
    acts = Activations(xb, torch.arange(len(xb)) % 250, domains.doc, pos, None, "h", "m")
    return acts, xb, polysemanticity(xa, xb, domains, n_null=50)


def test_the_key_says_one_thing_several_or_nothing(judged):
    _, _, found = judged
    assert [opinion(found, unit) for unit in range(3)] == ["arts", SEVERAL, NOTHING]


def test_riddles_hide_the_unit_and_hold_the_answer(judged, small_lab):
    acts, values, found = judged
    kinds = {"neuron": (values, found), "latent": (csc_array(values.numpy()), found)}
    made = riddles(small_lab, acts, kinds, n=3, n_examples=4)
    assert sorted((r.kind, r.unit) for r in made) == [(kind, u) for kind in ("latent", "neuron") for u in range(3)]
    assert [r.kind for r in made] != sorted(r.kind for r in made)
    for riddle in made:
        assert riddle.answer == opinion(found, riddle.unit) and riddle.answer in riddle.choices
        assert len(set(riddle.choices)) == 5 and riddle.choices[3:] == [SEVERAL, NOTHING]
        assert "neuron" not in str(riddle) and "latent" not in str(riddle) and len(str(riddle).splitlines()) == 4
        strongest = [e.activation for e in riddle.examples]
        assert strongest == sorted(strongest, reverse=True)
        assert strongest[0] == pytest.approx(float(values[:, riddle.unit].max()))
        served = {name for name, _, _ in found.of(riddle.unit)}
        assert len(served & set(riddle.choices[:3])) == min(1, len(served))
    again = riddles(small_lab, acts, {"neuron": (values, found)}, n=3, n_examples=4, seed=5)
    assert again == riddles(small_lab, acts, {"neuron": (values, found)}, n=3, n_examples=4, seed=5)
    with pytest.raises(CourseError, match="n=4: of 'neuron' only 3 units could be judged"):
        riddles(small_lab, acts, {"neuron": (values, found)}, n=4)


def test_riddles_show_only_the_rows_they_may(judged, small_lab):
    acts, values, found = judged
    among = torch.arange(len(values)) % 3 == 0
    made = riddles(small_lab, acts, {"neuron": (values, found)}, n=3, among=among)
    allowed = {round(float(v), 6) for v in values[among].flatten()}
    assert {round(e.activation, 6) for r in made for e in r.examples} <= allowed


def test_the_organisms_domains_make_riddles():
    lab = open_lab("organism", device="cpu", text="world", quiet=True)
    acts = harvest(lab, "blocks.1.mlp.hook_post", 3000, split="heldout", labels=True)
    x, domains = acts.x[acts.usable], domain_table(acts, ["topic"])
    found = polysemanticity(x, x, domains, n_null=20)
    (riddle,) = riddles(lab, acts, {"neuron": (x, found)}, n=1)
    assert len(riddle.examples) == 8 and all(e.token for e in riddle.examples)


# --- the picture ----------------------------------------------------------------------------------------------------


def test_groups_are_drawn_with_their_rivals():
    one = {"neurons": Estimate(0.2, 0.1, 0.3, 5), "latents": Estimate(0.6, 0.5, 0.7, 5)}
    ax = grouped_intervals({"topic": one, "word": {"neurons": 0.4, "latents": 0.9}}, xlabel="F1")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["topic", "word"]
    drawn = {c.get_label(): c.lines[0].get_xydata() for c in ax.containers}
    assert drawn["neurons"][:, 0].tolist() == [0.2, 0.4] and drawn["latents"][:, 0].tolist() == [0.6, 0.9]
    assert (drawn["neurons"][:, 1] > drawn["latents"][:, 1]).all() and (np.diff(drawn["neurons"][:, 1]) < 0).all()
    assert "topic: neurons 0.20 [0.10, 0.30], latents 0.60" in alt_text(ax.figure)
    assert [t.get_text() for t in ax.figure.legends[0].get_texts()] == ["neurons", "latents"]
    plt.close("all")
    with pytest.raises(CourseError, match="group 'word' has the rivals"):
        grouped_intervals({"topic": one, "word": {"neurons": 0.4}})
    with pytest.raises(CourseError, match="groups is empty"):
        grouped_intervals({})
