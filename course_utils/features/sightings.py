"""Looking for words: where they stand in the text, and what a model holds there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.lab import Lab

_WORD = re.compile(r"[^\W\d_]+")
LIMIT = 40_000  # documents that are read at most
_BATCH = 32  # rows run at a time


class Sightings(NamedTuple):
    """Tokens at which words stand, with the text before each: no later token can change what is there."""

    names: tuple[str, ...]
    """What was looked for."""
    rows: tuple[Int[Tensor, " pos"], ...]
    """Rows of text, BOS first."""
    row: Int[np.ndarray, " m"]
    """The row in which each token stands."""
    pos: Int[np.ndarray, " m"]
    """Its place in that row."""
    name: Int[np.ndarray, " m"]
    """Which of the names it belongs to."""
    doc: Int[np.ndarray, " m"]
    """Number of the document: the unit to resample."""

    def read(self, lab: Lab, hooks: Sequence[str]) -> list[Float[Tensor, "m _"]]:
        """Return the activations of each hook at every sighting, in one run of the model."""
        parts: list[list[Tensor]] = [[] for _ in hooks]
        order = []
        for first in range(0, len(self.rows), _BATCH):
            tokens = torch.nn.utils.rnn.pad_sequence(self.rows[first : first + _BATCH], batch_first=True,
                                                     padding_value=lab.bos)
            mine = np.flatnonzero((self.row >= first) & (self.row < first + _BATCH))
            at = self.row[mine] - first, self.pos[mine]  # what is padded comes later, and nobody looks back at it
            lab.run(tokens, hooks=[(hook, lambda a, part=part, at=at: part.append(a[at].flatten(1).float().cpu()))
                                   for hook, part in zip(hooks, parts, strict=True)])
            order.append(mine)
        back = np.concatenate(order).argsort()
        return [torch.cat(part)[back] for part in parts]

    def text(self, lab: Lab, i: int, context: int = 12) -> str:
        """Return one sighting in its text, the token in brackets."""
        row, p = self.rows[self.row[i]], int(self.pos[i])
        before, here, after = (lab.text_of(part.tolist()) if len(part) else "" for part in
                               (row[max(1, p - context) : p], row[p : p + 1], row[p + 1 : p + 1 + context // 2]))
        return f"{before}[{here}]{after}".replace("\n", " ")


def sightings(lab: Lab, words: Mapping[str, Sequence[str]], n: int = 100, split: str = "train") -> Sightings:
    """Read documents until every name has been seen in ``n`` of them, or the text ends.

    Parameters
    ----------
    lab
        The opened model and its text.
    words
        Name → its forms, whole words of letters in any capitalisation, e.g. ``{"dog": ["dog", "dogs"]}``.
    n
        Documents a name. Of each document only the first window that the model can read counts; a word of several
        tokens is looked at on its last one, where all of it has been read.
    split
        ``"train"`` or ``"heldout"``.

    Raises
    ------
    CourseError
        If a form is no word, or a name is seen in fewer than three documents.
    """
    name_of = {}
    for i, (name, forms) in enumerate(words.items()):
        for form in [forms] if isinstance(forms, str) else forms:
            if not _WORD.fullmatch(form):
                raise CourseError(f"words[{name!r}] holds {form!r}; a word is made of letters, without spaces.")
            name_of[form.lower()] = i
    seen, rows, found = [0] * len(words), [], []
    for number, document in enumerate(lab.documents(split)):
        if min(seen) >= n or number == LIMIT:
            break
        ids = list(document.ids[: lab.n_ctx - 1])
        cut = len(document.ids) > len(ids)  # then its last word may be half a word
        here = [(p, i) for p, i in _places(lab, ids, name_of, cut) if seen[i] < n]
        if here:
            found += [(len(rows), p + 1, i, number) for p, i in here]
            rows.append(torch.tensor([lab.bos, *ids]))
            for i in {i for _, i in here}:
                seen[i] += 1
    for name, count in zip(words, seen, strict=True):
        if count < 3:
            raise CourseError(f"{name!r} stands in {count} documents of the {split} text; look for a more frequent "
                              "word.")
    return Sightings(tuple(words), tuple(rows), *np.array(found).T)


def _places(lab: Lab, ids: list[int], name_of: Mapping[str, int], cut: bool) -> list[tuple[int, int]]:
    """Return the place of the last token of each wanted word, and which name it has."""
    pieces = [lab.token_strings[i] for i in ids]
    text = "".join(pieces)
    hits = [(m.end() - 1, name_of[m.group().lower()]) for m in _WORD.finditer(text)
            if m.group().lower() in name_of and not (cut and m.end() == len(text))]
    if not hits:
        return []
    ends = np.cumsum([len(piece) for piece in pieces])
    return [(int(np.searchsorted(ends, at, side="right")), i) for at, i in hits]
