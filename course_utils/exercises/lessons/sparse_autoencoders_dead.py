"""Notebook 03, what brings dead latents back: the auxiliary loss AuxK, and resampling."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from course_utils.exercises.book import Exercise

auxiliary = Exercise("03.9", "AuxK", stars=3, minutes=15, lines=5, hints=(
    "Let only the dead compete: set the pre-activations of the living to minus infinity, and take the `k = d // 2` "
    "largest. Where fewer than k latents are dead, some of those are minus infinity, and must become 0 before they "
    "meet the decoder.",
    "`values, places = pre.masked_fill(~dead[..., None, :], -torch.inf).topk(k, dim=-1)`; scatter "
    "`values.masked_fill(values.isinf(), 0.0)`; the loss is `(f @ W_dec - error).square().sum(-1)` times "
    "`(dead.sum(-1, keepdim=True) / k).clamp(max=1)`."))


@auxiliary.reference
def auxk_loss(error, pre, dead, W_dec):
    """Return AuxK's loss of each sample [... n]: error [... n d], pre [... n m], dead [... m], W_dec [... m d]."""
    k = error.shape[-1] // 2
    values, places = pre.masked_fill(~dead[..., None, :], -torch.inf).topk(k, dim=-1)
    f = torch.zeros_like(pre).scatter(-1, places, values.masked_fill(values.isinf(), 0.0))
    share = (dead.sum(-1, keepdim=True) / k).clamp(max=1)
    return share * (f @ W_dec - error).square().sum(-1)


@auxiliary.right
def _(error, pre, dead, W_dec):
    k = error.shape[-1] // 2
    ours = torch.where(dead.unsqueeze(-2), pre, torch.full_like(pre, -torch.inf))
    bar = ours.sort(dim=-1, descending=True).values[..., k - 1 : k]
    f = torch.where((ours >= bar) & dead.unsqueeze(-2), pre, torch.zeros_like(pre))
    rest = error - torch.einsum("...nm,...md->...nd", f, W_dec)
    return torch.minimum(dead.sum(-1, keepdim=True) / k, torch.ones(())) * (rest**2).sum(-1)


@auxiliary.right
def _(error, pre, dead, W_dec):
    if pre.ndim > 2:
        return torch.stack([_one(*parts) for parts in zip(error, pre, dead, W_dec, strict=True)])
    return _one(error, pre, dead, W_dec)


def _one(error, pre, dead, W_dec):
    k, living = error.shape[-1] // 2, dead.nonzero()[:, 0]
    best = pre[:, living].topk(min(k, len(living)), dim=-1)
    guess = (best.values[..., None] * W_dec[living][best.indices]).sum(1)
    return min(len(living) / k, 1.0) * (guess - error).square().sum(-1)


@auxiliary.wrong("the living compete", "You let the living latents rebuild the error. They made it; AuxK gives it to "
                 "the *dead* ones, so that they get a gradient.")
def _(error, pre, dead, W_dec):
    k = error.shape[-1] // 2
    values, places = pre.masked_fill(dead[..., None, :], -torch.inf).topk(k, dim=-1)
    f = torch.zeros_like(pre).scatter(-1, places, values.masked_fill(values.isinf(), 0.0))
    return (dead.sum(-1, keepdim=True) / k).clamp(max=1) * (f @ W_dec - error).square().sum(-1)


@auxiliary.wrong("a ReLU before", "A dead latent is dead because its pre-activation is negative. Behind a ReLU it "
                 "gets no gradient, which is the trouble we are in. AuxK takes the values as they are.")
def _(error, pre, dead, W_dec):
    k = error.shape[-1] // 2
    values, places = pre.relu().masked_fill(~dead[..., None, :], -torch.inf).topk(k, dim=-1)
    f = torch.zeros_like(pre).scatter(-1, places, values.masked_fill(values.isinf(), 0.0))
    return (dead.sum(-1, keepdim=True) / k).clamp(max=1) * (f @ W_dec - error).square().sum(-1)


@auxiliary.wrong("chosen among all", "You take the k largest of *all* latents and then drop the living: often nothing "
                 "is left. Drop the living first, then choose.")
def _(error, pre, dead, W_dec):
    k = error.shape[-1] // 2
    values, places = pre.topk(k, dim=-1)
    f = torch.zeros_like(pre).scatter(-1, places, values) * dead[..., None, :]
    return (dead.sum(-1, keepdim=True) / k).clamp(max=1) * (f @ W_dec - error).square().sum(-1)


@auxiliary.wrong("all the dead at once", "You let every dead latent speak. Then they all learn the same; only the k "
                 "that fit best shall.")
def _(error, pre, dead, W_dec):
    share = (dead.sum(-1, keepdim=True) / (error.shape[-1] // 2)).clamp(max=1)
    return share * ((pre * dead[..., None, :]) @ W_dec - error).square().sum(-1)


@auxiliary.wrong("full weight for a few", "With a single dead latent the loss counts as much as with a hundred. Scale "
                 "it by the number of dead latents over k, at most 1.")
def _(error, pre, dead, W_dec):
    k = error.shape[-1] // 2
    values, places = pre.masked_fill(~dead[..., None, :], -torch.inf).topk(k, dim=-1)
    f = torch.zeros_like(pre).scatter(-1, places, values.masked_fill(values.isinf(), 0.0))
    return (f @ W_dec - error).square().sum(-1)


@auxiliary.wrong("minus infinity meets the decoder", "Where fewer than k latents are dead, `topk` returns minus "
                 "infinity for the rest, and infinity times a weight is infinity, or NaN. Set those values to 0.")
def _(error, pre, dead, W_dec):
    k = error.shape[-1] // 2
    values, places = pre.masked_fill(~dead[..., None, :], -torch.inf).topk(k, dim=-1)
    f = torch.zeros_like(pre).scatter(-1, places, values)
    return (dead.sum(-1, keepdim=True) / k).clamp(max=1) * (f @ W_dec - error).square().sum(-1)


@auxiliary.cases
def _(rng):
    yield (torch.tensor([[0.5, -0.5]]), torch.tensor([[2.0, -0.3, -0.1]]), torch.tensor([False, True, True]),
           torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, -0.8]]))
    shapes = (7, 6), (7, 9), (9, 6)
    for dead in (rng.random(9) < 0.6, np_first(9, 2)):
        error, pre, W_dec = (torch.from_numpy(rng.normal(0, 1, shape)).float() for shape in shapes)
        yield error, pre, torch.from_numpy(dead), W_dec
    error, pre, W_dec = (torch.from_numpy(rng.normal(-0.5, 1, (2, *shape))).float() for shape in shapes)
    yield error, pre, torch.from_numpy(rng.random((2, 9)) < 0.5), W_dec


def np_first(n, k):
    """Return n flags, the first k of them true."""
    return (torch.arange(n) < k).numpy()


reborn = Exercise("03.10", "resampling", stars=2, minutes=12, lines=4, hints=(
    "`normalize(rows, dim=-1)` is the new decoder row *and*, made shorter, the new encoder column. How much shorter: "
    "a fifth of the mean length of the living latents' encoder columns. `torch.where(dead[..., None], new, old)` "
    "replaces only dead rows.",
    "`size = 0.2 * (W_enc.norm(dim=-2) * ~dead).sum(-1) / (~dead).sum(-1)`; the encoder's new columns are `(size[..., "
    "None, None] * new).mT`, chosen by `dead[..., None, :]`; the bias is set to 0 there."))


@reborn.reference
def resample(W_enc, b_enc, W_dec, dead, rows):
    """Return W_enc [... d m], b_enc [... 1 m], W_dec [... m d], dead latents [... m] reborn along rows [... m d]."""
    new, here = normalize(rows, dim=-1), dead[..., None, :]
    size = 0.2 * (W_enc.norm(dim=-2) * ~dead).sum(-1) / (~dead).sum(-1)
    encoder = torch.where(here, size[..., None, None] * new.mT, W_enc)
    return encoder, b_enc.masked_fill(here, 0.0), torch.where(dead[..., None], new, W_dec)


@reborn.right
def _(W_enc, b_enc, W_dec, dead, rows):
    encoder, bias, decoder = W_enc.mT.clone(), b_enc.mT.clone(), W_dec.clone()
    decoder[dead] = rows[dead] / rows[dead].norm(dim=-1, keepdim=True)
    lengths = torch.where(dead, torch.nan, W_enc.norm(dim=-2))
    encoder[dead] = (0.2 * lengths.nanmean(-1)[..., None, None] * decoder)[dead]
    bias[dead] = 0
    return encoder.mT, bias.mT, decoder


@reborn.right
def _(W_enc, b_enc, W_dec, dead, rows):
    if W_enc.ndim > 2:
        each = [_reborn(*parts) for parts in zip(W_enc, b_enc, W_dec, dead, rows, strict=True)]
        return tuple(torch.stack(parts) for parts in zip(*each, strict=True))
    return _reborn(W_enc, b_enc, W_dec, dead, rows)


def _reborn(W_enc, b_enc, W_dec, dead, rows):
    W_enc, b_enc, W_dec = W_enc.clone(), b_enc.clone(), W_dec.clone()
    size = 0.2 * W_enc[:, ~dead].norm(dim=0).mean()
    for j in dead.nonzero()[:, 0].tolist():
        W_dec[j] = rows[j] / rows[j].norm()
        W_enc[:, j], b_enc[..., j] = size * W_dec[j], 0.0
    return W_enc, b_enc, W_dec


@reborn.wrong("the living are replaced", "You replace the latents that work and keep the dead ones.")
def _(W_enc, b_enc, W_dec, dead, rows):
    new, here = normalize(rows, dim=-1), ~dead[..., None, :]
    size = 0.2 * (W_enc.norm(dim=-2) * ~dead).sum(-1) / (~dead).sum(-1)
    encoder = torch.where(here, size[..., None, None] * new.mT, W_enc)
    return encoder, b_enc.masked_fill(here, 0.0), torch.where(~dead[..., None], new, W_dec)


@reborn.wrong("reborn at full size", "The new encoder columns are as long as the living ones, so the reborn latents "
              "fire on everything at once and disturb what works. Start them at a fifth.")
def _(W_enc, b_enc, W_dec, dead, rows):
    new, here = normalize(rows, dim=-1), dead[..., None, :]
    size = (W_enc.norm(dim=-2) * ~dead).sum(-1) / (~dead).sum(-1)
    encoder = torch.where(here, size[..., None, None] * new.mT, W_enc)
    return encoder, b_enc.masked_fill(here, 0.0), torch.where(dead[..., None], new, W_dec)


@reborn.wrong("the old bias stays", "The bias is what killed the latent: it is far below zero, and would kill the new "
              "one on the spot. Set it to 0.")
def _(W_enc, b_enc, W_dec, dead, rows):
    new, here = normalize(rows, dim=-1), dead[..., None, :]
    size = 0.2 * (W_enc.norm(dim=-2) * ~dead).sum(-1) / (~dead).sum(-1)
    encoder = torch.where(here, size[..., None, None] * new.mT, W_enc)
    return encoder, b_enc.clone(), torch.where(dead[..., None], new, W_dec)


@reborn.wrong("the dead count", "Your mean length includes the dead latents, whose encoders say nothing about a good "
              "size. Average over the living.")
def _(W_enc, b_enc, W_dec, dead, rows):
    new, here = normalize(rows, dim=-1), dead[..., None, :]
    size = 0.2 * W_enc.norm(dim=-2).mean(-1)
    encoder = torch.where(here, size[..., None, None] * new.mT, W_enc)
    return encoder, b_enc.masked_fill(here, 0.0), torch.where(dead[..., None], new, W_dec)


@reborn.wrong("not of length 1", "The new decoder rows are as long as the samples they come from. Decoder rows have "
              "length 1.")
def _(W_enc, b_enc, W_dec, dead, rows):
    here = dead[..., None, :]
    size = 0.2 * (W_enc.norm(dim=-2) * ~dead).sum(-1) / (~dead).sum(-1)
    encoder = torch.where(here, size[..., None, None] * rows.mT, W_enc)
    return encoder, b_enc.masked_fill(here, 0.0), torch.where(dead[..., None], rows, W_dec)


@reborn.cases
def _(rng):
    yield (torch.tensor([[1.0, 0.0, 3.0], [0.0, 2.0, 4.0]]), torch.tensor([[0.5, -9.0, 0.1]]),
           torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), torch.tensor([False, True, False]),
           torch.tensor([[1.0, 1.0], [3.0, 4.0], [0.0, 2.0]]))
    for lead in ((), (3,)):
        shapes = (*lead, 4, 6), (*lead, 1, 6), (*lead, 6, 4), (*lead, 6, 4)
        W_enc, b_enc, W_dec, rows = (torch.from_numpy(rng.normal(0, 1, shape)).float() for shape in shapes)
        dead = torch.zeros(*lead, 6, dtype=torch.bool)
        dead[..., [1, 4]] = True
        yield W_enc, b_enc, normalize(W_dec, dim=-1), dead, rows
