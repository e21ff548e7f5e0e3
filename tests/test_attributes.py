"""Candidate spaces of an attribute: read off the right tokens, ranked as a loop ranks, and planted ones are found."""

import numpy as np
import pytest
import torch
from test_interventions import HOOK, make_sae

from course_utils.activations import harvest
from course_utils.causality import facts, spaces, told
from course_utils.causality.attributes import LATENTS, MEANS, NEURONS, PROBE, Told, _strongest, separation
from course_utils.causality.facts import half
from course_utils.errors import CourseError


@pytest.fixture(scope="module")
def known(lab):
    return facts(lab, "country")


def answers(known, split):
    """Thing → first token of its capital, for those of a half that the model knows."""
    mine = half({fact.entity for fact in known}, split)
    return {f.entity: f.answer for f in known if f.attribute == "capital" and f.right and f.entity in mine}


def same_partition(value, answer):
    pairs = set(zip(value.tolist(), answer, strict=True))
    return len(pairs) == len({v for v, _ in pairs}) == len({a for _, a in pairs})


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_in_labelled_text_names_of_things_are_taken(lab, known, split):
    acts, of = harvest(lab, HOOK, 20_000, labels=True), answers(known, split)
    there = told(lab, acts, known, "capital", split)
    rows, answer = [], []
    for i, code in enumerate(acts.labels.columns["entity"]):
        kind, _, name = (acts.labels.names["entity"][code] if code >= 0 else "").partition(":")
        if kind == "country" and name in of and acts.pos[i] > 0:
            rows.append(acts.x[i])
            answer.append(of[name])
    assert len(rows) > 10 and torch.equal(there.x, torch.stack(rows)) and same_partition(there.value, answer)


def test_without_labels_names_in_the_questions_are_taken(lab, known):
    acts, of = harvest(lab, HOOK, 300, labels=False), answers(known, "train")
    there = told(lab, acts, known, "capital")
    asked = [f for f in known if f.attribute == "capital" and f.entity in of]
    rows = [lab.capture(f.tokens, HOOK)[0, f.entity_place] for f in asked]
    assert len(asked) > 5 and torch.equal(there.x, torch.stack(rows))
    assert same_partition(there.value, [f.answer for f in asked])


def test_fewer_than_two_values_are_refused(lab, known):
    few = harvest(lab, HOOK, 40, labels=True)
    for attribute, message in (
        ("captial", "attribute='captial': organism knows fewer than two values of it in the train half"),
        ("capital", "fewer than two values of the attribute; take more tokens"),
    ):
        with pytest.raises(CourseError, match=message):
            told(lab, few, known, attribute)


def test_separation_against_a_loop():
    rng = np.random.default_rng(0)
    value = rng.choice([0, 2, 5], 60)
    x = rng.normal(size=(60, 6)) + np.outer(value, [0, 1, 0.1, -2, 0, 0])
    x[:, 4], x[:, 5] = 0.0, 1000.1  # constant
    expected = []
    for column in x.T:
        means = {v: column[value == v].mean() for v in set(value.tolist())}
        between = np.mean([(means[v] - column.mean()) ** 2 for v in value.tolist()])
        within = np.mean([(c - means[v]) ** 2 for c, v in zip(column, value.tolist(), strict=True)])
        expected.append(between / within if within > 1e-20 else 0)
    found = separation(torch.from_numpy(x).float(), torch.from_numpy(value))
    assert found.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6) and found.argmax() == 3


def test_a_latent_that_only_one_value_has_separates_without_bound():
    x = torch.tensor([[0.0, 1.0], [0.0, 2.0], [3.0, 1.0], [3.0, 2.0]])
    found = separation(x, torch.tensor([1, 1, 0, 0]))
    assert found[0] > 1e6 and found[1] == 0


def planted(n=400):
    """Four values, told apart strongly along u, weakly along v, and a third axis that only adds noise."""
    g = torch.Generator().manual_seed(0)
    u, v, w = torch.linalg.qr(torch.randn(32, 3, generator=g)).Q.T
    value = torch.arange(n) % 4
    place = torch.tensor([[6.0, 1.0], [6.0, -1.0], [-6.0, 1.0], [-6.0, -1.0]])[value]
    noise = 0.2 * torch.randn(n, 32, generator=g) + torch.randn(n, 1, generator=g) * w
    return Told(place @ torch.stack([u, v]) + noise + 5, value), u, v, w


def test_planted_directions_are_found_the_strongest_first():
    there, u, v, w = planted()
    made = spaces(there, make_sae("Standard", HOOK, 32), [1, 2, 8])
    for name in (MEANS, PROBE):
        one, two, more = (made[name][k].Q for k in (1, 2, 8))
        # A probe needs its largest weights for what lies closest together: there v comes first.
        assert (one.T @ {MEANS: u, PROBE: v}[name]).abs() > 0.97 and one.shape == (32, 1)
        torch.testing.assert_close(two.T @ two, torch.eye(2), atol=1e-5, rtol=0)
        assert min((two.T @ u).norm(), (two.T @ v).norm()) > 0.85 and torch.equal(two[:, :1], one), name
        assert more.shape[1] <= 3  # one less than values, whatever is asked
    assert (made[PROBE][2].Q.T @ w).norm() < 0.1  # a probe does not read what is noise
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    basis = _strongest(torch.cat([rows, rows[:2] + rows[2:4]]))
    assert basis.shape == (32, 5)  # of seven rows two follow from others
    torch.testing.assert_close(rows @ basis @ basis.T, rows, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["Standard", "TopK"])
def test_each_space_swaps_as_much_as_was_asked(family):
    there, *_ = planted(80)
    sae, value = make_sae(family, HOOK, 32), there.value
    base, source = there.x[:10], there.x[40:50].flip(0)
    made = spaces(there, sae, [1, 3])
    assert list(made) == [NEURONS, LATENTS, MEANS, PROBE] and all(list(by_k) == [1, 3] for by_k in made.values())
    f = sae.encode(there.x)
    f = f.to_dense() if f.is_sparse else f
    for k in (1, 3):
        moved = {name: by_k[k].swap(base, source) - base for name, by_k in made.items()}
        assert all(move.shape == (10, 32) and move.abs().max() > 1e-3 for move in moved.values())
        best = separation(there.x, value).topk(k).indices.sort().values
        assert torch.equal((moved[NEURONS] != 0).any(0).nonzero()[:, 0], best)
        assert sorted(made[LATENTS][k].latents.tolist()) == sorted(separation(f, value).topk(k).indices.tolist())
        for name in (LATENTS, MEANS, PROBE):
            assert torch.linalg.matrix_rank(moved[name], rtol=1e-4) <= k
