"""Ways to take a concept away: what each is by hand, where it is tried, and what its nulls are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_interventions import hooks_left, make_sae

from course_utils.activations import harvest
from course_utils.causality import (
    BY_ANSWER,
    BY_WORD,
    DIFF,
    LEACE,
    RANDOM,
    answers,
    attribution,
    choosing,
    damage,
    dictionary,
    ground,
    null_ways,
    target,
    tools,
    way,
)
from course_utils.causality.mentions import siblings
from course_utils.causality.occasions import knowable, occasions
from course_utils.causality.removal import NULLS, concept_table, put_in
from course_utils.causality.trials import asked_there, carries, mixed, rows_of
from course_utils.concepts import word_lists
from course_utils.dictionaries import ready_sae
from course_utils.errors import CourseError
from course_utils.interventions import ablate, divert, erase, leace, project_out, steer

TIGER, FRANCE = "entity:animal:tiger", "entity:country:France"


@pytest.fixture(scope="module")
def bench(lab):
    """What the training text says of the tiger, by an SAE of 512 latents."""
    sae, acts = ready_sae(lab, width=512), harvest(lab, lab.middle_hook, 10_000, labels=True)
    table = concept_table(lab, acts, [FRANCE, TIGER])
    g = ground(lab, TIGER, 6, 100)
    x, on = acts.x[acts.usable], table.on[:, 1]
    return SimpleNamespace(sae=sae, acts=acts, table=table, g=g, x=x, on=on, f=sae.encode(x),
                           t=tools(lab, g, acts, table, dictionary(sae, acts, table)))


# --- attribution ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["small_lab", "stories_lab"])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("family", ["Standard", "TopK"])
def test_attribution_is_the_slope_of_turning_a_latent_down(name, family, normed, request):
    lab = request.getfixturevalue(name)
    hook = f"blocks.{lab.n_layers - 2}.hook_resid_post"
    sae = make_sae(family, hook, lab.d_model)
    if normed:
        sae = by_layer_norm(sae)
    batch = next(lab.batches(200))
    places = torch.tensor([int(n) - 1 - i % 3 for i, n in enumerate(batch.mask.sum(1))])
    to = target(lab, [[3, 5], *[7] * (len(places) - 1)], [9] * len(places))
    found = attribution(lab, sae, batch.tokens, places, to)
    rows, before = torch.arange(len(places)), lab.capture(batch.tokens, hook)
    there = torch.arange(batch.tokens.shape[1]) <= places[:, None]
    there[:, 0] = False
    f = dense(sae, before[there])
    silent = ~(f != 0).any(0)
    assert not found[silent].any() and (found != 0).sum() == (~silent).sum()

    def scaled(latent, by):
        wrote = by * taken(sae, before, latent)
        with lab.hooked((hook, lambda x: torch.cat([x[:, :1], (x - wrote)[:, 1:]], 1))):
            return to.read(lab.logits(batch.tokens)[rows, places]).mean()

    order = found.abs().argsort(descending=True)
    for latent in [*order[:4].tolist(), *found.argsort()[[0, -1]].tolist(), int(order[20])]:
        slope = (scaled(latent, -0.02) - scaled(latent, 0.02)) / 0.04
        assert slope.item() == pytest.approx(found[latent].item(), rel=0.03, abs=2e-4), latent
    assert found.min() < 0 < found.max()
    assert all(p.grad is None for p in lab.model.parameters()) and not hooks_left(lab)
    assert not found.requires_grad and torch.is_grad_enabled()


def dense(sae, x):
    f = sae.encode(x)
    return f.to_dense() if f.is_sparse else f


def by_layer_norm(sae):
    sae.cfg.normalize_activations = "layer_norm"
    again = type(sae)(sae.cfg)
    again.load_state_dict(sae.state_dict())
    return again.requires_grad_(False)


def taken(sae, x, latent):
    """What a latent adds to the reconstruction."""
    f = dense(sae, x)
    without = f.clone()
    without[..., latent] = 0
    whole = sae.decode(f)
    sae.encode(x)  # an SAE that normalises rows keeps their norm for one decoding
    return whole - sae.decode(without)


def test_padding_and_the_size_of_a_run_are_of_no_account_to_attribution(small_lab, monkeypatch):
    sae, batch = make_sae("Standard", "blocks.1.hook_resid_post", 32), next(small_lab.batches(300))
    places = batch.mask.sum(1) // 2
    to = target(small_lab, [4] * len(places))
    whole = attribution(small_lab, sae, batch.tokens, places, to)
    spoilt = torch.where(torch.arange(batch.tokens.shape[1]) > places[:, None], 11, batch.tokens)
    torch.testing.assert_close(attribution(small_lab, sae, spoilt, places, to), whole, atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(choosing, "_TOKENS", 1)
    torch.testing.assert_close(attribution(small_lab, sae, batch.tokens, places, to), whole, atol=1e-5, rtol=1e-4)


def test_attribution_says_what_does_not_fit(small_lab):
    hook, batch = "blocks.1.hook_resid_post", next(small_lab.batches(100))
    n = len(batch.tokens)
    places, to = torch.ones(n, dtype=torch.long), target(small_lab, [3] * n)
    for sae, at, of, message in [
        (make_sae("Standard", hook, 32), places * 0, to, "position 0 is BOS"),
        (make_sae("Standard", hook, 32), places, target(small_lab, [3] * (n + 1)), f"has {n + 1} rows, tokens {n}"),
        (make_sae("Standard", hook, 16), places, to, "vectors of width 16, but this hook's have 32"),
        (make_sae("Standard", "blocks.9.hook_resid_post", 32), places, to, "hook='blocks.9.hook_resid_post'"),
    ]:
        with pytest.raises(CourseError, match=message):
            attribution(small_lab, sae, batch.tokens, at, of)
        assert not hooks_left(small_lab)


# --- where a concept is tried ---------------------------------------------------------------------------------------


def test_siblings_are_the_other_names_of_a_kind(lab):
    words = lab.world.lists["animal"]
    first = {}
    for row in words.rows:
        forms = [form for column in words.names for form in row[words.columns.index(column)]]
        first[row[0][0]] = {lab.encode(f" {form}")[0, 1].item() for form in forms}
    everyone = set().union(*first.values())
    for name in ("tiger", "fox"):
        assert siblings(lab, f"entity:animal:{name}") == sorted(everyone - first[name])
    assert len(everyone) > 10 and not {lab.token_strings.index(" tiger")} & set(siblings(lab, TIGER))


def test_siblings_on_any_text_are_words_of_the_list(stories_lab):
    lists, text = word_lists(), stories_lab.token_strings
    word = next(t for t in text if t[:1] == " " and sum(lists.get(o[1:]) == lists.get(t[1:], "") for o in text) > 1)
    mine = {text[i] for i in siblings(stories_lab, f"word:{word}")}
    assert word not in mine and mine
    assert mine == {t for t in text if t[:1] == " " and lists.get(t[1:]) == lists[word[1:]]} - {word}
    others = {text[i][1:] for i in siblings(stories_lab, "word_list:animals")}
    assert {lists[word] for word in others} == {*lists.values()} & {lists.get(t[1:]) for t in text} - {"animals"}

def test_what_has_no_siblings_is_refused(lab):
    for concept in ("entity:animal", "attribute:home:jungle"):
        with pytest.raises(CourseError, match=f"concept='{concept}' has no siblings"):
            siblings(lab, concept)
    with pytest.raises(CourseError, match="'entity:animal:tigr' is not known; nearest: 'entity:animal:tiger'"):
        siblings(lab, "entity:animal:tigr")


def test_a_concepts_ground_is_places_of_both_splits_and_text_without_it(lab, bench):
    g = bench.g
    for rows, split in ((g.choose, "train"), (g.score, "heldout")):
        occ = knowable(lab, occasions(lab, TIGER, 6, split, least=6), 0.5)
        last = int(occ.places.max())
        assert torch.equal(rows.tokens, occ.tokens[:, : last + 1]) and torch.equal(rows.places, occ.places)
        assert torch.equal(rows.words, occ.target) and torch.equal(rows.doc, occ.doc)
        assert rows.to.minus.tolist() == [siblings(lab, TIGER)] * len(occ.target)
        assert torch.equal(rows.only_place.nonzero()[:, 1], rows.places) and rows.only_place.sum() == len(rows.places)
    assert not g.mask[:, 0].any() and g.mask.sum() == 100
    assert torch.equal(g.clean, lab.logits(g.text)[g.mask])
    assert not (g.text == lab.token_strings.index(" tiger")).any()


def by_hand(lab, rows):
    """Advantage and probability, a row at a time and without padding."""
    found = []
    for i, place in enumerate(rows.places.tolist()):
        logits = lab.logits(rows.tokens[i : i + 1, : place + 1])[0, -1].double()
        word, against = int(rows.words[i]), rows.to.minus[i][rows.to.minus[i] >= 0]
        found.append((float(logits[word] - logits[against].mean()), float(logits.softmax(-1)[word])))
    return [pytest.approx(column, abs=1e-4) for column in zip(*found, strict=True)]


def test_answers_are_advantages_and_probabilities_under_what_is_in_force(lab, bench):
    rows = bench.g.score
    advantage, p = answers(lab, rows)
    assert [advantage.tolist(), p.tolist()] == by_hand(lab, rows) and (p > 0.5).all()
    with ablate(lab, bench.sae, bench.t.by_answer[:8]):
        less, q = answers(lab, rows)
        assert [less.tolist(), q.tolist()] == by_hand(lab, rows)
    assert (less < advantage - 0.5).all()


def test_damage_is_the_mean_kl_on_text_without_the_concept(lab, bench):
    assert damage(lab, bench.g) == pytest.approx(0, abs=1e-6)
    with steer(lab, lab.middle_hook, torch.randn(lab.d_model, generator=torch.Generator().manual_seed(0)), 1.0):
        found, now = damage(lab, bench.g), lab.logits(bench.g.text)
    kl = [float((p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum())
          for p, q in zip(bench.g.clean.double(), now[bench.g.mask].double(), strict=True)]
    assert found == pytest.approx(np.mean(kl), rel=1e-3) and found > 0.01 and len(kl) == 100


def test_rows_of_several_concepts_together_are_asked_as_each_alone(lab, bench):
    france = rows_of(lab, occasions(lab, FRANCE, 4))
    assert france.to.minus.shape[1] != bench.g.score.to.minus.shape[1]
    both = mixed(lab, [bench.g.score, france])
    for found, one, other in zip(answers(lab, both), answers(lab, bench.g.score), answers(lab, france), strict=True):
        torch.testing.assert_close(found, torch.cat([one, other]), atol=1e-4, rtol=1e-4)
    assert torch.equal(both.doc, torch.cat([bench.g.score.doc, france.doc]))


def test_asked_there_asks_for_the_other_concepts_word(lab, bench):
    france = rows_of(lab, occasions(lab, FRANCE, 4))
    moved = asked_there(france, bench.g.score)
    assert torch.equal(moved.tokens, france.tokens) and torch.equal(moved.places, france.places)
    tiger, others = lab.token_strings.index(" tiger"), siblings(lab, TIGER)
    assert bench.g.score.words.mode().values == tiger
    logits = lab.logits(france.tokens)[torch.arange(4), france.places]
    advantage, p = answers(lab, moved)
    torch.testing.assert_close(advantage.float(), logits[:, tiger] - logits[:, others].mean(1), atol=1e-4, rtol=1e-4)
    assert (p < 0.01).all()


def test_what_carries_a_concept(lab, bench, small_lab):
    names = [bench.acts.labels.names["entity"][c] if c >= 0 else "" for c in bench.acts.labels.columns["entity"]]
    assert carries(lab, bench.acts, TIGER).tolist() == [name == "animal:tiger" for name in names]
    tiger = lab.token_strings.index(" tiger")
    on = carries(lab, bench.acts, "word: tiger")
    assert torch.equal(on, bench.acts.tokens == tiger) and on.any()
    plain = harvest(small_lab, small_lab.middle_hook, 500, labels=False)
    word = next(text for text in small_lab.token_strings if text[:1] == " " and len(text) > 2)
    on = carries(small_lab, plain, f"word:{word}")
    assert torch.equal(on, plain.tokens == small_lab.token_strings.index(word)) and on.any()


# --- what is learned, and ways --------------------------------------------------------------------------------------


def test_tools_are_what_the_training_text_says(lab, bench):
    t, on = bench.t, bench.on
    assert 3 < on.sum() < 200
    torch.testing.assert_close(t.diff, bench.x[on].mean(0) - bench.x[~on].mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(t.written, bench.f[on].mean(0) - bench.f[~on].mean(0), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(t.dictionary.means, bench.f.mean(0), atol=1e-4, rtol=1e-4)
    for name, order in ((BY_WORD, t.by_word), (BY_ANSWER, t.by_answer)):
        assert sorted(order.tolist()) == list(range(512))
        assert (t.scores[name][order].diff() <= 0).all() and t.scores[name][order[0]] > 0.05
    before = torch.tensor([i + 1 < len(on) and bool(on[i + 1]) and bool(bench.table.doc[i] == bench.table.doc[i + 1])
                           for i in range(len(on))])
    oracle = leace(bench.x, torch.stack([on, before], 1))
    torch.testing.assert_close(t.eraser.project, oracle.project)
    assert t.eraser.rank == 2 and before.any()
    fires = torch.zeros(512)
    n = 0
    for row, place in zip(bench.g.choose.tokens, bench.g.choose.places.tolist(), strict=True):
        f = bench.sae.encode(lab.capture(row[None, : place + 1], lab.middle_hook)[0, 1:])
        fires, n = fires + (f > 0).sum(0), n + place
    torch.testing.assert_close(t.density, fires / n, atol=2 / n, rtol=0)


def test_settings_name_latents_by_number_or_by_score(bench):
    for name, border in ((BY_WORD, "0.2"), (BY_ANSWER, "0.05")):
        score = bench.t.scores[name]
        above = [i for i in range(512) if score[i] > float(border)]
        assert above and sorted(bench.t.latents(name, f"above {border}").tolist()) == above
        assert bench.t.latents(name, "k=3").tolist() == score.argsort(descending=True)[:3].tolist()
        assert len(bench.t.latents(name, "above 1e9")) == len(bench.t.latents(name, "k=0")) == 0


def plain_ways(lab, bench):
    """Each way by the room of interventions alone."""
    t, sae, hook = bench.t, bench.sae, lab.middle_hook
    scores, mean = t.scores[BY_ANSWER], bench.x.double().mean(0).float()
    most = scores.argsort(descending=True)[:4]
    readers = t.scores[BY_WORD].argsort(descending=True)[:4]
    diff = bench.x[bench.on].mean(0) - bench.x[~bench.on].mean(0)
    return {
        (BY_WORD, "k=4"): lambda: ablate(lab, sae, readers), (BY_ANSWER, "k=4"): lambda: ablate(lab, sae, most),
        (BY_ANSWER, "above 0.05"): lambda: ablate(lab, sae, (scores > 0.05).nonzero()[:, 0]),
        (BY_ANSWER, "k=4, mean"): lambda: ablate(lab, sae, most, mode="mean", means=bench.f.mean(0)),
        (BY_ANSWER, "k=4, resample"): lambda: ablate(lab, sae, most, mode="resample"),
        (BY_ANSWER, "k=4, without the error"): lambda: ablate(lab, sae, most, error_term=False),
        (DIFF, "1"): lambda: project_out(lab, hook, diff, towards=mean),
        (LEACE, "1"): lambda: erase(lab, hook, t.eraser),
        (LEACE, "1.5"): lambda: erase(lab, hook, t.eraser, strength=1.5),
    }


def test_each_way_is_the_plain_intervention(lab, bench):
    seen = [lab.logits(bench.g.score.tokens)]
    for (name, setting), plain in plain_ways(lab, bench).items():
        with way(lab, bench.t, name, setting)():
            found = lab.logits(bench.g.score.tokens)
        with plain():
            torch.testing.assert_close(found, lab.logits(bench.g.score.tokens), atol=2e-3, rtol=1e-3)
        assert all((found - other).abs().max() > 0.01 for other in seen), (name, setting)  # each is a way of its own
        seen.append(found)


def test_a_dose_takes_that_share(lab, bench):
    rows = bench.g.score.tokens
    x, unit = lab.capture(rows, lab.middle_hook)[:, 1:], bench.t.diff / bench.t.diff.norm()
    mean = bench.x.mean(0)
    for dose in (0.0, 0.5, 1.0, 2.0):
        with way(lab, bench.t, DIFF, f"{dose:g}")():
            now = lab.capture(rows, lab.middle_hook)[:, 1:]
        torch.testing.assert_close((now - mean) @ unit, (1 - dose) * ((x - mean) @ unit), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("name", "setting", "message"), [
    ("DifMean", "1", "name='DifMean' is not known; nearest: 'DiffMean'"), (DIFF, "k=4", "setting='k=4'"),
    (LEACE, "all", "setting='all'"), (BY_WORD, "4", "setting='4'"), (BY_WORD, "k=-1", "setting='k=-1'"),
    (BY_ANSWER, "above", "setting='above'"), (BY_ANSWER, "k=4, maen", "'maen' is not known; nearest: 'mean'"),
])
def test_no_such_way_is_one_sentence(lab, bench, name, setting, message):
    with pytest.raises(CourseError, match=message):
        way(lab, bench.t, name, setting)


def test_what_is_put_in_is_added_to_all_text(lab, bench):
    rows, t = bench.g.score.tokens, bench.t
    x = lab.capture(rows, lab.middle_hook)
    share = sum(t.written[i] * bench.sae.W_dec[i] for i in t.by_answer[:4])
    for name, setting, expected in ((DIFF, "1", t.diff), (DIFF, "2", 2 * t.diff), (BY_ANSWER, "k=4", share),
                                    (BY_WORD, "k=1", t.written[t.by_word[0]] * bench.sae.W_dec[t.by_word[0]])):
        with put_in(lab, t, name, setting)():
            added = lab.capture(rows, lab.middle_hook) - x
        torch.testing.assert_close(added[:, 1:], expected.expand_as(added[:, 1:]), atol=1e-4, rtol=1e-3)
    drawn = []
    for seed in (0, 0, 1):
        with put_in(lab, t, RANDOM, "1", seed)():
            drawn.append((lab.capture(rows, lab.middle_hook) - x)[0, 1])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert drawn[2].norm() == pytest.approx(float(t.diff.norm()), rel=1e-3)
    assert abs(torch.cosine_similarity(drawn[0], t.diff, dim=0)) < 0.5
    with pytest.raises(CourseError, match="name='latnets' is not known"):
        put_in(lab, t, "latnets", "k=1")


def test_nulls_are_as_active_as_long_and_elsewhere(lab, bench):
    t, sae, rows = bench.t, bench.sae, bench.g.score.tokens
    drawn = null_ways(lab, t, 1, 5)
    assert tuple(drawn) == NULLS and [len(each) for each in drawn.values()] == [5, 5, 5]
    latent, x = int(t.by_answer[0]), lab.capture(rows, lab.middle_hook)
    dose = sae.encode(x[:, 1:])[..., latent] * sae.W_dec[latent].norm()
    own = sae.W_dec[latent] / sae.W_dec[latent].norm()
    for name in NULLS[1:]:
        for null in drawn[name]:
            with null():
                away = x[:, 1:] - lab.capture(rows, lab.middle_hook)[:, 1:]
            torch.testing.assert_close(away.norm(dim=-1), dose, atol=1e-2, rtol=1e-3)  # where and as much as it fires
            assert (away @ own)[dose > 0].abs().max() < 0.9 * dose.max()
    others = null_ways(lab, t, 4, 6)
    chosen = t.by_answer[:4].tolist()
    for null in others["density-matched latents"]:
        latents = null.args[2].tolist()
        assert len(set(latents)) == 4 and not set(latents) & set(chosen) and (t.density[latents] > 0).all()
    again = null_ways(lab, t, 4, 6)
    for name in NULLS:
        with others[name][3](), again[name][3]():
            pass
        assert all(torch.equal(a.args[-1], b.args[-1]) for a, b in zip(others[name], again[name], strict=True))
    assert not torch.equal(null_ways(lab, t, 4, 6, seed=1)[NULLS[1]][0].args[-1], others[NULLS[1]][0].args[-1])


def test_diverted_to_their_own_rows_latents_are_ablated(lab, bench):
    chosen = bench.t.by_answer[:4]
    with divert(lab, bench.sae, chosen, bench.sae.W_dec[chosen]):
        found = answers(lab, bench.g.score)[0]
    with way(lab, bench.t, BY_ANSWER, "k=4")():
        torch.testing.assert_close(found, answers(lab, bench.g.score)[0], atol=1e-3, rtol=1e-4)
