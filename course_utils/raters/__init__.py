"""Raters: who explains a unit, and who says how good an explanation is; a person, statistics of words, or a model.

1. ``Reader`` cuts ``Passage``s out of a harvest; ``examples`` draws them from a unit's whole range of activity.
2. A ``Rater`` explains, detects, fuzzes and chooses: ``WordRater`` by statistics of words, ``ChatRater`` by asking a
   chat model on this machine, or one of your own.
3. ``panel``: four raters of one rule who were shown different passages; how far they agree is for `evidence.agreement`.
4. ``judge`` scores explanations on other text, beside explanations of other units.
"""

from course_utils.raters.chat import ChatRater
from course_utils.raters.panel import Panel, domain_words, panel, shown_to
from course_utils.raters.passages import Column, Passage, Reader, active, band_rows, bands, quiet_rows
from course_utils.raters.protocol import Explanation, Rater
from course_utils.raters.scoring import (
    Judged,
    Questions,
    auroc,
    detection_questions,
    examples,
    fuzzing_questions,
    judge,
)
from course_utils.raters.words import WordRater, log_odds, words_of

__all__ = [
    "ChatRater", "Column", "Explanation", "Judged", "Panel", "Passage", "Questions", "Rater", "Reader", "WordRater",
    "active", "auroc", "band_rows", "bands", "detection_questions", "domain_words", "examples", "fuzzing_questions",
    "judge", "log_odds", "panel", "quiet_rows", "shown_to", "words_of",
]
