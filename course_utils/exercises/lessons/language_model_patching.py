"""Notebook 01, patching: how much of a swap's effect a patch carries, and in which block a token is read."""

from __future__ import annotations

import torch

from course_utils.exercises.book import Exercise, draw

carried = Exercise("01.8", "what a patch carries", stars=2, minutes=10, lines=4, hints=(
    "Write a small function for the lead of the answer over its rival: `logits[rows, answer] - logits[rows, "
    "rival]` with `rows = torch.arange(len(answer))`.",
    "How far did the patch bring the lead down, out of how far the whole swap brings it down? `(lead(clean) - "
    "lead(patched)) / (lead(clean) - lead(swapped))`."))


@carried.reference
def share_carried(clean, swapped, patched, answer, rival):
    """Return for each prompt the share of a swap's effect that a patch carries, 0 (nothing) to 1 (all of it).

    Logits of three runs, each [batch d_vocab]. The effect is on the lead: logit of `answer` minus logit of `rival`
    (token ids [batch]).
    """
    rows = torch.arange(len(answer))
    before, after, here = (logits[rows, answer] - logits[rows, rival] for logits in (clean, swapped, patched))
    return (before - here) / (before - after)


@carried.right
def _(clean, swapped, patched, answer, rival):
    pair = torch.stack([answer, rival], 1)
    before, after, here = (-logits.gather(1, pair).diff(dim=1)[:, 0] for logits in (clean, swapped, patched))
    return 1 - (here - after) / (before - after)


@carried.right
def _(clean, swapped, patched, answer, rival):
    shares = []
    for i, (a, b) in enumerate(zip(answer.tolist(), rival.tolist(), strict=True)):
        top, bottom, here = (float(logits[i, a] - logits[i, b]) for logits in (clean, swapped, patched))
        shares.append((here - top) / (bottom - top))
    return torch.tensor(shares)


@carried.wrong("what is left, not what is carried",
               "You measured how much of the lead is *left*: 1 where the patch does nothing. Here 1 is to mean that "
               "the patch does as much as the whole swap.")
def _(clean, swapped, patched, answer, rival):
    rows = torch.arange(len(answer))
    before, after, here = (logits[rows, answer] - logits[rows, rival] for logits in (clean, swapped, patched))
    return (here - after) / (before - after)


@carried.wrong("without the rival",
               "Only the answer's own logit is used. A logit alone may move because all of them move, which changes "
               "no probability; the lead over a rival cannot.")
def _(clean, swapped, patched, answer, rival):
    before, after, here = (logits[torch.arange(len(answer)), answer] for logits in (clean, swapped, patched))
    return (before - here) / (before - after)


@carried.wrong("probabilities",
               "You compare probabilities. They stick at 0 and 1: a patch can undo half of the lead and change the "
               "probability by nothing. Logits, and so their differences, do not stick.")
def _(clean, swapped, patched, answer, rival):
    rows, probs = torch.arange(len(answer)), [logits.softmax(-1) for logits in (clean, swapped, patched)]
    before, after, here = (p[rows, answer] - p[rows, rival] for p in probs)
    return (before - here) / (before - after)


@carried.wrong("a share of the wrong whole",
               "You divided by the clean lead. The whole is what the full swap does, from the clean lead to the "
               "swapped one, which may lie below zero.")
def _(clean, swapped, patched, answer, rival):
    rows = torch.arange(len(answer))
    before, after, here = (logits[rows, answer] - logits[rows, rival] for logits in (clean, swapped, patched))
    return (before - here) / before


@carried.wrong("one share for all prompts",
               "You averaged over the prompts before dividing, and so have one number. Keep one share a prompt: the "
               "interval comes from how much they differ.")
def _(clean, swapped, patched, answer, rival):
    rows = torch.arange(len(answer))
    before, after, here = (logits[rows, answer] - logits[rows, rival] for logits in (clean, swapped, patched))
    return (before - here).mean() / (before - after).mean()


@carried.cases
def _(rng):
    yield (torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([[2.0, 2.5, 5.0]]),
           torch.tensor([0]), torch.tensor([1]))
    answer, rival = torch.tensor([1, 4, 0, 2]), torch.tensor([3, 0, 2, 5])
    clean, swapped = draw(rng, 4, 6), draw(rng, 4, 6)
    clean[torch.arange(4), answer] += 4
    swapped[torch.arange(4), rival] += 4
    yield clean, swapped, (clean + swapped) / 2 + draw(rng, 4, 6, scale=0.3), answer, rival


read_at = Exercise("01.9", "in which block is a token read?", stars=2, minutes=8, lines=1, hints=(
    "If a token's whole effect is still at its place before block 2 and gone before block 3, block 2 has read it. "
    "So look at how much the share *falls* across each block.",
    "`kept[:, :-1] - kept[:, 1:]` is the fall across each block; its mean over the blocks, weighted by their "
    "numbers, is `(fall * torch.arange(n_blocks)).sum(-1)`."))


@read_at.reference
def reading_block(kept):
    """Return the mean block in which a token is read, [n], from kept [n n_blocks+1].

    `kept[:, l]` is the share of the token's effect that is still at its place before block l; the last column is
    behind the last block.
    """
    fall = kept[:, :-1] - kept[:, 1:]
    return (fall * torch.arange(fall.shape[1])).sum(-1)


@read_at.right
def _(kept):
    return kept[:, 1:-1].sum(-1) - (kept.shape[1] - 2) * kept[:, -1]


@read_at.right
def _(kept):
    return torch.stack([sum(block * (row[block] - row[block + 1]) for block in range(len(row) - 1)) + 0 * row[0]
                        for row in kept])


@read_at.wrong("counted from one",
               "Your answer is one block late: a share that is all there before block 0 and gone before block 1 was "
               "read in block 0.")
def _(kept):
    fall = kept[:, :-1] - kept[:, 1:]
    return (fall * torch.arange(1, fall.shape[1] + 1)).sum(-1)


@read_at.wrong("where it is, not where it leaves",
               "You weighted the blocks by how much is still *there*. A token that is read in the last block is "
               "there all the time; what tells is where the share falls.")
def _(kept):
    return (kept[:, :-1] * torch.arange(kept.shape[1] - 1)).sum(-1)


@read_at.wrong("the steepest fall only",
               "You took the block with the largest fall. A token may be read in several blocks; the mean weights "
               "each by how much it read.")
def _(kept):
    return (kept[:, :-1] - kept[:, 1:]).argmax(-1).float()


@read_at.wrong("the sign",
               "Your falls are rises: the share before a block minus the share behind it is what the block has read.")
def _(kept):
    fall = kept[:, 1:] - kept[:, :-1]
    return (fall * torch.arange(fall.shape[1])).sum(-1)


@read_at.cases
def _(rng):
    yield torch.tensor([[1.0, 1.0, 0.0]])
    yield torch.tensor([[1.0, 0.6, 0.1, 0.0], [1.0, 1.0, 0.8, 0.2]])
    yield torch.from_numpy(rng.uniform(0, 1, (5, 6))).float()
