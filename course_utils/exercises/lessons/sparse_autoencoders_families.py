"""Notebook 03, the other families: TopK, the straight-through gradient of JumpReLU, and Gated."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise

top = Exercise("03.6", "TopK", stars=1, minutes=8, lines=2, hints=(
    "`torch.topk(values, k, dim=-1)` gives the k largest of each row and their places; `scatter` puts values at "
    "places.",
    "After `values, places = pre.relu().topk(k, dim=-1)` it is `torch.zeros_like(pre).scatter(-1, places, values)`."))


@top.reference
def top_k(pre, k):
    """Keep the k largest positive entries of each row of pre [... n m]; the others become 0."""
    values, places = pre.relu().topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, places, values)


@top.right
def _(pre, k):
    bar = pre.sort(dim=-1, descending=True).values[..., k - 1 : k]
    return torch.where((pre >= bar) & (pre > 0), pre, torch.zeros_like(pre))


@top.right
def _(pre, k):
    rank = (pre[..., None, :] > pre[..., None]).sum(-1)  # how many in the row are larger
    return pre.clamp(min=0) * (rank < k)


@top.wrong("negative values kept", "Where fewer than k entries are positive, the largest ones include negative "
           "values. A latent is never negative: cut at zero first.")
def _(pre, k):
    values, places = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, places, values)


@top.wrong("largest by size", "You choose by absolute value, so that a strongly negative entry takes a place and then "
           "gives nothing. Choose the largest, not the farthest from zero.")
def _(pre, k):
    places = pre.abs().topk(k, dim=-1).indices
    return torch.zeros_like(pre).scatter(-1, places, pre.gather(-1, places).relu())


@top.wrong("down the columns", "You keep the k largest of every *latent* over the samples. TopK is about a sample: "
           "the last axis.")
def _(pre, k):
    values, places = pre.relu().topk(min(k, pre.shape[-2]), dim=-2)
    return torch.zeros_like(pre).scatter(-2, places, values)


@top.wrong("over the whole batch", "You keep the `k × samples` largest of the whole batch. That is BatchTopK, which "
           "comes next; TopK gives each sample its own k.")
def _(pre, k):
    values, places = pre.relu().flatten(-2).topk(k * pre.shape[-2], dim=-1)
    return torch.zeros_like(pre).flatten(-2).scatter(-1, places, values).view_as(pre)


@top.wrong("one too few", "The last of the k largest is dropped: an entry *at* the bar belongs to them (`>=`).")
def _(pre, k):
    values = pre.relu()
    return values * (values > values.topk(k, dim=-1).values[..., -1:])


@top.wrong("which, not how much", "This says which entries stay, as ones. The decoder needs their values.")
def _(pre, k):
    values, places = pre.relu().topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, places, (values > 0).to(pre.dtype))


@top.cases
def _(rng):
    yield torch.tensor([[3.0, 1.0, -2.0], [0.5, -4.0, 0.2]]), 1
    yield torch.tensor([[-1.0, 2.0, -3.0], [4.0, 1.0, 3.0], [-6.0, -2.0, 1.0]]), 2
    yield torch.from_numpy(rng.normal(0.3, 1, (2, 5, 8))).float(), 3


surrogate = Exercise("03.7", "a slope for a step", stars=3, minutes=15, lines=1, hints=(
    "Move the threshold up from θ − ε/2 to θ + ε/2. Which entries change from on to off? By how much does the step "
    "fall, divided by how far θ moved?",
    "Entries within ε/2 of θ change by −1 while θ moves by ε: `-inside / bandwidth`, where `inside` is `(pre - "
    "threshold).abs() < bandwidth / 2` as a float. Everywhere else it is 0."))


@surrogate.reference
def step_slope(pre, threshold, bandwidth):
    """Return the pseudo-derivative of the step (pre > threshold) for the threshold, entry by entry [... n m]."""
    return -((pre - threshold).abs() < bandwidth / 2).to(pre) / bandwidth


@surrogate.right
def _(pre, threshold, bandwidth):
    # The difference quotient of the step itself.
    higher, lower = (pre > threshold + bandwidth / 2).to(pre), (pre > threshold - bandwidth / 2).to(pre)
    return (higher - lower) / bandwidth


@surrogate.right
def _(pre, threshold, bandwidth):
    distance = (pre - threshold) / bandwidth
    box = torch.where((distance > -0.5) & (distance < 0.5), torch.ones_like(pre), torch.zeros_like(pre))
    return -box / bandwidth


@surrogate.wrong("the sign", "Raising a threshold switches latents *off*: the step can only fall, so the slope is "
                 "negative.")
def _(pre, threshold, bandwidth):
    return ((pre - threshold).abs() < bandwidth / 2).to(pre) / bandwidth


@surrogate.wrong("not divided by the bandwidth", "The step falls by 1 while the threshold moves by ε, so the slope is "
                 "1/ε: a narrower window needs a steeper slope, or the estimate shrinks with ε.")
def _(pre, threshold, bandwidth):
    return -((pre - threshold).abs() < bandwidth / 2).to(pre)


@surrogate.wrong("a window twice as wide", "The window reaches ε/2 to either side, ε in all. Yours reaches ε to "
                 "either side and so counts twice as many entries at the full slope.")
def _(pre, threshold, bandwidth):
    return -((pre - threshold).abs() < bandwidth).to(pre) / bandwidth


@surrogate.wrong("around zero", "Your window is around 0. The step is at the threshold.")
def _(pre, threshold, bandwidth):
    return -(pre.abs() < bandwidth / 2).to(pre) / bandwidth + 0 * threshold


@surrogate.wrong("the upper half only", "You count only entries just above the threshold. Those just below would have "
                 "been on had it been a little lower: both halves belong to the window.")
def _(pre, threshold, bandwidth):
    return -((pre > threshold) & (pre - threshold < bandwidth / 2)).to(pre) / bandwidth


@surrogate.wrong("the true derivative", "It is zero wherever it exists, which is why the threshold would never learn. "
                 "Give it the slope that the step has on average over a window.")
def _(pre, threshold, bandwidth):
    return torch.zeros_like(pre) * threshold


@surrogate.cases
def _(rng):
    yield torch.tensor([[0.2, 0.45, 0.55, 0.9, -0.5]]), torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5]), 0.2
    # away from the window's edges, where rounding would decide
    yield torch.from_numpy(rng.permuted(np_grid(0.013, 28)).reshape(4, 7)).float(), torch.linspace(0.2, 0.8, 7), 0.5
    yield torch.from_numpy(rng.permuted(np_grid(0.017, 30)).reshape(2, 3, 5)).float(), torch.full((2, 1, 5), 0.4), 0.3


def np_grid(offset, n):
    """Return numbers from about -1 to 1.5 that meet no edge of a window."""
    return torch.linspace(-1, 1.5, n).double().add(offset).numpy()


gates = Exercise("03.8", "Gated", stars=2, minutes=10, lines=2, hints=(
    "One product, `z = (x - b_dec) @ W_enc`, serves twice: the gate asks whether `z + b_gate` is positive, the "
    "magnitude is a stretched and shifted `z`, cut at zero.",
    "`return (z + b_gate > 0) * (z * r_mag.exp() + b_mag).relu()`."))


@gates.reference
def gated_latents(x, W_enc, b_gate, r_mag, b_mag, b_dec):
    """Return latents [... n m] of a gated autoencoder: whether by one path, how much by the other."""
    z = (x - b_dec) @ W_enc
    return (z + b_gate > 0) * (z * r_mag.exp() + b_mag).relu()


@gates.right
def _(x, W_enc, b_gate, r_mag, b_mag, b_dec):
    gate = torch.einsum("...nd,...dm->...nm", x - b_dec, W_enc) > -b_gate
    magnitude = (x - b_dec) @ (W_enc * r_mag.exp()) + b_mag
    return torch.where(gate & (magnitude > 0), magnitude, torch.zeros_like(magnitude))


@gates.right
def _(x, W_enc, b_gate, r_mag, b_mag, b_dec):
    z = x @ W_enc - b_dec @ W_enc
    magnitude = torch.addcmul(b_mag.expand_as(z), z, torch.exp(r_mag).expand_as(z))
    return magnitude.clamp(min=0).masked_fill(z <= -b_gate, 0.0)


@gates.wrong("the gate is turned up and down", "You multiply by how open the gate is. It is a switch: open or shut. "
             "That is the point: the penalty may shrink the gate's value without touching the magnitude.")
def _(x, W_enc, b_gate, r_mag, b_mag, b_dec):
    z = (x - b_dec) @ W_enc
    return (z + b_gate).relu() * (z * r_mag.exp() + b_mag).relu()


@gates.wrong("r is a logarithm", "You stretch by `r_mag` itself. It is the logarithm of the stretch: at its starting "
             "value 0 the stretch is 1, and it can never turn negative.")
def _(x, W_enc, b_gate, r_mag, b_mag, b_dec):
    z = (x - b_dec) @ W_enc
    return (z + b_gate > 0) * (z * r_mag + b_mag).relu()


@gates.wrong("one bias for both", "The magnitude uses the gate's bias. With a bias of its own it need not shrink when "
             "the gate's threshold rises.")
def _(x, W_enc, b_gate, r_mag, b_mag, b_dec):
    z = (x - b_dec) @ W_enc
    return (z + b_gate > 0) * (z * r_mag.exp() + b_gate).relu()


@gates.wrong("the bias is stretched too", "You stretch the bias along with `z`. Only `z` is stretched; the bias is "
             "added afterwards.")
def _(x, W_enc, b_gate, r_mag, b_mag, b_dec):
    z = (x - b_dec) @ W_enc
    return (z + b_gate > 0) * ((z + b_mag) * r_mag.exp()).relu()


@gates.wrong("negative magnitudes", "An open gate lets a negative magnitude through. Cut the magnitude at zero.")
def _(x, W_enc, b_gate, r_mag, b_mag, b_dec):
    z = (x - b_dec) @ W_enc
    return (z + b_gate > 0) * (z * r_mag.exp() + b_mag)


@gates.wrong("no gate", "You return the magnitudes alone: everything positive is on. The gate decides.")
def _(x, W_enc, b_gate, r_mag, b_mag, b_dec):
    return ((x - b_dec) @ W_enc * r_mag.exp() + b_mag).relu()


@gates.cases
def _(rng):
    yield (torch.tensor([[1.0, -0.5]]), torch.eye(2), torch.tensor([-0.5, 1.0]), torch.tensor([0.5, 0.0]),
           torch.tensor([0.25, -0.25]), torch.tensor([0.1, 0.2]))
    for lead in ((), (2,)):
        one = (1,) if lead else ()
        shapes = (*lead, 6, 3), (*lead, 3, 7), *((*lead, *one, 7),) * 3, (*lead, *one, 3)
        yield tuple(torch.from_numpy(rng.normal(0, 1, shape)).float() for shape in shapes)
