"""Questions of one form with known answers, and twins of each that differ in one place: what patching needs.

A *fact* (from ``data/lessons.yaml``) names a form such as ``"The {relation} of {subject} is"``, a relation, a word to
put ``instead`` of it, and the answer for every subject. A prompt's *twins* have as many tokens as itself, so that every
place has its counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.lab.hooked import HookedModel


class Questions(NamedTuple):
    """Prompts of one form, one for each subject."""

    tokens: Int[Tensor, "n pos"]
    """Padded behind, which no token before it sees."""
    ends: Int[Tensor, " n"]
    """Place of each prompt's last token."""
    answers: list[str]
    """The right answers."""
    right: Bool[np.ndarray, " n"]
    """Whether the model's most probable next token begins the right answer."""


class Twins(NamedTuple):
    """Prompts with, for each, a twin of another subject and a twin of another relation."""

    clean: Int[Tensor, "n pos"]
    ends: Int[Tensor, " n"]
    subject: Int[Tensor, "n pos"]
    """The same prompts with the subject of another."""
    relation: Int[Tensor, "n pos"]
    """The same prompts with an unrelated word in the relation's place."""

    @property
    def where(self) -> dict[str, Bool[Tensor, "n pos"]]:
        """Kinds of places: where the twins differ, the last token, all others (padding is none of them)."""
        place = torch.arange(self.clean.shape[1], device=self.clean.device)
        ends = self.ends[:, None].to(self.clean.device)
        where = {"the subject": self.clean != self.subject, "the relation": self.clean != self.relation,
                 "the last token": place == ends}
        return where | {"all others": ~torch.stack(list(where.values())).any(0) & (place < ends)}

    @property
    def subject_ends(self) -> Int[Tensor, " n"]:
        """Place of the last token in which the subjects differ."""
        place = torch.arange(self.clean.shape[1], device=self.clean.device)
        return torch.where(self.clean != self.subject, place, 0).amax(1)


def at(x: Float[Tensor, "n pos *rest"], places: Int[Tensor, " n"]) -> Float[Tensor, " n *rest"]:
    """Take from each row what stands at its place, to the CPU."""
    rows = torch.arange(len(places), device=x.device)
    return x[rows, places.to(x.device)].float().cpu()


def padded(lab: HookedModel, rows: Sequence[Sequence[int] | Tensor]) -> tuple[Int[Tensor, "n pos"], Int[Tensor, " n"]]:
    """Lay rows of tokens, BOS first, side by side; return the place of each one's last token too."""
    ids = [torch.as_tensor(row, device=lab.device) for row in rows]
    tokens = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=lab.bos)
    return tokens, torch.tensor([len(row) - 1 for row in ids])


def _rows(lab: HookedModel, fact: Mapping[str, Any], form: str, relation: str, n: int) -> tuple[Tensor, Tensor]:
    texts = [fact[form].format(subject=subject, relation=relation) for subject in list(fact["answers"])[:n]]
    return padded(lab, [lab.encode(text)[0] for text in texts])


def questions(lab: HookedModel, fact: Mapping[str, Any], n: int, form: str = "ask") -> Questions:
    """Ask a model the first ``n`` questions of a kind.

    Parameters
    ----------
    lab
        The opened model.
    fact
        A kind of question, from ``data/lessons.yaml``.
    n
        At most so many subjects.
    form
        Which of its sentences: ``"ask"``, or ``"turned"`` for the other word order.
    """
    tokens, ends = _rows(lab, fact, form, fact["relation"], n)
    answers = list(fact["answers"].values())[:n]
    said = [lab.token_strings[i].strip() for i in at(lab.logits(tokens), ends).argmax(-1).tolist()]
    right = [bool(token) and answer.startswith(token) for token, answer in zip(said, answers, strict=True)]
    return Questions(tokens, ends, answers, np.array(right))


def twins(lab: HookedModel, fact: Mapping[str, Any], n: int, form: str = "ask", seed: int = 0,
          wrong_too: bool = False) -> Twins:
    """Give every prompt that the model answers its two twins.

    Parameters
    ----------
    lab, fact, n, form
        As in :func:`questions`.
    seed
        Chooses each prompt's other subject, among those with as many tokens and another answer.
    wrong_too
        Take the prompts that the model gets wrong as well.

    Raises
    ------
    CourseError
        If the two words for the relation have different numbers of tokens, or fewer than two prompts remain.
    """
    asked = questions(lab, fact, n, form)
    relation, ends = _rows(lab, fact, form, fact["instead"], n)
    if relation.shape != asked.tokens.shape or not torch.equal(ends, asked.ends):
        raise CourseError(f"relation={fact['relation']!r} and instead={fact['instead']!r} have different numbers of "
                          f"tokens in {lab.name}; choose another word.")
    taken, rng = np.flatnonzero(asked.right | wrong_too), np.random.default_rng(seed)
    fit = {i: [j for j in taken if ends[j] == ends[i] and asked.answers[j] != asked.answers[i]] for i in taken}
    keep = [i for i in taken if fit[i]]
    if len(keep) < 2:
        raise CourseError(f"{lab.name} answers too few of the questions about {fact['name']}; take the wrong ones too.")
    subject = asked.tokens[[int(rng.choice(fit[i])) for i in keep]]
    return Twins(asked.tokens[keep], ends[keep], subject, relation[keep])
