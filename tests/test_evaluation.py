"""The judge, against oracles: dictionaries whose figures are known, numpy, and the model's own loss."""

import numpy as np
import pytest
import torch

from course_utils.dictionaries.evaluation import evaluate, explained_variance
from course_utils.errors import CourseError

HOOK = "blocks.2.hook_resid_post"
QUICK = {"n_tokens": 2000, "n_boot": 200}


def standard(W_enc, W_dec, b_dec=None, hook=HOOK):
    """A ReLU SAE with these weights."""
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    d, width = W_enc.shape
    sae = StandardSAE(StandardSAEConfig(d_in=d, d_sae=width, metadata=SAEMetadata(hook_name=hook)))
    b_dec = torch.zeros(d) if b_dec is None else b_dec
    sae.load_state_dict({"W_enc": W_enc, "W_dec": W_dec, "b_dec": b_dec, "b_enc": torch.zeros(width)})
    return sae


def identity(d=64, hook=HOOK):
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    return standard(both.T.clone(), both, hook=hook)


def random_sae(d=64, width=96):
    g = torch.Generator().manual_seed(0)
    return standard(torch.randn(d, width, generator=g) / 8, torch.randn(width, d, generator=g) / 8)


@pytest.fixture(scope="module")
def judged(stories_lab):
    """An evaluation, and what it should say, computed plainly: one document after the other, no hooks, no batches."""
    sae, x, docs, losses = random_sae(), [], [], []
    for batch in stories_lab.batches(QUICK["n_tokens"], "heldout"):
        for tokens, mask, doc in zip(batch.tokens, batch.mask, batch.doc.tolist(), strict=True):
            tokens = tokens[mask][None]
            x.append(stories_lab.capture(tokens, HOOK)[0])
            docs.append(doc)
            logits = stories_lab.model.original_model(tokens).logits[0, :-1]
            losses.append(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum").item())
    return evaluate(stories_lab, sae, **QUICK), sae, x, docs, losses


def test_reconstruction_equals_a_plain_computation(judged):
    m, sae, x, docs, losses = judged
    plain = torch.cat([row[1:] for row in x])
    with torch.no_grad():
        latents = sae.encode(plain)
        residual = (plain - sae.decode(latents)).double().numpy()
        everything = torch.cat(x)
        all_residual = (everything - sae(everything)).double().numpy()
    y, z = plain.double().numpy(), everything.double().numpy()
    assert m.explained_variance.value == pytest.approx(1 - (residual**2).sum() / ((y - y.mean(0)) ** 2).sum(), rel=1e-5)
    assert m.explained_variance_with_bos.value == pytest.approx(
        1 - (all_residual**2).sum() / ((z - z.mean(0)) ** 2).sum(), rel=1e-5)
    assert m.explained_variance.value != pytest.approx(m.explained_variance_with_bos.value, rel=1e-3)
    fired = (latents != 0).numpy()
    assert m.n_tokens == len(plain) == 2000 and m.hook == HOOK
    assert m.l0.value == pytest.approx(fired.sum(1).mean(), rel=1e-4)
    assert np.allclose(m.density, fired.mean(0), atol=2e-3) and m.density.sum() == pytest.approx(m.l0.value)
    assert m.dead.value == pytest.approx((fired.sum(0) == 0).mean())
    assert m.ce_clean.value == pytest.approx(sum(losses) / 2000, rel=1e-4)
    assert m.ce_clean.n == len(set(docs)) > 5


def test_intervals_are_those_of_a_slow_bootstrap_over_documents(judged):
    m, sae, x, docs, losses = judged
    names = sorted(set(docs))
    of = {name: [i for i, doc in enumerate(docs) if doc == name] for name in names}
    rng, values = np.random.default_rng(1), []
    with torch.no_grad():
        residuals = [(row[1:] - sae(row[1:])).square().sum(1).numpy() for row in x]
    for _ in range(300):
        rows = [i for name in rng.choice(names, len(names)) for i in of[name]]
        y = torch.cat([x[i][1:] for i in rows]).double()
        values.append(1 - sum(residuals[i].sum() for i in rows) / float((y - y.mean(0)).square().sum()))
    low, high = np.quantile(values, [0.025, 0.975])
    width = high - low
    assert m.explained_variance.low == pytest.approx(low, abs=0.3 * width)
    assert m.explained_variance.high == pytest.approx(high, abs=0.3 * width)
    for name, value in m._asdict().items():
        if name not in ("density", "n_tokens", "hook", "document_losses", "document_tokens"):
            assert value.low <= value.value <= value.high and value.n == m.ce_clean.n, name


def test_a_perfect_dictionary_costs_nothing(stories_lab):
    m = evaluate(stories_lab, identity(), **QUICK)
    assert m.splice_error.value < 1e-4
    assert m.explained_variance.value == pytest.approx(1) and m.explained_variance_with_bos.value == pytest.approx(1)
    assert m.ce_recovered_zero.value == pytest.approx(1, abs=1e-4) == m.ce_recovered_mean.value
    assert m.ce_spliced.value == pytest.approx(m.ce_clean.value, abs=1e-5)
    assert m.l0.value == pytest.approx(64, abs=0.1) and m.ce_clean.value < 2 < m.ce_mean.value


def test_an_empty_dictionary_is_the_ablation_itself(stories_lab):
    none = torch.zeros(64, 8)
    x = [stories_lab.capture(b.tokens, HOOK)[:, 1:][b.mask[:, 1:]] for b in stories_lab.batches(2000, "train")]
    zero, constant = (evaluate(stories_lab, standard(none, none.T.clone(), b), **QUICK)
                      for b in (None, torch.cat(x).mean(0)))
    assert zero.ce_spliced.value == pytest.approx(zero.ce_zero.value, rel=1e-6)
    assert zero.ce_recovered_zero.value == pytest.approx(0, abs=1e-6)
    assert constant.ce_spliced.value == pytest.approx(constant.ce_mean.value, rel=1e-4)
    assert constant.ce_recovered_mean.value == pytest.approx(0, abs=1e-4)
    assert constant.explained_variance.value == pytest.approx(0, abs=0.02) and zero.explained_variance.value < 0
    assert zero.dead.value == 1 and zero.l0.value == 0 and not zero.density.any()
    assert zero.ce_zero.value > zero.ce_clean.value + 1


def test_the_splice_check_sees_an_activation_that_does_not_come_back(stories_lab):
    far = identity()
    far.b_dec.data[0] = 1e7  # float32 keeps no digit of the activation beside it: recon + error is not the activation
    far.cfg.apply_b_dec_to_input = False
    assert evaluate(stories_lab, far, **QUICK).splice_error.value > 0.1


def test_the_right_hook_is_the_best_one(stories_lab):
    from course_utils.activations import harvest
    from course_utils.dictionaries import train_sae

    acts = harvest(stories_lab, HOOK, n_tokens=6000)
    sae = train_sae(acts, width=128, k=8, n_samples=60_000, batch_size=512).sae
    right, wrong = (evaluate(stories_lab, sae, hook=hook, **QUICK) for hook in (None, "blocks.0.hook_resid_post"))
    assert right.hook == HOOK and wrong.hook == "blocks.0.hook_resid_post"
    assert right.explained_variance.value > 0.7 > 0.5 > wrong.explained_variance.value
    assert right.ce_clean.value < right.ce_spliced.value < right.ce_mean.value < right.ce_zero.value
    assert right.ce_clean == wrong.ce_clean


def test_heads_are_laid_side_by_side(stories_lab):
    m = evaluate(stories_lab, identity(hook="blocks.1.attn.hook_z"), **QUICK)
    assert m.ce_recovered_mean.value == pytest.approx(1, abs=1e-3) and m.explained_variance.value == pytest.approx(1)
    joins = identity(hook="blocks.1.attn.hook_z")
    joins.turn_on_forward_pass_hook_z_reshaping()  # as sae-lens itself opens an SAE that joins the heads
    assert evaluate(stories_lab, joins, **QUICK)[:-5] == m[:-5]


def test_explained_variance_of_sums_is_exact():
    y = np.random.default_rng(0).normal(size=(50, 3)) + 100
    residual = 0.1 * y[:, :1]
    sums = np.concatenate([[50, (residual**2).sum(), (y**2).sum()], y.sum(0)])
    assert explained_variance(sums) == pytest.approx(1 - (residual**2).sum() / ((y - y.mean(0)) ** 2).sum())
    assert np.allclose(explained_variance(np.stack([sums, 2 * sums])), explained_variance(sums))


def test_dead_latents_interval_reaches_down():
    from course_utils.dictionaries.evaluation import _dead

    fired = np.zeros((60, 10), dtype=bool)
    fired[:, :5] = True  # always
    fired[0, 5:8] = True  # in one document each: a third of the resamples miss it
    m = _dead(fired, 500, 0)
    assert m.value == pytest.approx(0.2) and m.low == 0 and m.high == m.value
    assert _dead(np.ones((9, 4), dtype=bool), 100, 0)[:3] == (0, 0, 0)


@pytest.mark.parametrize(("hook", "said"), [
    ("blocks.2.hook_resid_pots", "nearest: 'blocks.2.hook_resid_post'"),
    ("blocks.1.mlp.hook_pre", "sae reads vectors of width 64, but this hook's have"), (None, "metadata.hook_name says"),
])
def test_a_wrong_hook_is_one_sentence(stories_lab, hook, said):
    with pytest.raises(CourseError, match=said):
        evaluate(stories_lab, identity(hook=hook), **QUICK)


@pytest.mark.parametrize(("settings", "said"), [
    ({"n_tokens": 0}, "n_tokens=0 must be at least 1"), ({"split": "test"}, "split='test' is not known"),
    ({"n_tokens": 5}, "1 group gives no interval"), ({"n_boot": 0}, "n_boot=0 must be at least 1"),
])
def test_bad_settings_are_one_sentence(stories_lab, settings, said):
    with pytest.raises(CourseError, match=said):
        evaluate(stories_lab, identity(), **{"n_tokens": 600} | settings)


def test_the_losses_of_documents_add_up_to_the_reported_ones(judged):
    m = judged[0]
    means = m.document_losses.sum(0) / m.document_tokens.sum()
    assert means == pytest.approx([m.ce_clean.value, m.ce_spliced.value, m.ce_zero.value, m.ce_mean.value])
    assert m.document_tokens.sum() == m.n_tokens and len(m.document_tokens) == m.ce_clean.n
