"""How well a dictionary recovers known features: activations whose truth is known, and scores against it.

1. `new_truth`: in each world, ``f`` unit directions at random in ``d < f`` dimensions, each feature with a density;
   some are rarer (Zipf), and neighbours may be tied, so that they tend to be on together.
2. `draw`: strengths ``a``, zero where a feature is off; what an autoencoder sees is ``x = a @ directions``.
3. `recover`: hand each feature a latent of its own so that the cosines sum to the most (Hungarian matching), then say
   of every latent what it is: a feature, a duplicate or a split of one, composed of two, something else, or dead.
4. `choose` and `f1`: detect each feature with the best single unit, chosen on one sample and scored on another.

Many worlds and autoencoders are handled at a time: the first axis is the instance, as in `toy`.
"""

from course_utils.recovery.detection import Choice, choose, f1
from course_utils.recovery.scores import KINDS, Recovery, cosines, match, pair_cosine, recover
from course_utils.recovery.truth import Truth, draw, join, new_truth

__all__ = [
    "Choice", "KINDS", "Recovery", "Truth", "choose", "cosines", "draw", "f1", "join", "match", "new_truth",
    "pair_cosine", "recover",
]
