"""A feature's words: what text is searched for them when nobody is paid to judge it.

Where word lists label the text, a feature's words are its list. Where there is an answer key, they are the tokens that
carry the feature's label on at least half of their occurrences in training text. Either way a text is judged by what
stands in it, and no model has a say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_utils.activations import Activations
from course_utils.concepts import word_list_labels
from course_utils.errors import CourseError, one_of
from course_utils.lab import Lab

LEAST = 5  # occurrences below which a token's share says nothing


class Lexicon(NamedTuple):
    """The words of several features."""

    names: tuple[str, ...]
    """Features, as concepts: ``"topic:french"``, ``"word_list:animals"``."""
    share: Float[Tensor, "d_vocab concepts"]
    """Of a token's occurrences in training text, the share that carries the concept; 0 if it is too rare to tell."""
    lists: bool
    """Whether word lists label the text."""

    def ids(self, name: str) -> Int[Tensor, " k"]:
        """Return the tokens of a feature, by which the next token's log-odds are taken.

        Where words are lists and a model's tokens mere pieces, it may have none of its own: then those that are nearest
        to it.
        """
        if name not in self.names:
            raise one_of("name", name, self.names)
        share = self.share[:, self.names.index(name)]
        found = (share >= 0.5).nonzero()[:, 0]
        return found if len(found) or not self.lists else share.topk(min(5, int((share > 0).sum()))).indices

    def marks(self, lab: Lab, tokens: Int[Tensor, "rows pos"]) -> Bool[Tensor, "rows pos concepts"]:
        """Say which tokens of a text belong to words of which feature."""
        if not self.lists:
            return (self.share >= 0.5)[tokens.cpu()]
        labels = word_list_labels(lab, tokens)
        on = np.stack([labels.mask(name) for name in self.names], axis=1)
        return torch.from_numpy(on).reshape(*tokens.shape, -1)


def lexicon(acts: Activations, concepts: Sequence[str], d_vocab: int) -> Lexicon:
    """Find the words of some concepts in labelled training text.

    Parameters
    ----------
    acts
        A harvest with labels.
    concepts
        Which.
    d_vocab
        Number of tokens that the model knows.

    Raises
    ------
    CourseError
        If the harvest has no labels, a concept is unknown, or no token is mostly about it.
    """
    if acts.labels is None:
        raise CourseError("this harvest has no labels; harvest with labels=True.")
    on = acts.labels.matrix(list(concepts)).on[acts.usable].float()
    tokens = acts.tokens[acts.usable].long()
    count = torch.bincount(tokens, minlength=d_vocab)
    share = torch.zeros(d_vocab, on.shape[1]).index_add_(0, tokens, on) / count.clamp(min=1)[:, None]
    share[count < LEAST] = 0
    found = Lexicon(tuple(concepts), share, all(name.startswith("word_list:") for name in concepts))
    if empty := [name for name in concepts if not len(found.ids(name))]:
        raise CourseError(f"no token of this text is mostly about {empty[0]!r}; take a more frequent concept or more "
                          "tokens.")
    return found


def usual_share(lab: Lab, acts: Activations, words: Lexicon) -> Float[Tensor, " concepts"]:
    """Return how much of real text about each concept its words are: the mean over documents that carry its label.

    Parameters
    ----------
    lab
        The opened model.
    acts
        Held-out text with labels.
    words
        From `lexicon`.
    """
    rows = acts.usable
    doc = acts.doc[rows].unique(return_inverse=True)[1]
    said = words.marks(lab, acts.tokens[None])[0][rows].float()
    about = acts.labels.matrix(list(words.names)).on[rows].float()
    length = torch.bincount(doc).float()[:, None]
    shape = len(length), len(words.names)
    share = torch.zeros(shape).index_add_(0, doc, said) / length
    there = torch.zeros(shape).index_add_(0, doc, about) > 0
    return (share * there).sum(0) / there.sum(0).clamp(min=1)


def texts_about(acts: Activations, name: str) -> list[list[int]]:
    """Return the documents of a harvest in which some token carries a concept, as token ids without BOS."""
    rows = acts.usable
    doc, tokens = acts.doc[rows].cpu().numpy(), acts.tokens[rows].cpu().numpy()
    on = acts.labels.mask(name)[rows.cpu().numpy()]
    starts = np.flatnonzero(np.diff(doc, prepend=doc[0] - 1))
    pieces = zip(np.split(tokens, starts[1:]), np.split(on, starts[1:]), strict=True)
    return [ids.tolist() for ids, carried in pieces if carried.any()]
