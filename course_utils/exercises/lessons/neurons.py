"""Notebook 05, neurons: a unit for two words, and what share of a unit lies in which domain."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise

pair = Exercise("05.1", "the dog-and-banana unit", stars=1, minutes=6, lines=2, hints=(
    "For each unit two shares: of the tokens `a`, on how many is it on, and of the tokens `b`? A unit serves both "
    "only as well as the one that it serves worse.",
    "`on[a].float().mean(0)` is the share of the tokens `a`, unit by unit; the smaller of two such rows is "
    "`torch.stack(…).amin(0)`; then `argmax`."))


@pair.reference
def serves_both(on, a, b):
    """Return the unit whose smaller share is largest: of tokens a and of tokens b on which it is on; on [n units]."""
    shares = torch.stack([on[rows].float().mean(0) for rows in (a, b)])
    return shares.amin(0).argmax()


@pair.right
def _(on, a, b):
    of_a, of_b = ((on & rows[:, None]).sum(0) / rows.sum() for rows in (a, b))
    return int(torch.where(of_a < of_b, of_a, of_b).argmax())


@pair.right
def _(on, a, b):
    def smaller(unit):
        return min(float(on[rows, unit].double().mean()) for rows in (a, b))

    return max(range(on.shape[1]), key=smaller)


@pair.wrong(
    "the mean of both",
    "You add the two shares. A unit that is on for every `a` and for no `b` has a mean of a half: it knows one of "
    "the two, and you take it for both. The smaller one decides.")
def _(on, a, b):
    return int((on[a].float().mean(0) + on[b].float().mean(0)).argmax())


@pair.wrong(
    "all tokens in one heap",
    "You count `a` and `b` together, so that the more frequent word decides. Take a share for each, then the smaller"
    " of the two.")
def _(on, a, b):
    return int(on[a | b].float().mean(0).argmax())


@pair.wrong(
    "precision",
    "Of the tokens on which a unit is on you give the share that is the word. A unit that is on once, for one dog, "
    "gets 1. Asked is the share of the *word's* tokens.")
def _(on, a, b):
    n = on.sum(0).clamp(min=1)
    return int(torch.minimum(on[a].sum(0) / n, on[b].sum(0) / n).argmax())


@pair.wrong(
    "only one of the two",
    "This is the best unit for `a` alone; what does it do on `b`?")
def _(on, a, b):
    return int(on[a].float().mean(0).argmax())


@pair.wrong(
    "the larger share",
    "You take the *larger* of the two shares, so that one word is enough.")
def _(on, a, b):
    return int(torch.maximum(on[a].float().mean(0), on[b].float().mean(0)).argmax())


@pair.wrong(
    "counts, not shares",
    "You compare how many tokens, not what share of them: the rarer word then always looks like the weaker side. Use"
    " means.")
def _(on, a, b):
    return int(torch.minimum(on[a].sum(0), on[b].sum(0)).argmax())


@pair.cases
def _(rng):
    def planted(shares, n_a, n_b, rest=6):
        on = torch.zeros(n_a + n_b + rest, len(shares), dtype=torch.bool)
        for unit, (of_a, of_b, elsewhere) in enumerate(shares):
            on[:of_a, unit] = on[n_a : n_a + of_b, unit] = True
            on[n_a + n_b : n_a + n_b + elsewhere, unit] = True
        order = torch.from_numpy(rng.permutation(len(on)))
        row, on = order, on[order]
        return on, row < n_a, (row >= n_a) & (row < n_a + n_b)

    yield planted([(4, 1, 0), (0, 4, 2), (2, 3, 1), (1, 1, 0)], 4, 4)
    yield planted([(9, 0, 0), (5, 2, 6), (6, 1, 0), (0, 4, 0)], 10, 4)
    yield planted([(1, 4, 0), (3, 3, 1), (2, 8, 3), (2, 6, 0), (4, 0, 0)], 4, 12)
    yield planted([(8, 2, 5), (4, 8, 2), (3, 3, 0), (12, 0, 0)], 12, 12)


shares = Exercise("05.2", "share and lift", stars=2, minutes=10, lines=3, hints=(
    "Counting pairs is a matrix product: `on.T.float() @ domains.float()` says on how many tokens a unit is on *and*"
    " the domain is there.",
    "Divide by each unit's number of tokens, `on.sum(0).clamp(min=1)[:, None]`, for the share; and the share by the"
    " domains' own shares of all tokens, `domains.float().mean(0)`, for the lift."))


@shares.reference
def share_and_lift(on, domains):
    """Return share and lift [units domains], from on [n units] and domains [n domains], both True or False."""
    both = on.T.float() @ domains.float()
    share = both / on.sum(0).clamp(min=1)[:, None]
    return share, share / domains.float().mean(0)


@shares.right
def _(on, domains):
    rows = [domains[on[:, u]].float().mean(0) if on[:, u].any() else torch.zeros(domains.shape[1])
            for u in range(on.shape[1])]
    share = torch.stack(rows)
    return share, share * len(domains) / domains.sum(0)


@shares.right
def _(on, domains):
    both = (on[:, :, None] & domains[:, None, :]).sum(0)
    n = on.sum(0)[:, None]
    share = torch.where(n > 0, both / n, torch.zeros(both.shape))
    return share, share / (domains.sum(0) / domains.shape[0])


@shares.wrong(
    "of the domain's tokens",
    "You divide by the tokens of the *domain*: that is recall, and a unit that is on for 1 % of all text can never "
    "reach much of it. Divide by the tokens on which the unit is on.")
def _(on, domains):
    share = on.T.float() @ domains.float() / domains.sum(0)
    return share, share / domains.float().mean(0)


@shares.wrong(
    "of all tokens",
    "You divide by the number of all tokens. The share is of those on which the unit is *on*.")
def _(on, domains):
    share = on.T.float() @ domains.float() / len(on)
    return share, share / domains.float().mean(0)


@shares.wrong(
    "a difference, not a ratio",
    "Lift says *how many times* as frequent the domain is where the unit is on: divide by the domain's share of all "
    "text, do not subtract it.")
def _(on, domains):
    share = on.T.float() @ domains.float() / on.sum(0).clamp(min=1)[:, None]
    return share, share - domains.float().mean(0)


@shares.wrong(
    "compared with the other domains",
    "You divide by the mean over domains. Compare with how frequent *this* domain is in all text, or a frequent one "
    "looks served by every unit.")
def _(on, domains):
    share = on.T.float() @ domains.float() / on.sum(0).clamp(min=1)[:, None]
    return share, share / domains.float().mean()


@shares.wrong(
    "nothing divided by nothing",
    "A unit that is never on has no tokens to share out: you divide 0 by 0. Let its shares be 0, for example with "
    "`.clamp(min=1)` on its count.")
def _(on, domains):
    share = on.T.float() @ domains.float() / on.sum(0)[:, None]
    return share, share / domains.float().mean(0)


@shares.cases
def _(rng):
    on = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 1, 0]], dtype=torch.bool)
    domains = torch.tensor([[1, 0], [1, 0], [1, 0], [0, 0], [0, 1]], dtype=torch.bool)
    yield on, domains
    on = torch.from_numpy(rng.random((60, 7)) < 0.15)
    on[:, 3], on[1:, 5] = False, False
    on[0, 5] = True
    domains = torch.from_numpy(rng.random((60, 4)) < [0.5, 0.2, 0.1, 0.3])
    domains[:2] = True
    yield on, domains
