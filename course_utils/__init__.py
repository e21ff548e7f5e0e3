"""Under the Hood: the helpers of a course that takes a language model apart and checks what is said about it.

The public names below are loaded on first use, so that ``import course_utils`` costs nothing: torch,
transformer-lens and sae-lens come in only when a notebook asks for something that needs them.

Examples
--------
>>> import course_utils
>>> "open_lab" in dir(course_utils)
True
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

# room → the names that it offers to notebooks and other code; README's API table lists the same.
_ROOMS = {
    "errors": ("CourseError",),
    "organism": ("World", "Document", "load_tokenizer"),
    "concepts": ("Labels", "word_list_labels", "word_labels", "domain_of"),
    "lab": ("open_lab", "random_twin", "Lab", "Batch", "token_losses"),
    "lessons": ("lesson",),
    "activations": ("harvest", "Activations"),
    "dictionaries": (
        "train_sae", "train_at_l0", "ready_sae", "save_sae", "load_sae", "published_saes", "preprocessing_check",
        "evaluate", "Run", "Evaluation",
    ),
    "features": (
        "concept_tables", "domain_table", "shuffled_table", "sae_latents", "score_units", "best_units",
        "score_detectors", "mean_f1", "concept_f1", "f1_difference", "mean_differences", "linear_probes",
        "random_directions", "rotated", "polysemanticity", "concept_scores", "latent_values", "top_examples",
        "quantile_examples", "logit_effects", "density", "neighbours", "cofiring",
    ),
    "interventions": ("splice", "ablate", "steer", "generate", "sample", "erase", "project_out", "swap", "das"),
    "steering": ("try_methods", "judge_text"),
    "causality": ("account", "attribution"),
    "raters": ("WordRater", "ChatRater", "judge"),
    "cards": ("feature_card", "CardIndex", "read_latents"),
    "widgets": ("explore",),
    "widgets.browser": ("browse",),
    "widgets.dial": ("dial",),
    "exercises": ("exercise", "hint", "reveal", "predict", "recall", "ExerciseError"),
    "evidence": ("Estimate", "bootstrap", "permutation_test", "holm", "cohen_kappa", "krippendorff_alpha", "claim",
                 "ClaimCard", "Ledger", "defend"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [*_ROOM_OF]


def __getattr__(name: str) -> object:
    """Load a public name from its room on first use (PEP 562)."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'course_utils' has no attribute {name!r}")
    value = getattr(import_module(f"course_utils.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
