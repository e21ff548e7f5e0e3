"""Known worlds and scores against them: brute force, planted dictionaries, and what scikit-learn says."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from sklearn.metrics import f1_score
from torch.nn.functional import normalize

from course_utils.errors import CourseError
from course_utils.evidence import Estimate
from course_utils.plots import alt_text
from course_utils.plots.recovery import parts, seed_curves
from course_utils.recovery import (
    KINDS,
    Truth,
    choose,
    cosines,
    draw,
    f1,
    join,
    match,
    new_truth,
    pair_cosine,
    recover,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- worlds ---------------------------------------------------------------------------------------------------------


def test_a_world_depends_on_its_seed_alone():
    both, one = new_truth([3, 4], on=2.0, zipf=0.5), new_truth([4], on=2.0, zipf=0.5)
    assert torch.equal(both.directions[1:], one.directions) and not torch.equal(both.directions[0], one.directions[0])
    assert torch.allclose(both.directions.norm(dim=-1), torch.ones(2, 48))
    assert torch.allclose(both.density.sum(1), torch.full((2,), 2.0))
    assert torch.equal(both.density[:, 0::2], both.density[:, 1::2]) and (both.density.diff() <= 0).all()
    assert torch.allclose(both.density[0, 0] / both.density[0, 6], torch.tensor(2.0))  # ranks 1 and 4: the root of 4
    joined = join(both, one)
    assert len(joined.tie) == 3 and torch.equal(joined.directions[2], joined.directions[1])


def test_samples_have_the_densities_ties_and_strengths_that_were_asked_for():
    truth = join(new_truth([0], zipf=1.0), new_truth([0], zipf=1.0, tie=0.6), new_truth([0], zipf=1.0, tie=1.0))
    a = draw(truth, 60_000, seeded())
    on = a > 0
    assert torch.allclose(on.float().mean(1), truth.density, atol=0.008)
    assert a[on].min() >= 0.5 and a[on].max() <= 1.5 and abs(float(a[on].mean()) - 1) < 0.01
    for world, tie in enumerate((0.0, 0.6, 1.0)):
        table = np.corrcoef(on[world, :, :6].T)
        assert table[0, 1] == pytest.approx(tie, abs=0.02) and table[4, 5] == pytest.approx(tie, abs=0.03)
        assert abs(table[1, 2]) < 0.02  # neighbours of different pairs
    assert torch.equal(draw(truth, 5, seeded(1)), draw(truth, 5, seeded(1)))


@pytest.mark.parametrize(("settings", "said"), [
    ({"on": 50.0}, "density of 1.04"), ({"on": 0.0}, "must lie above 0"), ({"tie": 1.1}, "tie=1.1"),
    ({"zipf": -1.0}, "zipf=-1.0"), ({"features": 5}, "an even number"), ({"seeds": []}, "at least one seed"),
])
def test_impossible_worlds_are_refused(settings, said):
    with pytest.raises(CourseError, match=said):
        new_truth(**{"seeds": [0]} | settings)


# --- scores ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_matching_is_the_best_of_all_assignments(seed):
    cosine = torch.rand(4, 6, generator=seeded(seed)) * 2 - 1
    latent, found = match(cosine)
    best = max(float(cosine[range(4), list(p)].sum()) for p in permutations(range(6), 4))
    assert float(found.sum()) == pytest.approx(best, abs=1e-5) and len(set(latent.tolist())) == 4
    assert torch.equal(found, cosine[torch.arange(4), latent])
    with pytest.raises(CourseError, match="at least as wide"):
        match(cosine.T)


def test_the_cosine_with_a_pair_is_what_non_negative_least_squares_finds():
    directions = normalize(torch.randn(6, 4, generator=seeded()).double(), dim=1)
    W = normalize(torch.randn(40, 4, generator=seeded(1)).double(), dim=1)
    W[0] = normalize(directions[2] + 0.5 * directions[5], dim=0)
    got = pair_cosine(cosines(directions, W), directions)
    for m, row in enumerate(W.numpy()):
        fits = {pair: nnls(directions[list(pair)].T.numpy(), row) for pair in combinations(range(6), 2)}
        real = [np.sqrt(1 - rest**2) for weights, rest in fits.values() if (weights > 0).all()]
        assert float(got[m]) == pytest.approx(max(real, default=0), abs=1e-6)
    assert float(got[0]) == pytest.approx(1, abs=1e-6)


def planted():
    """Return a world of four features at right angles, and a dictionary with one latent of each kind."""
    directions = torch.eye(4, 6)
    a = torch.zeros(400, 4)
    a[torch.arange(400), torch.arange(400) % 4] = 1.0
    W = torch.zeros(9, 6)
    f = torch.zeros(400, 9)
    W[0, 0] = W[1, 1] = W[2, 2] = 1
    f[:, :3] = a[:, :3]
    W[3, 0], f[:, 3] = 1, a[:, 0] / 2  # fires whenever latent 0 does
    W[4, 1] = 1  # takes every second occasion of feature 1 over
    f[1::8, 4], f[1::8, 1] = 1, 0
    W[5, 2:4], f[:, 5] = 1, a[:, 3]  # between features 2 and 3
    W[6, 4], f[::7, 6] = 1, 1  # points at nothing
    W[7, 3] = 1  # points at feature 3, but never fires
    W[8, 5], f[3, 8] = -1, 2
    return W[None], f[None], directions[None], a[None]


def test_every_kind_of_latent_is_recognised():
    found = recover(*planted())
    assert dict(zip(KINDS, (9 * found.kinds[0]).round().int().tolist(), strict=True)) == {
        "feature": 3, "duplicate": 1, "split": 1, "composed": 1, "other": 2, "dead": 1}
    assert found.recall[0] == 0.75 and found.precision[0] == pytest.approx(3 / 8)
    assert found.latent[0, 3] == 5 and float(found.mmcs[0]) == pytest.approx((3 + 0.5**0.5) / 4)
    assert set(found.latent[0, :2].tolist()) <= {0, 1, 3, 4} and found.latent[0, 2] == 2


def test_recovery_ignores_lengths_order_and_what_other_instances_do():
    W, f, directions, a = planted()
    order = torch.randperm(9, generator=seeded())
    lengths = torch.rand(9, 1, generator=seeded(1)) + 0.1
    noise = torch.randn(1, 9, 6, generator=seeded(2))
    two = recover(torch.cat([noise, (W * lengths)[:, order]]), f[:, :, order].repeat(2, 1, 1),
                  directions.repeat(2, 1, 1), a.repeat(2, 1, 1))
    one = recover(W, f, directions, a)
    for name in ("mmcs", "recall", "precision", "kinds", "cosine"):
        assert torch.allclose(getattr(two, name)[1], getattr(one, name)[0], atol=1e-6), name
    assert two.recall[0] < 0.5


def test_the_true_dictionary_is_recovered_and_a_random_one_is_not():
    truth = new_truth([0])
    a = draw(truth, 2000, seeded())
    true = recover(truth.directions, a, truth.directions, a)
    assert float(true.mmcs) == pytest.approx(1, abs=1e-5) and true.recall == true.precision == true.kinds[0, 0] == 1
    random = torch.randn(1, 96, 24, generator=seeded(1))
    lucky = recover(random, torch.ones(1, 2000, 96), truth.directions, a)
    assert lucky.recall < 0.05 and 0.3 < lucky.mmcs < 0.7


# --- detection ------------------------------------------------------------------------------------------------------


def test_f1_is_scikit_learns_and_the_choice_is_the_best_there_is():
    truth = Truth(torch.eye(3)[None], torch.full((1, 3), 0.3), torch.zeros(1))
    (a,), (b,) = (draw(truth, 300, seeded(seed)) for seed in (0, 1))
    noise = torch.rand(300, 2, generator=seeded(2))
    values, on = torch.cat([noise, a[:, [2, 0, 1]] + 0.3 * noise[:, :1]], 1), (a > 0).float()
    choice = choose(values, on)
    assert choice.unit.tolist() == [3, 4, 2]
    held = torch.cat([noise, b[:, [2, 0, 1]] + 0.4 * noise[:, :1]], 1)
    got = f1(held, (b > 0).float(), choice)
    for i in range(3):
        says = held[:, choice.unit[i]] > choice.threshold[i]
        assert float(got[i]) == pytest.approx(f1_score((b[:, i] > 0).numpy(), says.numpy()), abs=1e-6)
        low, high = values.amin(0).clamp(min=0), values.amax(0)
        tried = [f1_score(on[:, i].numpy(), (values[:, u] > low[u] + (high[u] - low[u]) * s / 16).numpy())
                 for u in range(5) for s in range(16)]
        here = f1_score(on[:, i].numpy(), (values[:, choice.unit[i]] > choice.threshold[i]).numpy())
        assert here == pytest.approx(max(tried), abs=1e-6)


def test_a_unit_that_never_speaks_scores_zero():
    silent, on = torch.zeros(20, 1), (torch.arange(20) % 2)[:, None].float()
    assert float(f1(silent, on, choose(silent, on))) == 0


# --- the picture ----------------------------------------------------------------------------------------------------


def test_parts_are_drawn_to_scale_and_told_in_the_alternative_text():
    ax = parts([[0.5, 0.2, 0.3], [1.0, 0.0, 0.0]], ["one", "two"], ["feature", "other", "dead"])
    widths = [[bar.get_width() for bar in group] for group in ax.containers]
    assert np.allclose(np.transpose(widths), [[0.5, 0.2, 0.3], [1, 0, 0]])
    assert alt_text(ax.figure) == "Parts. one: feature 50%, other 20%, dead 30%; two: feature 100%."
    with pytest.raises(CourseError, match="a column a name"):
        parts([[0.5, 0.5]], ["one"], ["feature", "other", "dead"])


def test_every_seed_is_a_line_and_the_means_lie_over_them():
    runs = torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.7, 0.6]])
    means = [Estimate(0.1, 0.0, 0.2, n=2), Estimate(0.6, 0.5, 0.7, n=2), Estimate(0.8, 0.5, 1.0, n=2)]
    ax = seed_curves([1, 3, 5], runs, means, title="TopK", xlabel="on", ylabel="found")
    drawn = [line.get_ydata().tolist() for line in ax.lines]
    assert np.allclose(drawn[:2], runs) and np.allclose(drawn[2], [0.1, 0.6, 0.8])
    assert np.allclose([bar[:, 1] for bar in ax.collections[0].get_segments()], [[0, 0.2], [0.5, 0.7], [0.5, 1.0]])
    assert alt_text(ax.figure).startswith("TopK, found against on: 1: 0.10 [0.00, 0.20]; 3: ")
    with pytest.raises(CourseError, match="a column a point"):
        seed_curves([1, 3], runs, means[:2])
