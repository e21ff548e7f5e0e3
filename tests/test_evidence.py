"""Intervals, effects and p-values against scipy, statsmodels, enumeration and planted truths."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests

import course_utils.evidence.estimates as estimates
from course_utils.errors import CourseError
from course_utils.evidence import (
    Estimate,
    bootstrap,
    bootstrap_ratio,
    bootstrap_sums,
    calibrate,
    difference,
    holm,
    null_p,
    paired_difference,
    permutation_null,
    permutation_test,
)


def clustered(rng, n_docs=40, size=12, within=1.0):
    """Values whose documents differ, so that tokens of one document are alike."""
    docs = np.repeat(np.arange(n_docs), size)
    return rng.normal(size=n_docs)[docs] + within * rng.normal(size=len(docs)), docs


@pytest.mark.parametrize(("estimate", "text"), [
    (Estimate(0.92134, 0.9151, 0.9272, 80), "0.921 [0.915, 0.927]"),
    (Estimate(-0.0001, -0.05, 0.05, 80), "0.00 [-0.05, 0.05]"),
    (Estimate(1234.5, 1200.0, 1300.0, 80), "1234 [1200, 1300]"),
    (Estimate(3e-7, 2e-7, 4e-7, 80), "3e-07 [2e-07, 4e-07]"),
    (Estimate(16.0, 16.0, 16.0, 80), "16 [16, 16]"),
])
def test_estimates_read_well(estimate, text):
    assert str(estimate) == f"{estimate}" == text


def test_mean_interval_agrees_with_scipy():
    x = np.random.default_rng(1).gamma(2, size=150)
    ours = bootstrap(x, n_boot=8000)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=8000, method="percentile", rng=2).confidence_interval
    spread = theirs.high - theirs.low
    assert ours.value == pytest.approx(x.mean()) and ours.n == 150
    assert abs(ours.low - theirs.low) < 0.04 * spread and abs(ours.high - theirs.high) < 0.04 * spread


def test_two_sample_interval_agrees_with_scipy():
    rng = np.random.default_rng(3)
    a, b = rng.normal(1, 2, size=80), rng.normal(0, 1, size=120)
    ours = difference(a, b, n_boot=8000)
    theirs = stats.bootstrap((a, b), lambda p, q, axis=-1: p.mean(axis) - q.mean(axis), n_resamples=8000,
                             method="percentile", rng=4).confidence_interval
    spread = theirs.high - theirs.low
    assert ours.value == pytest.approx(a.mean() - b.mean()) and ours.n == 80
    assert abs(ours.low - theirs.low) < 0.04 * spread and abs(ours.high - theirs.high) < 0.04 * spread


def test_groups_equal_a_slow_obvious_loop():
    """Drawing whole documents in a loop gives the spread that the matrix product gives."""
    x, docs = clustered(np.random.default_rng(5))
    x, docs = x[:-7], docs[:-7]  # documents of unequal length
    rng, slow = np.random.default_rng(6), []
    for _ in range(3000):
        slow.append(np.concatenate([x[docs == d] for d in rng.integers(40, size=40)]).mean())
    fast = bootstrap(x, docs, n_boot=6000)
    low, high = np.quantile(slow, [0.025, 0.975])
    assert fast.n == 40
    assert abs(fast.low - low) < 0.05 * (high - low) and abs(fast.high - high) < 0.05 * (high - low)
    naive = bootstrap(x)
    assert fast.high - fast.low > 1.8 * (naive.high - naive.low)


def test_a_function_sees_the_same_draws_as_the_matrix_product():
    x, docs = clustered(np.random.default_rng(7), n_docs=15)
    names = np.array([f"doc {d:02}" for d in docs])
    for name, function in (("mean", np.mean), ("std", lambda v: np.std(v, ddof=1))):
        np.testing.assert_allclose(bootstrap(1e6 + x, docs, name), bootstrap(1e6 + x, names, function), rtol=1e-9)


def test_rows_stay_together_for_a_correlation():
    rng = np.random.default_rng(8)
    x = rng.normal(size=200)
    pairs = np.stack([x, x + rng.normal(size=200)], axis=1)
    est = bootstrap(pairs, statistic=lambda rows: np.corrcoef(rows.T)[0, 1], n_boot=500)
    fisher = np.tanh(np.arctanh(est.value) + np.array([-1.96, 1.96]) / np.sqrt(197))
    np.testing.assert_allclose([est.low, est.high], fisher, atol=0.04)


def test_chunks_change_nothing(monkeypatch):
    x, docs = clustered(np.random.default_rng(9))
    whole = bootstrap(x, docs, seed=3)
    monkeypatch.setattr(estimates, "_CHUNK", 100)
    # Sums of other lengths may be added in another order, so the last bit is the processor's business.
    assert bootstrap(x, docs, seed=3) == pytest.approx(whole, rel=1e-12)
    assert bootstrap(x, docs, seed=4) != pytest.approx(whole, rel=1e-12)


def test_a_ratio_weights_documents_by_their_length():
    losses, tokens = np.array([10.0, 1.0, 4.0]), np.array([10.0, 2.0, 2.0])
    est = bootstrap_ratio(losses, tokens)
    assert est.value == pytest.approx(15 / 14)
    assert est == bootstrap_sums(np.stack([losses, tokens], 1), lambda s: s[..., 0] / s[..., 1])
    assert est.low >= 0.5 and est.high <= 2.0  # the most extreme documents bound every resample


def test_torch_tensors_are_read_in_any_precision():
    x = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.bfloat16, requires_grad=True)
    assert bootstrap(x, torch.tensor([0, 0, 1, 1])) == bootstrap([1, 2, 4, 8], [0, 0, 1, 1])


def test_95_percent_intervals_cover_the_truth_95_percent_of_the_time():
    """300 planted draws; a binomial of .95 strays by .025 (two standard errors), the percentile method by .01."""
    covered = []
    for seed in range(300):
        x, docs = clustered(np.random.default_rng(1000 + seed), n_docs=60, size=5)
        est = bootstrap(x, docs, n_boot=400, seed=seed)
        covered.append(est.low <= 0 <= est.high)
    assert 0.915 <= np.mean(covered) <= 0.985


def test_paired_differences_cancel_what_pairs_share():
    rng = np.random.default_rng(10)
    shared, docs = clustered(rng, within=0.0)
    a, b = shared + 0.5 + 0.1 * rng.normal(size=len(docs)), shared
    est = paired_difference(a, b, docs)
    assert est.low < 0.5 < est.high and est.high - est.low < 0.05
    assert paired_difference(b, a, docs).value == pytest.approx(-est.value)


A, B = [1.2, 0.4, 2.2, 1.9, 0.3, 1.1, 0.2], [0.9, 0.6, 1.0, 0.1, 0.2, 0.8, 0.5]


def test_sign_flips_are_enumerated_when_few():
    d = np.subtract(A, B)
    flips = np.array([np.mean(d * s) for s in itertools.product([1, -1], repeat=7)])
    assert permutation_test(A, B, alternative="greater") == pytest.approx((flips >= d.mean() - 1e-12).mean())
    assert permutation_test(A, B) == pytest.approx((np.abs(flips) >= abs(d.mean()) - 1e-12).mean())
    np.testing.assert_allclose(np.sort(permutation_null(A, B)), np.sort(flips), atol=1e-12)


def test_exchanges_between_samples_are_enumerated_when_few():
    pool, a, b = np.array(A[:5] + B[:4]), A[:5], B[:4]
    means = [np.mean(pool[list(c)]) - np.mean(np.delete(pool, c)) for c in itertools.combinations(range(9), 5)]
    expected = np.mean(np.array(means) >= np.mean(a) - np.mean(b) - 1e-12)
    assert permutation_test(a, b, paired=False, alternative="greater") == pytest.approx(expected)


def test_random_permutations_come_near_the_exact_p_and_never_reach_zero():
    exact = permutation_test(A, B)
    assert permutation_test(A, B, n=127) == pytest.approx(exact, abs=0.1)  # 127 < 2**7, hence at random
    far = np.arange(30.0)
    assert permutation_test(far + 100, far, n=999, alternative="greater") == pytest.approx(1 / 1000)


def test_a_documents_pairs_flip_together():
    x, docs = clustered(np.random.default_rng(12), n_docs=8, size=5)
    x, docs = x[:-2], docs[:-2]
    sums = np.array([x[docs == d].sum() for d in range(8)])
    flips = np.array([np.dot(sums, s) for s in itertools.product([1, -1], repeat=8)]) / len(x)
    p = permutation_test(x, np.zeros_like(x), groups=docs)
    assert p == pytest.approx((np.abs(flips) >= abs(x.mean()) - 1e-12).mean())


def planted(paired, groups=False):
    def test(rng, effect):
        if groups:
            x, docs = clustered(rng, n_docs=20, size=6)
            return permutation_test(x + effect, np.zeros_like(x), groups=docs if groups == "told" else None, n=199)
        a, b = rng.exponential(size=(2, 20))
        return permutation_test(a + effect, b, paired=paired, n=199)
    return test


@pytest.mark.parametrize(("paired", "groups"), [(True, False), (False, False), (True, "told")])
def test_false_positives_are_as_rare_as_promised_and_effects_are_found(paired, groups):
    """At 2000 draws a rate of .05 strays by .015 (three standard errors); at 400 it passes .07 one time in 30."""
    assert calibrate(planted(paired, groups), draws=2000)[0.0].value == pytest.approx(0.05, abs=0.015)
    power = calibrate(planted(paired, groups), effects=(0.2, 0.6, 1.5), draws=100)
    assert power[0.2].value < power[0.6].value < power[1.5].value and power[1.5].value >= 0.9


def test_forgetting_the_documents_is_caught_by_calibration():
    assert calibrate(planted(True, "forgotten"), draws=200)[0.0].low > 0.15


def test_p_against_drawn_nulls_counts_ranks():
    effect = Estimate(5.0, 4.0, 6.0, 10)
    assert null_p(effect, np.arange(10), "greater") == pytest.approx(6 / 11)  # 5..9 are as high
    assert null_p(effect, np.arange(10), "less") == pytest.approx(7 / 11)  # 0..5 are as low
    assert null_p(effect, np.full(5, 1.0)) == pytest.approx(1 / 6)
    assert null_p(effect, np.full(99, 1.0), "two-sided") == pytest.approx(2 / 100)


def test_p_against_an_estimate_is_a_normal_test():
    effect, null = Estimate(1.0, 0.6, 1.4, 50), Estimate(0.3, 0.0, 0.6, 50)
    z = 0.7 / (np.hypot(0.8, 0.6) / (2 * stats.norm.ppf(0.975)))
    assert null_p(effect, null) == pytest.approx(stats.norm.sf(z))
    assert null_p(effect, null, "two-sided") == pytest.approx(2 * stats.norm.sf(z))
    assert null_p(effect, null, "less") == pytest.approx(stats.norm.cdf(z))


def test_holm_agrees_with_statsmodels_and_the_definition():
    p = np.array([0.04, 0.001, 0.03, 0.2, 0.012])
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    order, steps = np.argsort(p), np.array([5, 4, 3, 2, 1])
    expected = np.minimum(1, np.maximum.accumulate(p[order] * steps))
    np.testing.assert_allclose(holm(p)[order], expected)
    assert holm(dict(zip("abcde", p, strict=True)))["b"] == pytest.approx(0.005)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: bootstrap([]), "values is empty"),
    (lambda: bootstrap([1.0, float("nan")]), "values holds 1 NaN or infinite among 2"),
    (lambda: bootstrap([1.0, None]), "values holds 1 NaN"),
    (lambda: bootstrap(["many", "words"]), "values must be numbers"),
    (lambda: bootstrap([[1, 2], [3, 4]]), "values must have 1 dimension"),
    (lambda: bootstrap([1, 2, 3], groups=[0, 1]), "values has 3, groups has 2"),
    (lambda: bootstrap([1, 2, 3], groups=[0, 0, 0]), "1 group gives no interval"),
    (lambda: bootstrap([1, 2, 3], statistic="meen"), "nearest: 'mean'"),
    (lambda: bootstrap([1, 2, 3], level=95), "level=95 must lie between 0 and 1"),
    (lambda: bootstrap([1, 2, 3], n_boot=0), "n_boot=0 must be at least 1"),
    (lambda: bootstrap_ratio([1, 2], [1, 2, 3]), "num_per_group has 2, den_per_group has 3"),
    (lambda: bootstrap_ratio([1, 2], [0, 1]), "NaN or infinite in"),
    (lambda: bootstrap_sums([[1.0, 2.0], [3.0, 4.0]], lambda s: s[0]), "statistic must map sums"),
    (lambda: paired_difference([1, 2], [1, 2, 3]), "a has 2, b has 3"),
    (lambda: permutation_test([1, 2], [1]), "a has 2, b has 1"),
    (lambda: permutation_test([1, 2], [1], paired=False, groups=[0, 1]), "groups needs paired=True"),
    (lambda: permutation_test([1, 2], [3, 4], alternative="bigger"), "alternative='bigger' is not known"),
    (lambda: permutation_test([1, 2], [3, 4], n=0), "n=0 must be at least 1"),
    (lambda: null_p(Estimate(1, 0, 2, 9), []), "null is empty"),
    (lambda: holm([0.1, 1.2]), "pvalues must lie between 0 and 1"),
    (lambda: calibrate(lambda rng, effect: 1.0, draws=0), "draws=0 must be at least 1"),
])
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(CourseError) as error:
        call()
    assert words in str(error.value) and "\n" not in str(error.value)
