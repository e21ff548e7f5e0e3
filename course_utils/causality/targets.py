"""What is asked of the logits: a number for each row that is a linear function of them, so that it can be split."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.lab import Lab


class Target(NamedTuple):
    """What is asked of each row's logits: the mean logit of some tokens less that of others."""

    plus: Int[Tensor, "n k"]
    """The tokens of each row; -1 fills a row that has fewer."""
    minus: Int[Tensor, "n m"] | None
    """The others; None: all tokens of the vocabulary."""

    def of(self, rows: Int[Tensor, " r"]) -> Target:
        """Return the targets of some rows."""
        return Target(self.plus[rows], None if self.minus is None else self.minus[rows])

    def read(self, logits: Float[Tensor, "n d_vocab"]) -> Float64[Tensor, " n"]:
        """Read it from logits."""
        x = logits.double()
        return _mean(x, self.plus) - (x.mean(-1) if self.minus is None else _mean(x, self.minus))

    def vectors(self, W_U: Float[Tensor, "d d_vocab"]) -> Float64[Tensor, "n d"]:
        """Return W_U t for each row."""
        less = W_U.float().mean(1).cpu().double() if self.minus is None else _columns(W_U, self.minus)
        return _columns(W_U, self.plus) - less


def _mean(x: Float64[Tensor, "n d_vocab"], ids: Int[Tensor, "n k"]) -> Float64[Tensor, " n"]:
    there = ids >= 0
    return (x.gather(1, ids.clamp(min=0)) * there).sum(1) / there.sum(1)


def _columns(W_U: Float[Tensor, "d d_vocab"], ids: Int[Tensor, "n k"]) -> Float64[Tensor, "n d"]:
    sets, row = ids.unique(dim=0, return_inverse=True)  # mostly few: one a concept
    means = [W_U[:, some[some >= 0].to(W_U.device)].float().mean(1).cpu().double() for some in sets]
    return torch.stack(means)[row]


def target(lab: Lab, answers: Sequence[int | Sequence[int]] | Int[Tensor, " n *k"],
           against: Sequence[int | Sequence[int]] | Int[Tensor, " m *k"] | None = None) -> Target:
    """Say what is asked of each row's logits.

    Parameters
    ----------
    lab
        Knows how many tokens there are.
    answers
        For each row a token, or several of which the mean logit counts.
    against
        The same, to be subtracted: with one token each, a logit difference. None: the mean over the vocabulary.

    Raises
    ------
    CourseError
        If a row has no token, a token does not exist, or there are not as many rows in both.

    Examples
    --------
    >>> from course_utils.lab import open_lab
    >>> target(open_lab("organism", device="cpu", quiet=True), [5, [6, 7]]).plus.tolist()
    [[5, -1], [6, 7]]
    """
    plus, minus = (None if ids is None else _ids(lab, name, ids)
                   for name, ids in (("answers", answers), ("against", against)))
    if minus is not None and len(minus) != len(plus):
        raise CourseError(f"answers has {len(plus)} rows, against {len(minus)}; give both for each row.")
    return Target(plus, minus)


def _ids(lab: Lab, name: str, given: Sequence | Tensor) -> Int[Tensor, "n k"]:
    given = given.tolist() if isinstance(given, Tensor) else given
    rows = [torch.tensor([int(ids)] if isinstance(ids, Integral) else list(ids), dtype=torch.long) for ids in given]
    if not rows or not all(len(row) for row in rows):
        raise CourseError(f"{name} must hold a token, or several, for each row; one is empty.")
    if bad := [i for row in rows for i in row.tolist() if not 0 <= i < lab.d_vocab]:
        raise CourseError(f"{name} hold id {bad[0]}; {lab.name} knows 0 to {lab.d_vocab - 1}.")
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
