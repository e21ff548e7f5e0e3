"""Out of memory on an accelerator: half as much at once, the same result; played on a CPU by work that refuses."""

import pytest
import torch

from course_utils.activations import harvest
from course_utils.dictionaries import new_parts, steps, train_sae
from course_utils.dictionaries.recipes import Recipe
from course_utils.errors import CourseError
from course_utils.lab.machine import Portions

HOOK, D, WIDTH, BATCH = "blocks.1.hook_resid_post", 24, 96, 64


def refusing(function, most, sizes, size):
    """Wrap a function so that it runs out of memory above a size, and keeps a list of what it was asked for."""
    def wrapped(*args, **kwargs):
        sizes.append(size(args))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return function(*args, **kwargs)
    return wrapped


def test_portions_halve_until_it_fits_and_stay_small():
    portions, asked = Portions(), []

    def attempt(n):
        asked.append(n)
        if n > 5:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")
        return n

    assert [portions(attempt, size) for size in (3, 40, 40, 4)] == [3, 5, 5, 4]
    assert asked == [3, 40, 20, 10, 5, 5, 4]


@pytest.mark.parametrize("fault", [RuntimeError("shapes differ"), ValueError("out of memory")])
def test_other_faults_go_through(fault):
    def attempt(n):
        raise fault

    with pytest.raises(type(fault), match=str(fault)):
        Portions()(attempt, 8)


def test_where_one_is_too_much_it_is_said():
    def attempt(n):
        raise torch.OutOfMemoryError

    with pytest.raises(CourseError, match="memory does not suffice.*device='cpu'"):
        Portions()(attempt, 8)


@pytest.mark.parametrize("most", [150, 64, 1000])
def test_a_harvest_that_runs_out_of_memory_is_the_same(small_lab, monkeypatch, most):
    whole, sizes = harvest(small_lab, HOOK, 3000), []
    stub = refusing(small_lab.capture, most, sizes, lambda args: args[0].numel())
    monkeypatch.setattr(small_lab, "capture", stub)
    halved = harvest(small_lab, HOOK, 3000)
    assert torch.equal(halved.tokens, whole.tokens) and torch.equal(halved.doc, whole.doc)
    assert torch.allclose(halved.x, whole.x, atol=1e-5)
    failed = [size for size in sizes if size > most]
    assert 0 < len(failed) <= 5 and max(sizes.index(size) for size in failed) <= 6  # in the first batch only


def test_rows_that_do_not_fit_singly_stop_a_harvest(small_lab, monkeypatch):
    monkeypatch.setattr(small_lab, "capture", refusing(small_lab.capture, 1, [], lambda args: args[0].numel()))
    with pytest.raises(CourseError, match="memory does not suffice"):
        harvest(small_lab, HOOK, 500)


def library_step(kind):
    return new_parts(Recipe(kind, WIDTH, 6, None, 0.7, 10_000, BATCH, 1, None, {}, "library"), torch.linspace(-1, 1, D),
                  torch.device("cpu"))


@pytest.mark.parametrize("kind", ["standard", "topk", "gated", "jumprelu"])
@pytest.mark.parametrize("rows", [BATCH, 50])  # 50 are cut into pieces of unequal size
def test_a_training_step_in_portions_has_the_gradients_of_the_whole(kind, rows):
    x = 3 * torch.randn(rows, D, generator=torch.Generator().manual_seed(0))
    given = (x, {"l1": 0.7, "l0": 0.3}, torch.zeros(WIDTH, dtype=torch.bool), 0, True)
    whole, cut = library_step(kind), library_step(kind)
    expected, sizes = whole.gradients(*given), []
    forward = cut.sae.training_forward_pass
    cut.sae.training_forward_pass = refusing(forward, 20, sizes, lambda args: len(args[0].sae_in))
    out = cut.gradients(*given)
    assert max(sizes[2:]) <= 20 < sizes[1]
    for name in ("loss", "mse", "l0", "reconstruction"):
        assert torch.allclose(getattr(out, name), getattr(expected, name), rtol=1e-5, atol=1e-4), name
    assert torch.equal(out.fired, expected.fired)
    for name, weight in whole.gradients.weights.items():
        assert torch.allclose(cut.gradients.weights[name].grad, weight.grad, rtol=1e-4, atol=1e-5), name


def test_training_goes_on_after_it_ran_out_of_memory(monkeypatch):
    x = 3 * torch.randn(2000, D, generator=torch.Generator().manual_seed(1))
    settings = {"width": WIDTH, "k": 6, "kind": "topk", "step": "library", "batch_size": 128, "n_samples": 128 * 40}
    whole, sizes = train_sae(x, **settings), []
    stub = refusing(steps.AutogradStep._part, 40, sizes, lambda args: len(args[1].sae_in))
    monkeypatch.setattr(steps.AutogradStep, "_part", stub)
    halved = train_sae(x, **settings)
    assert sizes[:3] == [128, 64, 32] and {*sizes[3:]} == {32}
    assert halved.log[-1]["explained_variance"] == pytest.approx(whole.log[-1]["explained_variance"], abs=0.01)
    assert torch.allclose(halved.sae.W_dec, whole.sae.W_dec, atol=0.01)
