"""Scores of units against scikit-learn's, and what is chosen on one split and scored on another."""

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array
from sklearn.metrics import f1_score, precision_recall_curve, precision_score, recall_score, roc_auc_score

from course_utils.errors import CourseError
from course_utils.features import (
    Table,
    best_units,
    concept_f1,
    f1_difference,
    mean_f1,
    score_detectors,
    score_units,
    shuffled_table,
)

N, C = 400, 6


def table(seed, n=N):
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(n, C, generator=generator) < torch.tensor([0.5, 0.2, 0.1, 0.05, 0.02, 0.3])
    on[:3] = True  # every concept is there
    on[3:6] = False
    return Table(tuple(f"kind:{j}" for j in range(C - 1)) + ("other:x",), on, torch.arange(n) // 10)


def units(seed, on):
    """Return dense, tied, sparse, negative, constant and zero units, some of which know a concept."""
    x = torch.randn(len(on), 9, generator=torch.Generator().manual_seed(seed))
    x[:, 0] += 2.0 * on[:, 0]
    x[:, 1] = (x[:, 1] + on[:, 1]).round()  # many ties
    x[:, 2] = torch.relu(x[:, 2] - 1 + 3.0 * on[:, 2])  # mostly zero
    x[:, 3] = torch.relu(x[:, 3] - 1.5).round(decimals=1)
    x[:, 4] = -x[:, 2]
    x[:, 5] = 1.5
    x[:, 6] = 0.0
    x[:, 7] = torch.where(x[:, 7].abs() < 1, 0.0, x[:, 7])  # zeros between negative and positive values
    return x


SPLITS = [(units(seed, table(seed).on), table(seed)) for seed in (0, 1)]


def sparse(x):
    return csc_array(x.numpy())


@pytest.fixture(params=["dense", "sparse"])
def found(request):
    (xa, y), (xb, z) = SPLITS
    form = sparse if request.param == "sparse" else lambda x: x
    return score_units(form(xa), y, form(xb), z)


def test_aurocs_are_scikit_learns(found):
    for (x, t), cells in zip(SPLITS, (found.train, found.heldout), strict=True):
        theirs = [[roc_auc_score(t.on[:, c], x[:, u]) for c in range(C)] for u in range(x.shape[1])]
        np.testing.assert_allclose(cells.auroc, theirs, atol=1e-6)


def test_the_threshold_is_the_best_of_scikit_learns_curve(found):
    x, t = SPLITS[0]
    for u in range(x.shape[1]):
        for c in range(C):
            precision, recall, thresholds = precision_recall_curve(t.on[:, c], x[:, u])
            f1 = 2 * precision * recall / (precision + recall).clip(1e-12)
            assert found.train.f1[u, c] == pytest.approx(f1.max(), abs=1e-6)
            best = thresholds[np.flatnonzero(f1[:-1] >= f1.max() - 1e-12)]
            assert float(found.threshold[u, c]) in best.astype(np.float32)


def test_scores_at_the_threshold_are_scikit_learns(found):
    for (x, t), cells in zip(SPLITS, (found.train, found.heldout), strict=True):
        for u in range(x.shape[1]):
            for c in range(C):
                says = x[:, u] >= found.threshold[u, c]
                ours = [float(cell[u, c]) for cell in cells[1:]]
                theirs = [f(t.on[:, c], says, zero_division=0) for f in (precision_score, recall_score, f1_score)]
                assert ours == pytest.approx(theirs, abs=1e-6)


def test_every_unit_reaches_chance_where_its_threshold_is_chosen(found):
    on = SPLITS[0][1].on
    always = 2 * on.sum(0) / (len(on) + on.sum(0))
    assert (found.train.f1 >= always - 1e-6).all()
    assert found.train.f1[5].tolist() == pytest.approx(always.tolist())  # a constant reaches no more


def test_a_concept_that_stands_nowhere_scores_nothing():
    (xa, y), (xb, z) = SPLITS
    gone = z.on.clone()
    gone[:, 2] = False
    scores = score_units(xa, y._replace(on=gone), xb, z._replace(on=gone))
    assert scores.heldout.auroc[:, 2].isnan().all() and scores.threshold[:, 2].isinf().all()
    for cells in (scores.train, scores.heldout):
        assert all((cell[:, 2] == 0).all() for cell in cells[1:])
    assert not scores.heldout.auroc[:, :2].isnan().any()


def test_threads_and_blocks_change_nothing():
    (xa, y), (xb, z) = SPLITS
    many = score_units(xa.repeat(1, 20), y, xb.repeat(1, 20), z, threads=2)
    one = score_units(xa, y, xb, z, threads=1)
    assert torch.equal(many.threshold, one.threshold.repeat(20, 1))
    assert torch.equal(many.heldout.f1, one.heldout.f1.repeat(20, 1))


def test_the_best_unit_is_chosen_on_train_and_scored_on_heldout(found):
    xb, z = SPLITS[1]
    best = best_units(found, xb, z)
    assert best.unit.tolist() == found.train.f1.argmax(0).tolist() and best.unit[2] == 2
    for c in range(C):
        says = xb[:, best.unit[c]] >= best.threshold[c]
        assert float(best.f1[c]) == pytest.approx(f1_score(z.on[:, c], says, zero_division=0))
        assert best.counts[:, c].sum(0).tolist() == [int((says & z.on[:, c]).sum()), int(says.sum()),
                                                    int(z.on[:, c].sum())]
    assert best.counts.shape == (N // 10, C, 3)
    by_rank = best_units(found, xb, z, by="auroc")
    assert by_rank.unit.tolist() == found.train.auroc.argmax(0).tolist()
    with pytest.raises(CourseError, match="by='auc' is not known; nearest: 'auroc'"):
        best_units(found, xb, z, by="auc")


def test_a_detector_a_concept_is_that_diagonal_of_all_scores():
    (xa, y), (xb, z) = SPLITS
    pairs = score_detectors(xa[:, :C], y, xb[:, :C], z)
    scores = score_units(xa[:, :C], y, xb[:, :C], z)
    for ours, cell in zip(pairs[2:7], (scores.threshold, *scores.heldout), strict=True):
        torch.testing.assert_close(ours, cell.diagonal())
    assert pairs.unit.tolist() == list(range(C))


def test_means_and_differences_over_documents(found):
    xb, z = SPLITS[1]
    best = best_units(found, xb, z)
    worse = best._replace(counts=best.counts.copy())
    mean = mean_f1(best)
    assert mean.value == pytest.approx(float(best.f1.mean())) and mean.low < mean.value < mean.high and mean.n == 40
    some = mean_f1(best, "kind")
    assert some.value == pytest.approx(float(best.f1[: C - 1].mean()))
    worse.counts[:, :, 1] += worse.counts[:, :, 2]  # the same hits, more false alarms
    gap = f1_difference(best, worse)
    assert gap.value == pytest.approx(mean.value - mean_f1(worse).value) and gap.low > 0
    assert gap.high - gap.low < mean.high - mean.low  # paired
    assert concept_f1(best, "kind:0").value == pytest.approx(float(best.f1[0]))
    with pytest.raises(CourseError, match="kind='kin'"):
        mean_f1(best, "kin")
    with pytest.raises(CourseError, match="concept='kind:9'"):
        concept_f1(best, "kind:9")
    with pytest.raises(CourseError, match="same concepts"):
        f1_difference(best, best.select("kind"))


def test_shuffled_labels_keep_their_runs_and_lose_their_text():
    generator = torch.Generator().manual_seed(0)
    doc = torch.arange(200).repeat_interleave(10)
    topic = torch.rand(200, 3, generator=generator).repeat_interleave(10, 0) < 0.3
    first = torch.zeros(2000, 1, dtype=torch.bool)
    first[::10] = True
    before = Table(("a", "b", "c", "first"), torch.cat([topic, first], 1), doc)
    after = shuffled_table(before, seed=1)
    blocks = after.on.view(200, 10, 4)
    assert (blocks[:, :, :3] == blocks[:, :1, :3]).all()  # constant in each document still
    assert torch.equal(after.on[:, 3], before.on[:, 3])  # places stay
    assert torch.equal(after.on.sum(0), before.on.sum(0))
    assert abs(float(torch.corrcoef(torch.stack([after.on[:, 0], before.on[:, 0]]).float())[0, 1])) < 0.2
    uneven = Table(("a",), topic[:, :1], torch.arange(2000) // 37)
    assert shuffled_table(uneven).on.shape == (2000, 1)


def test_what_does_not_fit_is_named():
    (xa, y), (xb, z) = SPLITS
    with pytest.raises(CourseError, match="training units have 399 rows, its table 400"):
        score_units(xa[1:], y, xb, z)
    bad = xb.clone()
    bad[3, 3] = float("nan")
    with pytest.raises(CourseError, match="held-out units hold NaN"):
        score_units(xa, y, bad, z)
    with pytest.raises(CourseError, match="same concepts and units"):
        score_units(xa, y, xb[:, :5], z)
    with pytest.raises(CourseError, match="one detector a concept: 6 concepts, 9"):
        score_detectors(xa, y, xb, z)
