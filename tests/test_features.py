"""Latents as detectors of concepts, against scikit-learn; examples, against the text they come from."""

from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

from course_utils import lessons
from course_utils.activations import Activations, harvest
from course_utils.errors import CourseError
from course_utils.features import concept_scores, latent_values, top_examples


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
