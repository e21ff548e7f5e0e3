"""What an SAE reads: centring folded in exactly, each preprocessing recognised, a bad SAE not taken for misread."""

import copy

import pytest
import torch
from sae_lens import SAE

from course_utils.activations import harvest
from course_utils.dictionaries import (
    evaluate,
    load_sae,
    preprocessing_check,
    published,
    published_saes,
    releases,
    save_sae,
    train_sae,
)
from course_utils.dictionaries.preprocessing import READINGS
from course_utils.dictionaries.reading import decode, fold_centring, reads_centred
from course_utils.errors import CourseError
from course_utils.interventions import ablate, splice
from course_utils.lab import open_lab

D, WIDTH = 32, 96
HOOK = "blocks.1.hook_resid_post"
CENTRED = {"center_writing_weights": True}


def random_sae(kind="standard", d=D, width=WIDTH, hook=HOOK, kwargs=CENTRED, seed=0, **config):
    """An SAE of a family with random weights; `b_dec` and the encoder have a mean over d that is far from 0."""
    needs = {"topk": {"k": 8}}.get(kind, {})
    sae = SAE.from_dict({"architecture": kind, "d_in": d, "d_sae": width, "metadata": {
        "hook_name": hook, "model_from_pretrained_kwargs": kwargs}, **needs, **config})
    g = torch.Generator().manual_seed(seed)
    state = {name: 0.5 * torch.randn(t.shape, generator=g) + 0.2 for name, t in sae.state_dict().items()}
    sae.load_state_dict(state)
    return sae.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def x():
    return torch.randn(3, 50, D, generator=torch.Generator().manual_seed(1)) + torch.randn(3, 50, 1) * 5


def centred(x):
    return x - x.mean(-1, keepdim=True)


@pytest.mark.parametrize("into_input", [True, False])
@pytest.mark.parametrize("kind", ["standard", "topk", "jumprelu", "gated", "abstopk"])
def test_folded_centring_is_centring(kind, into_input, x):
    sae = random_sae(kind, apply_b_dec_to_input=into_input, **({"k": 8} if kind == "abstopk" else {}))
    folded = fold_centring(copy.deepcopy(sae))
    latents = sae.encode(centred(x))
    torch.testing.assert_close(folded.encode(x), latents, atol=2e-4, rtol=1e-4)
    assert not torch.allclose(sae.encode(x), latents, atol=0.1)
    back = decode(folded, latents, x)
    torch.testing.assert_close(back, sae.decode(latents) + x.mean(-1, keepdim=True), atol=2e-4, rtol=1e-4)
    again = copy.deepcopy(folded)
    assert torch.equal(fold_centring(again).b_enc if kind != "gated" else fold_centring(again).b_mag,
                       folded.b_enc if kind != "gated" else folded.b_mag)


def test_a_saved_sae_is_folded_once(x, tmp_path):
    original = random_sae()
    save_sae(original, tmp_path / "as-published")
    folded = load_sae(tmp_path / "as-published")
    assert reads_centred(folded) and not reads_centred(load_sae(tmp_path / "as-published", fold=False))
    save_sae(folded, tmp_path / "folded")
    twice = load_sae(tmp_path / "folded")
    assert all(torch.equal(weight, twice.state_dict()[name]) for name, weight in folded.state_dict().items())
    torch.testing.assert_close(twice.encode(x), original.encode(centred(x)), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("hook", "kwargs", "config", "asked"), [
    (HOOK, CENTRED, {}, True), ("blocks.0.hook_mlp_out", CENTRED, {}, True), (HOOK, {}, {}, False),
    (HOOK, {"center_writing_weights": False}, {}, False), ("blocks.0.mlp.hook_post", CENTRED, {}, False),
    ("blocks.1.attn.hook_z", CENTRED, {"reshape_activations": "hook_z"}, False),
    (HOOK, CENTRED, {"normalize_activations": "layer_norm"}, False)])
def test_only_what_writes_into_the_residual_stream_is_centred(hook, kwargs, config, asked, tmp_path):
    save_sae(random_sae(hook=hook, kwargs=kwargs, **config), tmp_path)
    assert reads_centred(load_sae(tmp_path)) == asked


def test_what_cannot_be_folded_is_one_sentence(tmp_path):
    with pytest.raises(CourseError, match="'constant_norm_rescale', into which centring cannot be folded"):
        fold_centring(random_sae(normalize_activations="constant_norm_rescale"))
    save_sae(random_sae(normalize_activations="constant_norm_rescale"), tmp_path)
    with pytest.raises(CourseError, match="cannot be folded"):
        load_sae(tmp_path)
    assert not reads_centred(load_sae(tmp_path, fold=False))


# --- in a model -----------------------------------------------------------------------------------------------------


def test_a_layer_norm_does_not_see_the_mean(small_lab, stories_lab):
    """Why an SAE may leave it out in GPT-2; and that in a Llama, whose norm does not centre, it may not."""
    changes = []
    for lab in (small_lab, stories_lab):
        tokens = next(lab.batches(300)).tokens
        clean, changed = lab.logits(tokens), lab.run(tokens, hooks=[(HOOK, centred)])
        changes.append(float((changed - clean).abs().max() / clean.std()))
    assert changes[0] < 1e-5 < 0.01 < changes[1]


@pytest.mark.parametrize("mode", ["layer_norm", "constant_norm_rescale", "none"])
def test_interventions_and_the_judge_take_every_normalisation(mode, small_lab):
    sae = random_sae(normalize_activations=mode, kwargs=CENTRED if mode == "none" else {})
    sae = fold_centring(sae) if mode == "none" else sae
    tokens = next(small_lab.batches(300)).tokens
    clean = small_lab.logits(tokens)
    act = small_lab.capture(tokens, HOOK)
    with splice(small_lab, sae):
        spliced = small_lab.capture(tokens, "blocks.2.hook_resid_pre")
    torch.testing.assert_close(spliced[:, 1:], decode(sae, sae.encode(act), act)[:, 1:], atol=1e-4, rtol=1e-4)
    with splice(small_lab, sae, error_term=True):
        torch.testing.assert_close(small_lab.logits(tokens), clean, atol=1e-3, rtol=1e-3)
    with ablate(small_lab, sae, []):
        assert torch.equal(small_lab.logits(tokens), clean)
    with ablate(small_lab, sae, [], error_term=False):
        torch.testing.assert_close(small_lab.capture(tokens, "blocks.2.hook_resid_pre"), spliced, atol=1e-4, rtol=1e-4)
    assert evaluate(small_lab, sae, 600, n_boot=50).splice_error.value < 1e-3


# --- the check ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab(tiny_gpt2):
    """GPT-2 with an outlier dimension, as the real one has: the mean over d_model is far from 0, and varies."""
    lab = open_lab(tiny_gpt2.directory, text=tiny_gpt2.text, device="cpu", quiet=True)
    with torch.no_grad():
        outlier = torch.randn(lab.d_vocab, generator=torch.Generator().manual_seed(0))
        lab.model.original_model.transformer.wte.weight[:, 7] += 6 + 3 * outlier
    return lab


@pytest.fixture(scope="module")
def raw(lab):
    acts = harvest(lab, HOOK, 8000)
    return acts.x[acts.usable]


def trained(x, reading, hook=HOOK, **settings):
    """An SAE trained on activations that somebody preprocessed."""
    shift, factor = READINGS[reading][2](x)
    usual = {"width": 128, "k": 8, "n_samples": 60_000, "batch_size": 512}
    sae = train_sae((x - shift) * factor, **usual | settings).sae
    sae.cfg.metadata["hook_name"] = hook
    return sae


def rightly(sae, reading, check):
    """Open an SAE as it was trained."""
    if reading == "centred":
        return fold_centring(sae)
    if reading == "scaled":
        sae.fold_activation_norm_scaling_factor(check.factor)
    else:
        sae.cfg.normalize_activations = {"unit_norm": "constant_norm_rescale"}.get(reading, reading)
        sae._setup_activation_normalization()
    return sae


@pytest.mark.parametrize("reading", [name for name in READINGS if name != "raw"])
def test_a_wrong_preprocessing_is_caught_and_the_right_one_passes(reading, lab, raw):
    sae = trained(raw, reading)
    wrong = preprocessing_check(lab, sae)
    assert not wrong.ok and wrong.reads == reading
    assert str(wrong).startswith(f"This SAE reads {READINGS[reading][0]}: of their variance it explains 0.9")
    assert "as it is opened" in wrong.said
    # The splice check alone passes: reconstruction + error is the activation, whatever the SAE was fed.
    assert evaluate(lab, sae, 1500, n_boot=50).splice_error.value < 1e-3
    right = preprocessing_check(lab, rightly(sae, reading, wrong))
    assert right.ok and right.said.startswith("This SAE is opened rightly")
    assert right.explained_variance["raw"].value == pytest.approx(wrong.explained_variance[reading].value, abs=1e-3)


def test_activations_that_come_in_too_long_show_in_the_number_of_latents():
    """They are explained no worse, but by far too many: explained variance alone would pass it."""
    lab, hook = open_lab("organism", device="cpu", quiet=True), "blocks.3.hook_resid_post"
    acts = harvest(lab, hook, 20_000, labels=False)
    sae = trained(acts.x[acts.usable], "scaled", hook, width=256, k=16)
    wrong = preprocessing_check(lab, sae)
    assert wrong.reads == "scaled" and wrong.factor < 0.4 and wrong.l0["raw"] > 2 * wrong.l0["scaled"]
    assert wrong.explained_variance["raw"].value > wrong.explained_variance["scaled"].value
    right = preprocessing_check(lab, rightly(sae, "scaled", wrong))
    assert right.ok and right.l0["raw"] == pytest.approx(wrong.l0["scaled"], rel=1e-3)


@pytest.mark.parametrize("bad", [{"n_samples": 512 * 4}, {"kind": "standard", "l1": 15}, {"kind": "standard", "l1": 40},
                                 {"width": 4, "k": 1}, {"k": 1}, {"kind": "jumprelu", "n_samples": 512 * 20}])
def test_a_merely_bad_sae_is_not_taken_for_a_misread_one(bad, lab, raw):
    check = preprocessing_check(lab, trained(raw, "raw", **bad))
    assert check.ok and check.reads == "raw", check


def test_a_random_sae_and_one_at_another_hook_are_no_misreading(lab, raw):
    assert "poor, or at the wrong hook" in preprocessing_check(lab, random_sae(kwargs={})).said
    assert preprocessing_check(lab, trained(raw, "raw"), hook="blocks.2.hook_resid_post").ok


def test_metadata_that_asks_for_more_than_was_done_is_warned_of(small_lab):
    with pytest.warns(UserWarning, match="reads activations centred .*preprocessing_check"):
        evaluate(small_lab, random_sae(), 600, n_boot=20)
    with pytest.warns(UserWarning, match="scaled to a mean length"):
        evaluate(small_lab, random_sae(kwargs={}, normalize_activations="expected_average_only_in"), 600, n_boot=20)


def test_explained_variance_of_a_centred_sae_leaves_the_mean_out_of_both_sums(lab, raw):
    sae = fold_centring(trained(raw, "centred"))
    acts = harvest(lab, HOOK, 1500, "heldout")
    x = acts.x[acts.usable].double()
    y, z = centred(x), centred(sae.decode(sae.encode(x.float())).double())
    expected = 1 - (y - z).square().sum() / (y - y.mean(0)).square().sum()
    # sae gives nothing in the direction of the mean but what its decoder's rows, trained without it, have left there
    assert evaluate(lab, sae, 1500, n_boot=50).explained_variance.value == pytest.approx(float(expected), abs=5e-3)


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "said"), [
    ("gpt2-small-res-jb", "a release of 13 SAEs; name one of them, e.g. 'gpt2-small-res-jb/blocks.0.hook_resid_pre'"),
    ("gpt2-small-res-jb/blocks.6.hook_resid_post", "id of an SAE in release 'gpt2-small-res-jb'='blocks.6.*nearest: "),
    ("gpt2-small-resjb/blocks.6.hook_resid_pre", "no folder with a saved SAE.*nearest of the .*: 'gpt2-small-res-jb'"),
])
def test_an_unknown_name_is_one_sentence(name, said, no_network):
    with pytest.raises(CourseError, match=said):
        load_sae(name)
    assert no_network == []


def test_the_hub_out_of_reach_is_one_sentence(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CourseError, match="is on the hub, which cannot be reached .ConnectError.; open it once while"):
        load_sae("gpt2-small-res-jb/blocks.6.hook_resid_pre")


def test_a_pickle_is_never_loaded(tmp_path):
    class Library:
        """One that would load a pickle."""

        @staticmethod
        def from_pretrained(*_, **__):
            return torch.load(tmp_path / "sae.pt", weights_only=False)

    torch.save(torch.zeros(1), tmp_path / "sae.pt")
    with pytest.raises(CourseError, match="published as a pickle, which may run any code"):
        published.load(Library, releases(), "gpt2-small-hook-z-kk/blocks.0.hook_z", "cpu")
    assert torch.equal(torch.load(tmp_path / "sae.pt"), torch.zeros(1))  # elsewhere nothing has changed


def test_a_model_that_nobody_published_for_has_none(small_lab, no_network):
    assert published_saes(small_lab) == [] == no_network
