"""Interrupted causality: what an answer hangs on, and what brings it back after something was taken away.

1. ``to = target(lab, answers, against)``: what is asked of each row's logits, a linear function of them.
2. ``account(lab, tokens, places, to, hook, intervention)``: its change, split exactly into the direct effect, what
   later attention and later MLPs add, and what the final norm does by rescaling.
3. ``effects(account, docs)``: all these with intervals; ``taken_back``: as shares of the direct effect.
4. ``shares``, ``carriers``: who else carries a direction at the same site, latent by latent.
5. ``reformed``: what of it stands at a later site all the same: come straight through, or formed anew, by whom.
6. ``density_matched``, ``deal_rows``, ``norm_matched``: what to take away instead, for the nulls.
7. ``ground``, ``tools``, ``way``: places where a model says a concept's word, what training text says of the concept,
   and the ways to take it away; ``attribution``: which latents an answer hangs on.
8. ``sweep``, ``kept_sweep``, ``recheck``: all ways, nulls and dictionaries on many concepts, kept, and tried again.
9. ``facts``, ``pairs``, ``told``, ``spaces``: what is needed to interchange one attribute of a thing.
"""

from course_utils.causality.account import Account, Trace, account, compare, effects, taken_back, trace
from course_utils.causality.attributes import spaces, told
from course_utils.causality.bench import Bench, Plan, Sweep, ways
from course_utils.causality.choosing import attribution
from course_utils.causality.density import deal_rows, density_matched, norm_matched
from course_utils.causality.facts import facts, pairs
from course_utils.causality.kept import kept_sweep, recheck, sweep
from course_utils.causality.occasions import concept_list
from course_utils.causality.overlap import Carrier, Reformed, Shares, carriers, reformed, shares
from course_utils.causality.removal import BY_ANSWER, BY_WORD, DIFF, LEACE, RANDOM, dictionary, null_ways, tools, way
from course_utils.causality.showing import accounts_at, attribute_pairs, repair, swap_attributes, try_ways
from course_utils.causality.targets import Target, target
from course_utils.causality.trials import Ground, answers, damage, ground, testable

__all__ = [
    "Account", "BY_ANSWER", "BY_WORD", "Bench", "Carrier", "DIFF", "Ground", "LEACE", "Plan", "RANDOM", "Reformed",
    "Shares", "Sweep", "Target", "Trace", "account", "accounts_at", "answers", "attribute_pairs", "attribution",
    "carriers", "compare", "concept_list", "damage", "deal_rows", "density_matched", "dictionary", "effects", "facts",
    "ground", "kept_sweep", "norm_matched", "null_ways", "pairs", "recheck", "reformed", "repair", "shares", "spaces",
    "swap_attributes", "sweep", "taken_back", "target", "testable", "told", "tools", "trace", "try_ways", "way",
    "ways",
]
