"""Where SAEs are kept: written whole, with a card that says what each was made of and how good it is.

A folder of an SAE holds sae-lens' two files and ``card.json``, which is written last: with it, the SAE is finished.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from course_utils.errors import CourseError, one_of
from course_utils.paths import DATA, checked, write_text

FILES = ("cfg.json", "sae_weights.safetensors")
FIGURES = ("l0", "explained_variance", "ce_recovered_mean", "ce_recovered_zero", "ce_clean", "ce_spliced", "ce_mean",
           "dead")


@dataclass(frozen=True)
class Spec:
    """What a ready SAE's weights depend on, but for the model and its text."""

    hook: str
    width: int
    k: int | float = 16
    kind: str = "batchtopk"
    n_tokens: int = 400_000
    n_samples: int = 800_000
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)  # others of `train_sae`


def save_sae(sae: Any, directory: str | os.PathLike) -> Path:
    """Write an SAE as sae-lens does, for `load_sae` and ``SAE.load_from_disk``.

    Parameters
    ----------
    sae
        The library's SAE, in inference or training form.
    directory
        Gets ``cfg.json`` and ``sae_weights.safetensors``; those that are there are replaced, each at once.

    Raises
    ------
    CourseError
        If it cannot be written.
    """
    folder = Path(directory)
    temporary = folder / f".writing-{os.getpid()}"
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        getattr(sae, "save_inference_model", sae.save_model)(temporary)
        for name in reversed(FILES):
            os.replace(temporary / name, folder / name)
        temporary.rmdir()
    except OSError as error:
        raise CourseError(f"directory={str(directory)!r} cannot be written ({error.strerror}); "
                          "give a folder that you may write to.") from error
    return folder


def find(name: str | os.PathLike) -> Path | None:
    """Return the folder of a saved SAE: the one named, or one below ``data/saes``, compared with its checksums."""
    if (Path(name) / "cfg.json").is_file():
        return Path(name)
    if (DATA / "saes" / name / "cfg.json").is_file():
        return [checked(f"saes/{name}/{file}") for file in FILES][0].parent
    return None


def recipes(path: Path | None = None, twin: bool = False) -> dict[str, Spec]:
    """Read what the shipped SAEs are made by: name → `Spec`, from ``data/saes/saes.yaml`` or another file.

    Parameters
    ----------
    path
        The file; None: the shipped one.
    twin
        Those for the organism's random twin (`random_twin`) rather than for the organism.

    Raises
    ------
    CourseError
        If the file names a setting that does not exist, or leaves out the hook or the width.
    """
    import yaml

    # Not compared with its checksum: whoever edits it wants to train by it.
    content = yaml.safe_load((path or DATA / "saes" / "saes.yaml").read_text(encoding="utf-8"))
    found, known = {}, {f.name for f in fields(Spec)}
    for name, own in content.get("twin_saes" if twin else "saes", {}).items():
        given = content.get("common", {}) | own
        if unknown := {*given} - known:
            raise one_of(f"setting of {name}", min(unknown), sorted(known), limit=len(known))
        if missing := {"hook", "width"} - {*given}:
            raise CourseError(f"{name} has no {min(missing)}; every SAE needs hook and width.")
        found[name] = Spec(**given)
    return found


def card(folder: Path) -> dict[str, Any] | None:
    """Return the card of a finished SAE, or None where there is none that can be read."""
    try:
        return json.loads((folder / "card.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_card(folder: Path, spec: Spec, weights: str, **others: Any) -> None:
    """Write the card: the recipe, the SHA-256 of the model's weights, and more; whole or not at all."""
    write_text(folder / "card.json", json.dumps(asdict(spec) | {"weights": weights} | others, indent=1) + "\n")


def saes(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return the cards of the shipped SAEs (or of those in another folder) by name.

    Returns
    -------
    dict
        Name → hook, width, k, kind, n_tokens, n_samples, seed, settings, model, weights (SHA-256 of the model's), and
        what `evaluate` found: ``figures[name]`` is ``[value, low, high]``.
    """
    found = {path.parent.name: card(path.parent) for path in sorted((folder or DATA / "saes").glob("*/card.json"))}
    return {name: facts for name, facts in found.items() if facts}


def table(cards: dict[str, dict[str, Any]]) -> str:
    """Return cards as a Markdown table."""
    heads = ["name", "family", "hook", "width", "L0", "explained variance", "CE recovered against mean", "dead"]
    rows = [heads, ["---"] * len(heads)]
    shown = {"l0": ".1f", "explained_variance": ".3f", "ce_recovered_mean": ".3f", "dead": ".1%"}
    for name, c in sorted(cards.items(), key=lambda item: (item[1]["hook"], item[1]["width"])):
        figures = [format(c["figures"][figure][0], form) for figure, form in shown.items()] if "figures" in c else []
        rows.append([name, c["kind"], c["hook"], f"{c['width']:,}", *(figures or ["–"] * len(shown))])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def page(cards: dict[str, dict[str, Any]]) -> str:
    """Write the page about the shipped SAEs: what they are, how they were made, how good they are."""
    one = next(iter(cards.values()))
    return f"""# Ready SAEs of the organism

Sparse autoencoders of the residual stream of the course's own model, in sae-lens' format: open one with
`load_sae("{next(iter(cards))}")`, or with `ready_sae(lab, hook, width)`, which trains one where none is shipped.
All have an L0 near {one["k"]}; sae-lens saves a batchtopk SAE as jumprelu. Layers are counted from 0. Those named
`random-…` belong to the organism's twin with shuffled weights, `random_twin(lab)`.

{table(cards)}

Measured by `evaluate` on {one["judged_on"]:,} held-out tokens; `card.json` beside each SAE holds its recipe and more
figures, each with its 95 % interval. Dead are latents that fired on none of those tokens: a wide SAE has some for
things that are rarer.

`course saes train --install` makes them anew from `saes.yaml`; after the organism was retrained, it must. Each card
holds the SHA-256 of the weights that its SAE was trained on, and `ready_sae` compares it with the model that is open.
"""
