"""Cards: their numbers against counting by hand, their HTML against hostile text, and their speed."""

import html
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array

from course_utils.activations import Activations, harvest
from course_utils.cards import (
    CardIndex,
    Carried,
    Mentions,
    Reading,
    aligned,
    as_often,
    best_concepts,
    carried,
    elsewhere,
    excerpt,
    feature_card,
    mentions,
    peaks,
    read_latents,
    typical_words,
)
from course_utils.cards.page import shown, token
from course_utils.concepts import Labels
from course_utils.errors import CourseError
from course_utils.features import cofiring, logit_effects, neighbours, sae_latents
from course_utils.raters import Passage

REMOTE = re.compile(r"""(?:src|href)\s*=|url\(|@import|<script|<link|<iframe|https?://""", re.I)


def ReLU(d):  # (stands in for a class of SAEs: latents are the positive parts of the activation)
    return SimpleNamespace(W_dec=torch.eye(d), cfg=SimpleNamespace(d_sae=d), encode=lambda x: torch.relu(x - 0.3))


@pytest.fixture(scope="module")
def acts(small_lab):
    return harvest(small_lab, small_lab.middle_hook, 6_000, labels=True)


@pytest.fixture(scope="module")
def index(small_lab, acts):
    return CardIndex(small_lab, ReLU(small_lab.d_model), acts)


class Tags(HTMLParser):
    """Collects the tags of a page, and fails on one that is not closed."""

    VOID = {"meta", "rect", "br"}

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.seen, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parsed(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_a_cards_facts_are_what_counting_gives(small_lab, acts, index):
    f = index.facts(3, n_bands=4, n=2)
    values = torch.relu(acts.x[acts.usable, 3] - 0.3).numpy()
    assert f.density == pytest.approx((values > 0).mean()) and f.peak == pytest.approx(values.max())
    assert sum(f.histogram[0]) == sum(band.n for band in f.bands) == (values > 0).sum()
    assert f.bands[0].high == pytest.approx(values.max()) and f.bands[-1].low == pytest.approx(values[values > 0].min())
    assert all(band.low <= p.value <= band.high + 1e-6 for band in f.bands for p in band.passages)
    assert [(o.latent, o.phi) for o, _ in f.cofiring] == [(o.latent, o.phi) for o in cofiring(index.latents, 3)]
    assert [o.latent for o, _ in f.neighbours] == [o.latent for o in neighbours(index.sae, 3)]
    assert f.logits.top == logit_effects(small_lab, index.sae.W_dec[3], 8, index.scale).top
    on = acts.labels.mask(f.concept)[acts.usable.numpy()]
    f1 = 2 * (on & (values > 0)).sum() / (on.sum() + (values > 0).sum())
    assert f.f1 == pytest.approx(f1)
    strongest = values >= f.bands[0].low
    assert f.bands[0].inside == pytest.approx(values[strongest & on].sum() / values[strongest].sum(), abs=1e-5)


def test_a_card_is_a_page_of_its_own_without_script_or_link(small_lab, index, tmp_path):
    card = feature_card(small_lab, index.sae, 3, index)
    path = card.save(tmp_path / "new" / "card.html")
    for page in (card._repr_html_(), path.read_text(encoding="utf-8")):
        assert not REMOTE.search(page)
        tags = parsed(page)
        assert not [t for t, a in tags.seen if t in ("script", "img", "link")]
        (picture,) = [a for t, a in tags.seen if t == "svg"]
        assert picture["role"] == "img" and "Histogram" in picture["aria-label"]
    assert 'content="light dark"' in path.read_text() and "width=device-width" in path.read_text()
    with pytest.raises(CourseError, match="cannot be written"):
        card.save(tmp_path)


def test_hostile_tokens_are_shown_and_not_run(index):
    evil = '</b><script>alert("1")</script>&amp;\n\x00"\''
    tags = parsed(token(evil, 1.0, 2.0, True))
    assert [t for t, _ in tags.seen] == ["b"]
    assert tags.text == evil.replace("\n", "⏎").replace("\x00", "·")
    assert html.unescape(shown("\t<i>")) == "⇥<i>" and parsed(token("  a", 1.0, 1.0, True)).text == "  a"
    assert [t for t, _ in parsed(excerpt([Passage((evil, evil), 1, (0.0, 3.0))])).seen].count("script") == 0


def test_the_stronger_the_deeper_and_the_number_is_there_too():
    depth = [float(re.search(r",(\d\.\d+)\)", token("a", v, 4.0, False)).group(1)) for v in (0.5, 2.0, 4.0)]
    assert depth == sorted(depth) and len(set(depth)) == 3
    assert 'title="2.00"' in token("a", 2.0, 4.0, False) and "background" not in token("a", 0.0, 4.0, False)


def test_a_silent_latent_and_a_harvest_without_labels_have_cards_too(small_lab, acts):
    sae = ReLU(small_lab.d_model)
    sae.encode = lambda x: torch.relu(x - 0.3) * (torch.arange(x.shape[1]) != 5)
    index = CardIndex(small_lab, sae, replace(acts, labels=None))
    assert "It is silent on this text" in index.card(5)._repr_html_() and index.name_of(5) == "silent"
    assert index.card(4).facts.concept == "" and "best concept" not in index.card(4)._repr_html_()
    assert index.search()[-1] == 5


def test_cards_are_found_by_text_and_put_in_order(index):
    some = index.concept_of(7)
    assert 7 in index.search(some.upper()) and all(some in index.name_of(i) for i in index.search(some))
    for sort, key in (("density", index.density), ("score", index.f1), ("strength", index.strength)):
        found = index.search(sort=sort)
        assert sorted(found) == list(range(len(index))) and (np.diff(key[found]) <= 1e-12).all()
    with pytest.raises(CourseError, match="sort='size' is not known"):
        index.search(sort="size")


def test_what_does_not_fit_is_named(small_lab, acts, index):
    with pytest.raises(CourseError, match="latent=99999 must lie in 0 to"):
        index.facts(99999)
    with pytest.raises(CourseError, match="the SAE reads 7 dimensions, the harvest of .* has 32"):
        CardIndex(small_lab, ReLU(7), acts)
    with pytest.raises(CourseError, match="has no labels"):
        carried(replace(acts, labels=None))
    with pytest.raises(CourseError, match="column='entity' is not known"):
        mentions(small_lab, acts, "entity")


def test_after_the_first_a_card_takes_well_under_a_second(index):
    index.card(0)._repr_html_()
    begun = time.perf_counter()
    for latent in range(1, 6):
        index.card(latent)._repr_html_()
    assert (time.perf_counter() - begun) / 5 < 0.5


# --- what latents stand for -----------------------------------------------------------------------------------------


@pytest.fixture
def planted():
    """Latent 0 fires on "x" and is strong there, weak elsewhere; latent 1 on any animal; latent 2 never."""
    n = 2000
    rng = np.random.default_rng(0)
    word = rng.choice(["x", "y", "z"], n, p=[0.1, 0.4, 0.5])
    entity = np.where(rng.random(n) < 0.1, rng.choice(["animal:tiger", "animal:dog", "city:rome"], n), None)
    labels = Labels.from_documents([{"word": word.tolist(), "entity": entity.tolist()}])
    first = np.where(word == "x", 5.0, np.where(rng.random(n) < 0.1, 1.0, 0.0))
    second = np.array([bool(e) and e.startswith("animal") for e in entity]) * 2.0
    zeros = torch.zeros(n, dtype=torch.long)
    acts = Activations(torch.zeros(n, 1), zeros, zeros, zeros + 1, labels, "h", "m")
    return csc_array(np.column_stack([first, second, np.zeros(n)])), carried(acts), np.arange(n) // 20, first, word


def test_kinds_are_concepts_beside_their_members(planted):
    _, concepts, *_ = planted
    assert {"word:x", "entity:animal:tiger", "entity:animal", "entity:city"} <= set(concepts.names)
    column = {name: concepts.on[:, [i]].toarray()[:, 0] for i, name in enumerate(concepts.names)}
    both = column["entity:animal:tiger"] + column["entity:animal:dog"]
    assert (column["entity:animal"] == both).all()


def test_latents_are_read_as_planted(planted):
    latents, concepts, doc, first, word = planted
    r = read_latents(latents, concepts, latents, concepts, doc)
    assert [r.of(0), r.of(1)] == ["word:x", "entity:animal"] and r.judged.tolist() == [True, True, False]
    assert r.inside[0] == pytest.approx(first[word == "x"].sum() / first.sum()) and r.inside[1] == 1
    assert r.by_band[0, 0] == 1 and r.by_band[0, -1] == 0 and r.f1[1] == pytest.approx(1)
    assert r.precision[0] == pytest.approx((first[word == "x"] > 0).sum() / (first > 0).sum())
    assert best_concepts(latents, concepts)[1][0] == pytest.approx(r.f1[0])


def test_concepts_of_another_text_are_put_in_place(planted):
    _, concepts, *_ = planted
    other = aligned(concepts, ["word:z", "not there", "word:x"])
    assert other.names == ("word:z", "not there", "word:x")
    assert [int(c.sum()) for c in other.on.toarray().T] == [
        int(concepts.on[:, [concepts.names.index("word:z")]].sum()), 0,
        int(concepts.on[:, [concepts.names.index("word:x")]].sum())]


def test_splits_that_do_not_fit_are_refused(planted):
    latents, concepts, doc, *_ = planted
    with pytest.raises(CourseError, match="3 and 2 latents"):
        read_latents(latents, concepts, latents[:, :2], concepts, doc)
    with pytest.raises(CourseError, match="training latents have 1999 rows, its concepts 2000"):
        read_latents(latents[:-1], concepts, latents, concepts, doc)


def test_dense_units_are_made_to_fire_as_often():
    x = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0))
    wanted = np.array([0.01, 0.1, 0.5, 0.0])
    train, heldout = as_often(x[:2500], x[2500:], wanted)
    assert (train > 0).sum(0) / 2500 == pytest.approx(wanted, abs=1e-9)
    assert (heldout > 0).sum(0) / 2500 == pytest.approx(wanted, abs=0.03)
    kept = train.toarray()[:, 1] > 0
    assert x[:2500, 1][kept].min() > x[:2500, 1][~kept].max()
    with pytest.raises(CourseError, match="there are 4 and 4 units and 2 densities"):
        as_often(x, x, wanted[:2])


def test_unrelated_is_another_domain_and_not_the_same_or_none():
    names = ("topic:animals", "topic:capitals", "word:x", "topic:pets")
    on = csc_array(np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float32))
    latents = csc_array(np.array([[4.0, 1.0], [2.0, 1.0], [1.0, 1.0], [1.0, 1.0]]))
    half = np.full(2, 0.5)
    reading = Reading(names, np.array([0, 2]), half, half, half, half, np.full((2, 5), 0.5), half > 0)
    found = elsewhere(latents, Carried(names, on), reading)
    assert found[0] == pytest.approx(2 / 8) and np.isnan(found[1])


def test_typical_words_are_those_of_the_concept():
    strings = [" dog", " cat", " the", "."]
    tokens = np.array([0, 2, 1, 2, 3, 2, 0, 2])
    on = csc_array(np.isin(tokens, [0, 1])[:, None].astype(np.float32))
    assert typical_words(Carried(("a",), on), tokens, strings, "a") == {"dog", "cat"}


# --- mentions -------------------------------------------------------------------------------------------------------


def test_mentions_are_runs_of_one_entity(small_lab, acts):
    found = mentions(small_lab, acts, "word_list")
    usable = acts.usable.numpy()
    codes = acts.labels.columns["word_list"][usable]
    assert len(found.kind) and (found.last >= found.first).all()
    covered = np.zeros(len(usable), dtype=int)
    for a, b in zip(found.first, found.last, strict=True):
        covered[a : b + 1] += 1
    assert (covered == (codes >= 0)).all()
    strings = [small_lab.token_strings[t] for t in acts.tokens[usable].tolist()]
    for i in range(0, len(found.kind), 50):
        text = "".join(strings[found.first[i] : found.last[i] + 1])
        assert found.name[i] == text.strip().lower()
        assert found.kind[i] == acts.labels.names["word_list"][codes[found.first[i]]]


def test_a_mentions_value_is_that_of_its_strongest_token_or_its_last():
    latents = csc_array(np.array([[0.0], [3.0], [1.0], [0.0], [2.0]]))
    names, numbers = np.array(["a", "b"], dtype=object), np.array([0, 1])
    found = Mentions(names, names, np.array([0, 3]), np.array([2, 3]), numbers, numbers)
    assert peaks(latents, 0, found).tolist() == [3.0, 0.0]
    assert peaks(latents, 0, found, whole=False).tolist() == [1.0, 0.0]


def test_the_organisms_entities_are_mentioned_by_name():
    from course_utils.lab import open_lab

    lab = open_lab("organism", device="cpu", quiet=True)
    acts = harvest(lab, lab.middle_hook, 3_000, labels=True)
    found = mentions(lab, acts, "entity")
    strings = np.array(lab.token_strings, dtype=object)[acts.tokens.numpy()[acts.usable.numpy()]]
    text = ["".join(strings[a : b + 1]).strip() for a, b in zip(found.first, found.last, strict=True)]
    told = [(n, t) for k, n, t in zip(found.kind, found.name, text, strict=True) if k == "country"]
    assert told and sum(n.removeprefix("the ") in t or t in n for n, t in told) > 0.9 * len(told)
    latents = sae_latents(ReLU(lab.d_model), acts)
    assert (peaks(latents, 0, found) >= peaks(latents, 0, found, whole=False)).all()
