"""Erasing: LEACE against its closed form and its rivals; what is projected out is gone, and the rest is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_interventions import HOOK, hooks_left

from course_utils.errors import CourseError
from course_utils.interventions import Eraser, erase, leace, project_out, sample, spanned

FIRST, LAST = "blocks.0.hook_resid_post", "blocks.2.hook_resid_post"


def planted(n=3000, d=8, seed=0, rank=None, classes=2):
    """Correlated Gaussian activations, and classes that move their mean; in ``rank`` dimensions only, if given."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    label = torch.randint(classes, (n,), generator=g)
    x = (draw(n, rank or d) + 1.5 * draw(classes, rank or d)[label]) @ draw(rank or d, d) + 3 * draw(d)
    return x, torch.nn.functional.one_hot(label, classes)


def covariance(a, b):
    a, b = a.double() - a.double().mean(0), b.double() - b.double().mean(0)
    return a.T @ b / len(a)


@pytest.fixture(scope="module")
def tokens(small_lab):
    return next(small_lab.batches(400)).tokens


@pytest.fixture(scope="module")
def eraser(small_lab, tokens):
    """Hides whether the token's id is even, at HOOK."""
    return leace(small_lab.capture(tokens, HOOK)[:, 1:].flatten(0, 1), (tokens[:, 1:] % 2 == 0).reshape(-1, 1))


@pytest.mark.parametrize("rank", [None, 5])
@pytest.mark.parametrize("classes", [2, 4])
def test_leace_is_its_closed_form(rank, classes):
    x, z = planted(rank=rank, classes=classes)
    found = leace(x, z)
    s, c = covariance(x, x).numpy(), covariance(x, z).numpy()
    inverse = np.linalg.pinv(s, rcond=1e-10, hermitian=True)
    # By algebra that never whitens: W⁺ P W = C (Cᵀ Σ⁺ C)⁺ Cᵀ Σ⁺.
    oracle = c @ np.linalg.pinv(c.T @ inverse @ c, rcond=1e-8) @ c.T @ inverse
    np.testing.assert_allclose(found.project.numpy(), oracle, atol=1e-8)
    assert found.rank == classes - 1  # the columns of a one-hot table sum to 1
    torch.testing.assert_close(found.project @ found.project, found.project)
    assert covariance(found(x), z).abs().max() < 1e-6 < covariance(x, z).abs().max()
    torch.testing.assert_close(found(x).mean(0), x.mean(0))


def test_leace_leaves_the_directions_in_which_nothing_varies():
    x, z = planted(rank=5)
    constant = torch.linalg.svd(x - x.mean(0)).Vh[5:]
    torch.testing.assert_close((leace(x, z)(x) - x) @ constant.T, torch.zeros(len(x), 3).double(), atol=1e-9, rtol=0)
    single = leace(x.float(), z)  # rounded to single precision, x varies a little in every direction
    assert single.project.norm() < 1.01 * leace(x, z).project.norm()
    assert covariance(single(x.float()), z).abs().max() < 1e-5


def test_no_linear_reader_does_better_than_a_constant():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss, roc_auc_score

    x, z = planted()
    y, share = z[:, 1].numpy(), z[:, 1].double().mean().item()

    def fitted(inputs):
        reader = LogisticRegression(C=1e4).fit(inputs, y)
        return log_loss(y, reader.predict_proba(inputs)), roc_auc_score(y, reader.decision_function(inputs))

    constant = log_loss(y, np.full(len(y), share))
    loss, auc = fitted(x.numpy())
    assert loss < 0.7 * constant and auc > 0.85
    loss, auc = fitted(leace(x, z[:, 1:])(x).numpy())
    assert abs(loss - constant) < 1e-5 and abs(auc - 0.5) < 0.03


def test_no_other_eraser_changes_less():
    x, z = planted()
    found, g = leace(x, z), torch.Generator().manual_seed(1)
    centred = x - x.mean(0)
    change = (found(x) - x).square().sum(1).mean()
    along = spanned(covariance(x, z).T)
    across = torch.eye(8).double() - along @ along.T  # whatever follows on this erases too
    noise = torch.randn(60, 8, 8, generator=g, dtype=torch.float64)
    rivals = [across, *(across + size * part @ across for size in (0.1, 1) for part in noise[:20]),
              *(torch.eye(8) - found.project + 1e-2 * part @ across for part in noise[20:])]
    costs = []
    for rival in rivals:
        assert covariance(centred @ rival.T, z).abs().max() < 1e-9
        costs.append((centred @ rival.T - centred).square().sum(1).mean())
    assert change < min(costs) and change < 0.9 * costs[0]  # plainly projecting the difference of means out costs more


def test_a_concept_that_does_not_covary_is_nothing_to_erase(small_lab, tokens):
    x, z = planted(n=200)
    assert leace(x, torch.ones(200, 1)).rank == leace(torch.ones(200, 8), z).rank == 0
    mirrored = leace(torch.cat([x, x]), torch.arange(400)[:, None] < 200)  # both halves are the same
    assert mirrored.rank == 0 and torch.equal(mirrored(x), x)
    clean, nothing = small_lab.logits(tokens), Eraser(torch.zeros(32, 32), torch.zeros(32), 0)
    with erase(small_lab, HOOK, nothing):
        assert not hooks_left(small_lab) and torch.equal(small_lab.logits(tokens), clean)


@pytest.mark.parametrize("hook", [HOOK, "blocks.1.attn.hook_z"])
def test_erasing_applies_the_eraser_and_nothing_else(small_lab, tokens, hook):
    x, even = small_lab.capture(tokens, hook), tokens % 2 == 0
    made = leace(x.flatten(2)[:, 1:].flatten(0, 1), even[:, 1:].reshape(-1, 1))
    with erase(small_lab, hook, made):
        new = small_lab.capture(tokens, hook).flatten(2)
    x = x.flatten(2)
    assert torch.equal(new[:, 1:], made(x[:, 1:])) and torch.equal(new[:, 0], x[:, 0])
    assert covariance(new[:, 1:].flatten(0, 1), even[:, 1:].reshape(-1, 1)).abs().max() < 1e-6
    with erase(small_lab, hook, made, positions=[2, -1], strength=0.5):
        some = small_lab.capture(tokens, hook).flatten(2)
    assert (some != x).any(-1).any(0).nonzero()[:, 0].tolist() == [2, x.shape[1] - 1]
    torch.testing.assert_close(some[:, 2], (x + new)[:, 2] / 2, atol=1e-5, rtol=1e-5)


def test_projecting_out_zeroes_the_span_and_leaves_what_is_across(small_lab, tokens):
    x = small_lab.capture(tokens, HOOK)
    directions = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [50.0], [1e-3]])
    redundant = torch.cat([directions, directions[:1] + directions[1:2], torch.zeros(1, 32)])
    q = torch.linalg.qr(directions.double().T).Q.float()
    mean = x[:, 1:].mean((0, 1))
    for given, towards in ((directions, None), (redundant, None), (directions, mean)):
        with project_out(small_lab, HOOK, given, towards):
            new = small_lab.capture(tokens, HOOK)
        wanted = torch.zeros(3) if towards is None else towards @ q
        torch.testing.assert_close(new[:, 1:] @ q, wanted.expand(*new[:, 1:].shape[:2], 3), atol=1e-4, rtol=0)
        across = torch.eye(32) - q @ q.T
        torch.testing.assert_close(new[:, 1:] @ across, x[:, 1:] @ across, atol=1e-4, rtol=1e-4)
        assert torch.equal(new[:, 0], x[:, 0])
    assert spanned(redundant).shape == (32, 3)


@pytest.mark.parametrize("none", [torch.zeros(0, 32), torch.zeros(32), torch.zeros(2, 32)])
def test_no_direction_and_no_strength_change_no_bit(small_lab, tokens, eraser, none):
    clean = small_lab.logits(tokens)
    with project_out(small_lab, HOOK, none, torch.ones(32)), erase(small_lab, HOOK, eraser, strength=0):
        assert torch.equal(small_lab.logits(tokens), clean)


def test_several_hooks_take_one_or_one_each(small_lab, tokens, eraser):
    one, other = torch.eye(32)[0], torch.eye(32)[3:5]
    with project_out(small_lab, [FIRST, LAST], [one, other], [torch.ones(32), 2 * torch.ones(32)]):
        first, last = (small_lab.capture(tokens, hook)[:, 1:] for hook in (FIRST, LAST))
    assert (first[..., 0] - 1).abs().max() < 1e-5 and (last[..., 3:5] - 2).abs().max() < 1e-5
    assert (last[..., 0] - 1).abs().max() > 0.1  # later blocks have written there again
    with project_out(small_lab, [FIRST, LAST], one):
        assert max(float(small_lab.capture(tokens, hook)[:, 1:, 0].abs().max()) for hook in (FIRST, LAST)) < 1e-5
    with erase(small_lab, [FIRST, LAST], eraser):
        both = small_lab.logits(tokens)
    with erase(small_lab, FIRST, eraser), erase(small_lab, LAST, eraser):
        assert torch.equal(small_lab.logits(tokens), both)


def test_a_cache_changes_no_text(small_lab, eraser):
    texts = []
    for cache in (True, False):
        with erase(small_lab, HOOK, eraser, strength=5.0), project_out(small_lab, LAST, torch.eye(32)[:9],
                                                                       positions=slice(4, None)):
            texts.append(sample(small_lab, ["the dog", "the cat saw a red"], 10, seed=1, n=2, cache=cache))
    assert torch.equal(texts[0].tokens, texts[1].tokens) and not hooks_left(small_lab)
    assert not torch.equal(texts[0].tokens, sample(small_lab, ["the dog", "the cat saw a red"], 10, seed=1, n=2).tokens)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_are_gone_however_the_block_ends(small_lab, eraser, error):
    for context in (erase(small_lab, HOOK, eraser), project_out(small_lab, [FIRST, LAST], torch.ones(32))):
        with pytest.raises(error), context:
            assert hooks_left(small_lab)
            raise error
        assert not hooks_left(small_lab)


def test_bad_input_gets_a_sentence(small_lab, tokens, eraser):
    def enter(context):
        with context:
            small_lab.logits(tokens)

    x, nan = torch.ones(9, 4), torch.full((32,), float("nan"))
    cases = [
        (lambda: leace(x, torch.ones(8, 1)), r"x has shape \[9, 4\] and z \[8, 1\]"),
        (lambda: leace(x, torch.ones(9)), r"z \[9\]; give a row \[c\]"),
        (lambda: leace(x[:1], torch.ones(1, 1)), "two rows"),
        (lambda: leace(x * float("nan"), torch.ones(9, 1)), "finite"),
        (lambda: leace(x, torch.full((9, 1), float("inf"))), "finite"),
        (lambda: enter(erase(small_lab, "blocks.1.resid", eraser)), "hook='blocks.1.resid'"),
        (lambda: enter(erase(small_lab, HOOK, leace(*planted(n=50)))), "width 8; activations at .* have width 32"),
        (lambda: enter(erase(small_lab, HOOK, eraser._replace(mean=nan))), "finite"),
        (lambda: enter(erase(small_lab, HOOK, eraser, strength=float("inf"))), "finite"),
        (lambda: enter(erase(small_lab, [FIRST, LAST], [eraser])), "eraser holds 1 for 2 hooks"),
        (lambda: enter(erase(small_lab, HOOK, eraser, positions=[99])), r"positions=\[99\] must lie"),
        (lambda: enter(project_out(small_lab, HOOK, nan)), "directions must be finite"),
        (lambda: enter(project_out(small_lab, HOOK, torch.ones(31))), "width 31; activations at .* have width 32"),
        (lambda: enter(project_out(small_lab, HOOK, torch.ones(32), torch.ones(31))), r"towards has shape \[31\]"),
        (lambda: enter(project_out(small_lab, HOOK, torch.ones(32), nan)), "finite"),
        (lambda: enter(project_out(small_lab, [FIRST, LAST], [torch.ones(32)])), "directions holds 1 for 2 hooks"),
    ]
    for call, message in cases:
        with pytest.raises(CourseError, match=message):
            call()
        assert not hooks_left(small_lab)
