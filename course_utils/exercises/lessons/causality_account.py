"""Notebook 09, the account: straight to the logits, taken back later, and how many latents carry half of it."""

from __future__ import annotations

import numpy as np
import torch

from course_utils.exercises.book import Exercise, draw

straight = Exercise("09.3", "straight to the logits", stars=2, minutes=12, lines=3, hints=(
    "Do to the change what the final LayerNorm does to the stream, step by step: the mean over d goes, then everything "
    "is divided by the scale that it had in the clean run. In between, `u` reads the rest.",
    "`centred = change - change.mean(1, keepdim=True)`. Then `centred @ u` is one number a row, to be divided by "
    "`scale`."))


@straight.reference
def direct_effect(change, u, scale):
    """Return what change [n d] of the last stream does through the final norm to the logit that u [d] reads, [n]."""
    centred = change - change.mean(1, keepdim=True)
    read = centred @ u
    return read / scale


@straight.right
def _(change, u, scale):
    return change @ (u - u.mean()) / scale  # taking the mean off u instead comes to the same


@straight.right
def _(change, u, scale):
    return torch.stack([((row - row.mean()) / s * u).sum() for row, s in zip(change, scale, strict=True)])


@straight.wrong("the mean left in", "You do not take the mean over d away. LayerNorm does so before anything else: a "
                "change that adds the same to every coordinate reaches no logit, and you count it.")
def _(change, u, scale):
    return change @ u / scale


@straight.wrong("not divided", "You leave the stream's scale out. LayerNorm divides by it, and the same change counts "
                "for less in a row whose stream is long.")
def _(change, u, scale):
    return (change - change.mean(1, keepdim=True)) @ u


@straight.wrong("divided by its own size", "You normalise the change as if it were alone, so that a small one counts "
                "as much as a large one. It travels inside the stream, and is divided by *its* size: `scale`.")
def _(change, u, scale):
    centred = change - change.mean(1, keepdim=True)
    return centred @ u / centred.square().mean(1).sqrt()


@straight.wrong("the mean over the rows", "You take away the mean over the *rows*, and with it all that the change has "
                "in common. LayerNorm knows nothing of other rows: the mean is over d, in each row by itself.")
def _(change, u, scale):
    return (change - change.mean(0)) @ u / scale


@straight.wrong("one number for all rows", "You average the rows. Keep one effect a row: the interval, and what later "
                "layers make of it, come row by row.")
def _(change, u, scale):
    return ((change - change.mean(1, keepdim=True)) @ u / scale).mean()


@straight.wrong("multiplied by the scale", "You multiply by the scale. It is what LayerNorm *divides* by.")
def _(change, u, scale):
    return (change - change.mean(1, keepdim=True)) @ u * scale


@straight.cases
def _(rng):
    yield torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([2.0, 1.0, 0.0]), torch.tensor([4.0])
    yield draw(rng, 4, 6) + torch.tensor([[2.0], [-1.0], [0.5], [0.0]]), draw(rng, 6) + 0.5, draw(rng, 4).exp() + 1
    yield torch.full((2, 5), 3.0) + draw(rng, 2, 5, scale=0.1), draw(rng, 5) - 1, torch.tensor([0.5, 2.0])


back = Exercise("09.4", "taken back", stars=1, minutes=8, lines=2, hints=(
    "What share of the direct effect arrives? Add up the rows above and below the line before you divide, with their "
    "signs. What does not arrive was taken back.",
    "`arrives = total.sum() / direct.sum()`; the rest, to 1, is the answer."))


@back.reference
def taken_back(total, direct):
    """Return the share of the direct effect that later layers take back, over all rows; total, direct [n]."""
    arrives = total.sum() / direct.sum()
    return 1 - arrives


@back.right
def _(total, direct):
    return (direct - total).sum() / direct.sum()


@back.right
def _(total, direct):
    kept = float(np.mean(total.double().numpy()))
    return 1 - kept / float(np.mean(direct.double().numpy()))


@back.wrong("a mean of ratios", "You divide in each row, then average. Where the direct effect is near zero a row's "
            "ratio is anything at all, and rules the mean. Add up first, and divide once.")
def _(total, direct):
    return 1 - (total / direct).mean()


@back.wrong("upside down", "You divide direct by total. The question is which share of the *direct* effect is taken "
            "back, so that the direct effect belongs below the line.")
def _(total, direct):
    return 1 - direct.sum() / total.sum()


@back.wrong("signs thrown away", "You add up absolute values. Rows that moved the other way then count as if they had "
            "moved with the rest, and noise around zero adds up to an effect. Keep the signs.")
def _(total, direct):
    return 1 - total.abs().sum() / direct.abs().sum()


@back.wrong("what arrives", "This is the share that arrives. What is taken back is the rest: 1 minus it.")
def _(total, direct):
    return total.sum() / direct.sum()


@back.wrong("a share of the total", "You divide what is taken back by the *total* effect. Where nearly all is taken "
            "back hardly any total is left, and the share goes out of all bounds; divide by the direct effect.")
def _(total, direct):
    return (direct - total).sum() / total.sum()


@back.wrong("not a share", "You subtract and leave it there. A large effect has more to take back than a small one: "
            "divide by the direct effect, or models cannot be compared.")
def _(total, direct):
    return (direct - total).sum()


@back.cases
def _(rng):
    yield torch.tensor([-1.0, -1.0]), torch.tensor([-4.0, -2.0])
    yield torch.tensor([-2.0, 0.5, -1.0]), torch.tensor([-3.0, 1.0, -4.0])
    direct = draw(rng, 6) - 2
    yield -0.2 * direct + draw(rng, 6, scale=0.1), direct  # more taken back than there was
    yield 1.3 * direct[:4] + draw(rng, 4, scale=0.1), direct[:4]  # and added to


half = Exercise("09.7", "how many for half", stars=2, minutes=10, lines=4, hints=(
    "Mark the k at which at most one half remains. A mark counts only if every larger k is marked too, so walk from "
    "the largest k down, and stop at the first that is not.",
    "`low = remains <= 0.5`, and `stays = np.logical_and.accumulate(low[::-1])[::-1]` is True from where it stays low. "
    "Return `int(ks[stays].min())`, or None if `stays` is True nowhere."))


@half.reference
def half_at(ks, remains):
    """Return the smallest k from which on no more than half remains, or None; ks ascending, remains, both [tried]."""
    low = remains <= 0.5
    stays = np.logical_and.accumulate(low[::-1])[::-1]
    if not stays.any():
        return None
    return int(ks[stays].min())


@half.right
def _(ks, remains):
    above = np.flatnonzero(remains > 0.5)
    first = above[-1] + 1 if len(above) else 0
    return ks[first] if first < len(ks) else None


@half.right
def _(ks, remains):
    found = None
    for k, share in zip(ks[::-1].tolist(), remains[::-1].tolist(), strict=True):
        if share > 0.5:
            break
        found = k
    return found


@half.wrong("the first dip", "You stop at the first k at or below one half. With one latent more it may be above "
            "again, and then the dip was luck: from the k you return on, it must *stay* there.")
def _(ks, remains):
    low = ks[remains <= 0.5]
    return int(low[0]) if len(low) else None


@half.wrong("a place, not a k", "You return where the k stands in the array. Look up which k that is.")
def _(ks, remains):
    stays = np.logical_and.accumulate((remains <= 0.5)[::-1])[::-1]
    return int(stays.argmax()) if stays.any() else None


@half.wrong("nearest to one half", "You take the k whose share is nearest to one half, also if it is above, or if half "
            "is never reached. Asked for is the first that is *down* there, and stays.")
def _(ks, remains):
    return int(ks[np.abs(remains - 0.5).argmin()])


@half.wrong("the largest k", "You return the largest k with no more than half left. More latents are easily enough; "
            "the question is how *few* are.")
def _(ks, remains):
    low = ks[remains <= 0.5]
    return int(low.max()) if len(low) else None


@half.wrong("exactly half is out", "You wait until *less* than half is left. Exactly one half is half removed: at or "
            "below counts.")
def _(ks, remains):
    stays = np.logical_and.accumulate((remains < 0.5)[::-1])[::-1]
    return int(ks[stays].min()) if stays.any() else None


@half.wrong("half of the first", "You wait for half of what the first k leaves. `remains` is a share of the clean "
            "effect already: compare it with one half.")
def _(ks, remains):
    stays = np.logical_and.accumulate((remains <= remains[0] / 2)[::-1])[::-1]
    return int(ks[stays].min()) if stays.any() else None


@half.wrong("the last one tried, for want of a better", "Where more than half is left even at the end, you return the "
            "largest k tried, as if it had been enough. It was not: return None.")
def _(ks, remains):
    stays = np.logical_and.accumulate((remains <= 0.5)[::-1])[::-1]
    return int(ks[stays].min()) if stays.any() else int(ks[-1])


@half.wrong("one too early", "You return the last k that leaves *more* than half. The next one is the first that is "
            "enough.")
def _(ks, remains):
    above = ks[remains > 0.5]
    return int(above.max()) if len(above) else None


@half.cases
def _(rng):
    yield np.array([1, 2, 4]), np.array([0.8, 0.45, 0.2])
    yield np.array([1, 2, 4, 8, 16]), np.array([0.9, 0.48, 0.7, 0.5, 0.1])
    yield np.array([2, 3, 7, 20]), np.array([0.9, 0.52, 0.3, 0.2])
    yield np.array([1, 5, 9]), np.array([0.9, 0.45, 0.6])
    yield np.array([3, 6]), np.array([0.5, 0.3])
