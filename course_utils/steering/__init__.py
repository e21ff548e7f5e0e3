"""Steering measured: which words a feature has, what a push writes, what that costs, and which traits it moves.

1. ``words = lexicon(acts, concepts, lab.d_vocab)``: what text is searched for.
2. ``try_out(lab, hook, directions, scales, prompts, words)``: write under many pushes at once, and judge.
3. ``side_effect``, ``next_token``: what a push does to unrelated text, and to the next token.
4. ``traits``, ``trait``, ``examples``, ``questions``, ``log_odds``: behaviour that shows in the next token.
"""

from course_utils.steering.judging import Judged, distinct, divergence, judge_text, pasted, prompted
from course_utils.steering.lexicon import Lexicon, lexicon, texts_about, usual_share
from course_utils.steering.showing import spans, texts
from course_utils.steering.traits import Prompts, Trait, examples, log_odds, questions, trait, traits
from course_utils.steering.trying import Outcome, Tried, both_ways, next_token, side_effect, try_methods, try_out

__all__ = [
    "Judged", "Lexicon", "Outcome", "Prompts", "Trait", "Tried", "both_ways", "distinct", "divergence", "examples",
    "judge_text", "lexicon", "log_odds", "next_token", "pasted", "prompted", "questions", "side_effect", "spans",
    "texts", "texts_about", "trait", "traits", "try_methods", "try_out", "usual_share",
]
