"""Training at a given L0: the search on curves that are known, then real runs on synthetic activations."""

import math

import pytest
import torch

from course_utils.dictionaries import train_at_l0
from course_utils.dictionaries.matching import Trial, measured_l0, solve
from course_utils.errors import CourseError

D, WIDTH = 24, 96
SMALL = {"width": WIDTH, "batch_size": 128, "n_samples": 128 * 300, "trial_samples": 128 * 100}


def data(n=8000, seed=0):
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(60, D, generator=torch.Generator().manual_seed(9)), dim=1)
    active = (torch.rand(n, 60, generator=g) < 0.06) * (1 + torch.rand(n, 60, generator=g))
    return 3 * active @ directions + 0.01 * torch.randn(n, D, generator=g)


@pytest.fixture(scope="module")
def acts():
    return data()


@pytest.fixture(scope="module")
def held():
    return data(2000, seed=1)


@pytest.mark.parametrize(("kind", "l0"), [("standard", 4), ("gated", 6), ("jumprelu", 3), ("jumprelu", 8)])
def test_a_penalised_family_arrives_on_activations_it_never_saw(kind, l0, acts, held):
    found = train_at_l0(acts, held, l0, kind, tolerance=0.1, **SMALL)
    assert found.reached and abs(found.l0 / l0 - 1) <= 0.1, found.said
    assert found.l0 == measured_l0(found.run.sae, held)
    assert float((found.run.sae.encode(held) != 0).sum(1).float().mean()) == pytest.approx(found.l0)
    lengths = [t.n_samples for t in found.tried]
    assert 0 <= lengths.count(128 * 100) <= 4 and 1 <= lengths.count(128 * 300) <= 3
    assert found.run.sae.cfg.metadata.n_samples == 128 * 300 and f"L0 is {found.l0:.1f}" in found.said


def test_topk_families_need_no_trial(acts, held):
    for kind in ("topk", "batchtopk"):
        found = train_at_l0(acts, held, 4, kind, tolerance=0.1, width=WIDTH, batch_size=128, n_samples=128 * 200)
        assert found.lever == "k" and found.value == 4 and len(found.tried) == 1 and found.reached, found.said


@pytest.mark.parametrize("l0_of", [lambda p: 40 * p**-0.7, lambda p: 30 / (0.2 + p**2), lambda p: 90 * math.exp(-p)])
@pytest.mark.parametrize("l0", [1, 4, 16, 64])
def test_the_secant_solves_smooth_curves_in_few_steps(l0_of, l0):
    tried = [Trial(1.0, l0_of(1.0), 1)]
    while abs(tried[-1].l0 / l0 - 1) > 0.05 and len(tried) < 7:
        value = solve(tried, l0, slope=-1.0)
        tried.append(Trial(value, l0_of(value), 1))
    assert abs(tried[-1].l0 / l0 - 1) <= 0.05, tried


def test_a_silent_trial_and_a_noisy_pair_do_not_mislead_the_secant():
    assert solve([Trial(8.0, 0.0, 1)], 16, -1.0) == pytest.approx(8 * math.exp(-2))  # far down, but not at once to 0
    # Both are too high, and the larger penalty more so, against what must be: further on, from the outermost.
    assert solve([Trial(1.0, 20.0, 1), Trial(2.0, 21.0, 1)], 10, -1.0) == pytest.approx(2 * 2.1)
    between = solve([Trial(1.0, 20.0, 1), Trial(4.0, 5.0, 1), Trial(1.1, 19.0, 1), Trial(0.5, 9.0, 1)], 10, -1.0)
    assert 1.1 < between < 4


def test_what_another_target_found_spares_trials(acts, held):
    first = train_at_l0(acts, held, 6, "standard", tolerance=0.1, **SMALL)
    again = train_at_l0(acts, held, 6, "standard", tolerance=0.1, known=first.tried, **SMALL)
    assert again.reached and len(again.tried) <= len(first.tried) + 2 and again.tried[: len(first.tried)] == first.tried
    assert again.value == pytest.approx(first.value, rel=0.2)


def test_not_arriving_is_said(acts, held):
    found = train_at_l0(acts, held, 5, "standard", tolerance=1e-6, trials=2, **SMALL)
    assert not found.reached and "outside 0.0001 %" in found.said
    best = min((t for t in found.tried if t.n_samples == 128 * 300), key=lambda t: abs(t.l0 - 5))
    assert (found.value, found.l0) == (best.value, best.l0) and len(found.tried) == 2 + 3


@pytest.mark.parametrize(("change", "said"), [
    ({"l0": 0}, "l0=0 must lie in 1 to width=96"), ({"l0": 97}, "l0=97 must lie"), ({"trials": 1}, "trials=1 must lie"),
    ({"tolerance": 5}, "tolerance=5 must lie"), ({"l1": 2.0, "kind": "gated"}, "l1 is set by train_at_l0"),
    ({"kind": "jump"}, "kind='jump' is not known; nearest: 'jumprelu'"), ({"k": 3}, "k is set by train_at_l0"),
])
def test_bad_settings_are_one_sentence(change, said, acts, held):
    with pytest.raises(CourseError, match=said):
        train_at_l0(acts, held, **{"kind": "standard"} | SMALL | change)


def test_what_other_targets_tried_cannot_lead_a_jumprelu_astray(acts, held):
    usual = train_at_l0(acts, held, 8, "jumprelu", tolerance=0.3, **SMALL)
    blown = [Trial(0.001, 60.0, 128 * 300), Trial(0.0001, 70.0, 128 * 300), Trial(0.001, 60.0, 128 * 100)]
    misled = train_at_l0(acts, held, 8, "jumprelu", tolerance=0.3, known=blown, **SMALL)
    assert misled.reached and (misled.l0, misled.value) == (usual.l0, usual.value)
