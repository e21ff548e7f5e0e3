"""The shipped SAEs, those that are trained once and kept, and the command that makes them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import course_utils
from course_utils import cli
from course_utils.dictionaries import load_sae, ready_sae, saes, shelf
from course_utils.dictionaries import ready as room
from course_utils.errors import CourseError
from course_utils.lab import open_lab, random_twin
from course_utils.paths import DATA

TINY = {"width": 48, "k": 4, "n_samples": 128 * 40, "n_tokens": 1500, "batch_size": 128}
RECIPES = """
common: {k: 4, n_tokens: 2000, n_samples: 12800, settings: {batch_size: 128}}
saes:
  small: {hook: blocks.0.hook_resid_post, width: 32}
  smaller: {hook: blocks.0.hook_resid_post, width: 16, seed: 3}
"""
TWINS = RECIPES + """
twin_saes:
  random-small: {hook: blocks.0.hook_resid_post, width: 32}
"""


@pytest.fixture(scope="module")
def organism():
    return open_lab("organism", device="cpu", text="world", quiet=True)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))
    return tmp_path


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr("course_utils.dictionaries.train_sae", lambda *a, **k: pytest.fail("trained"))


# --- what is shipped ------------------------------------------------------------------------------------------------


def test_every_recipe_has_its_sae_made_by_it_for_this_organism(organism):
    recipes, twins, cards = shelf.recipes(), shelf.recipes(twin=True), saes()
    assert {*recipes, *twins} == set(cards) == {p.name for p in (DATA / "saes").iterdir() if p.is_dir()}
    shuffled = random_twin(organism).fingerprint
    for name, spec in (recipes | twins).items():
        made_by = {key: cards[name][key] for key in vars(spec)}
        weights = shuffled if name in twins else organism.fingerprint
        assert made_by == vars(spec) and cards[name]["weights"] == weights, name
    assert sum(p.stat().st_size for p in (DATA / "saes").rglob("*") if p.is_file()) <= 25e6
    assert (DATA / "saes" / "README.md").read_text(encoding="utf-8") == shelf.page(cards)


def test_each_layer_has_one_and_the_middle_a_sweep(organism):
    have = {(spec.hook, spec.width) for spec in shelf.recipes().values() if (spec.kind, spec.k) == ("batchtopk", 16)}
    layers = [f"blocks.{i}.hook_resid_post" for i in range(organism.n_layers)]
    assert {(hook, 1024) for hook in layers} <= have
    assert {(organism.middle_hook, organism.d_model * times) for times in (4, 8, 16, 32)} <= have
    assert {(hook, 4096) for hook in layers[1:3]} <= have


@pytest.mark.parametrize("name", shelf.recipes())
def test_sae_lens_reads_it_and_it_does_what_its_card_says(name, organism):
    from sae_lens import SAE

    spec, figures = shelf.recipes()[name], saes()[name]["figures"]
    sae = SAE.load_from_disk(DATA / "saes" / name)
    assert {t.dtype for t in load_file(DATA / "saes" / name / "sae_weights.safetensors").values()} == {torch.float32}
    assert (sae.cfg.d_sae, sae.cfg.metadata.hook_name) == (spec.width, spec.hook)
    assert torch.equal(sae.W_dec, load_sae(name).W_dec)
    rows = [organism.capture(b.tokens, spec.hook)[b.mask & (b.tokens != organism.bos)]
            for b in organism.batches(4000, "heldout")]
    x = torch.cat(rows)
    with torch.no_grad():
        latents = sae.encode(x)
        explained = 1 - (x - sae.decode(latents)).square().sum() / (x - x.mean(0)).square().sum()
    assert float((latents > 0).sum(1).float().mean()) == pytest.approx(figures["l0"][0], rel=0.1)
    assert float(explained) == pytest.approx(figures["explained_variance"][0], abs=0.03)


def test_the_middle_one_is_as_good_as_promised():
    figures = {name: value for name, (value, *_) in saes()["layer-1-width-1024"]["figures"].items()}
    assert figures["l0"] <= 16 and figures["explained_variance"] >= 0.9
    assert figures["ce_recovered_mean"] >= 0.95 and figures["dead"] <= 0.05


def test_a_shipped_one_comes_at_once(organism, no_training):
    for width in (512, 1024):
        sae = ready_sae(organism, width=width)
        assert torch.equal(sae.W_enc, load_sae(f"layer-1-width-{width}").W_enc)
    assert ready_sae(organism, "blocks.3.hook_resid_post").cfg.metadata.hook_name == "blocks.3.hook_resid_post"


def test_one_of_another_family_and_one_of_the_random_twin_come_at_once(organism, no_training):
    l1, its = ready_sae(organism, kind="standard"), ready_sae(random_twin(organism))
    assert torch.equal(l1.W_enc, load_sae("layer-1-width-1024-standard").W_enc) and not hasattr(l1, "threshold")
    assert torch.equal(its.W_enc, load_sae("random-layer-1-width-1024").W_enc)


def test_a_damaged_one_is_named(monkeypatch):
    from course_utils import paths

    sums = paths.expected_sums()
    wrong = sums | {"saes/layer-1-width-1024/sae_weights.safetensors": "0" * 64}
    monkeypatch.setattr(paths, "expected_sums", lambda: wrong)
    with pytest.raises(CourseError, match="differs from its checksum"):
        load_sae("layer-1-width-1024")


# --- trained once ---------------------------------------------------------------------------------------------------


def test_another_model_is_trained_for_once(small_lab, monkeypatch, folders):
    first = ready_sae(small_lab, **TINY)
    (kept,) = (p for p in (folders / "cache" / "saes").iterdir() if p.is_dir())
    assert {p.name for p in kept.iterdir()} == {"cfg.json", "sae_weights.safetensors", "card.json"}
    assert shelf.card(kept)["weights"] == small_lab.fingerprint and "blocks.0.hook_resid_post-48-" in kept.name
    other = ready_sae(small_lab, **TINY | {"seed": 1})
    assert not torch.equal(first.W_enc, other.W_enc)
    with monkeypatch.context() as m:
        m.setattr("course_utils.dictionaries.train_sae", lambda *a, **k: pytest.fail("trained"))
        assert torch.equal(ready_sae(small_lab, **TINY).W_enc, first.W_enc)
    again = ready_sae(small_lab, **TINY, retrain=True)
    assert torch.equal(again.W_enc, first.W_enc)  # the same seed, the same weights


def test_a_model_that_was_trained_again_gets_its_own(capsys):
    lab = open_lab("organism", device="cpu", text="world")
    with torch.no_grad():
        next(lab.model.original_model.parameters()).mul_(1.01)
    sae = ready_sae(lab, n_samples=2048, n_tokens=1200)
    said = capsys.readouterr().out
    assert "trained on other weights" not in said  # none with so many samples is shipped
    assert not torch.equal(sae.W_enc, load_sae("layer-1-width-1024").W_enc)
    with pytest.raises(RuntimeError, match="training begins"):
        with pytest.MonkeyPatch.context() as m:
            def begin(*args, **settings):
                raise RuntimeError("training begins")

            m.setattr(room, "make_sae", begin)
            ready_sae(lab)
    assert "data/saes/layer-1-width-1024 was trained on other weights of organism than these" in capsys.readouterr().out


def test_what_was_cut_off_goes_on(small_lab, monkeypatch, folders):
    from course_utils.dictionaries import train_sae

    whole = ready_sae(small_lab, **TINY)
    (kept,) = (p for p in (folders / "cache" / "saes").iterdir() if p.is_dir())
    (kept / "card.json").unlink()

    class Stopped(Exception):
        pass

    def stop(rows):
        raise Stopped

    def cut(*args, **settings):
        return train_sae(*args, **settings, checkpoint_every=10, log_every=25, on_log=stop)

    with monkeypatch.context() as m:
        m.setattr("course_utils.dictionaries.train_sae", cut)
        with pytest.raises(Stopped):
            ready_sae(small_lab, **TINY)
    (work,) = (folders / "cache" / "saes").glob("*.work")
    assert list(work.glob("training-*/step-00000020.safetensors")) and list(work.glob("harvest-*/index.json"))
    assert torch.equal(ready_sae(small_lab, **TINY).W_enc, whole.W_enc)
    assert not work.exists()


@pytest.mark.parametrize(("change", "said"), [
    ({"width": 0}, "width=0 must be"), ({"kind": "topck"}, "kind='topck' is not known"), ({"k": 99}, "k=99 must lie"),
    ({"hook": "blocks.9.hook_resid_post"}, "hook='blocks.9.hook_resid_post' is not known"),
    ({"on_log": print}, "on_log is for train_sae"), ({"n_samples": 5}, "n_samples=5 is less than one batch"),
    ({"lr": torch.tensor(1.0)}, "settings must be numbers, names"),
])
def test_bad_settings_are_one_sentence_before_any_work(change, said, small_lab, monkeypatch):
    monkeypatch.setattr(room, "harvest", lambda *a, **k: pytest.fail("harvested"))
    with pytest.raises(CourseError, match=said):
        ready_sae(small_lab, **TINY | change)


def test_a_damaged_copy_and_a_cache_that_is_none_say_what_to_do(small_lab, folders, monkeypatch):
    ready_sae(small_lab, **TINY)
    (weights,) = (folders / "cache" / "saes").glob("*/sae_weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(CourseError, match="damaged or cut short.*retrain=True"):
        ready_sae(small_lab, **TINY)
    assert ready_sae(small_lab, **TINY, retrain=True).cfg.d_sae == 48
    (folders / "file").touch()
    monkeypatch.setenv("COURSE_CACHE", str(folders / "file" / "cache"))
    with pytest.raises(CourseError, match="cannot be made .*set COURSE_CACHE"):
        ready_sae(small_lab, **TINY)


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def recipes(folders, monkeypatch):
    monkeypatch.setattr(room, "JUDGED", 1000)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    (folders / "saes.yaml").write_text(RECIPES)
    return ["saes", "train", "--recipes", str(folders / "saes.yaml")]


def test_the_command_makes_all_goes_on_and_gives_the_same_bytes(recipes, folders, capsys):
    out = folders / "build" / "saes"
    assert cli.main([*recipes, "--only", "smaller"]) == 0
    assert [p.name for p in out.iterdir()] == ["smaller"]
    assert cli.main(recipes) == 0
    said = capsys.readouterr().out
    assert "smaller is there already." in said and "small (1 of 2): 32 latents" in said
    assert not (folders / "build" / "saes.work").exists()
    assert cli.main([*recipes, "--out", str(folders / "again")]) == 0
    for name in ("small", "smaller"):
        for file in ("sae_weights.safetensors", "cfg.json", "card.json"):
            assert (out / name / file).read_bytes() == (folders / "again" / name / file).read_bytes()
    capsys.readouterr()
    assert cli.main(["saes", "list", "--out", str(out)]) == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows[2:]] == [["smaller", "batchtopk"], ["small", "batchtopk"]] and rows[3][3] == "32"
    assert float(rows[3][4]) == pytest.approx(shelf.card(out / "small")["figures"]["l0"][0], abs=0.05)


def test_recipes_for_the_random_twin_are_trained_on_it(recipes, folders, organism):
    (folders / "saes.yaml").write_text(TWINS)
    assert cli.main([*recipes, "--only", "random-small", "small"]) == 0
    one, its = (shelf.card(folders / "build" / "saes" / name) for name in ("small", "random-small"))
    assert one["weights"] == organism.fingerprint and its["weights"] == random_twin(organism).fingerprint
    assert (one["model"], its["model"]) == ("organism", "organism (random weights)")


def test_a_changed_recipe_or_organism_is_made_anew(recipes, folders, capsys):
    assert cli.main([*recipes, "--only", "smaller"]) == 0
    card = folders / "build" / "saes" / "smaller" / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"weights": "0" * 64}))
    assert cli.main([*recipes, "--only", "smaller"]) == 0
    assert "already" not in capsys.readouterr().out and shelf.card(card.parent)["weights"] != "0" * 64


def test_the_list_of_what_is_shipped(capsys):
    assert cli.main(["saes", "list"]) == 0
    assert all(name in capsys.readouterr().out for name in ["layer-1-width-1024"])


def test_what_cannot_be_done_is_one_sentence(recipes, folders, capsys):
    assert cli.main([*recipes, "--only", "smal"]) == 2
    assert "--only='smal' is not known; nearest: 'small'" in capsys.readouterr().err
    assert cli.main(["saes", "list", "--out", str(folders)]) == 2
    assert "holds no SAE" in capsys.readouterr().err
    (folders / "saes.yaml").write_text("saes:\n  one: {hook: blocks.0.hook_resid_post, widht: 3}\n")
    assert cli.main(recipes) == 2
    assert "widht" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_bytes(folders):
    """SIGKILL in the midst of the training of the first; the same command again, and a run without interruption."""
    long = RECIPES.replace("12800", "256000")
    (folders / "saes.yaml").write_text(long)
    code = "import sys; from course_utils import cli; from course_utils.dictionaries import ready\n" \
           "ready.JUDGED = 1000; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "saes", "train", "--recipes", str(folders / "saes.yaml")]

    def begin(build):
        return subprocess.Popen(command, env=os.environ | {"COURSE_BUILD": str(folders / build)}, cwd=folders)

    child = begin("one")
    deadline = time.monotonic() + 120
    while not list(folders.glob("one/saes.work/training-*/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and not list(folders.glob("one/saes/*/card.json"))
    assert begin("one").wait() == 0 and begin("two").wait() == 0
    for name in ("small", "smaller"):
        file = f"saes/{name}/sae_weights.safetensors"
        assert (folders / "one" / file).read_bytes() == (folders / "two" / file).read_bytes()


def test_the_public_name():
    assert course_utils.ready_sae is ready_sae
