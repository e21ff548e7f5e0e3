"""Notebook 07, what is still known: the mood of the text so far, and how much of it a probe tells right."""

from __future__ import annotations

import numpy as np

from course_utils.exercises.book import Exercise

seen = Exercise("07.3", "the mood so far", stars=2, minutes=12, lines=6, hints=(
    "Walk along the tokens and remember one thing: the last sign seen in this row. What you write down for a token, "
    "you write down *before* you look at the token itself.",
    "`if pos[i] == 0: last = -1`, then `mood[i] = last`, then `if sign[i] >= 0: last = sign[i]`."))


@seen.reference
def mood_so_far(sign, pos):
    """Return the last sign (0 or 1) before each token in its row, or -1; sign [n] is -1 where there is none."""
    mood, last = np.empty_like(sign), -1
    for i in range(len(sign)):
        if pos[i] == 0:
            last = -1
        mood[i] = last
        if sign[i] >= 0:
            last = sign[i]
    return mood


@seen.right
def _(sign, pos):
    n = len(sign)
    row = np.cumsum(pos == 0)
    latest = np.maximum.accumulate(np.where(sign >= 0, np.arange(n), -1))
    before = np.concatenate([[-1], latest[:-1]])
    known = (before >= 0) & (row[before] == row)
    return np.where(known, sign[before], -1)


@seen.right
def _(sign, pos):
    mood = []
    for i in range(len(sign)):
        first = i
        while first > 0 and pos[first] > 0:
            first -= 1
        earlier = [s for s in sign[first:i] if s >= 0]
        mood.append(earlier[-1] if earlier else -1)
    return np.array(mood, dtype=int)


@seen.wrong(
    "the token itself counts",
    "A token that is a sign gets its own mood. Then the probe need only read the word in front of it; asked for is "
     "the mood *before* the token.")
def _(sign, pos):
    mood, last = np.full(len(sign), -1), -1
    for i in range(len(sign)):
        last = -1 if pos[i] == 0 else last
        last = sign[i] if sign[i] >= 0 else last
        mood[i] = last
    return mood


@seen.wrong(
    "across rows",
    "A mood goes on from one row into the next, which is another text. Forget it where `pos` is 0.")
def _(sign, pos):
    mood, last = np.full(len(sign), -1), -1
    for i in range(len(sign)):
        mood[i] = last
        last = sign[i] if sign[i] >= 0 else last
    return mood


@seen.wrong("the first sign", "You keep the first sign of a row for good. The mood is the *last* one before the token.")
def _(sign, pos):
    mood, first = np.full(len(sign), -1), -1
    for i in range(len(sign)):
        first = -1 if pos[i] == 0 else first
        mood[i] = first
        first = sign[i] if first < 0 else first
    return mood


@seen.wrong(
    "only the token before",
    "You look at one token only, the one just before. A mood lasts until another sign.")
def _(sign, pos):
    return np.where(pos == 0, -1, np.concatenate([[-1], sign[:-1]]))


@seen.wrong("from the future", "Some tokens get a sign that comes only *behind* them. The model has not read it yet.")
def _(sign, pos):
    mood, following = np.full(len(sign), -1), -1
    for i in range(len(sign))[::-1]:
        mood[i] = following
        following = sign[i] if sign[i] >= 0 else following
        following = -1 if pos[i] == 0 else following
    return mood


@seen.cases
def _(rng):
    yield np.array([-1, 1, -1, 0, -1, -1]), np.array([0, 1, 2, 3, 4, 0])
    yield np.array([0, -1, -1, -1, 1, 1, -1]), np.array([2, 3, 0, 1, 2, 3, 4])
    lengths = rng.integers(1, 9, 8)
    pos = np.concatenate([np.arange(n) for n in lengths])
    sign = rng.choice([-1, 0, 1], len(pos), p=[0.6, 0.2, 0.2])
    yield np.where(pos == 0, -1, sign), pos
