"""Interrupted causality: what brings an answer back after something was taken away at one place of the stream.

1. ``to = target(lab, answers, against)``: what is asked of each row's logits, a linear function of them.
2. ``account(lab, tokens, places, to, hook, intervention)``: its change, split exactly into the direct effect, what
   later attention and later MLPs add, and what the final norm does by rescaling.
3. ``effects(account, docs)``: all these with intervals; ``taken_back``: as shares of the direct effect.
4. ``shares``, ``carriers``: who else carries a direction at the same site, latent by latent.
5. ``reformed``: what of it stands at a later site all the same: come straight through, or formed anew, by whom.
6. ``density_matched``, ``deal_rows``, ``norm_matched``: what to take away instead, for the nulls.
"""

from course_utils.causality.account import Account, Trace, account, compare, effects, taken_back, trace
from course_utils.causality.density import deal_rows, density_matched, norm_matched
from course_utils.causality.overlap import Carrier, Reformed, Shares, carriers, reformed, shares
from course_utils.causality.targets import Target, target

__all__ = [
    "Account", "Carrier", "Reformed", "Shares", "Target", "Trace", "account", "carriers", "compare", "deal_rows",
    "density_matched", "effects", "norm_matched", "reformed", "shares", "taken_back", "target", "trace",
]
