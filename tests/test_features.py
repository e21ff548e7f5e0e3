"""Latents as detectors of concepts, against scikit-learn; examples, against the text they come from."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from scipy.sparse import csc_array
from sklearn.metrics import jaccard_score, precision_recall_fscore_support

from course_utils import lessons
from course_utils.activations import Activations, harvest
from course_utils.concepts import Labels
from course_utils.errors import CourseError
from course_utils.features import (
    cofiring,
    column,
    concept_scores,
    concept_tables,
    density,
    final_scale,
    latent_values,
    logit_effects,
    neighbours,
    quantile_examples,
    sae_latents,
    top_examples,
)
from course_utils.interventions import steer


def ReLU(d):  # (stands in for a class of SAEs: latents are the positive parts of the activation)
    return SimpleNamespace(W_dec=torch.eye(d), cfg=SimpleNamespace(d_sae=d), encode=torch.relu)


@pytest.fixture
def acts():
    generator = torch.Generator().manual_seed(0)
    pos = torch.arange(600) % 20
    return Activations(torch.randn(600, 8, generator=generator), pos, torch.arange(600) // 20, pos, None, "h", "m")


def test_scores_are_scikit_learns(acts):
    concept = torch.rand(600, generator=torch.Generator().manual_seed(1)) < 0.2
    found = concept_scores(ReLU(8), acts, concept)
    rows = acts.usable
    for latent in range(8):
        theirs = precision_recall_fscore_support(concept[rows], acts.x[rows, latent] > 0, average="binary")
        ours = [float(column[latent]) for column in found]
        assert ours == pytest.approx(theirs[:3], abs=1e-6)


def test_a_latent_that_never_fires_scores_zero(acts):
    acts.x[:, 3] = -1
    found = concept_scores(ReLU(8), acts, acts.pos == 5)
    assert [float(column[3]) for column in found] == [0, 0, 0]


def test_bos_is_left_out(acts):
    acts.x[acts.is_bos] = 100.0
    assert (latent_values(ReLU(8), acts, 2)[acts.is_bos] == 0).all()
    only_bos = acts.pos == 0
    with pytest.raises(CourseError, match="stands on no token"):
        concept_scores(ReLU(8), acts, only_bos)


def test_bad_input_is_named(acts):
    with pytest.raises(CourseError, match="concept has 3 rows; the harvest has 600"):
        concept_scores(ReLU(8), acts, torch.ones(3, dtype=torch.bool))
    with pytest.raises(CourseError, match="latent=8 must lie in 0 to 7"):
        latent_values(ReLU(8), acts, 8)


def test_examples_are_the_strongest_tokens_in_their_own_text(small_lab):
    acts = harvest(small_lab, small_lab.middle_hook, 1_500)
    sae = ReLU(small_lab.d_model)
    found = top_examples(small_lab, sae, acts, 3, n=5, context=4)
    values = latent_values(sae, acts, 3)
    assert found[0].activation == pytest.approx(float(values.max()))
    assert [e.activation for e in found] == sorted((e.activation for e in found), reverse=True)
    best = int(values.argmax())
    assert found[0].token == small_lab.text_of([int(acts.tokens[best])])
    documents = ["".join(small_lab.text_of(acts.tokens[(acts.doc == d) & ~acts.is_bos].tolist()))
                 for d in acts.doc.unique()]
    for example in found:
        assert any(example.before + example.token + example.after in text for text in documents)


def test_a_lesson_fits_its_model(small_lab):
    found = lessons.lesson("04", small_lab)
    assert found.concept.startswith("word_list:") and found.width >= found.k > 0
    with pytest.raises(CourseError, match="notebook='4' is not known"):
        lessons.lesson("4", small_lab)


def test_encoded_latents_are_the_saes_without_bos(acts):
    latents = sae_latents(ReLU(8), acts)
    torch.testing.assert_close(torch.from_numpy(latents.toarray()), torch.relu(acts.x[acts.usable]))
    assert density(latents).tolist() == pytest.approx((acts.x[acts.usable] > 0).float().mean(0).tolist())
    assert density(acts.x[acts.usable]).tolist() == pytest.approx(density(latents).tolist())
    assert column(latents, 3).tolist() == column(acts.x[acts.usable], 3).clip(0).tolist()


def test_the_tables_of_two_harvests_have_the_same_concepts(acts):
    generator = torch.Generator().manual_seed(3)

    def labelled(p):
        drawn = torch.multinomial(torch.tensor(p), len(acts), True, generator=generator)
        return replace(acts, labels=Labels.from_documents([{"topic": ["sea", "war", "art", None][i:][:1]}
                                                            for i in drawn.tolist()]))

    y, z = concept_tables(labelled([0.5, 0.2, 0.01, 0.29]), labelled([0.5, 0.001, 0.3, 0.2]), min_count=20)
    assert y.names == z.names == ("topic:sea",)  # war is too rare in the second, art in the first
    assert len(y.on) == len(y.doc) == len(acts.usable) and y.on.shape[1] == 1
    both, _ = concept_tables(labelled([0.5, 0.2, 0.1, 0.2]), labelled([0.5, 0.2, 0.1, 0.2]), ["topic:war", "topic:sea"])
    assert both.names == ("topic:war", "topic:sea")
    with pytest.raises(CourseError, match="harvest with labels=True"):
        concept_tables(acts, acts)


def test_a_neuron_is_read_like_a_latent(small_lab):
    acts = harvest(small_lab, "blocks.1.mlp.hook_post", 1_500)
    width = acts.x.shape[1]
    assert top_examples(small_lab, None, acts, 3, n=4) == top_examples(small_lab, ReLU(width), acts, 3, n=4)
    assert quantile_examples(small_lab, None, acts, 3) == quantile_examples(small_lab, ReLU(width), acts, 3)
    with pytest.raises(CourseError, match=f"latent={width} must lie in 0 to {width - 1}"):
        latent_values(None, acts, width)


def test_bands_share_the_active_tokens_evenly(small_lab):
    acts = harvest(small_lab, small_lab.middle_hook, 1_500)
    sae = ReLU(small_lab.d_model)
    values = latent_values(sae, acts, 3)
    active = values[values > 0].sort(descending=True).values
    bands = quantile_examples(small_lab, sae, acts, 3, bands=4, n=3, context=4, seed=1)
    assert bands[0].high == pytest.approx(float(active[0])) and bands[-1].low == pytest.approx(float(active[-1]))
    for band, part in zip(bands, active.tensor_split(4), strict=True):
        assert (band.low, band.high) == (pytest.approx(float(part[-1])), pytest.approx(float(part[0])))
        assert 1 <= len(band.examples) <= 3
        assert all(band.low <= e.activation <= band.high for e in band.examples)
    assert bands == quantile_examples(small_lab, sae, acts, 3, bands=4, n=3, context=4, seed=1)
    assert bands != quantile_examples(small_lab, sae, acts, 3, bands=4, n=3, context=4, seed=2)
    acts.x[:, 3] = -1
    assert quantile_examples(small_lab, sae, acts, 3) == []


@pytest.mark.parametrize("which", ["small_lab", "stories_lab"])
def test_logit_effects_are_the_models_own_to_first_order(which, request):
    """At a fixed scale of the final norm, adding the direction moves the logits by exactly this."""
    lab = request.getfixturevalue(which)
    tokens = lab.encode("the dog saw a cat")
    hook = f"blocks.{lab.n_layers - 1}.hook_resid_post"
    last = lab.capture(tokens, hook)[0, -1].double()
    direction = torch.randn(lab.d_model, generator=torch.Generator().manual_seed(0))
    centred = last - last.mean() if lab.model.cfg.normalization_type == "LN" else last
    scale = float((centred.square().mean() + lab.model.cfg.eps).sqrt())
    small = 1e-3 * scale
    # Move across the stream, so that the norm's own scale stays as it is.
    flat = direction.double() - direction.mean() if lab.model.cfg.normalization_type == "LN" else direction.double()
    across = (flat - (flat @ centred) / (centred @ centred) * centred).float()
    with steer(lab, hook, across, small):
        moved = lab.logits(tokens)[0, -1].double()
    change = (moved - lab.logits(tokens)[0, -1].double()) / small
    found = logit_effects(lab, across, k=3, scale=scale)
    torch.testing.assert_close(found.logits.double(), change - change.mean(), atol=2e-2, rtol=2e-2)
    assert found.top[0] == (lab.token_strings[int(found.logits.argmax())], pytest.approx(float(found.logits.max())))
    assert found.bottom[0][1] == pytest.approx(float(found.logits.min())) and len(found.bottom) == 3
    with pytest.raises(CourseError, match="direction has length 3"):
        logit_effects(lab, torch.ones(3))


def test_the_final_scale_is_that_of_ordinary_text(small_lab):
    acts = harvest(small_lab, f"blocks.{small_lab.n_layers - 1}.hook_resid_post", 2000)
    sizes = acts.x[acts.usable].std(dim=1, unbiased=False)
    assert sizes.min() < final_scale(small_lab, 2000) < sizes.max()
    assert final_scale(small_lab, 2000) == pytest.approx(1 / float((1 / sizes).mean()), rel=1e-3)


def test_neighbours_are_the_nearest_directions():
    W_dec = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    W_dec[7] = 3 * W_dec[2] + 0.01
    found = neighbours(SimpleNamespace(W_dec=W_dec, cfg=SimpleNamespace(d_sae=20)), 2, n=4)
    assert found[0].latent == 7 and found[0].cosine > 0.99 and len(found) == 4
    assert [f.cosine for f in found] == sorted((f.cosine for f in found), reverse=True)
    assert 2 not in [f.latent for f in found]


def test_cofiring_is_the_correlation_of_being_active(acts):
    latents = sae_latents(ReLU(8), acts)
    on = acts.x[acts.usable] > 0
    on[:, 5] = on[:, 1] & (torch.arange(len(on)) % 3 > 0)
    values = csc_array(on.numpy().astype("float32"))
    found = cofiring(values, 1, n=3)
    assert found[0].latent == 5
    for other, phi, jaccard in found:
        assert phi == pytest.approx(float(torch.corrcoef(on[:, [1, other]].T.float())[0, 1]), abs=1e-5)
        assert jaccard == pytest.approx(jaccard_score(on[:, 1], on[:, other]))
    assert [c.latent for c in cofiring(on.float(), 1, n=3)] == [c.latent for c in found]
    with pytest.raises(CourseError, match="latent=8 must lie in 0 to 7"):
        cofiring(latents, 8)
    alone = on.clone()
    alone[:, [i for i in range(8) if i != 1]] = False
    assert cofiring(alone.float(), 1) == []
