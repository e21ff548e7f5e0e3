"""Toy models: the data are what they say, the gradients are right, and instances never touch each other."""

import math

import pytest
import torch

from course_utils import toy
from course_utils.errors import CourseError
from course_utils.exercises.lessons import superposition_geometry
from course_utils.toy.training import _Gradient

count_kept, share_of_dimension = superposition_geometry.kept.answer, superposition_geometry.share.answer


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", ["independent", "together", "exclusive"])
def test_each_feature_is_on_with_its_density_and_uniform_then(ties):
    density = torch.tensor([[0.5], [0.1], [0.02]])
    x = toy.sample(density, 4, 50_000, generator=rng(), ties=ties)
    assert x.shape == (3, 50_000, 4) and x.min() >= 0 and x.max() <= 1
    on = x > 0
    assert torch.allclose(on.float().mean(1), density.expand(3, 4), rtol=0.1)
    for values in (x[0, :, 0][on[0, :, 0]], x[1, :, 3][on[1, :, 3]]):
        quantiles = torch.quantile(values, torch.tensor([0.1, 0.5, 0.9]))
        assert torch.allclose(quantiles, torch.tensor([0.1, 0.5, 0.9]), atol=0.03)


def test_ties_say_which_features_come_together():
    p, together = torch.tensor([[0.3]]), {}
    for ties in ("independent", "together", "exclusive"):
        on = (toy.sample(p, 4, 50_000, generator=rng(1), ties=ties)[0] > 0).double()
        together[ties] = (on.T @ on / len(on)).fill_diagonal_(0.3)
    strangers = (0, 2)
    assert all(math.isclose(t[strangers], 0.09, abs_tol=0.01) for t in together.values())
    assert math.isclose(together["independent"][0, 1], 0.09, abs_tol=0.01)
    assert math.isclose(together["together"][0, 1], 0.3, abs_tol=0.01)
    assert together["exclusive"][0, 1] == 0


def test_values_of_features_that_come_together_are_independent():
    x = toy.sample(torch.tensor([[1.0]]), 2, 20_000, generator=rng(2), ties="together")[0]
    assert abs(torch.corrcoef(x.T)[0, 1]) < 0.03


def test_the_same_seed_gives_the_same_batches():
    one, two, other = (toy.batches(torch.tensor([[0.5], [0.1]]), 3, 8, seed=s) for s in (4, 4, 5))
    first, second = one(0), one(1)
    assert torch.equal(first, two(0)) and torch.equal(second, two(1))
    assert not torch.equal(first, second) and not torch.equal(first, other(0))


@pytest.mark.parametrize(("density", "options", "said"), [
    ([[0.0]], {}, "given 0 to 0"),
    ([[1.5]], {}, "1 − sparsity"),
    ([[0.1, 0.2]], {}, "2 columns; give one for all features, or 4"),
    ([[0.1]], {"ties": "togehter"}, "nearest: 'together'"),
    ([[0.1]], {"ties": "together", "group": 3}, "does not divide into groups of group=3"),
    ([[0.6]], {"ties": "exclusive"}, "at most 1/2 of the time"),
])
def test_bad_densities_and_ties_are_named(density, options, said):
    with pytest.raises(CourseError, match=said):
        toy.sample(torch.tensor(density), 4, 5, generator=rng(), **options)


# --- the model and its measures -------------------------------------------------------------------------------------


def random_toys(instances=3, m=2, f=5, seed=0):
    g = rng(seed)
    return toy.Toy(torch.randn(instances, m, f, generator=g), torch.randn(instances, f, generator=g))


def test_reconstruction_and_losses_equal_the_formula_for_each_instance():
    toys, x = random_toys(), torch.rand(3, 7, 5, generator=rng(1))
    importance = torch.tensor([[1.0, 0.5, 2.0, 0.1, 3.0]])
    for i, (W, b) in enumerate(zip(*toys, strict=True)):
        rows = torch.stack([torch.relu(W.T @ (W @ row) + b) for row in x[i]])
        assert torch.allclose(toy.reconstruct(toys, x)[i], rows, atol=1e-5)
        expected = sum(importance[0, j] * (rows[:, j] - x[i, :, j]) ** 2 for j in range(5)).mean()
        assert torch.allclose(toy.losses(toys, x, importance)[i], expected)
    linear = toy.reconstruct(toys, x, relu=False)
    assert linear.min() < 0 and torch.allclose(linear.relu(), toy.reconstruct(toys, x))


def test_shares_of_known_shapes():
    def polygon(n):
        turn = 2 * math.pi * torch.arange(n) / n
        return torch.stack([turn.cos(), turn.sin()])[None]

    for n in (3, 4, 5, 6):
        assert torch.allclose(share_of_dimension(1.3 * polygon(n)), torch.full((1, n), 2 / n), atol=1e-5)
    assert torch.allclose(share_of_dimension(torch.eye(4)[None]), torch.ones(1, 4))
    lonely = torch.tensor([[[1.0, 0.0, 0.001], [0.0, 1.0, 0.0]]])
    assert share_of_dimension(lonely)[0, 2] < 0.01


def test_features_are_explained_by_variance():
    x = torch.rand(2, 1000, 3, generator=rng())
    assert torch.allclose(toy.explained(x, x), torch.ones(2, 3))
    assert torch.allclose(toy.explained(x.mean(1, keepdim=True).expand_as(x), x), torch.zeros(2, 3), atol=1e-5)


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relu", [True, False])
def test_gradients_by_hand_are_the_automatic_ones(relu):
    toys, x = random_toys(), torch.rand(3, 9, 5, generator=rng(2))
    importance = torch.rand(3, 5, generator=rng(3))
    W, b = (w.clone().requires_grad_() for w in toys)
    out = x @ W.mT @ W + b[:, None]
    loss = (importance[:, None] * ((out.relu() if relu else out) - x) ** 2).sum(2).mean(1).sum()
    for ours, theirs in zip(_Gradient(toys, 9, importance, relu)(toys, x.mT), torch.autograd.grad(loss, (W, b)),
                            strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_sweep_equals_one_instance_after_the_other_bit_for_bit_or_nearly():
    density, importance = torch.tensor([[1.0], [0.3], [0.05]]), 0.9 ** torch.arange(6.0)[None]
    start, source = toy.new_toys(3, 6, 2, seed=1), toy.batches(density, 6, 32, seed=2)
    data = [source(step) for step in range(60)]
    whole = toy.train(start, data.__getitem__, importance, steps=60, log_every=20)
    assert whole.steps == [0, 20, 40, 59] and whole.loss.shape == (4, 3)
    for i in range(3):
        W, b = (w[i].clone().requires_grad_() for w in start)
        optimizer = torch.optim.Adam([W, b], lr=0.01)
        for step, x in enumerate(data):
            optimizer.param_groups[0]["lr"] = 0.01 * (1 + math.cos(math.pi * step / 60)) / 2
            loss = (importance * (torch.relu(x[i] @ W.T @ W + b) - x[i]) ** 2).sum(1).mean()
            if step in whole.steps:
                assert torch.allclose(loss, whole.loss[whole.steps.index(step), i], rtol=1e-3)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert torch.allclose(W, whole.toy.W[i], atol=1e-3) and torch.allclose(b, whole.toy.b[i], atol=1e-3)


def test_automatic_training_of_the_same_model_gives_the_same_weights():
    density = torch.tensor([[0.5], [0.1]])
    start, source = toy.new_toys(2, 4, 2, seed=3), toy.batches(density, 4, 16, seed=4)
    data = [source(step) for step in range(40)]
    ones = torch.ones(1, 4)
    fitted = toy.fit(start, lambda w, step: (torch.relu(data[step] @ w[0].mT @ w[0] + w[1][:, None]) - data[step])
                     .square().sum(2).mean(1), steps=40)
    trained = toy.train(start, data.__getitem__, ones, steps=40).toy
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(fitted, trained, strict=True))
    assert torch.equal(start.W, toy.new_toys(2, 4, 2, seed=3).W)  # neither has changed where it began


def test_automatic_training_does_not_mix_up_weights_whose_gradients_lie_otherwise_in_memory():
    target = torch.arange(6.0).reshape(1, 2, 3)
    (found,) = toy.fit([torch.zeros(1, 2, 3)], lambda w, _: (w[0].mT - target.mT).square().sum((1, 2)), steps=400,
                       lr=0.1)
    assert torch.allclose(found, target, atol=0.05)


def test_training_repeats_exactly():
    density = torch.tensor([[0.2], [0.05]])
    runs = [toy.train(toy.new_toys(2, 5, 2, seed=5), toy.batches(density, 5, 32, seed=6), steps=50) for _ in range(2)]
    assert torch.equal(runs[0].toy.W, runs[1].toy.W) and torch.equal(runs[0].loss, runs[1].loss)


def test_sparse_features_share_dimensions_and_dense_ones_do_not():
    density = torch.tensor([[1.0], [0.05]]).repeat(4, 1)
    importance = torch.stack([0.6 ** torch.arange(5.0), torch.ones(5)]).repeat(4, 1)
    trained = toy.train(toy.new_toys(8, 5, 2, seed=7), toy.batches(density, 5, seed=8), importance, steps=800).toy
    kept = count_kept(trained.W, 0.5).view(4, 2)
    assert (kept[:, 0] == 2).all() and (kept[:, 1] == 5).all()
    assert (share_of_dimension(trained.W)[1::2] - 0.4).abs().max() < 0.05  # pentagons


def test_without_the_relu_there_is_no_superposition():
    density = torch.full((4, 1), 0.05)
    importance = 0.8 ** torch.arange(6.0)[None]
    linear = toy.train(toy.new_toys(4, 6, 2, seed=9), toy.batches(density, 6, seed=10), importance, steps=600, lr=0.03,
                       relu=False).toy
    assert (count_kept(linear.W, 0.5) == 2).all()


@pytest.mark.parametrize(("call", "said"), [
    (lambda: toy.new_toys(0, 5, 2), "instances=0 must be at least 1"),
    (lambda: toy.train(toy.new_toys(1, 3, 2), lambda _: torch.zeros(1, 4, 3), steps=0), "steps=0"),
    (lambda: toy.train(toy.new_toys(1, 3, 2), lambda _: torch.zeros(1, 4, 5), steps=1), r"\[1 n 3\]"),
    (lambda: toy.fit([torch.zeros(1)], lambda w, _: w[0], lr=-1), "lr=-1"),
])
def test_bad_input_gets_a_sentence(call, said):
    with pytest.raises(CourseError, match=said):
        call()


# --- pictures -------------------------------------------------------------------------------------------------------


def test_pictures_of_geometry_speak_and_take_axes():
    from matplotlib.figure import Figure

    from course_utils import plots

    W = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.9]])
    draw = {
        "arrows": lambda **k: plots.arrows(W, groups=[0, 0, 1], **k),
        "bars": lambda **k: plots.feature_bars([1.0, 1.0, 0.2], [1.0, 1.0, 0.0], **k),
        "overlaps": lambda **k: plots.overlaps(W, **k),
        "shares": lambda **k: plots.shares([1.0, 10.0], [[0.5, 0.5], [0.4]], **k),
        "phases": lambda **k: plots.phase_map([1, 10], [0.1, 1, 10], [[0, 1, 1], [1, 1, 0]], ["no", "yes"],
                                              border=[([1, 10], [0.1, 10])], **k),
        "stacked": lambda **k: plots.stacked(W, **k),
    }
    for name, picture in draw.items():
        axes = Figure().subplots()
        assert picture(ax=axes) is axes, name
        axes.figure.canvas.draw()
        assert len(plots.alt_text(axes.figure)) > 20
        assert plots.alt_text(picture(ax=Figure().subplots(), alt="my words").figure) == "my words"
    assert "2 of 3 columns are longer than 0.5" in plots.alt_text(draw["bars"](ax=Figure().subplots()).figure)
    assert "no in 2, yes in 4" in plots.alt_text(draw["phases"](ax=Figure().subplots()).figure)


@pytest.mark.parametrize(("call", "said"), [
    (lambda plots: plots.arrows(torch.zeros(3, 4)), "needs 2 hidden dimensions"),
    (lambda plots: plots.overlaps(torch.full((2, 2), float("nan"))), "no NaN"),
    (lambda plots: plots.feature_bars([1.0], [1.0, 2.0]), "equally long"),
    (lambda plots: plots.phase_map([1, 2], [1, 2], [[0, 1]], ["a", "b"]), r"ask for \(2, 2\)"),
])
def test_pictures_refuse_what_they_cannot_draw(call, said):
    from course_utils import plots

    with pytest.raises(CourseError, match=said):
        call(plots)
