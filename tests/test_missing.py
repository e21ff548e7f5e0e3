"""What SAEs miss: error regressions, frequency curves, splitting and absorption, against oracles and planted cases."""

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import f1_score, r2_score

from course_utils import Labels, evaluate, harvest, ready_sae, sae_latents, splice, token_losses
from course_utils.errors import CourseError
from course_utils.features import Table
from course_utils.features.absorption import absorbed_by_chance, absorption, takers
from course_utils.features.frequency import (
    class_names,
    curve_band,
    fit_curve,
    kinds_of,
    rank_correlation,
    rate,
    shuffled_correlations,
)
from course_utils.features.readings import balanced, pooled, readings, told_right
from course_utils.features.replaced import lost, reconstruct, replaced
from course_utils.features.residue import linear_share, part, residue, ridge, variance_with_bos
from course_utils.features.splitting import splitting
from course_utils.features.units import rows_of


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def organism(lab):
    return lab, ready_sae(lab, width=512), harvest(lab, lab.middle_hook, 3000, split="heldout")


# --- residues -------------------------------------------------------------------------------------------------------


def test_a_residue_is_what_the_reconstruction_lacks(organism):
    _, sae, acts = organism
    found = residue(sae, acts)
    x = acts.x[acts.pos > 0]
    torch.testing.assert_close(found.x_hat, sae.decode(sae.encode(x)))
    torch.testing.assert_close(found.x_hat + found.error, x)
    torch.testing.assert_close(found.size[:, 0], found.error.norm(dim=1) ** 2)
    assert len(found.doc) == len(acts.usable) == len(found.x)
    with pytest.raises(CourseError, match="width 128; the harvest's have 7"):
        acts_of_another_width = acts.__class__(acts.x[:, :7], acts.tokens, acts.doc, acts.pos, None, acts.hook, "x")
        residue(sae, acts_of_another_width)


def planted(n, seed, noise=1.0):
    g = generator(seed)
    w = torch.randn(6, 4, generator=generator(9))
    x = 3 + torch.randn(n, 6, generator=g) * torch.tensor([0.1, 1, 2, 3, 1, 1])
    return x, 1 + x @ w + noise * torch.randn(n, 4, generator=g)


@pytest.mark.parametrize("penalty", [0.0, 1e-3, 10.0])
def test_ridge_is_scikit_learns(penalty):
    x, y = planted(200, 0)
    fitted = ridge(x, y, penalty)
    scale = float((x - x.mean(0)).double().square().sum(0).median())
    theirs = Ridge(alpha=max(penalty * scale, 1e-9)).fit(x.double().numpy(), y.double().numpy())
    np.testing.assert_allclose(fitted.values(x).numpy(), theirs.predict(x.double().numpy()), atol=1e-3)


def test_the_linear_share_is_r2_on_the_other_split():
    (x, y), (x2, y2) = planted(300, 0), planted(400, 1)
    fitted, doc = ridge(x, y, 0.0), torch.arange(400) // 8
    found = linear_share(fitted, x2, y2, doc)
    assert found.value == pytest.approx(
        r2_score(y2.numpy(), fitted.values(x2).numpy(), multioutput="variance_weighted"), abs=1e-5)
    assert found.low < found.value < found.high and found.n == 50
    assert linear_share(ridge(x, y + 1e4, 0.0), x2, y2 + 1e4, doc).value == pytest.approx(found.value, abs=1e-3)


def test_shuffled_rows_predict_nothing_and_a_copy_predicts_all():
    (x, y), (x2, y2), doc = planted(2000, 0), planted(400, 1), torch.arange(400) // 8
    shuffled = y[torch.randperm(2000, generator=generator(3))]
    assert abs(linear_share(ridge(x, shuffled), x2, y2, doc).value) < 0.03
    assert linear_share(ridge(x, 2 * x, 0.0), x2, 2 * x2, doc).value > 0.999


def test_ridge_refuses_what_it_cannot_fit():
    x, y = planted(20, 0)
    with pytest.raises(CourseError, match="more than 6"):
        ridge(x[:6], y[:6])
    with pytest.raises(CourseError, match="20 rows and y 19"):
        ridge(x, y[:19])
    with pytest.raises(CourseError, match="penalty=-1"):
        ridge(x, y, -1.0)
    with pytest.raises(CourseError, match="finite"):
        ridge(x * float("nan"), y)


def test_a_part_of_a_harvest_keeps_what_belongs_to_its_rows(organism):
    _, sae, acts = organism
    rows = torch.tensor([0, 5, 6, 40])
    few = part(acts, rows)
    assert torch.equal(few.x, acts.x[rows]) and torch.equal(few.tokens, acts.tokens[rows])
    assert few.labels.mask("topic:animals").tolist() == acts.labels.mask("topic:animals")[rows.numpy()].tolist()
    assert len(few.usable) == int((acts.pos[rows] > 0).sum()) == len(residue(sae, few).x)


def test_variance_with_bos_is_explained_variance_with_such_rows(organism):
    _, sae, acts = organism
    found = residue(sae, acts)
    x = found.x.double()
    bos = (x.mean(0) / x.mean(0).norm() * 3 * x.norm(dim=1).mean()).expand(50, -1)
    whole, hat = torch.cat([x, bos]), torch.cat([found.x_hat.double(), bos])
    plain = 1 - (whole - hat).square().sum() / (whole - whole.mean(0)).square().sum()
    assert variance_with_bos(found, 3, 50) == pytest.approx(float(plain), abs=1e-6)
    none = 1 - found.size.sum() / (found.x - found.x.mean(0)).square().sum()
    assert variance_with_bos(found, 3, 0) == pytest.approx(float(none), abs=1e-5)
    assert variance_with_bos(found, 100, 50) > 0.999


# --- what the model makes of it -------------------------------------------------------------------------------------


def test_replacing_by_the_reconstruction_is_a_splice(organism):
    lab, sae, acts = organism
    found = replaced(lab, lab.middle_hook, reconstruct(sae), 3000)
    assert len(found.clean) == len(acts.usable) and np.array_equal(found.doc, acts.doc[acts.usable].numpy())
    assert np.array_equal(found.tokens, acts.tokens[acts.usable].numpy())
    batch = next(lab.batches(3000, "heldout"))
    keep, plain = batch.mask[:, 1:], lab.logits(batch.tokens)
    with splice(lab, sae):
        logits = lab.logits(batch.tokens)
    n = int(keep.sum())
    theirs = token_losses(logits, batch.tokens, batch.mask)[keep]
    np.testing.assert_allclose(found.changed[:n], theirs.numpy(), atol=1e-4)
    other = (plain.argmax(-1) != logits.argmax(-1))[:, 1:][keep]
    assert (found.other_choice[:n] == other.numpy()).mean() > 0.999 and 0 < found.other_choice.mean() < 0.5
    sheet = evaluate(lab, sae, 3000)
    assert found.gap.mean() == pytest.approx(sheet.ce_spliced.value - sheet.ce_clean.value, abs=1e-4)


def test_replacing_by_itself_changes_nothing_and_a_wrong_shape_is_named(organism):
    lab, _, _ = organism
    same = replaced(lab, lab.middle_hook, lambda x: x, 500)
    assert np.abs(same.gap).max() < 1e-5 and not same.other_choice.any()
    with pytest.raises(CourseError, match="keep the shape"):
        replaced(lab, lab.middle_hook, lambda x: x[:, :, :3], 500)
    with pytest.raises(CourseError, match="hook='blocks.9"):
        replaced(lab, "blocks.9.hook_resid_post", lambda x: x, 500)


def test_what_is_lost_is_what_evaluate_says_and_seeds_are_averaged(organism):
    lab, sae, _ = organism
    one, other = evaluate(lab, sae, 2000), evaluate(lab, ready_sae(lab, width=1024), 2000)
    found = lost(one)
    assert found.signal.value == pytest.approx(1 - one.explained_variance.value)
    assert found.signal.low < found.signal.value < found.signal.high
    assert found.computation.value == pytest.approx(1 - one.ce_recovered_mean.value)
    assert found.nats.value == pytest.approx(one.ce_spliced.value - one.ce_clean.value)
    both = lost(one, other)
    for name in ("signal", "computation", "nats"):
        alone = getattr(lost(one), name).value, getattr(lost(other), name).value
        assert getattr(both, name).value == pytest.approx(np.mean(alone))
    with pytest.raises(CourseError, match="same text"):
        lost(one, evaluate(lab, sae, 1000))


# --- readings -------------------------------------------------------------------------------------------------------


def test_readings_add_up(organism):
    _, sae, acts = organism
    found = readings(sae, acts)
    torch.testing.assert_close(found["reconstruction"] + found["error"], found["raw"])
    np.testing.assert_allclose(found["latents"] @ sae.W_dec.numpy() + sae.b_dec.numpy(), found["reconstruction"],
                               atol=1e-3)


def told(n, seed, signal):
    g = generator(seed)
    on = torch.rand(n, 1, generator=g) < 0.2
    x = torch.randn(n, 5, generator=g)
    x[:, 0] += signal * on[:, 0]
    return x, Table(("m:p",), on, torch.arange(n) // 10)


def test_balanced_accuracy_is_scikit_learns_and_guessing_gives_a_half():
    from sklearn.metrics import balanced_accuracy_score

    from course_utils import linear_probes

    (x, y), (x2, z) = told(2000, 0, 2.0), told(1000, 1, 2.0)
    sums = told_right(x, y, x2, z, (1e-3,))
    assert sums.shape == (100, 1, 4) and sums[..., 1].sum() == z.on.sum() and sums[..., 3].sum() == (~z.on).sum()
    says = linear_probes(x, y, penalties=(1e-3,)).values(x2) > torch.logit(y.on.double().mean(0))
    assert balanced(sums.sum(0))[0] == pytest.approx(balanced_accuracy_score(z.on[:, 0], says[:, 0]))
    assert balanced(sums.sum(0))[0] > 0.75
    blind = told_right(*told(2000, 2, 0.0), *told(1000, 3, 0.0), (1e-3,))
    assert abs(balanced(blind.sum(0))[0] - 0.5) < 0.06
    with pytest.raises(CourseError, match="1 column"):
        told_right(x, y, x2, Table(("a", "b"), z.on.expand(-1, 2), z.doc))


def test_pooled_is_the_mean_of_each_runs_accuracy():
    tables = [told_right(*told(500, s, 1.0), *told(300, 9, 1.0), (1e-3,))[:, 0] for s in range(3)]
    sums, mean = pooled(tables)
    assert sums.shape == (30, 12)
    assert mean(sums.sum(0)) == pytest.approx(np.mean([balanced(t.sum(0)) for t in tables]))
    assert mean(np.stack([sums.sum(0)] * 2)).shape == (2,)


def test_rows_of_sparse_and_dense_units_agree():
    x = torch.randn(9, 4, generator=generator())
    rows = torch.tensor([1, 7])
    np.testing.assert_array_equal(rows_of(csc_array(x.numpy()), rows).toarray(), rows_of(x, rows))


# --- frequency ------------------------------------------------------------------------------------------------------


def test_rates_are_per_million():
    on = torch.zeros(1000, 2, dtype=torch.bool)
    on[:3, 0] = True
    np.testing.assert_allclose(rate(Table(("a:x", "b:y:z"), on, torch.arange(1000))), [3000, 0])
    assert kinds_of(("a:x", "b:y:z")) == ["a", "b"]


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    x = np.exp(rng.normal(size=40))
    y = np.round(np.log(x) + rng.normal(size=40), 0)  # ties
    found = rank_correlation(x, y)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    theirs = [spearmanr(x[p], y[p]).statistic for p in np.random.default_rng(0).integers(40, size=(1000, 40))]
    np.testing.assert_allclose(found[1:3], np.quantile(theirs, [0.025, 0.975]), atol=1e-6)


def test_within_kinds_a_difference_between_kinds_says_nothing():
    rng = np.random.default_rng(1)
    kind = np.repeat([0, 1], 100)
    x, y = rng.normal(size=200) + 10 * kind, rng.normal(size=200) + 10 * kind
    assert rank_correlation(x, y).value > 0.6
    within = rank_correlation(x, y, kind)
    assert within.low < 0 < within.high
    by_kind = [spearmanr(x[kind == g], y[kind == g]).statistic for g in (0, 1)]  # of one size: their mean
    assert within.value == pytest.approx(np.mean(by_kind), abs=1e-9)


def test_the_package_and_the_exercise_correlate_alike():
    from course_utils.exercises.lessons.missing_rare import within

    rng = np.random.default_rng(2)
    kind = rng.choice(list("abc"), 60, p=[0.6, 0.3, 0.1])
    x, y = np.exp(rng.normal(size=60)), rng.integers(0, 6, 60) / 5
    assert rank_correlation(x, y, kind).value == pytest.approx(float(within.answer(x, y, kind)), abs=1e-9)


def test_shuffling_within_kinds_keeps_what_each_kind_has():
    rng = np.random.default_rng(3)
    kind = np.repeat(["a", "b"], [30, 50])
    x, y = rng.normal(size=80), rng.normal(size=80)
    null = shuffled_correlations(x, y, kind, n=500)
    assert len(null) == 500 and abs(null.mean()) < 0.02 and null.std() == pytest.approx(1 / np.sqrt(79), rel=0.15)
    ramp = np.arange(80.0)
    assert rank_correlation(ramp, ramp).value > shuffled_correlations(ramp, ramp, n=500).max()


def test_correlations_refuse_what_has_no_order():
    with pytest.raises(CourseError, match="4 concepts are too few"):
        rank_correlation([1, 2, 3, 4], [1, 2, 3, 4])
    with pytest.raises(CourseError, match="all values"):
        rank_correlation([1, 2, 3, 4, 5], [0] * 5)
    with pytest.raises(CourseError, match="equally long"):
        rank_correlation([1, 2, 3, 4, 5], [1, 2, 3, 4])


def test_the_curve_finds_what_was_planted():
    rates = np.geomspace(10, 1e5, 200)
    truth = 0.9 / (1 + (500 / rates) ** 1.3)
    found = fit_curve(rates, truth + np.random.default_rng(0).normal(0, 0.02, 200))
    assert found.top == pytest.approx(0.9, abs=0.02) and found.slope == pytest.approx(1.3, abs=0.1)
    assert found.half == pytest.approx(500, rel=0.1) and found.values([found.half])[0] == pytest.approx(found.top / 2)
    _, band, rise = curve_band(rates, truth + np.random.default_rng(1).normal(0, 0.1, 200), rates, n_boot=50)
    inside = (band[0] <= truth) & (truth <= band[1])
    assert rise.low < truth[-1] - truth[0] < rise.high and inside.mean() > 0.8 and rise.n == 200
    with pytest.raises(CourseError, match="positive"):
        fit_curve([0, 1, 2, 3, 4], [0, 0.1, 0.2, 0.3, 0.4])


# --- splitting and absorption ---------------------------------------------------------------------------------------


def fruit(n=200):
    """A world by hand: latent 0 fires on fruit but for oranges, which latent 1 has; latent 2 fires on everything."""
    word = torch.arange(n) % 10  # 0..3 are fruit, 3 is the orange
    is_fruit = word < 4
    f = torch.zeros(n, 4)
    f[is_fruit & (word != 3), 0] = 2.0
    f[word == 3, 1] = 2.0
    f[:, 2] = 1.0
    decoder = torch.tensor([[1.0, 0, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    table = Table(("entity:fruit",), is_fruit[:, None], torch.arange(n) // 10)
    return f, decoder, table, word


@pytest.mark.parametrize("form", [lambda f: f, lambda f: csc_array(f.numpy())], ids=["dense", "sparse"])
def test_absorption_finds_the_orange(form):
    f, decoder, table, word = fruit()
    direction = torch.tensor([[1.0, 0.2, 0, 0]])
    found = absorption(form(f), table, form(f), table, table.on, direction, decoder, gain=0.3, aligned=1.0)
    assert found.main == ((0,),)  # the orange's latent would add .25 - too little at this gain
    assert torch.equal(found.missed[:, 0], word == 3)
    assert found.absorber[:, 0].unique().tolist() == [-1, 1] and torch.equal(found.absorbed[:, 0], word == 3)
    assert found.rate().value == 0.25 and found.rate("missed", "entity:fruit").value == 0.25
    assert found.rate("known").value == 1.0


def test_with_a_small_gain_the_orange_is_a_split_and_nothing_is_missed():
    f, decoder, table, _ = fruit()
    found = absorption(f, table, f, table, table.on, torch.tensor([[1.0, 0.2, 0, 0]]), decoder)
    assert found.main == ((0, 1),) and not found.missed.any()


def test_what_the_probe_does_not_know_is_not_counted_and_another_direction_absorbs_nothing():
    f, decoder, table, word = fruit()
    says = table.on & (word != 3)[:, None]
    assert absorption(f, table, f, table, says, torch.tensor([[1.0, 0, 0, 0]]), decoder, gain=0.3).missed.sum() == 0
    other = absorption(f, table, f, table, table.on, torch.tensor([[0.0, 0, 0, 1.0]]), decoder, gain=0.3)
    assert other.missed.sum() == 20 and not other.absorbed.any()


def test_chance_gives_each_class_the_direction_of_another():
    f, decoder, table, word = fruit()
    both = Table(("entity:fruit", "entity:tool"), torch.stack([table.on[:, 0], word == 7], 1), table.doc)
    f[:, 3] = (word == 7).float()
    own = torch.tensor([[1.0, 0.2, 0, 0], [0, 0, 0, 1.0]])
    found = absorption(f, both, f, both, both.on, own, decoder, gain=0.3, aligned=1.0)
    assert found.main == ((0,), (3,)) and found.rate().value == 0.2
    assert absorbed_by_chance(found, csc_array(f.numpy()), own, decoder, n=4, aligned=1.0).tolist() == [0.0] * 4
    dealt = absorbed_by_chance(found, f, own.flip(0), decoder, n=4, aligned=1.0)  # the wrong way round is right
    assert dealt.tolist() == [0.2] * 4
    with pytest.raises(CourseError, match="1 class"):
        absorbed_by_chance(absorption(f, table, f, table, table.on, own[:1], decoder), f, own[:1], decoder)


def test_takers_ask_for_half_and_for_a_near_direction():
    decoder = torch.eye(4)
    f = torch.tensor([[1.0, 0, 0, 0], [1.0, 1.1, 0, 0], [0, 0, 5.0, 0], [0, 0, 0, 0]])
    assert takers(f, decoder, torch.tensor([1.0, 1.0, 0, 0]), share=0.5, aligned=1.0).tolist() == [0, 1, -1, -1]
    assert takers(f, decoder, torch.tensor([1.0, 1.0, 0, 0]), share=0.6, aligned=1.0).tolist() == [0, -1, -1, -1]
    assert takers(f, decoder, torch.tensor([1.0, 1.0, 0, 0]), share=0.5, aligned=1.5).tolist() == [-1] * 4


def test_main_latents_are_the_best_union_by_scikit_learn():
    g = generator(4)
    f = torch.rand(500, 12, generator=g) * (torch.rand(500, 12, generator=g) < 0.1)
    on = (f[:, 3] > 0) | (f[:, 7] > 0) | (torch.rand(500, generator=g) < 0.02)
    table = Table(("m:p",), on[:, None], torch.arange(500) // 10)
    (main,) = absorption(f, table, f, table, table.on, torch.ones(1, 4), torch.ones(12, 4)).main
    assert set(main) == {3, 7} and main[0] == int(np.argmax([f1_score(on, f[:, j] > 0) for j in range(12)]))
    nowhere = table._replace(on=torch.zeros_like(table.on))
    with pytest.raises(CourseError, match="no training token"):
        absorption(f, nowhere, f, table, table.on, torch.ones(1, 4), torch.ones(12, 4))


def test_absorption_refuses_what_does_not_fit():
    f, decoder, table, _ = fruit()
    with pytest.raises(CourseError, match="shape of the held-out classes"):
        absorption(f, table, f, table, table.on[:10], torch.ones(1, 4), decoder)
    with pytest.raises(CourseError, match="4 latents"):
        absorption(f, table, f, table, table.on, torch.ones(1, 4), decoder[:3])
    nothing = absorption(f, table, f, table, torch.zeros_like(table.on), torch.ones(1, 4), decoder)
    with pytest.raises(CourseError, match="two documents"):
        nothing.rate()


def test_classes_are_named_by_kind():
    labels = Labels.from_documents([{"entity": ["fruit:apple", "fruit:pear", "tool:saw", None], "topic": ["a"] * 4}])
    assert class_names(labels, "entity") == {"entity:fruit", "entity:tool"}
    assert class_names(labels, "entity", 2) == {"entity:fruit"} and class_names(labels, "topic") == {"topic:a"}
    with pytest.raises(CourseError, match="entity"):
        class_names(labels, "entitty")


def test_events_list_each_absorbed_token_once():
    f, decoder, table, word = fruit()
    found = absorption(f, table, f, table, table.on, torch.tensor([[1.0, 0.2, 0, 0]]), decoder, gain=0.3, aligned=1.0)
    assert found.events() == [(row, 0, 1) for row in (word == 3).nonzero()[:, 0].tolist()]


def test_splitting_finds_children_that_point_and_fire_the_same_way():
    narrow = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    wide = torch.tensor([[1.0, 0.1, 0], [1.0, -0.1, 0], [0.1, 2.0, 0], [0, 0, 1.0], [0, 1.0, 0.1]])
    a, b = torch.zeros(6, 2), torch.zeros(6, 5)
    a[:4, 0] = 1.0
    a[4:, 1] = 1.0
    b[:2, 0] = b[2:4, 1] = b[4:, 2] = b[:, 3] = 1.0
    b[:4, 4] = 1.0  # points the second one's way, but fires with the first
    found = splitting(narrow, wide, csc_array(a.numpy()), csc_array(b.numpy()))
    assert found.parent.tolist() == [0, 0, 1, -1, -1] and found.children.tolist() == [2, 1]
    torch.testing.assert_close(found.inside[:3], torch.ones(3))
    assert found.inside[4] == 0
    with pytest.raises(CourseError, match="same activations"):
        splitting(narrow[:, :2], wide, a, b)


def test_a_dictionary_is_its_own_parent(organism):
    _, sae, acts = organism
    f = sae_latents(sae, acts)
    found = splitting(sae.W_dec, sae.W_dec, f, f)
    fires = torch.from_numpy(np.asarray((f > 0).sum(0)).ravel() > 0)
    assert torch.equal(found.parent[fires], torch.arange(512)[fires])
