"""The blind labelling game: units to read without knowing what they are, and what the answer key says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from course_utils.activations import Activations
from course_utils.errors import CourseError
from course_utils.features.examples import Example, example
from course_utils.features.polysemantic import Polysemanticity
from course_utils.features.units import Units, column
from course_utils.lab import Lab

SEVERAL = "several unrelated things"
NOTHING = "nothing on our list (grammar, place, form)"


class Riddle(NamedTuple):
    """A unit to be labelled by its strongest tokens."""

    kind: str
    """What it is; hidden from the reader."""
    unit: int
    examples: list[Example]
    """Its strongest tokens, one a document."""
    choices: list[str]
    """Labels to choose from: three domains, `SEVERAL`, `NOTHING`."""
    answer: str
    """What the answer key says: the one domain that it serves, `SEVERAL` or `NOTHING`."""

    def __str__(self) -> str:
        """Show the examples, the token in brackets."""
        lines = (f"{e.before[-50:]}[{e.token}]{e.after[:22]}" for e in self.examples)
        return "\n".join("  " + "".join(c if c.isprintable() else " " for c in line) for line in lines)


def opinion(found: Polysemanticity, unit: int) -> str:
    """Return what the answer key says of a unit: its one domain, `SEVERAL` or `NOTHING`."""
    served = found.of(unit)
    return NOTHING if not served else served[0][0] if len(served) == 1 else SEVERAL


def riddles(
    lab: Lab, acts: Activations, kinds: Mapping[str, tuple[Units, Polysemanticity]], n: int = 2, *,
    among: Bool[Tensor, " n"] | None = None, n_examples: int = 8, seed: int = 0,
) -> list[Riddle]:
    """Draw units of several kinds at random, and hide which is which.

    Parameters
    ----------
    lab
        Gives the text.
    acts
        The harvest on which units were judged.
    kinds
        Kind → its values on the usable rows of the harvest, and what `polysemanticity` found.
    n
        Units of each kind, among those that could be judged.
    among
        Usable rows that may be shown, e.g. those that name something; None: all.
    n_examples
        Tokens shown of each.
    seed
        Draws units, wrong choices and the order.

    Raises
    ------
    CourseError
        If a kind has fewer units that could be judged.
    """
    rng, made = np.random.default_rng(seed), []
    for kind, (values, found) in kinds.items():
        judged = found.active.nonzero()[:, 0].numpy()
        if len(judged) < n:
            raise CourseError(f"n={n}: of {kind!r} only {len(judged)} units could be judged.")
        for unit in sorted(rng.choice(judged, n, replace=False).tolist()):
            domains = _domains(found, unit, rng)
            made.append(Riddle(kind, unit, _strongest(lab, acts, column(values, unit), among, n_examples),
                               [*domains, SEVERAL, NOTHING], opinion(found, unit)))
    return [made[i] for i in rng.permutation(len(made))]


def _domains(found: Polysemanticity, unit: int, rng: np.random.Generator) -> list[str]:
    """Return the unit's first domain (served, else its most frequent) and two that it does not serve, by name."""
    served = [name for name, _, _ in found.of(unit)]
    lead = served[0] if served else found.names[int(found.share[unit].argmax())]
    others = [name for name in found.names if name != lead and name not in served]
    return sorted([lead, *rng.permutation(others)[:2].tolist()])


def _strongest(lab: Lab, acts: Activations, values: np.ndarray, among: Tensor | None, n: int) -> list[Example]:
    rows, seen, found = acts.usable, set(), []
    order = np.argsort(-values, kind="stable")
    for i in order[among.numpy()[order]] if among is not None else order:
        if len(found) == n:
            break
        if int(acts.doc[rows[i]]) not in seen:
            seen.add(int(acts.doc[rows[i]]))
            found.append(example(lab, acts, int(rows[i]), float(values[i])))
    return found
