"""Agreement against published examples, scikit-learn, nltk, and raters whose agreement was planted."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from course_utils.errors import CourseError
from course_utils.evidence import Estimate, agreement, cohen_kappa, krippendorff_alpha

# Krippendorff's own example (Content Analysis, 2004): four observers, twelve units, gaps.
GAP = None
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, GAP, GAP, GAP],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, GAP, 3],
    [GAP, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, GAP],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, GAP],
]


@pytest.mark.parametrize(("kind", "published"), [("nominal", 0.743), ("interval", 0.849)])
def test_alpha_is_krippendorffs_in_his_own_example(kind, published):
    assert krippendorff_alpha(OBSERVERS, kind=kind).value == pytest.approx(published, abs=5e-4)


def test_nan_is_a_gap_too():
    holes = [[math.nan if label is None else float(label) for label in row] for row in OBSERVERS]
    assert krippendorff_alpha(holes) == krippendorff_alpha(OBSERVERS)


def watched(monkeypatch, picked):
    """Let resamples be these rows, and return the list into which their statistics go."""
    seen = []

    def keep(value, replicates, *_):
        seen.append(replicates)
        return Estimate(0.0, 0.0, 0.0, 1)

    monkeypatch.setattr(agreement, "resampled", lambda sums, n, rng: np.stack([sums[rows].sum(0) for rows in picked]))
    monkeypatch.setattr(agreement, "interval", keep)
    return seen


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
def test_kappa_is_scikit_learns_also_in_resamples(weights, monkeypatch):
    rng = np.random.default_rng(0)
    a = rng.integers(4, size=60)
    b = np.where(rng.random(60) < 0.6, a, rng.integers(4, size=60))
    assert cohen_kappa(a, b, weights=weights).value == pytest.approx(cohen_kappa_score(a, b, weights=weights))
    picked = rng.integers(60, size=(5, 60))
    seen = watched(monkeypatch, picked)
    cohen_kappa(a, b, weights=weights, n_boot=5)
    assert seen[0] == pytest.approx([cohen_kappa_score(a[rows], b[rows], weights=weights) for rows in picked])


@pytest.mark.parametrize("kind", ["nominal", "interval"])
def test_alpha_in_resamples_is_alpha_of_the_resampled_items(kind, monkeypatch):
    rng = np.random.default_rng(1)
    truth = rng.integers(3, size=40)
    ratings = [np.where(rng.random(40) < 0.7, truth, rng.integers(3, size=40)).tolist() for _ in range(3)]
    ratings[1][4] = ratings[2][7] = None
    picked = rng.integers(40, size=(4, 40))
    expected = [krippendorff_alpha([[row[i] for i in rows] for row in ratings], kind=kind).value for rows in picked]
    seen = watched(monkeypatch, picked)
    krippendorff_alpha(ratings, kind=kind, n_boot=4)
    assert seen[0] == pytest.approx(expected)


def test_the_interval_covers_what_was_planted_about_as_often_as_it_says():
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.integers(4, size=150)
        a, b = (np.where(rng.random(150) < 0.8, truth, rng.integers(4, size=150)) for _ in range(2))
        found = cohen_kappa(a, b, n_boot=300)
        covered += found.low <= 0.64 <= found.high  # both keep the truth with probability .8, else it is chance
    assert 50 <= covered <= 60


@given(st.lists(st.tuples(*[st.sampled_from("abc")] * 2), min_size=30, max_size=60), st.permutations("abc"))
@settings(max_examples=30, deadline=None)
def test_names_do_not_matter_nor_does_the_order_of_raters(pairs, names):
    pairs += list(zip("abc", "bca", strict=True)) + [("a", "a"), ("b", "b"), ("c", "c")]
    a, b = zip(*pairs, strict=True)
    renamed = dict(zip("abc", names, strict=True))
    other = [[renamed[x] for x in side] for side in (a, b)]
    assert cohen_kappa(a, b, n_boot=50).value == pytest.approx(cohen_kappa(*other, n_boot=50).value)
    assert krippendorff_alpha([a, b], n_boot=50).value == pytest.approx(krippendorff_alpha([b, a], n_boot=50).value)


def test_full_agreement_is_one_and_blind_dealing_is_nought():
    rng = np.random.default_rng(2)
    a = rng.integers(3, size=300)
    assert cohen_kappa(a, a)[:3] == krippendorff_alpha([a, a])[:3] == (1, 1, 1)
    for found in (cohen_kappa(a, rng.permutation(a)), krippendorff_alpha([a, rng.permutation(a)])):
        assert found.low < 0 < found.high and abs(found.value) < 0.1


def test_bad_input_is_named():
    with pytest.raises(CourseError, match="a has 3, b has 2"):
        cohen_kappa([1, 2, 3], [1, 2])
    with pytest.raises(CourseError, match=r"used 1 label\(s\) on 2 items"):
        cohen_kappa([1, 1, 2], [1, 1, None])
    with pytest.raises(CourseError, match="weights='square' is not known"):
        cohen_kappa([1, 2], [1, 2], weights="square")
    with pytest.raises(CourseError, match=r"ratings has 1 row\(s\)"):
        krippendorff_alpha([[1, 2]])
    with pytest.raises(CourseError, match="1 items have two ratings"):
        krippendorff_alpha([[1, 2], [1, None]])
    with pytest.raises(CourseError, match="needs numbers"):
        krippendorff_alpha([["a", "b"], ["a", "b"]], kind="interval")
    with pytest.raises(CourseError, match="kind='ordinal' is not known"):
        krippendorff_alpha([[1, 2], [1, 2]], kind="ordinal")
    with pytest.raises(CourseError, match="hold one label only"):
        cohen_kappa(["a", "a", "a", "b"], ["a", "a", "a", "b"])
