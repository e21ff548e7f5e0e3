"""Four training runs that went wrong, one mistake each, beside a healthy one: practice in reading curves.

1. Text is cut into short rows, as when prompts are harvested rather than documents, so that BOS is one row in nine.
2. All runs are of the family ``standard``, because nothing there holds L0 in place, and alike but for the fault.
3. Every log row measures held-out activations too: of the right hook, without BOS, whatever a run is trained on.
4. The runs get letters, drawn by lot.

``python -m course_utils.dictionaries.faults`` records such runs at the organism's middle layers, for an exercise.
Behind its first block the wrong hook cannot be told from BOS: there the MLP's output is nearly all of the stream.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from course_utils.dictionaries import train_sae
from course_utils.dictionaries.recipes import Recipe
from course_utils.dictionaries.training import Rows
from course_utils.errors import CourseError
from course_utils.lab import Lab, open_lab
from course_utils.lab.text import pack, rows
from course_utils.paths import DATA, checked

ROW = 8  # tokens of a row, BOS not counted
LOGGED = 24  # rows of a log, about
RECORDED = "broken_runs.json"  # below data/
KEYS = ("step", "loss", "l0", "heldout_l0", "explained_variance", "heldout_explained_variance", "dead")
FAULTS = ("BOS left in", "learning rate x 30", "penalty too high", "wrong hook")


class BrokenRuns(NamedTuple):
    """Logs to diagnose."""

    healthy: Rows
    """The log of the run without a fault."""
    logs: dict[str, Rows]
    """Letter → log of a run with one fault; in the order of the letters."""
    answers: dict[str, str]
    """Letter → the fault, one of `FAULTS`."""


def broken_runs(lab: Lab, hook: str | None = None, *, width: int = 1024, l1: float | int | None = None,
                n_samples: int = 150_000, batch_size: int = 1024, n_tokens: int = 60_000, n_heldout: int = 4000,
                seed: int = 0) -> BrokenRuns:
    """Train an SAE well, and four times with one fault.

    Parameters
    ----------
    lab
        The opened model, with text.
    hook
        Where the SAEs belong; None: the middle of the residual stream.
    width, n_samples, batch_size
        As in `train_sae`, for all runs.
    l1
        Penalty of the healthy run; None: one that leaves some 16 latents active. The faulty one's is eight times that.
    n_tokens, n_heldout
        Tokens to train on and to measure on.
    seed
        Draws initial weights, the order of activations, and the letters.

    Returns
    -------
    BrokenRuns
        ``healthy``, ``logs`` and ``answers``.

    Raises
    ------
    CourseError
        If the hook is no place in the residual stream, whose neighbours would be as wide.
    """
    hook = hook or lab.middle_hook
    if not hook.endswith("hook_resid_post"):
        raise CourseError(f"hook={hook!r} must be the residual stream behind a block, e.g. {lab.middle_hook!r}.")
    (x, bos), (other, _) = (_short_rows(lab, h, n_tokens, "train")
                            for h in (hook, hook.replace("hook_resid_post", "hook_mlp_out")))
    held, held_bos = _short_rows(lab, hook, n_heldout, "heldout")
    l1 = 3.8 * (x.shape[1] / 128) ** 0.5 if l1 is None else l1
    rate = Recipe("standard", width, 1, None, l1, n_samples, batch_size, seed, None, {}).rate(x.shape[1])
    recipe = {"kind": "standard", "width": width, "n_samples": n_samples, "batch_size": batch_size, "l1": l1,
              "seed": seed, "heldout": held[~held_bos], "log_every": max(1, n_samples // batch_size // LOGGED)}
    given: dict[str, tuple[Tensor, dict[str, Any]]] = {
        "": (x[~bos], {}), FAULTS[0]: (x, {}), FAULTS[1]: (x[~bos], {"lr": 30 * rate}),
        FAULTS[2]: (x[~bos], {"l1": 8 * l1}), FAULTS[3]: (other[~bos], {})}
    found = {fault: train_sae(data, **recipe | changed).log for fault, (data, changed) in given.items()}
    order = torch.randperm(len(FAULTS), generator=torch.Generator().manual_seed(1_000_003 * seed + 17)).tolist()
    answers = {letter: FAULTS[i] for letter, i in zip("ABCD", order, strict=True)}
    return BrokenRuns(found[""], {letter: found[fault] for letter, fault in answers.items()}, answers)


def _short_rows(lab: Lab, hook: str, n_tokens: int, split: str) -> tuple[Float[Tensor, "n d"], Bool[Tensor, " n"]]:
    """Return activations of text cut into rows of `ROW` tokens, and which of them are BOS."""
    found = []
    for batch in pack(rows(lab.documents(split), n_tokens, ROW), lab.bos, 4096):
        mask = batch.mask
        x = lab.capture(batch.tokens.to(lab.device), hook).float().cpu()[mask]
        found.append((x, (torch.arange(mask.shape[1]) == 0).expand_as(mask)[mask]))
    x, bos = zip(*found, strict=True)
    return torch.cat(x), torch.cat(bos)


def columns(log: Rows) -> dict[str, np.ndarray]:
    """Turn a log's rows into columns, `KEYS` of them: ``columns(log)["l0"][-1]`` is the last L0."""
    return {key: np.array([row[key] for row in log]) for key in KEYS}


def recorded() -> list[dict[str, dict[str, np.ndarray]]]:
    """Return recorded runs, a dict for each hook and seed: ``"healthy"`` or the fault → columns of the log."""
    sets = json.loads(checked(RECORDED).read_text(encoding="utf-8"))
    return [{name: {key: np.array(values) for key, values in log.items()} for name, log in one.items()} for one in sets]


def _record(path: Path) -> None:
    lab, sets = open_lab("organism"), []
    for layer, seed in ((1, 11), (1, 21), (2, 12), (2, 22)):  # not the notebook's seeds
        runs = broken_runs(lab, f"blocks.{layer}.hook_resid_post", seed=seed)
        named = {"healthy": runs.healthy} | {runs.answers[letter]: log for letter, log in runs.logs.items()}
        sets.append({name: {key: [float(f"{v:.4g}") for v in values] for key, values in columns(log).items()}
                     for name, log in named.items()})
    path.write_text("[\n" + ",\n".join(json.dumps(one, separators=(",", ":")) for one in sets) + "\n]\n")


if __name__ == "__main__":
    _record(DATA / RECORDED)
