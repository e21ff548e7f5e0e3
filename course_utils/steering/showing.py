"""What was written, in words, and where the feature's words stand in it."""

from __future__ import annotations

from course_utils.interventions import Sample
from course_utils.lab import Lab
from course_utils.steering.lexicon import Lexicon


def texts(lab: Lab, written: Sample) -> list[str]:
    """Return what was written, in words."""
    return [lab.text_of(ids) for ids in written.continuations()]


def spans(lab: Lab, written: Sample, words: Lexicon, name: str) -> list[tuple[str, list[tuple[int, int]]]]:
    """Return each text with the character spans at which words of a feature stand in it."""
    marks, found = words.marks(lab, written.tokens)[..., words.names.index(name)], []
    for ids, on, start, end in zip(written.tokens.tolist(), marks, written.start, written.end, strict=True):
        pieces = [lab.text_of(ids[start:i]) for i in range(int(start), int(end) + 1)]  # ever longer
        text, hits = pieces[-1], []
        for j in on[start:end].nonzero()[:, 0].tolist():
            low, high = len(pieces[j]), len(pieces[j + 1])
            low += len(text[low:high]) - len(text[low:high].lstrip())  # the blank before a word is no part of it
            hits += [(low, high)] if low < high else []
        found.append((text, hits))
    return found
