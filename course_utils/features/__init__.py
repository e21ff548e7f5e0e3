"""Reading units (neurons, directions, latents): what they stand for, how well, and what they do.

1. ``y, z = concept_tables(train, heldout)``: the same concepts on two harvests.
2. ``score_units(xa, y, xb, z)``: AUROC and F1 of every unit for every concept, thresholds chosen on the first split.
3. ``best_units``, ``score_detectors``: one detector a concept, chosen on the first split and scored on the second;
   ``mean_f1``, ``f1_difference``: with intervals over documents.
4. ``mean_differences``, ``linear_probes``, ``random_directions``, ``rotated``: what to compare with.
5. ``polysemanticity``: how many unrelated domains each unit serves, against its nulls.
6. ``quantile_examples``, ``logit_effects``, ``neighbours``, ``cofiring``, ``density``: what goes on a latent's card.
"""

from course_utils.features.chosen import (
    Detection,
    best_units,
    concept_f1,
    f1_difference,
    mean_f1,
    score_detectors,
)
from course_utils.features.examples import (
    Band,
    Example,
    LogitEffects,
    example,
    final_scale,
    logit_effects,
    quantile_examples,
    top_examples,
)
from course_utils.features.latents import (
    Cofiring,
    Neighbour,
    Scores,
    cofiring,
    concept_scores,
    latent_values,
    neighbours,
)
from course_utils.features.polysemantic import Polysemanticity, polysemanticity, says_on
from course_utils.features.probes import Probes, linear_probes, mean_differences, random_directions, rotated
from course_utils.features.scores import Cells, UnitScores, score_units
from course_utils.features.units import (
    Table,
    column,
    concept_tables,
    density,
    domain_table,
    rows_of,
    sae_latents,
    shuffled_table,
)

__all__ = [
    "Band", "Cells", "Cofiring", "Detection", "Example", "LogitEffects", "Neighbour", "Polysemanticity", "Probes",
    "Scores", "Table", "UnitScores", "best_units", "cofiring", "column", "concept_f1", "concept_scores",
    "concept_tables", "density", "domain_table", "example", "f1_difference", "final_scale", "latent_values",
    "linear_probes", "logit_effects", "mean_differences", "mean_f1", "neighbours", "polysemanticity",
    "quantile_examples", "random_directions", "rotated", "rows_of", "sae_latents", "says_on", "score_detectors",
    "score_units", "shuffled_table", "top_examples",
]
