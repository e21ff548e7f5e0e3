"""Notebook 02, geometry: which features are kept, how they overlap, how much room each has."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise, draw

kept = Exercise("02.5", "counting features", stars=1, minutes=5, lines=1, hints=(
    "Feature i lives in *column* i of `W`. How long is it? `norm` takes the axis to run along.",
    "`W.norm(dim=1)` is `[instances f]`: the lengths of the columns. Compare, and sum the Trues over the last axis."))


@kept.reference
def count_kept(W, threshold):
    """Count, for each instance of W [instances m f], the features whose column is longer than the threshold."""
    return (W.norm(dim=1) > threshold).sum(1)


@kept.right
def _(W, threshold):
    return torch.einsum("imf,imf->if", W, W).gt(threshold**2).sum(-1)


@kept.right
def _(W, threshold):
    return torch.tensor([sum(bool(column.norm() > threshold) for column in w.T) for w in W])


@kept.wrong("rows for columns",
            "You measured the rows, that is, how much each hidden *dimension* is used. A feature is a column: run "
            "along the hidden axis, `dim=1`.")
def _(W, threshold):
    return (W.norm(dim=2) > threshold).sum(1)


@kept.wrong("entries for features",
            "You count single weights. A feature may spread over all hidden dimensions; what counts is the length "
            "of its whole column.")
def _(W, threshold):
    return (W.abs() > threshold).sum((1, 2))


@kept.wrong("one count for all", "All instances are counted together. Keep the first axis: one count an instance.")
def _(W, threshold):
    return (W.norm(dim=1) > threshold).sum()


@kept.wrong("squared length",
            "You compare the *squared* length with the threshold. Take the root, or square the threshold.")
def _(W, threshold):
    return ((W**2).sum(1) > threshold).sum(1)


@kept.cases
def _(rng):
    yield torch.tensor([[[0.5, 0.9, 0.6, 0.0]]]), 0.5
    yield torch.tensor([[[0.3, 0.0, 0.8], [0.3, 0.7, 0.8]], [[0.6, 0.1, 0.0], [0.0, 0.1, 0.0]]]), 0.5
    yield draw(rng, 4, 3, 7, scale=0.6), 0.9


overlap = Exercise("02.6", "interference", stars=2, minutes=10, lines=3, hints=(
    "`Ŵ_i` is column i scaled to length 1, `W_j` is not scaled. All their products at once are one matrix product; "
    "square its entries.",
    "`overlap = ((W / W.norm(dim=0)).T @ W) ** 2` has i down and j across. Sum over j, and take the diagonal (j = "
    "i) off."))


@overlap.reference
def interference(W):
    """For W [m f], return [f]: the sum over the other features j ≠ i of (Ŵ_i · W_j)², where Ŵ_i has length 1."""
    overlap = ((W / W.norm(dim=0)).T @ W) ** 2
    return overlap.sum(1) - overlap.diagonal()


@overlap.right
def _(W):
    gram = W.T @ W
    length = gram.diag()
    return ((gram**2).sum(1) - length**2) / length


@overlap.right
def _(W):
    total = []
    for i in range(W.shape[1]):
        unit = W[:, i] / W[:, i].norm()
        total.append(sum((unit @ W[:, j]) ** 2 for j in range(W.shape[1]) if j != i))
    return torch.stack(total)


@overlap.wrong("a feature counted with itself",
               "Each feature overlaps with itself, and that is no interference: leave j = i out.")
def _(W):
    return (((W / W.norm(dim=0)).T @ W) ** 2).sum(1)


@overlap.wrong("the wrong one scaled",
               "You scaled the *others* to length 1 and left feature i as it is. `Ŵ_i` is the detector and has "
               "length 1; a faint other feature must interfere less.")
def _(W):
    overlap = ((W / W.norm(dim=0)).T @ W) ** 2
    return overlap.sum(0) - overlap.diagonal()


@overlap.wrong("cosines",
               "Both are scaled to length 1: a feature that is hardly there would interfere like a strong one. Only "
               "`Ŵ_i` is scaled.")
def _(W):
    unit = W / W.norm(dim=0)
    return ((unit.T @ unit) ** 2).sum(1) - 1


@overlap.wrong("not squared",
               "Without the square, overlaps of opposite sign cancel out. The loss squares them, so they add up.")
def _(W):
    overlap = (W / W.norm(dim=0)).T @ W
    return overlap.sum(1) - overlap.diagonal()


@overlap.cases
def _(rng):
    yield torch.tensor([[1.0, -0.5]])
    yield torch.tensor([[1.0, 0.0, 0.6], [0.0, 1.0, 0.8]])
    yield draw(rng, 3, 6, scale=0.6)


share = Exercise("02.7", "the share of a dimension", stars=2, minutes=8, lines=3, hints=(
    "`(Ŵ_i · W_j)²` is `(W_i · W_j)² / |W_i|²`, so that `D_i = |W_i|⁴ / Σ_j (W_i · W_j)²`. All products are in "
    "`gram = W.mT @ W`.",
    "The squared lengths `|W_i|²` are the diagonal: `gram.diagonal(dim1=1, dim2=2)`. The sum runs over *all* j, i "
    "too."))


@share.reference
def share_of_dimension(W):
    """For W [instances m f], return D [instances f]: |W_i|² over the sum over all j of (Ŵ_i · W_j)²."""
    gram = W.mT @ W
    length = gram.diagonal(dim1=1, dim2=2)
    return length**2 / (gram**2).sum(2)


@share.right
def _(W):
    norm = W.norm(dim=1)
    onto = torch.einsum("imf,img->ifg", W / norm[:, None], W)
    return norm.square() / onto.square().sum(-1)


@share.right
def _(W):
    rows = []
    for w in W:
        norm = w.norm(dim=0)
        rows.append(torch.stack([norm[i] ** 2 / ((w[:, i] / norm[i]) @ w).square().sum() for i in range(w.shape[1])]))
    return torch.stack(rows)


@share.wrong("the feature itself left out",
             "The sum runs over all j, *including* i: a feature with a dimension to itself has D = 1, where yours "
             "divides by zero.")
def _(W):
    gram = W.mT @ W
    length = gram.diagonal(dim1=1, dim2=2)
    return length**2 / ((gram**2).sum(2) - length**2)


@share.wrong("no unit vector",
             "`W_i` in the sum must have length 1 (that is the hat). Without it, D depends on the scale of `W`.")
def _(W):
    gram = W.mT @ W
    return gram.diagonal(dim1=1, dim2=2) / (gram**2).sum(2)


@share.wrong("cosines",
             "All vectors are scaled to length 1, so that features which were left out take as much room as those "
             "that were kept.")
def _(W):
    unit = W / W.norm(dim=1, keepdim=True)
    return 1 / ((unit.mT @ unit) ** 2).sum(2)


@share.wrong("dimensions for features",
             "You multiplied the wrong way round: `W @ W.mT` compares hidden dimensions. Features are columns: "
             "`W.mT @ W`.")
def _(W):
    gram = W @ W.mT
    length = gram.diagonal(dim1=1, dim2=2)
    return length**2 / (gram**2).sum(2)


@share.cases
def _(rng):
    yield torch.tensor([[[1.0, -1.0]]])
    yield torch.tensor([[[2.0, -1.0, 0.0], [0.0, 0.5, 1.0]]])
    yield draw(rng, 3, 2, 5, scale=0.6)
