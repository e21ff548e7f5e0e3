"""Directions and probes against scikit-learn and against what is planted; polysemanticity against planted units."""

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from course_utils.errors import CourseError
from course_utils.features import (
    Table,
    linear_probes,
    mean_differences,
    mean_f1,
    polysemanticity,
    random_directions,
    rotated,
    says_on,
    score_detectors,
)


def planted(seed, n=3000, d=16):
    """Return activations in which three concepts add directions of their own; the directions are always the same."""
    directions = torch.linalg.qr(torch.randn(d, 3, generator=torch.Generator().manual_seed(9)))[0].T
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(n, 3, generator=generator) < torch.tensor([0.3, 0.1, 0.03])
    scale = torch.logspace(0.5, -1, d)  # some coordinates are far louder than others
    x = torch.randn(n, d, generator=generator) * scale + on.float() @ directions * 1.5 + 5
    return x, Table(("a", "b", "c"), on, torch.arange(n) // 15)


def test_a_difference_of_means_is_that():
    x, y = planted(0)
    for found, on in zip(mean_differences(x, y), y.on.T, strict=True):
        torch.testing.assert_close(found, x[on].mean(0) - x[~on].mean(0), atol=1e-4, rtol=1e-4)
    with pytest.raises(CourseError, match="'b' stands on no token or on all"):
        mean_differences(x, y._replace(on=y.on & torch.tensor([True, False, True])))


def test_probes_are_nearly_scikit_learns_logistic_regression():
    x, y = planted(0)
    flipped = torch.rand(y.on.shape, generator=torch.Generator().manual_seed(5)) < 0.1  # or all could be told apart
    y = y._replace(on=y.on ^ flipped)
    probes = linear_probes(x, y, penalties=(0.0,))
    for j in range(3):
        theirs = LogisticRegression(C=1e6, max_iter=1000).fit(x, y.on[:, j])
        ours = torch.sigmoid(probes.values(x)[:, j])
        losses = [log_loss(y.on[:, j], p) for p in (ours, theirs.predict_proba(x)[:, 1])]
        assert losses[0] < 1.02 * losses[1]
        assert np.corrcoef(probes.weight[j], theirs.coef_[0])[0, 1] > 0.98


def test_sparse_units_give_the_same_probes_and_means():
    x, y = planted(0)
    x = torch.relu(x - 5)
    sparse = csc_array(x.numpy())
    first, second = (score_detectors(linear_probes(u, y).values(u), y, linear_probes(u, y).values(u), y).f1
                     for u in (sparse, x))
    torch.testing.assert_close(first, second, atol=0.02, rtol=0)  # other coordinates for the same descent
    torch.testing.assert_close(mean_differences(sparse, y), mean_differences(x, y), atol=1e-4, rtol=1e-4)
    probes = linear_probes(x, y)
    torch.testing.assert_close(probes.values(sparse), probes.values(x), atol=1e-4, rtol=1e-3)


def test_probes_beat_means_where_noise_is_uneven_and_both_beat_chance():
    (xa, y), (xb, z) = planted(0), planted(1)
    probes, means = linear_probes(xa, y), mean_differences(xa, y)
    by_probe = score_detectors(probes.values(xa), y, probes.values(xb), z)
    by_mean = score_detectors(xa @ means.T, y, xb @ means.T, z)
    nothing = score_detectors(xa @ random_directions(16, 3).T, y, xb @ random_directions(16, 3).T, z)
    assert mean_f1(by_probe).low > mean_f1(by_mean).high > mean_f1(nothing).high


def test_the_penalty_is_chosen_on_documents_set_aside():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 200, generator=generator)  # few tokens for so many coordinates
    y = Table(("a",), (x[:, :1] + 0.5 * torch.randn(1000, 1, generator=generator)) > 0.8, torch.arange(1000) // 3)
    assert linear_probes(x, y, penalties=(0.0, 0.03)).penalty.tolist() == pytest.approx([0.03])
    assert linear_probes(x, y, penalties=(0.25,)).penalty.tolist() == [0.25]
    torch.testing.assert_close(linear_probes(x, y, seed=3), linear_probes(x, y, seed=3), atol=0, rtol=0)


def test_a_rotation_keeps_lengths_and_angles_and_mixes_axes():
    x = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    y = rotated(x, seed=3)
    torch.testing.assert_close(x @ x.T, y @ y.T, atol=1e-4, rtol=1e-4)
    assert (y - x).abs().mean() > 0.5 and torch.equal(y, rotated(x, seed=3)) and not torch.equal(y, rotated(x, seed=4))
    w = random_directions(12, 7)
    torch.testing.assert_close(w.norm(dim=1), torch.ones(7))


# --- polysemanticity ------------------------------------------------------------------------------------------------


def world(seed, n_docs=600, length=10):
    """Return domains and six units: for one domain, two, three, for position, for nothing, never on."""
    generator = torch.Generator().manual_seed(seed)
    n = n_docs * length
    doc = torch.arange(n) // length
    domain = torch.randint(0, 8, (n_docs,), generator=generator)[doc]
    on = torch.nn.functional.one_hot(domain, 8).bool()
    hit = (torch.rand(n, 6, generator=generator) < 0.15).float() * (1 + torch.rand(n, 6, generator=generator))
    serves = torch.stack([domain == 0, (domain == 1) | (domain == 2), domain >= 5, torch.arange(n) % length == 3,
                          torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)], 1)
    return hit * serves, Table(tuple("abcdefgh"), on, doc)


@pytest.mark.parametrize("form", [lambda x: x, lambda x: csc_array(x.numpy())], ids=["dense", "sparse"])
def test_planted_units_serve_what_they_serve(form):
    (xa, _), (xb, z) = world(0), world(1)
    xa, xb = (torch.cat([x[:, :5], x[:, 5:] - 1], 1) if form(x) is x else x for x in (xa, xb))
    found = polysemanticity(form(xa[:, :5]), form(xb[:, :5]), z, n_null=50)
    assert found.domains.tolist() == [1, 2, 3, 0, 0] and found.active.all()
    assert sorted(name for name, _, _ in found.of(2)) == ["f", "g", "h"]
    assert [share for _, share, _ in found.of(2)] == sorted((s for _, s, _ in found.of(2)), reverse=True)
    assert found.polysemantic.value == pytest.approx(0.4) and found.selective.value == pytest.approx(0.6)
    assert found.null.mean() < 0.05 and len(found.null) == 50
    assert found.share[0, 0] == 1 and float(found.lift[0, 0]) == pytest.approx(1 / float(z.on[:, 0].float().mean()))


def test_a_unit_that_is_never_on_is_not_judged():
    (xa, _), (xb, z) = world(0), world(1)
    found = polysemanticity(csc_array(xa.numpy()), csc_array(xb.numpy()), z, n_null=20)
    assert found.active.tolist() == [True] * 5 + [False] and found.domains[5] == 0 and found.polysemantic.n == 5
    with pytest.raises(CourseError, match="no unit is on for 20"):
        polysemanticity(csc_array(xa[:, 5:].numpy()), csc_array(xb[:, 5:].numpy()), z)


def test_among_words_that_name_something_the_others_do_not_count():
    (xa, y), (xb, z) = world(0), world(1)
    speaks = [torch.arange(len(t.on)) % 4 == 0 for t in (y, z)]  # one token in four has a label
    loud = [torch.where(rows[:, None], x[:, :5], 9.0) for x, rows in zip((xa, xb), speaks, strict=True)]
    y, z = (t._replace(on=t.on & rows[:, None]) for t, rows in zip((y, z), speaks, strict=True))
    assert polysemanticity(*loud, z, n_null=20).selective.value == 0
    found = polysemanticity(*loud, z, y, n_null=20, density=0.02)
    assert found.domains.tolist()[:3] == [1, 2, 3] and found.domains[4] == 0
    with pytest.raises(CourseError, match="training units have 6000 rows"):
        polysemanticity(*loud, z, y._replace(on=y.on[1:], doc=y.doc[1:]))


def test_units_of_noise_are_rarely_called_selective():
    generator = torch.Generator().manual_seed(2)
    _, z = world(1)
    noise = [torch.randn(len(z.on) // 10, 200, generator=generator).repeat_interleave(10, 0)
             + 0.1 * torch.randn(len(z.on), 200, generator=generator) for _ in range(2)]  # alike within a document
    found = polysemanticity(*noise, z, n_null=100, share=0.0, lift=0.0)
    assert found.selective.value < 0.1 and found.polysemantic.value < 0.03  # alpha = 0.05, and no help from the sizes


def test_the_threshold_comes_from_train_and_has_the_density_asked_for():
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    on = says_on(x, x + 1, 0.02).toarray()
    bar = x.sort(dim=0, descending=True).values[19]
    np.testing.assert_array_equal(on, (x + 1 >= bar).float().numpy())
    few = torch.zeros(1000, 1)
    few[:5] = 1.0
    assert says_on(csc_array(few.numpy()), csc_array(few.numpy()), 0.02).sum() == 5
