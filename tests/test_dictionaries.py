"""Training against the library's own trainer, kills, cut files and bad settings; on synthetic sparse activations."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from safetensors.torch import load_file

from course_utils.activations import Activations
from course_utils.dictionaries import checkpoints, families, load_sae, save_sae, train_sae, training
from course_utils.dictionaries.recipes import rebatched
from course_utils.errors import CourseError

D, WIDTH = 16, 48
SMALL = {"width": WIDTH, "k": 4, "batch_size": 128, "n_samples": 128 * 60, "log_every": 20}
# Imports of this module in a child process must not read the test options of pytest: the data are made here, plainly.
MAKE = """
def synthetic(n=4000, d=16, seed=0):
    import torch
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(40, d, generator=g), dim=1)
    active = (torch.rand(n, 40, generator=g) < 0.08) * (1 + torch.rand(n, 40, generator=g))
    return 3 * active @ directions + 2 * torch.randn(d, generator=g) + 0.01 * torch.randn(n, d, generator=g)
"""
exec(MAKE)
synthetic = globals()["synthetic"]


def harvested(x):
    """Activations whose rows 0, 100, 200, ... are BOS, a hundred times longer."""
    pos = torch.arange(len(x)) % 100
    x = x.clone()
    x[pos == 0] *= 100
    index = torch.arange(len(x))
    return Activations(x, index, index // 100, pos, None, "blocks.1.hook_resid_post", "tiny")


@pytest.fixture(scope="module")
def acts():
    return harvested(synthetic())


def variance_explained(sae, x):
    with torch.no_grad():
        residual = x - sae.decode(sae.encode(x))
    return 1 - float(residual.square().sum() / (x - x.mean(0)).square().sum())


def mean_l0(sae, x):
    return float((sae.encode(x) != 0).sum(1).float().mean())


@pytest.mark.parametrize("kind", ["standard", "topk", "batchtopk", "jumprelu", "gated", "matryoshka_batchtopk",
                                  "abstopk", "matching_pursuit"])
def test_every_family_learns_and_is_read_back_by_the_library(kind, acts, tmp_path):
    from sae_lens import SAE

    run = train_sae(acts, kind=kind, **SMALL | {"n_samples": 128 * 150})
    x = acts.x[acts.usable]
    assert variance_explained(run.sae, x) > 0.6
    assert kind == "matching_pursuit" or torch.allclose(run.sae.W_dec.norm(dim=1), torch.ones(WIDTH), atol=1e-4)
    if kind not in ("standard", "gated", "jumprelu"):  # those have no k to keep to
        assert 2.5 < mean_l0(run.sae, x) < 5.5
    assert save_sae(run.sae, tmp_path / "sae") == tmp_path / "sae"
    theirs, ours = SAE.load_from_disk(tmp_path / "sae"), load_sae(tmp_path / "sae")
    assert torch.equal(theirs(x), run.sae(x)) and torch.equal(ours(x), run.sae(x))
    metadata = theirs.cfg.metadata
    assert (metadata.hook_name, metadata.model_name, metadata.seed) == (acts.hook, "tiny", 0)
    assert metadata.n_samples == 128 * 150 and metadata.training_architecture == kind
    assert sorted(p.name for p in (tmp_path / "sae").iterdir()) == ["cfg.json", "sae_weights.safetensors"]


@pytest.mark.parametrize(("kind", "dense", "sparse"), [
    ("standard", {"l1": 0.5}, {"l1": 4}), ("gated", {"l1": 0.5}, {"l1": 4}), ("jumprelu", {"k": 20}, {"k": 2}),
])
def test_sparsity_obeys_its_setting(kind, dense, sparse, acts):
    many, few = (train_sae(acts, kind=kind, **SMALL | how | {"n_samples": 128 * 200}).sae for how in (dense, sparse))
    assert mean_l0(many, acts.x[acts.usable]) > 2 * mean_l0(few, acts.x[acts.usable])


def test_every_registered_family_is_tested():
    tested = next(m for m in test_every_family_learns_and_is_read_back_by_the_library.pytestmark)
    assert sorted(families()) == sorted(tested.args[1])


@pytest.mark.parametrize(("kind", "options"), [
    ("batchtopk", {}), ("standard", {"l1": 2.0}), ("jumprelu", {}), ("gated", {}), ("matryoshka_batchtopk", {}),
    ("abstopk", {}), ("matching_pursuit", {}),
    # a rate so high that latents die, so that AuxK has work
    ("topk", {"lr": 0.3, "k": 1, "aux_rows": None}), ("topk", {"lr": 0.3, "k": 1, "aux_rows": 128}),
])
def test_weights_equal_those_of_the_librarys_trainer_bit_for_bit(kind, options, acts, monkeypatch):
    from sae_lens import SAETrainer
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.registry import get_sae_training_class

    from course_utils.dictionaries import _inference, new_config
    from course_utils.dictionaries.recipes import Recipe

    adam = torch.optim.Adam  # ours is fused, which rounds differently; nothing else may differ
    monkeypatch.setattr(training.torch.optim, "Adam", lambda *args, fused=None, **rest: adam(*args, **rest))
    settings = SMALL | {"n_samples": 128 * 120} | options
    run = train_sae(acts, kind=kind, seed=3, step="library", **settings)
    recipe = Recipe(kind, WIDTH, settings["k"], settings.get("lr"), settings.get("l1"), 128 * 120, 128, 3,
                    settings.get("aux_rows", 256), {})
    training_class, config = get_sae_training_class(kind)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        theirs = training_class(new_config(recipe, config, D))
    head = torch.cat([b for _, b in zip(range(16), acts.batches(128, 3), strict=False)]).double()
    scale = float(D**0.5 / head.norm(dim=1).mean())
    theirs.b_dec.data.copy_(head.mean(0) * scale)
    trainer = SAETrainer(
        SAETrainerConfig(total_training_samples=128 * 120, train_batch_size_samples=128, lr=recipe.rate(D),
                         lr_end=recipe.rate(D), lr_warm_up_steps=6, lr_decay_steps=24,
                         dead_feature_window=recipe.dead_window, logger=LoggingConfig(log_to_wandb=False)),
        theirs, acts.batches(128, 3))
    trainer.activation_scaler.scaling_factor = scale
    reference = _inference(trainer.fit())
    if "lr" in options:
        assert trainer.dead_neurons.any()
    for name, weight in reference.state_dict().items():
        assert torch.equal(run.sae.state_dict()[name], weight), name


@pytest.mark.parametrize("k", [1, 2.5, 30])
def test_batchtopk_without_sorting_selects_what_the_library_selects(k):
    from sae_lens.saes.batchtopk_sae import BatchTopK

    from course_utils.dictionaries.training import BatchTopK as Ours

    ours, g = Ours(k), torch.Generator().manual_seed(0)
    for size in (1.0, 10.0, 0.01, 1.0):  # the bound from the step before is far off, both ways
        x = size * torch.randn(64, 50, generator=g)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        kept, expected = ours(a), BatchTopK(k)(b)
        assert torch.equal(kept, expected)
        kept.square().sum().backward()
        expected.square().sum().backward()
        assert torch.equal(a.grad, b.grad)


def test_same_seed_same_weights_and_the_global_seed_is_left_alone(acts):
    state = torch.get_rng_state()
    a, b, c = (train_sae(acts, seed=seed, **SMALL).sae.W_enc for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.allclose(a, c, atol=0.1)
    assert torch.equal(torch.get_rng_state(), state)


def test_scale_of_the_activations_does_not_matter(acts):
    run, large = (train_sae(harvested(x), **SMALL) for x in (synthetic(), 64 * synthetic()))  # a power of 2: exact
    assert torch.allclose(64 * run.sae.b_dec, large.sae.b_dec, rtol=1e-4)
    assert torch.allclose(run.sae.W_enc, large.sae.W_enc, atol=1e-4)


def test_log_rows_reach_the_callback(acts):
    seen = []
    run = train_sae(acts, on_log=lambda rows: seen.append(len(rows)), **SMALL)
    assert seen == [1, 2, 3] and [row["step"] for row in run.log] == [20, 40, 60]
    assert set(run.log[0]) == {"step", "samples", "loss", "mse", "l0", "explained_variance", "dead"}
    assert run.log[-1]["samples"] == 60 * 128 and run.log[-1]["l0"] == pytest.approx(4)
    assert run.log[0]["explained_variance"] < run.log[-1]["explained_variance"] <= 1


def test_short_runs_leave_no_bars_behind_and_long_ones_show_one(acts, capsys, monkeypatch):
    train_sae(acts, **SMALL)
    assert capsys.readouterr().err == ""
    plain = training.tqdm
    monkeypatch.setattr(training, "tqdm", lambda **options: plain(**options | {"delay": 1e-9, "mininterval": 0}))
    train_sae(acts, **SMALL)
    assert "batchtopk SAE: 100%" in capsys.readouterr().err


CHILD = MAKE + """
import sys, time
from course_utils.dictionaries import train_sae
if __name__ == "__main__":
    train_sae(synthetic(), kind=sys.argv[1], checkpoint=sys.argv[2], width=48, k=4, batch_size=128, n_samples=128 * 300,
              checkpoint_every=7, log_every=2, on_log=lambda rows: time.sleep(0.05))
"""


def test_killed_with_sigkill_and_resumed_gives_the_same_bits(tmp_path):
    (tmp_path / "child.py").write_text(textwrap.dedent(CHILD))
    kinds, children = ("batchtopk", "jumprelu"), {}
    threads = f"{torch.get_num_threads()}"  # sums are split by threads, and so rounded
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": threads}
    for kind in kinds:
        children[kind] = subprocess.Popen([sys.executable, "child.py", kind, kind], cwd=tmp_path, env=environment,
                                          stderr=subprocess.PIPE)
    settings = {"width": WIDTH, "k": 4, "batch_size": 128, "n_samples": 128 * 300}
    whole = {kind: train_sae(synthetic(), kind=kind, **settings) for kind in kinds}  # while the children start
    for kind, child in children.items():
        deadline = time.monotonic() + 60
        while not list((tmp_path / kind).glob("step-*")) and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.02)
        time.sleep(0.3)  # now somewhere between two checkpoints
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, child.stderr.read().decode()[-2000:]
        child.stderr.close()
        assert 0 < int(checkpoints.files(tmp_path / kind)[0].stem[5:]) < 300
        resumed = train_sae(synthetic(), kind=kind, checkpoint=tmp_path / kind, **settings)
        for name, weight in whole[kind].sae.state_dict().items():
            assert torch.equal(resumed.sae.state_dict()[name], weight), (kind, name)


class Stopped(Exception):
    pass


def stopped_run(acts, folder, at=40, **changes):
    def stop(rows):
        if rows[-1]["step"] >= at:
            raise Stopped

    settings = SMALL | {"log_every": 5, "checkpoint_every": 10} | changes
    with pytest.raises(Stopped):
        train_sae(acts, checkpoint=folder, on_log=stop, **settings)
    return settings


def test_a_cut_checkpoint_is_passed_over_and_two_are_kept(acts, tmp_path):
    settings = stopped_run(acts, tmp_path)
    newest, older = checkpoints.files(tmp_path)
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="cut short or damaged; the checkpoint before it is used"):
        resumed = train_sae(acts, checkpoint=tmp_path, **settings)
    assert torch.equal(resumed.sae.W_enc, train_sae(acts, **SMALL).sae.W_enc)
    assert [row["step"] for row in resumed.log] == list(range(5, 61, 5))
    for path in checkpoints.files(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(CourseError, match="only damaged files; delete the folder"):
        with pytest.warns(UserWarning):
            train_sae(acts, checkpoint=tmp_path, **settings)


def test_a_finished_run_is_read_back(acts, tmp_path):
    first = train_sae(acts, checkpoint=tmp_path, **SMALL)
    again = train_sae(acts, checkpoint=tmp_path, on_log=lambda rows: pytest.fail("trained again"), **SMALL)
    assert torch.equal(first.sae.W_enc, again.sae.W_enc) and first.log == again.log


@pytest.mark.parametrize(("change", "said"), [
    ({"width": 64}, "made with width=48, not 64"), ({"seed": 5}, "seed=0, not 5"),
    ({"kind": "topk"}, "'batchtopk', not"),
])
def test_a_checkpoint_of_another_run_is_refused(change, said, acts, tmp_path):
    train_sae(acts, checkpoint=tmp_path, **SMALL)
    with pytest.raises(CourseError, match=said):
        train_sae(acts, checkpoint=tmp_path, **SMALL | change)
    with pytest.raises(CourseError, match="mean_norm_of_activations"):
        train_sae(harvested(2 * synthetic()), checkpoint=tmp_path, **SMALL)


def test_a_full_disk_does_not_lose_the_training(acts, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left on device.*training goes on"):
        run = train_sae(acts, checkpoint=tmp_path, **SMALL)
    assert torch.equal(run.sae.W_enc, train_sae(acts, **SMALL).sae.W_enc)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_before_training(acts, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CourseError, match="checkpoint=.*cannot be written"):
        train_sae(acts, checkpoint=tmp_path / "file" / "run", **SMALL)
    sae = train_sae(acts, **SMALL | {"n_samples": 128}).sae
    with pytest.raises(CourseError, match="directory=.*cannot be written"):
        save_sae(sae, tmp_path / "file" / "sae")


def test_a_cut_or_missing_sae_is_one_sentence(acts, tmp_path):
    save_sae(train_sae(acts, **SMALL | {"n_samples": 128}).sae, tmp_path)
    weights = tmp_path / "sae_weights.safetensors"
    assert load_file(weights)["W_enc"].shape == (D, WIDTH)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CourseError, match="damaged or cut short"):
        load_sae(tmp_path)
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(CourseError, match="damaged or cut short"):
        load_sae(tmp_path)
    with pytest.raises(CourseError, match="no folder with a saved SAE"):
        load_sae(tmp_path / "nothing")


@pytest.mark.parametrize(("change", "said"), [
    ({"kind": "bachtopk"}, "kind='bachtopk' is not known; nearest: 'batchtopk'"),
    ({"k": 49}, "k=49 must lie in 1 to width=48"), ({"k": 0}, "k=0 must lie"), ({"k": -3}, "k=-3 must lie"),
    ({"k": float("nan")}, "k=nan must lie"), ({"k": 2.5, "kind": "topk"}, "k=2.5 must be a whole number"),
    ({"width": 0}, "width=0 must be a whole number of at least 1"),
    ({"l1": -1.0, "kind": "standard"}, "l1=-1.0 must be"),
    ({"lr": 0.0}, "lr=0.0 must be"), ({"n_samples": 100}, "n_samples=100 is less than one batch"),
    ({"batch_size": 10_000, "n_samples": 20_000}, "hold 3960 activations, fewer than one batch"),
    ({"seed": -1}, "seed=-1 must be"),
    ({"log_every": 0}, "log_every=0 must be"), ({"aux_rows": 0}, "aux_rows=0 must be"),
    ({"aux_los_coefficient": 1.0}, "nearest: 'aux_loss_coefficient'"),
    ({"normalize_activations": "never"}, "refused by sae-lens"),
])
def test_bad_settings_are_one_sentence(change, said, acts):
    with pytest.raises(CourseError, match=said) as caught:
        train_sae(acts, **SMALL | change)
    assert "\n" not in str(caught.value)


def test_an_unknown_family_lists_all_where_none_is_near(acts):
    with pytest.raises(CourseError) as caught:
        train_sae(acts, kind="xyz")
    assert all(f"'{kind}'" in str(caught.value) for kind in families())


def test_nan_is_refused_with_its_row(acts):
    x = acts.x.clone()
    x[1234, 3] = float("nan")
    with pytest.raises(CourseError, match="row 1234"):
        train_sae(harvested(x), **SMALL)
    with pytest.raises(CourseError, match="row 1234"):
        train_sae(iter(x.split(500)), **SMALL)


def test_a_stream_of_any_chunks_trains_and_serves_each_row_once():
    x = torch.arange(5000.0)[:, None].expand(-1, 4)
    sizes = torch.randint(1, 200, (100,), generator=torch.Generator().manual_seed(0)).tolist()
    chunks = x.split([*sizes[:40], 5000 - sum(sizes[:40])])
    served = list(rebatched(chunks, 64, seed=0))
    assert all(b.shape == (64, 4) for b in served)
    rows = torch.cat(served)[:, 0]
    assert len(rows) == 5000 - 5000 % 64 and len(rows.unique()) == len(rows)
    assert (rows[1:] - rows[:-1]).abs().median() > 100  # mixed, not in order
    run = train_sae(iter(synthetic().split(300)), **SMALL | {"n_samples": 128 * 30})
    assert variance_explained(run.sae, synthetic()) > 0.5


def test_a_stream_that_ends_early_says_so_and_keeps_what_it_has():
    with pytest.warns(UserWarning, match=r"ended after 3,968 of n_samples=7,680"):
        run = train_sae(iter(synthetic().split(300)), **SMALL)
    assert run.sae.cfg.metadata.n_samples == 3968 and variance_explained(run.sae, synthetic()) > 0.5
    for stream, said in ((iter([]), "ended before one batch"), (iter(torch.ones(50, 4).split(9)), "ended before one"),
                         (iter([torch.ones(9, 4), torch.ones(9, 5)]), r"\(9, 5\) after 9 rows.*\[batch, 4\]")):
        with pytest.raises(CourseError, match=said):
            train_sae(stream, **SMALL)
    with pytest.raises(CourseError, match="n_samples is needed with a stream"):
        train_sae(iter([torch.ones(9, 4)]))


def test_nothing_is_logged_to_a_service(acts, monkeypatch):
    import wandb

    for name in ("init", "log"):
        monkeypatch.setattr(wandb, name, lambda *a, **k: pytest.fail("logged to wandb"))
    train_sae(acts, **SMALL | {"n_samples": 256})
    assert wandb.run is None


@pytest.mark.parametrize("step", ["auto", "library"])
def test_a_frozen_decoder_keeps_the_directions_that_were_drawn(step):
    x = torch.randn(4096, 16, generator=torch.Generator().manual_seed(0))
    settings = {"width": 32, "k": 4, "n_samples": 8192, "batch_size": 256, "seed": 3, "step": step}
    start = train_sae(x, **settings | {"n_samples": 256, "lr": 1e-12}, freeze_decoder=True).sae
    frozen, free = (train_sae(x, **settings, freeze_decoder=freeze).sae for freeze in (True, False))
    kept = torch.nn.functional.cosine_similarity(frozen.W_dec, start.W_dec)
    assert kept.min() > 1 - 1e-5 and torch.nn.functional.cosine_similarity(free.W_dec, start.W_dec).min() < 0.99
    assert not torch.allclose(frozen.W_enc, start.W_enc, atol=1e-2)  # all else trains


def test_a_frozen_decoder_resumes_to_the_same_weights(tmp_path):
    x = torch.randn(2048, 16, generator=torch.Generator().manual_seed(0))
    settings = {"width": 32, "k": 4, "n_samples": 4096, "batch_size": 256, "freeze_decoder": True}
    whole = train_sae(x, **settings).sae
    train_sae(x, checkpoint=tmp_path, checkpoint_every=5, **settings)
    max(tmp_path.glob("*.safetensors")).unlink()  # as if cut off before the last
    again = train_sae(x, checkpoint=tmp_path, checkpoint_every=5, **settings).sae
    assert torch.equal(whole.W_dec, again.W_dec) and torch.equal(whole.W_enc, again.W_enc)
