"""Interchange: swapping is patching by hand, spaces swap their part alone, and DAS finds what was planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_interventions import HOOK, hooks_left, make_sae

from course_utils.errors import CourseError
from course_utils.interventions import (
    Coordinates,
    Latents,
    Pairs,
    Subspace,
    Whole,
    das,
    interchange_scores,
    sample,
    swap,
)
from course_utils.lab.questions import at

LAST = "blocks.2.hook_resid_post"


def prompts(lab, n, seed):
    """Random prompts of 4 to 8 tokens, padded behind, and their last places."""
    g = torch.Generator().manual_seed(seed)
    tokens, ends = torch.randint(1, lab.d_vocab, (n, 8), generator=g), torch.randint(3, 8, (n,), generator=g)
    tokens[:, 0] = lab.bos
    return torch.where(torch.arange(8) <= ends[:, None], tokens, lab.bos), ends


def answers(lab, tokens, ends):
    return at(lab.logits(tokens), ends).argmax(-1)


@pytest.fixture(scope="module")
def pairs(small_lab):
    """Swapped in the middle of the prompt, asked at its end."""
    (base, ends), (source, place) = (prompts(small_lab, 12, seed) for seed in (0, 1))
    return Pairs(base, ends - 1, ends, source, place, answers(small_lab, source, place), answers(small_lab, base, ends))


def spaces():
    q = torch.linalg.qr(torch.randn(32, 5, generator=torch.Generator().manual_seed(0))).Q
    return {"whole": Whole(), "coordinates": Coordinates([3, 4, 31]), "subspace": Subspace(q),
            "latents": Latents(make_sae("Standard", HOOK, 32), list(range(40))),
            "latents of few": Latents(make_sae("TopK", HOOK, 32), torch.arange(0, 64, 2))}


@pytest.fixture(scope="module")
def base():
    return torch.randn(9, 32, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def source():
    return torch.randn(9, 32, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", list(spaces()))
def test_a_row_swapped_with_itself_stays_and_the_whole_space_is_the_source(base, source, name):
    space = spaces()[name]
    assert torch.equal(space.swap(base, base.clone()), base)
    assert torch.equal(space.swap(base, source), source) == (name == "whole")
    assert not torch.equal(space.swap(base, source), base)


def test_each_space_swaps_its_part_alone(base, source):
    named = spaces()
    new = named["coordinates"].swap(base, source)
    rest = [i for i in range(32) if i not in (3, 4, 31)]
    assert torch.equal(new[:, [3, 4, 31]], source[:, [3, 4, 31]]) and torch.equal(new[:, rest], base[:, rest])
    q = named["subspace"].Q
    new, across = named["subspace"].swap(base, source), torch.eye(32) - q @ q.T
    torch.testing.assert_close(new @ q, source @ q, atol=1e-5, rtol=0)
    torch.testing.assert_close(new @ across, base @ across, atol=1e-5, rtol=0)
    torch.testing.assert_close(Subspace.of(7 * q.T).swap(base, source), new, atol=1e-5, rtol=0)
    sae = named["latents"].sae
    f, other = sae.encode(base), sae.encode(source)
    expected = base + (other - f)[:, :40] @ sae.W_dec[:40]
    torch.testing.assert_close(named["latents"].swap(base, source), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["Standard", "TopK", "JumpReLU", "Gated"])
def test_all_latents_are_the_sources_reconstruction_and_the_bases_error(base, source, family):
    sae = make_sae(family, HOOK, 32)
    new = Latents(sae, torch.arange(64)).swap(base, source)
    torch.testing.assert_close(new, sae(source) + (base - sae(base)), atol=1e-4, rtol=1e-4)
    assert torch.equal(Latents(sae, []).swap(base, source), base)


@pytest.mark.parametrize("hook", [HOOK, "blocks.1.attn.hook_z", "blocks.2.hook_resid_pre"])
def test_swapping_all_of_it_is_patching_by_hand(small_lab, pairs, hook):
    given = pairs.sources(small_lab, hook)
    with swap(small_lab, hook, given, pairs.base_place, Whole()):
        batched, inside = at(small_lab.logits(pairs.base), pairs.base_end), small_lab.capture(pairs.base, hook)
    clean = small_lab.capture(pairs.base, hook)
    changed = (inside != clean).flatten(2).any(-1)
    assert torch.equal(changed.nonzero()[:, 1], pairs.base_place)  # one place in each row, and the right one
    for i in range(len(given)):
        end, place, of = int(pairs.base_end[i]), int(pairs.base_place[i]), int(pairs.source_place[i])
        alone = small_lab.capture(pairs.source[i : i + 1, : of + 1], hook)[0, of]

        def patch(x, place=place, alone=alone):
            x = x.clone()
            x[0, place] = alone
            return x

        logits = small_lab.run(pairs.base[i : i + 1, : end + 1], hooks=[(hook, patch)])[0, end]
        torch.testing.assert_close(batched[i], logits, atol=1e-4, rtol=1e-4)


def test_swapping_a_run_with_itself_changes_no_bit(small_lab, pairs):
    clean, x = small_lab.logits(pairs.base), small_lab.capture(pairs.base, HOOK)
    for space in spaces().values():
        with swap(small_lab, HOOK, at(x, pairs.base_place), pairs.base_place, space):
            assert torch.equal(small_lab.logits(pairs.base), clean)


def test_several_places_at_once_are_one_after_the_other(small_lab, pairs):
    given, places = pairs.sources(small_lab, HOOK), torch.stack([pairs.base_place, pairs.base_end], 1)
    space = spaces()["subspace"]
    with swap(small_lab, HOOK, torch.stack([given, -given], 1), places, space):
        together = small_lab.logits(pairs.base)
    with swap(small_lab, HOOK, given, places[:, 0], space), swap(small_lab, HOOK, -given, places[:, 1], space):
        torch.testing.assert_close(small_lab.logits(pairs.base), together)


def test_a_cache_changes_no_text_and_places_may_lie_ahead(small_lab):
    given, places = 3 * torch.randn(4, 2, 32, generator=torch.Generator().manual_seed(5)), torch.tensor([[2, 12]] * 4)

    def write(p, cache=True):
        with swap(small_lab, HOOK, given[:, :p], places[:, :p], Whole()):
            return sample(small_lab, ["the dog", "the cat saw a red"], 16, seed=1, n=2, cache=cache).tokens[:, :20]

    near, far = write(1), write(2)
    plain = sample(small_lab, ["the dog", "the cat saw a red"], 16, seed=1, n=2).tokens[:, :20]
    assert torch.equal(near, write(1, cache=False)) and not torch.equal(near, plain)
    assert torch.equal(far[:, :13], near[:, :13]) and not torch.equal(far, near)


def test_scores_are_counted_pair_by_pair(small_lab, pairs):
    differ = pairs.want != pairs.stay
    assert 3 < differ.sum()
    pairs = pairs.take(differ)._replace(base_place=pairs.base_end[differ])  # at its last place the source decides all
    for rows in (64, 3):
        all_of_it = interchange_scores(small_lab, LAST, Whole(), pairs, pairs, rows=rows)
        assert all_of_it.cause.all() and not all_of_it.isolate.any() and all_of_it.disentangle == 0.5
        none = interchange_scores(small_lab, LAST, Coordinates([]), pairs, pairs, rows=rows)
        assert not none.cause.any() and none.isolate.all() and len(none.cause) == len(pairs.base)
    alone = interchange_scores(small_lab, LAST, Whole(), pairs)
    assert len(alone.isolate) == 0 and np.isnan(alone.disentangle)
    mixed = pairs._replace(want=torch.where(torch.arange(len(pairs.want)) % 2 == 0, pairs.want, pairs.stay))
    scored = interchange_scores(small_lab, LAST, Whole(), mixed, rows=2)
    assert scored.cause.tolist() == [i % 2 == 0 for i in range(len(pairs.want))]


# --- a model in which two attributes are planted, each asked for in half of the prompts -------------------------------


@pytest.fixture(scope="module")
def planted(small_lab):
    """Answers depend on the sign along u in one kind of prompt, and on the sign along v in the other."""
    random = torch.randn(32, 3, generator=torch.Generator().manual_seed(7))
    written = small_lab.model.W_U.detach()  # [d vocab]: so that each sign makes one token the answer
    written = torch.stack([written[:, 10] - written[:, 20], written[:, 30] - written[:, 40]], 1)
    u, v, *readers = torch.linalg.qr(torch.cat([written - written.mean(0), random], 1)).Q.T
    base, ends = prompts(small_lab, 500, 8)
    raw = at(small_lab.capture(base, LAST), ends)
    middle = [(raw @ reader).median() for reader in readers]

    def told(x):
        return ((x @ reader > m)[..., None] for reader, m in zip(readers, middle, strict=True))

    def plant(x):
        a, b, kind = told(x)
        rest = x - (x @ u)[..., None] * u - (x @ v)[..., None] * v
        return rest + 100 * torch.where(kind, (2.0 * a - 1) * u, (2.0 * b - 1) * v)

    a, b, kind = (part[:, 0] for part in told(raw))
    with small_lab.hooked((LAST, plant)):
        said = answers(small_lab, base, ends)
    found = []
    for rows, sign in ((kind.nonzero()[:, 0], a), ((~kind).nonzero()[:, 0], b)):
        up, down = rows[sign[rows]], rows[~sign[rows]]
        n = min(len(up), len(down))
        here, there = torch.cat([up[:n], down[:n]]), torch.cat([down[:n], up[:n]])
        assert len(said[here].unique()) == 2 and n > 60
        pairs = Pairs(base[here], ends[here], ends[here], base[there], ends[there], said[there], said[here])
        odd = torch.arange(2 * n) % 2 == 1
        found.append((pairs.take(~odd), pairs.take(odd)))  # for training, and for the test
    return plant, u, v, *found


def test_das_finds_a_planted_direction_and_touches_no_weight(small_lab, planted):
    plant, u, v, (train, test), (_, others) = planted
    weights = {name: p.clone() for name, p in small_lab.model.named_parameters()}
    wanted = [p.requires_grad for p in small_lab.model.parameters()]
    state = torch.get_rng_state()
    with small_lab.hooked((LAST, plant)):
        found = das(small_lab, LAST, train, k=1, steps=60, seed=0)
        assert (found.space.Q.T @ u).abs() > 0.9
        assert found.loss[-10:].mean() < 0.5 * found.loss[:10].mean() and found.loss.shape == (60,)
        scored = interchange_scores(small_lab, LAST, found.space, test, others)
        assert scored.cause.mean() > 0.95 and scored.isolate.mean() > 0.95
        other = Subspace.of(torch.linspace(-1, 1, 32) - u * (torch.linspace(-1, 1, 32) @ u))
        rates = [interchange_scores(small_lab, LAST, space, test, others) for space in (Subspace.of(v), other)]
        assert max(rate.cause.mean() for rate in rates) < 0.05  # neither holds the attribute
        assert rates[0].isolate.mean() < 0.05 and rates[1].isolate.mean() > 0.95  # and the first holds the other one
        with torch.no_grad():  # callers' modes do not matter, and one seed gives one subspace
            again = das(small_lab, LAST, train, k=1, steps=5, seed=0), das(small_lab, LAST, train, k=1, steps=5, seed=0)
        assert torch.equal(again[0].space.Q, again[1].space.Q) and again[0].loss[0] == found.loss[0]
    assert all(torch.equal(p, weights[name]) and p.grad is None for name, p in small_lab.model.named_parameters())
    assert [p.requires_grad for p in small_lab.model.parameters()] == wanted
    assert torch.equal(torch.get_rng_state(), state) and not hooks_left(small_lab)


def test_what_must_stay_keeps_other_attributes_out_of_a_wide_subspace(small_lab, planted):
    plant, _, v, (train, test), (keep, others) = planted
    with small_lab.hooked((LAST, plant)):
        free, tied = (das(small_lab, LAST, train, k=20, keep=part, steps=40, seed=1) for part in (None, keep))
        scores = [interchange_scores(small_lab, LAST, found.space, test, others) for found in (free, tied)]
    assert min(score.cause.mean() for score in scores) > 0.95
    assert scores[0].isolate.mean() < 0.5 and scores[1].isolate.mean() > 0.95
    q = tied.space.Q
    torch.testing.assert_close(q.T @ q, torch.eye(20), atol=1e-5, rtol=0)
    assert (q.T @ v).norm() < 0.5 < (free.space.Q.T @ v).norm()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_when_it_breaks_off(small_lab, pairs, error):
    def fail(_):
        raise error

    for call in (lambda: das(small_lab, HOOK, pairs, 1), lambda: interchange_scores(small_lab, HOOK, Whole(), pairs)):
        with pytest.raises(error), small_lab.hooked(("unembed.hook_out", fail)):
            call()
        assert not hooks_left(small_lab)
    with pytest.raises(error), swap(small_lab, HOOK, torch.ones(1, 32), torch.tensor([1]), Whole()):
        raise error
    assert not hooks_left(small_lab)


def test_bad_input_gets_a_sentence(small_lab, pairs, base):
    def enter(*given, tokens=pairs.base):
        with swap(small_lab, *given):
            small_lab.logits(tokens)

    x, places, score = torch.ones(12, 32), torch.ones(12, dtype=torch.long), interchange_scores
    cases = [
        (lambda: enter("blocks.1.resid", x, places, Whole()), "hook='blocks.1.resid'"),
        (lambda: enter(HOOK, x, places[:3], Whole()), r"vectors \[12\] and places \[3\]"),
        (lambda: enter(HOOK, x[:3], places[:3], Whole()), "3 rows of width 32; .* have 12 rows"),
        (lambda: enter(HOOK, x[:, :30], places, Whole()), "width 30"),
        (lambda: enter(HOOK, x * float("nan"), places, Whole()), "source must be finite"),
        (lambda: enter(HOOK, x, -places, Whole()), "0 .BOS. or more"),
        (lambda: enter(HOOK, x, 8 * places, Whole()), "reach up to 8; the rows have 8"),
        (lambda: enter(HOOK, x, places, Coordinates([32])), r"indices=\[32\] must lie in 0 to 31"),
        (lambda: enter(HOOK, x, places, Latents(make_sae("Standard", HOOK, 32), [-1])), r"latents=\[-1\]"),
        (lambda: enter(HOOK, x, places, Latents(make_sae("Standard", HOOK, 16), [1])), "width 16; .* have 32"),
        (lambda: enter(HOOK, x, places, Subspace(torch.eye(31)[:, :2])), r"shape \[31, 2\]; .* width 32"),
        (lambda: enter(HOOK, x, places, Subspace(torch.ones(32, 1))), "not orthonormal; Subspace.of"),
        (lambda: Subspace.of(torch.full((32,), float("nan"))), "finite"),
        (lambda: score(small_lab, HOOK, Whole(), pairs._replace(want=pairs.want[:3])), "pairs has fields of lengths"),
        (lambda: score(small_lab, HOOK, Whole(), pairs, pairs._replace(base_place=pairs.base_end + 1)),
         "others.base_place must lie in 0 to base_end"),
        (lambda: score(small_lab, HOOK, Whole(), pairs._replace(want=pairs.want + 1000)), "pairs.want must lie in 0"),
        (lambda: score(small_lab, HOOK, Whole(), Pairs(*(field[:0] for field in pairs))), "must be a pair"),
        (lambda: das(small_lab, HOOK, pairs, 0), "k=0 must lie in 1 to 32"),
        (lambda: das(small_lab, HOOK, pairs, 33), "k=33"),
        (lambda: das(small_lab, HOOK, pairs, 1, lr=float("nan")), "lr=nan"),
        (lambda: das(small_lab, HOOK, pairs, 1, keep=pairs._replace(stay=-pairs.stay - 1)), "keep.stay must lie in"),
    ]
    for call, message in cases:
        with pytest.raises(CourseError, match=message):
            call()
        assert not hooks_left(small_lab)


def test_pairs_laid_below_each_other_are_scored_as_each_by_itself(small_lab, pairs):
    wide = pairs._replace(base=torch.nn.functional.pad(pairs.base, (0, 3), value=7),
                          source=pairs.source[:, : int(pairs.source_place.max()) + 1])
    parts = [pairs.take(slice(0, 5)), wide, pairs.take(slice(7, 8))]
    joined = Pairs.joined(parts, small_lab.bos)
    joined.check(small_lab, "joined")
    assert joined.base.shape == (18, wide.base.shape[1]) and len({p.base.shape[1] for p in parts}) == 3
    start = 0
    for part in parts:
        rows, start = slice(start, start + len(part.base)), start + len(part.base)
        for name in ("base", "source"):
            mine, width = getattr(joined, name)[rows], getattr(part, name).shape[1]
            assert torch.equal(mine[:, :width], getattr(part, name)) and (mine[:, width:] == small_lab.bos).all()
        assert all(torch.equal(getattr(joined, name)[rows], getattr(part, name))
                   for name in ("base_place", "base_end", "source_place", "want", "stay"))
    scores = [interchange_scores(small_lab, LAST, spaces()["coordinates"], part, part) for part in (joined, *parts)]
    for found, *each in zip(*scores, strict=True):
        assert found.tolist() == [value for part in each for value in part.tolist()]
