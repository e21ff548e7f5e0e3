"""What one concept is tried on, and what an intervention does there: to its answers, to others', to unrelated text.

1. ``ground(lab, concept, n, n_tokens)`` collects places where the model says the concept's word: some to choose by
   (training text), others to score (held-out text), and text that never mentions it.
2. ``answers(lab, rows)`` reads the *advantage* there: the word's logit less the mean of its siblings', whatever is in
   force. Logits have no zero of their own; the siblings give them one, and a change that all of them share is none.
3. ``damage(lab, ground)`` is how far predictions move on the unrelated text: mean KL from the clean ones, in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from course_utils.activations import Activations
from course_utils.causality.mentions import marks_of, siblings
from course_utils.causality.occasions import LEAST, Occasions, elsewhere, knowable, occasions, says
from course_utils.causality.targets import Target, target
from course_utils.errors import CourseError
from course_utils.lab import Lab
from course_utils.lab.questions import at
from course_utils.steering.judging import divergence

PLACES = 4  # fewer say nothing about a concept


class Rows(NamedTuple):
    """Places of text with what is asked there."""

    tokens: Int[Tensor, "n pos"]
    places: Int[Tensor, " n"]
    to: Target
    """The word's logit less the mean of its siblings'."""
    doc: Int[Tensor, " n"]
    """The unit of a bootstrap."""

    @property
    def words(self) -> Int[Tensor, " n"]:
        """First token of each row's word."""
        return self.to.plus[:, 0]

    @property
    def only_place(self) -> Bool[Tensor, "n pos"]:
        """True at the place alone, for interventions at one position."""
        return torch.arange(self.tokens.shape[1]) == self.places[:, None]


class Ground(NamedTuple):
    """What one concept is tried on."""

    concept: str
    choose: Rows
    """From the training text: for choosing."""
    score: Rows
    """From the held-out text: for scoring."""
    text: Int[Tensor, "rows pos"]
    """Held-out text that never mentions the concept."""
    mask: Bool[Tensor, "rows pos"]
    """True where that holds tokens, BOS left out."""
    clean: Float[Tensor, "m d_vocab"]
    """The clean logits there."""


def rows_of(lab: Lab, occ: Occasions) -> Rows:
    """Ask at each occasion for its word against the word's siblings; what stands behind the last place is cut off."""
    against = [siblings(lab, occ.concept)] * len(occ.target)
    return Rows(occ.tokens[:, : int(occ.places.max()) + 1], occ.places, target(lab, occ.target, against), occ.doc)


def ground(lab: Lab, concept: str, n: int, n_tokens: int, least: float | int = 0.5, seed: int = 0) -> Ground:
    """Collect what a concept is tried on.

    Parameters
    ----------
    lab
        The opened model and its text; nothing may be in force.
    concept
        As in `occasions`.
    n
        At most so many places of each split, at which the model says the word.
    n_tokens
        Tokens of text that never mentions the concept.
    least
        The probability of the word that counts as saying it.
    seed
        Draws the places.

    Raises
    ------
    CourseError
        If there is too little text, or the model does not say the word.
    """
    choose, score = (rows_of(lab, knowable(lab, occasions(lab, concept, n, split, seed, min(n, LEAST)), least))
                     for split in ("train", "heldout"))
    text, mask = elsewhere(lab, concept, n_tokens)
    mask = mask.clone()
    mask[:, 0] = False
    return Ground(concept, choose, score, text, mask, lab.logits(text)[mask])


def testable(lab: Lab, concepts: Sequence[str], n: int, least: float | int = 0.5, seed: int = 0) -> list[str]:
    """Keep the concepts that a model says at four places or more of either split; parameters as in `ground`.

    Raises
    ------
    CourseError
        If fewer than two are left.
    """
    kept = []
    for concept in concepts:
        found = [says(lab, occasions(lab, concept, n, split, seed, 1)) >= least for split in ("train", "heldout")]
        if min(int(known.sum()) for known in found) >= PLACES:
            kept.append(concept)
    if len(kept) < 2:
        raise CourseError(f"{lab.name} says only {len(kept)} of {len(concepts)} concepts with a probability of "
                          f"least={least} at {PLACES} places of either split; ask for less, or give more text.")
    return kept


def answers(lab: Lab, rows: Rows) -> tuple[Float64[Tensor, " n"], Float[Tensor, " n"]]:
    """Return each row's advantage, in nats, and the probability of its word; whatever is in force applies.

    All rows run together where an intervention might draw donors among them or hold one direction for each; so give no
    more rows than memory likes.
    """
    logits = at(lab.logits(rows.tokens), rows.places)
    return rows.to.read(logits), logits.softmax(-1).gather(1, rows.words[:, None])[:, 0]


def damage(lab: Lab, ground: Ground) -> float:
    """Return the mean KL(clean ‖ now) on text that never mentions the concept, in nats a token."""
    return float(divergence(ground.clean, lab.logits(ground.text)[ground.mask]).mean())


def mixed(lab: Lab, parts: Sequence[Rows]) -> Rows:
    """Lay the rows of several concepts below each other: an intervention on another should leave their answers be."""
    pad = torch.nn.utils.rnn.pad_sequence
    tokens = pad([row for rows in parts for row in rows.tokens], batch_first=True, padding_value=lab.bos)
    minus = pad([row for rows in parts for row in rows.to.minus], batch_first=True, padding_value=-1)
    places, plus, doc = (torch.cat(column) for column in zip(*((r.places, r.to.plus, r.doc) for r in parts),
                                                             strict=True))
    return Rows(tokens, places, Target(plus, minus), doc)


def asked_there(rows: Rows, of: Rows) -> Rows:
    """Ask at some rows for another concept's word: its most frequent one, against its own siblings."""
    word, n = of.words.mode().values, len(rows.places)
    return rows._replace(to=Target(word.repeat(n, 1), of.to.minus[:1].expand(n, -1)))


def carries(lab: Lab, acts: Activations, concept: str) -> Bool[Tensor, " n"]:
    """Say which tokens of a harvest carry a concept, also one that its labels do not have, such as ``"word: dog"``."""
    if acts.labels is not None and not concept.startswith("word:"):
        return torch.from_numpy(acts.labels.mask(concept))
    marks = marks_of(lab, concept)
    return torch.tensor([name is not None for name in marks(_Text(acts.tokens.tolist()))])


class _Text(NamedTuple):
    ids: list[int]
