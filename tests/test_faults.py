"""Runs that are meant to go wrong: what `train_sae` leaves out when told or measures beside, and the four faults."""

import pytest
import torch

from course_utils import CourseError, train_sae
from course_utils.dictionaries.faults import FAULTS, KEYS, ROW, _short_rows, broken_runs, columns, recorded

SMALL = {"width": 96, "n_samples": 4096, "batch_size": 256, "seed": 3}


@pytest.fixture(scope="module")
def x():
    """Activations far from zero and three times as long as sqrt(d)."""
    return 30 + 10 * torch.randn(5000, 12, generator=torch.Generator().manual_seed(0))


def explained(x, sae):
    return 1 - float((x - sae.decode(sae.encode(x))).square().sum() / (x - x.mean(0)).square().sum())


@pytest.mark.parametrize("kind", ["standard", "topk", "batchtopk"])
def test_the_log_measures_what_was_held_out(x, kind):
    held = x[4000:]
    run = train_sae(x[:4000], k=4, kind=kind, heldout=held, log_every=4, **SMALL)
    plain = train_sae(x[:4000], k=4, kind=kind, log_every=4, **SMALL)
    assert torch.equal(run.sae.W_enc, plain.sae.W_enc)  # measuring changes nothing
    assert [row | plain_row for row, plain_row in zip(run.log, plain.log, strict=True)] == run.log
    if kind != "batchtopk":  # which has a threshold instead of a batch once it is trained
        assert run.log[-1]["heldout_explained_variance"] == pytest.approx(explained(held, run.sae), abs=1e-4)
        active = float((run.sae.encode(held) > 0).sum(1).float().mean())
        assert run.log[-1]["heldout_l0"] == pytest.approx(active, abs=0.02)


def test_the_start_is_the_mean_unless_told_otherwise(x):
    still = {"kind": "standard", "lr": 1e-12} | SMALL
    assert torch.allclose(train_sae(x, **still).sae.b_dec, x.mean(0), atol=1)
    assert train_sae(x, centred=False, **still).sae.b_dec.abs().max() < 1e-6


def test_without_scaling_the_penalty_depends_on_the_length(x):
    longer = SMALL | {"n_samples": 2**16}
    l0 = {(factor, scaled): train_sae(factor * x, kind="standard", l1=0.3, scaled=scaled, **longer).log[-1]["l0"]
          for factor in (1, 0.05) for scaled in (True, False)}
    assert l0[1, True] == pytest.approx(l0[0.05, True], rel=0.02)
    assert l0[1, False] > 1.5 * l0[0.05, False]


def test_rows_are_short_and_begin_with_bos(lab):
    x, bos = _short_rows(lab, lab.middle_hook, 800, "heldout")
    assert len(x) == len(bos) == 800 + int(bos.sum()) and 1 / (ROW + 1) <= bos.float().mean() < 0.3
    assert x[bos].var(0).max() < 1e-4 < x[~bos].var(0).min()


def test_each_run_has_one_fault_and_a_letter_drawn_by_lot(lab):
    given = {"l1": 3.0, "width": 64, "n_samples": 2048, "batch_size": 256, "n_tokens": 1500, "n_heldout": 300}
    one, again, other = (broken_runs(lab, seed=seed, **given) for seed in (0, 0, 3))
    assert one == again and list(one.logs) == list("ABCD")
    assert set(one.answers.values()) == set(other.answers.values()) == set(FAULTS)
    assert one.answers != other.answers
    for log in (one.healthy, *one.logs.values()):
        assert {"loss", "explained_variance", "heldout_explained_variance", "l0", "heldout_l0", "dead"} < set(log[-1])


def test_a_hook_elsewhere_is_refused(lab):
    with pytest.raises(CourseError, match="residual stream behind a block"):
        broken_runs(lab, "blocks.0.hook_mlp_out", l1=1.0, width=8, n_samples=512, batch_size=256)


def test_recorded_runs_have_every_fault_and_column():
    sets = recorded()
    assert len(sets) == 4 and all(set(one) == {"healthy", *FAULTS} for one in sets)
    for log in (log for one in sets for log in one.values()):
        assert set(log) == set(KEYS) and len(log["l0"]) == len(log["step"]) > 20
    assert columns([{key: 1.0 for key in KEYS} | {"mse": 2.0}])["l0"].tolist() == [1.0]
