"""Ready SAEs: the organism's are shipped; for any other model one is trained once, and kept.

1. What an SAE is made of (`shelf.Spec`), the model's weights and its text have one digest, which names its folder.
2. Making one: harvest to disk, train with checkpoints, save, write the card. Killed anywhere, it goes on.
3. A card remembers the SHA-256 of the model's weights. A model that was trained again gets an SAE of its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import course_utils
from course_utils.activations import harvest
from course_utils.dictionaries.evaluation import evaluate
from course_utils.dictionaries.recipes import Recipe, check_kind
from course_utils.dictionaries.shelf import FIGURES, Spec, card, saes, save_sae, write_card
from course_utils.errors import CourseError
from course_utils.lab import Lab
from course_utils.lessons import size_of
from course_utils.paths import cache_dir

# Activations to train on where nobody says: what a model of that size gives in minutes.
SAMPLES = {"small": 800_000, "large": 200_000, "gpu": 4_000_000}
JUDGED = 100_000  # held-out tokens that the figures of a card are measured on


def digest(lab: Lab, **facts: Any) -> str:
    """Return a short name for facts about a model and its text: the same facts, the same name."""
    about = {"weights": lab.fingerprint, "text": lab.text_source, "seed": lab.seed} | {"facts": facts}
    try:
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    except TypeError as error:
        raise CourseError(f"settings must be numbers, names and truth values ({error}).") from error


def make_sae(lab: Lab, spec: Spec, folder: Path, work: Path, judged: int = 0) -> dict[str, Any]:
    """Harvest, train and save the SAE of a recipe; a run that was cut off goes on.

    Parameters
    ----------
    lab
        The opened model and its text.
    spec
        What to make.
    folder
        Gets the SAE and its card.
    work
        Keeps what is half done: the harvest, which recipes of one hook share, and the checkpoints.
    judged
        Held-out tokens to measure the SAE on, for the card; 0: no figures.

    Returns
    -------
    dict
        The card.
    """
    from course_utils.dictionaries import train_sae

    data = {"hook": spec.hook, "n_tokens": spec.n_tokens}
    acts = harvest(lab, spec.hook, spec.n_tokens, labels=False, directory=work / f"harvest-{digest(lab, **data)}")
    training = work / f"training-{digest(lab, **asdict(spec))}"
    settings = {"width": spec.width, "k": spec.k, "kind": spec.kind, "n_samples": spec.n_samples, "seed": spec.seed}
    run = train_sae(acts, checkpoint=training, **settings | spec.settings)
    others: dict[str, Any] = {"model": lab.name, "course_version": course_utils.__version__}
    if judged:
        found = evaluate(lab, run.sae, judged)
        others["figures"] = {name: [round(v, 5) for v in getattr(found, name)[:3]] for name in FIGURES}
        others["judged_on"] = found.n_tokens
    save_sae(run.sae, folder)
    write_card(folder, spec, lab.fingerprint, **others)
    shutil.rmtree(training, ignore_errors=True)
    return card(folder)


def ready_sae(
    lab: Lab, hook: str | None = None, width: int = 1024, k: int | float = 16, kind: str = "batchtopk",
    n_samples: int | None = None, n_tokens: int | None = None, seed: int = 0, retrain: bool = False, **settings: Any,
) -> Any:
    """Return an SAE for a model at once: a shipped one, or one trained by the first such call and kept.

    Shipped are SAEs for the organism (``course saes list``). Any other is trained with a progress bar and kept in the
    course's cache folder (``COURSE_CACHE``, else ``~/.cache/under-the-hood``), where the next such call finds it.

    Parameters
    ----------
    lab
        The opened model, with text.
    hook
        Where the SAE belongs; None: ``lab.middle_hook``.
    width, k, kind, seed
        As in `train_sae`.
    n_samples, n_tokens
        Activations to train on, repeats included, and tokens of text to harvest them from. None: 800,000 for a model
        of up to 20 million weights, 200,000 for a larger one on a CPU, 4,000,000 on a GPU; from half as many tokens.
    retrain
        Train even if there is one, and keep the new one.
    **settings
        Others of `train_sae`, e.g. ``lr`` or ``batch_size``.

    Returns
    -------
    SAE
        sae-lens' inference SAE, on the lab's device.

    Raises
    ------
    CourseError
        On a setting out of range, a hook that is not there, a lab without text, or a cache that cannot be written.
    """
    from course_utils.dictionaries import load_sae

    hook = lab.check_hook(hook or lab.middle_hook)
    asked = {"hook": hook, "width": width, "k": k, "kind": kind, "seed": seed}
    asked |= {name: n for name, n in {"n_samples": n_samples, "n_tokens": n_tokens}.items() if n is not None}
    asked |= {"settings": settings} if settings else {}
    if not retrain and (name := _shipped(lab, asked)):
        return load_sae(name, device=str(lab.device))
    n_samples = n_samples or SAMPLES[size_of(lab)]
    return _kept(lab, Spec(**asked | {"n_samples": n_samples, "n_tokens": n_tokens or n_samples // 2}), retrain)


def _shipped(lab: Lab, asked: dict[str, Any]) -> str | None:
    """Return the name of a shipped SAE that was trained on these very weights."""
    fitting = {name: c for name, c in saes().items() if all(c.get(key) == value for key, value in asked.items())}
    for name, found in fitting.items():
        if found["weights"] == lab.fingerprint:
            return name
        if found["model"] == lab.name:
            lab.say(f"data/saes/{name} was trained on other weights of {lab.name} than these; it is left alone, and "
                    "one is trained for these.")
    return None


def remade(lab: Lab, spec: Spec) -> Any:
    """Return the SAE of a recipe: shipped, kept, or trained now and kept; for a recipe's other seeds and nulls."""
    from course_utils.dictionaries import load_sae

    name = _shipped(lab, asdict(spec))
    return load_sae(name, device=str(lab.device)) if name else _kept(lab, spec, False)


def _kept(lab: Lab, spec: Spec, retrain: bool) -> Any:
    """Load an SAE from the cache, after making it if it is not there."""
    from filelock import FileLock

    from course_utils.dictionaries import families, load_sae

    check_kind(spec.kind, families())
    if own := sorted({"checkpoint", "checkpoint_every", "on_log", "heldout"} & {*spec.settings}):
        raise CourseError(f"{own[0]} is for train_sae; ready_sae takes settings that change the SAE.")
    name = f"{lab.name.replace('/', '--')}-{spec.hook}-{spec.width}"
    folder = cache_dir() / "saes" / f"{name}-{digest(lab, version=course_utils.__version__, **asdict(spec))}"
    usual = {"lr": None, "l1": None, "batch_size": 1024, "aux_rows": 256, "step": "auto"}
    given = usual | {name: value for name, value in spec.settings.items() if name in usual}
    Recipe(spec.kind, spec.width, spec.k, n_samples=spec.n_samples, seed=spec.seed, options={}, **given)
    work = folder.with_name(folder.name + ".work")
    if retrain or card(folder) is None:  # no lock for a finished one, whose folder may be read-only
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):  # another notebook may be making the same
            if retrain or card(folder) is None:
                lab.say(f"Training an SAE of {spec.width:,} latents at {spec.hook} on {spec.n_samples:,} activations, "
                        f"once: it is kept in {folder.parent}.")
                make_sae(lab, spec, folder, work)
                shutil.rmtree(work, ignore_errors=True)
    try:
        return load_sae(folder, device=str(lab.device))
    except CourseError as error:
        raise CourseError(f"{error} Or give retrain=True: {folder} is only a cache.") from error
