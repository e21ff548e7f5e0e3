"""Notebook 04, broken runs: which fault do the curves tell of? The cases are recorded runs of other seeds and hooks."""

from __future__ import annotations

from functools import cache

import numpy as np

from course_utils.dictionaries.faults import recorded
from course_utils.exercises.book import Exercise

_recorded = cache(recorded)

diagnosis = Exercise("04.8", "four broken runs", stars=3, minutes=15, lines=8, hints=(
    "First compare what a run was trained on with what is held out. Where these agree, it learned the right thing, "
    "badly: look at how much is still active, and at what that explains. Means over the last three rows are calmer "
    "than the last row.",
    "Explained variance in training well above the held-out one: BOS left in, or the wrong hook, at which L0 differs "
    "too, several times as high. No such gap, but L0 below half of the healthy run's: too high a penalty leaves hardly "
    "anything explained, too high a rate still a good part."))


@diagnosis.reference
def diagnose(run, healthy):
    """Name a run's fault, one of FAULTS, or "healthy"; run and healthy map a column's name to its values [rows]."""
    end, usual = ({name: values[-3:].mean() for name, values in log.items()} for log in (run, healthy))
    gap = end["explained_variance"] - end["heldout_explained_variance"]
    if gap > 0.04:
        return "wrong hook" if end["heldout_l0"] - end["l0"] > usual["l0"] else "BOS left in"
    if 2 * end["l0"] > usual["l0"]:
        return "healthy"
    some = end["heldout_explained_variance"] > 0.3 * usual["heldout_explained_variance"]
    return "learning rate x 30" if some else "penalty too high"


@diagnosis.right
def _(run, healthy):
    end = {name: float(np.median(values[-5:])) for name, values in run.items()}
    usual = {name: float(np.median(values[-5:])) for name, values in healthy.items()}
    if end["heldout_l0"] / end["l0"] > 3:
        return "wrong hook"
    if end["l0"] < usual["l0"] / 3:
        return "learning rate x 30" if end["dead"] > usual["dead"] + 0.15 else "penalty too high"
    missing = usual["heldout_explained_variance"] - end["heldout_explained_variance"]
    return "BOS left in" if missing > 0.04 else "healthy"


@diagnosis.right
def _(run, healthy):
    gaps = (run["explained_variance"] - run["heldout_explained_variance"])[-6:]
    if abs(np.log(run["heldout_l0"][-1] / run["l0"][-1])) > np.log(3) and gaps.mean() > 0:
        return "wrong hook"
    if (gaps > 0.03).all():
        return "BOS left in"
    if run["loss"][2] < healthy["loss"][2] / 3:  # it rushed down in the first steps, and then went nowhere
        return "learning rate x 30"
    return "penalty too high" if run["loss"][2] > 3 * healthy["loss"][2] else "healthy"


def _end(log):
    return {name: values[-3:].mean() for name, values in log.items()}


def _decided(run, healthy, far="wrong hook", near="BOS left in", some="learning rate x 30", none="penalty too high"):
    """Decide as the reference does, under other names; ``healthy`` is never said."""
    end, usual = _end(run), _end(healthy)
    if end["explained_variance"] > end["heldout_explained_variance"] + 0.04:
        return far if end["heldout_l0"] - end["l0"] > usual["l0"] else near
    return some if end["heldout_explained_variance"] > 0.3 * usual["heldout_explained_variance"] else none


def _few(run, healthy):
    return 2 * _end(run)["l0"] < _end(healthy)["l0"]


@diagnosis.wrong("the training curves alone", "You look only at what the run was trained on. A run that learned the "
                 "wrong thing learned it well: only held-out activations of the right hook can tell.")
def _(run, healthy):
    return _decided(run, healthy, far="healthy", near="healthy") if _few(run, healthy) else "healthy"


@diagnosis.wrong("any low score is the wrong hook", "A low held-out score has many causes. It is the wrong hook only "
                 "if training explains *more* than held-out, and other latents fire there than in training.")
def _(run, healthy):
    share = _end(run)["heldout_explained_variance"] / _end(healthy)["heldout_explained_variance"]
    return "healthy" if share > 0.95 else "BOS left in" if share > 0.7 else "wrong hook"


@diagnosis.wrong("BOS and hook exchanged", "Both have a gap between training and held-out. BOS is one row in nine, and "
                 "the rest is learned as usual; at the wrong hook nothing fits, and far more latents fire.")
def _(run, healthy):
    found = _decided(run, healthy, far="BOS left in", near="wrong hook")
    return found if found in ("BOS left in", "wrong hook") or _few(run, healthy) else "healthy"


@diagnosis.wrong("penalty and rate exchanged", "Both end with few active latents. A penalty that is too high switches "
                 "all off and explains nothing; a rate that is too high rushes to a poor solution that explains some.")
def _(run, healthy):
    found = _decided(run, healthy, some="penalty too high", none="learning rate x 30")
    return found if found in ("BOS left in", "wrong hook") or _few(run, healthy) else "healthy"


@diagnosis.wrong("dead latents mean a high penalty", "You expect dead latents where the penalty is too high. Look "
                 "again: there each latent still fires once in a while. They die of large steps.")
def _(run, healthy):
    dying = _end(run)["dead"] > _end(healthy)["dead"] + 0.15
    fate = "penalty too high" if dying else "healthy"
    return _decided(run, healthy, some=fate, none=fate)


@diagnosis.wrong("every run is ill", "A healthy run of another seed is among the cases. Where nothing is wrong, say "
                 "\"healthy\".")
def _(run, healthy):
    return _decided(run, healthy)


@diagnosis.cases
def _(rng):
    sets = _recorded()
    for i, one in enumerate(sets):
        healthy = sets[i ^ 1]["healthy"]  # the same hook, another seed
        for name in rng.permutation(sorted(one)):
            yield one[name], healthy
