"""Neurons in several tasks: against a loop over prompts, against the model's own loss, against hooks by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from course_utils.errors import CourseError
from course_utils.features.scans import Prompts, deal_openings, losses_without, prompts_of, strengths
from course_utils.lab import token_losses
from course_utils.plots import alt_text
from course_utils.plots.detectors import named_bars, number_table, roc_and_precision

TASKS = {"arithmetic": ["arithmetic"], "code": ["code"], "facts": ["facts"]}
HOOKS = ["blocks.0.mlp.hook_post", "blocks.2.mlp.hook_post"]


@pytest.fixture(scope="module")
def prompts(stories_lab):
    return prompts_of(stories_lab, TASKS, 9, 12)


def test_prompts_are_padded_and_their_openings_counted(stories_lab, prompts):
    assert prompts.tasks == tuple(TASKS) and np.bincount(prompts.task).tolist() == [9, 9, 9]
    assert (prompts.tokens[:, 0] == stories_lab.bos).all() and not prompts.mask[:, 0].any()
    assert prompts.tokens.shape[1] <= 13 and (prompts.mask.sum(1) > 3).all()
    for i in range(27):
        same = (prompts.tokens[:, 1:3] == prompts.tokens[i, 1:3]).all(1).numpy()
        assert (prompts.opening == prompts.opening[i]).tolist() == same.tolist()
    for i, name in enumerate(prompts.tasks):
        assert prompts.openings[name] == len({tuple(row) for row in prompts.tokens[prompts.task == i][:, 1:3].tolist()})
    with pytest.raises(CourseError, match="tasks has 1 entry"):
        prompts_of(stories_lab, {"code": ["code"]}, 4, 8)


@pytest.mark.parametrize("signed", [False, True])
def test_strengths_are_a_loops_over_prompts(stories_lab, prompts, signed):
    found = strengths(stories_lab, prompts, HOOKS, signed=signed)
    for i in (0, 8, 20):
        row = prompts.tokens[i : i + 1, : 1 + int(prompts.mask[i].sum())]
        values = torch.cat([stories_lab.capture(row, hook)[0, 1:] for hook in HOOKS], 1)
        np.testing.assert_allclose(found[i], (values if signed else values.abs()).mean(0), atol=1e-5)


def test_nothing_held_is_the_models_own_loss_and_a_held_unit_is_held(stories_lab, prompts):
    still = strengths(stories_lab, prompts, HOOKS, signed=True).mean(0)
    clean = losses_without(stories_lab, prompts, HOOKS, [], still)
    row = prompts.tokens[3:4, : 1 + int(prompts.mask[3].sum())]
    own = torch.nn.functional.cross_entropy(stories_lab.logits(row)[0, :-1], row[0, 1:])
    assert clean[3] == pytest.approx(float(own), abs=1e-4)
    width = stories_lab.capture(row, HOOKS[0]).shape[-1]
    units = [5, 7, width + 2]
    held = losses_without(stories_lab, prompts, HOOKS, units, still)

    def by_hand(index):
        def edit(a):
            a = a.clone()
            for unit, place in index.items():
                a[..., place] = float(still[unit])
            return a
        return edit

    hooks = [(HOOKS[0], by_hand({5: 5, 7: 7})), (HOOKS[1], by_hand({width + 2: 2}))]
    theirs = token_losses(stories_lab.run(row, hooks=hooks), row, torch.ones_like(row, dtype=torch.bool)).mean()
    assert held[3] == pytest.approx(float(theirs), abs=1e-4) and not np.allclose(held, clean, atol=1e-6)
    with pytest.raises(CourseError, match=f"units must lie in 0 to {2 * width - 1}; given 0 to {2 * width}"):
        losses_without(stories_lab, prompts, HOOKS, [0, 2 * width], still)


def test_an_opening_is_in_one_fold_only_and_every_fold_has_every_task(prompts):
    folds = deal_openings(prompts, 3, seed=1)
    for task in range(3):
        mine = prompts.task == task
        assert set(folds[mine]) == {0, 1, 2}
        for opening in set(prompts.opening[mine]):
            assert len(set(folds[mine & (prompts.opening == opening)])) == 1
    assert folds.tolist() == deal_openings(prompts, 3, seed=1).tolist() != deal_openings(prompts, 3, seed=2).tolist()
    task, opening = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 3, 3, 3])
    few = Prompts(("a", "b"), prompts.tokens[:6], prompts.mask[:6], task, opening)
    with pytest.raises(CourseError, match="the prompts of 'b' have only 1 openings"):
        deal_openings(few, 3)


def test_curves_bars_and_tables_say_what_they_show():
    rng = np.random.default_rng(0)
    on = rng.random(200) < 0.3
    values = {"neuron 3": rng.normal(on, 1.0), "latent 5": np.where(on, rng.random(200), 0.0).round(1)}
    figure = roc_and_precision(values, on, title="topic:sea")
    for name, v in values.items():
        assert f"{name}: AUROC {roc_auc_score(on, v):.2f}" in alt_text(figure)
    assert "latent 5: AUROC" in alt_text(figure) and len(figure.axes[1].lines) == 2
    with pytest.raises(CourseError, match="no token or on all"):
        roc_and_precision(values, np.ones(200, bool))
    ax = named_bars(["fruit", "pets"], [0.5, 0.25], reference=0.01, title="neuron 3")
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.25]
    assert alt_text(ax.figure) == "neuron 3: fruit 50%, pets 25%."
    ax = number_table([[1.0, 0.1], [0.2, -0.001]], ["a", "b"], ["x", "y"], xlabel="loss")
    assert [t.get_text() for t in ax.texts] == ["1.00", "0.10", "0.20", "0.00"]
    assert alt_text(ax.figure) == "loss. a x 1.00, y 0.10; b x 0.20, y 0.00."
    with pytest.raises(CourseError, match="2 rows and 1 columns are named"):
        number_table([[1.0, 2.0]], ["a", "b"], ["x"])
    plt.close("all")
