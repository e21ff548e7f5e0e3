"""Reach into a running model: splice, ablate, steer, erase, swap with another prompt; and write under all that.

``splice``, ``ablate``, ``steer``, ``erase``, ``project_out`` and ``swap`` are context managers over the model's hooks:
inside the ``with`` block every run of the lab is changed, after it none is, whatever ended the block. All leave
position 0 (BOS) alone unless told otherwise: no SAE here is trained on it, and heads use it as their resting place.
``das`` trains a subspace to be swapped. ``generate`` and ``sample`` write text, with a cache, under whatever is in
force.
"""

from course_utils.interventions.alignment import Aligned, das
from course_utils.interventions.erasing import Eraser, erase, leace, project_out, spanned
from course_utils.interventions.interchange import Interchange, Pairs, interchange_scores, swap
from course_utils.interventions.spaces import Coordinates, Latents, Space, Subspace, Whole
from course_utils.interventions.splicing import MODES, ablate, divert, splice
from course_utils.interventions.steering import reads, steer
from course_utils.interventions.writing import Sample, generate, sample

__all__ = ["MODES", "Aligned", "Coordinates", "Eraser", "Interchange", "Latents", "Pairs", "Sample", "Space",
           "Subspace", "Whole", "ablate", "das", "divert", "erase", "generate", "interchange_scores", "leace",
           "project_out", "reads", "sample", "spanned", "splice", "steer", "swap"]
