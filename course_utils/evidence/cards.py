"""Rules and claim cards: a verdict that follows from numbers, and the page that shows how.

The decision (for a rule such as "greater than t", at level alpha):

- *holds*: the effect's whole interval is beyond t, and every null is rejected after Holm's correction;
- *does not hold*: the whole interval is on the wrong side of t;
- *holds in part*: anything between;
- *not testable here*: there is no effect to judge, and the reason is given.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from course_utils.errors import CourseError, one_of
from course_utils.evidence.estimates import Estimate

DIRECTIONS = ("greater", "less", "inside")
VERDICTS = {"holds": ("✓", "#009E73"), "holds in part": ("◐", "#E69F00"), "does not hold": ("✗", "#D55E00"),
            "not testable here": ("○", "#999999")}


@dataclass(frozen=True)
class Rule:
    """What will count, fixed before looking.

    Examples
    --------
    >>> print(Rule("greater", 0.1))
    above 0.1, with every null rejected at 0.05 (Holm)
    >>> Rule("inside", (0.05, 0.12)).decide(Estimate(0.2, 0.15, 0.25, n=40), {})[0]
    'does not hold'
    """

    direction: str
    """``"greater"``, ``"less"`` or ``"inside"``: where the claim says that the effect is."""
    threshold: float | int | tuple[float | int, float | int]
    """The border of the claim; for ``"inside"`` its lower and upper one."""
    alpha: float = 0.05
    """Level at which each null must be rejected after Holm's correction."""

    def __post_init__(self) -> None:
        """Refuse a rule that could not decide."""
        if self.direction not in DIRECTIONS:
            raise one_of("direction", self.direction, DIRECTIONS)
        ends = self.threshold if isinstance(self.threshold, tuple) else (self.threshold,)
        if len(ends) != (2 if self.direction == "inside" else 1) or not all(map(math.isfinite, ends)):
            raise CourseError(f"threshold={self.threshold!r} does not fit direction={self.direction!r}: "
                              "'greater' and 'less' need one finite number, 'inside' needs (low, high).")
        if ends[0] > ends[-1]:
            raise CourseError(f"threshold={self.threshold!r} must be (low, high) with low below high.")
        if not 0 < self.alpha < 1:
            raise CourseError(f"alpha={self.alpha} must lie between 0 and 1, e.g. 0.05.")

    @property
    def alternative(self) -> str:
        """Tail in which an effect must exceed a null."""
        return "two-sided" if self.direction == "inside" else self.direction

    @property
    def region(self) -> str:
        """Where the claim says that the effect is, in words."""
        if isinstance(self.threshold, tuple):
            return f"between {self.threshold[0]:g} and {self.threshold[1]:g}"
        return f"{'above' if self.direction == 'greater' else 'below'} {self.threshold:g}"

    def __str__(self) -> str:
        """Return the rule in words."""
        return f"{self.region}, with every null rejected at {self.alpha:g} (Holm)"

    def decide(self, effect: Estimate, p: Mapping[str, float]) -> tuple[str, str]:
        """Return the verdict and its reason.

        Parameters
        ----------
        effect
            What was measured.
        p
            Null's name → p-value, already corrected.
        """
        t = self.threshold
        if not isinstance(t, tuple):
            t = (t, math.inf) if self.direction == "greater" else (-math.inf, t)
        low, high = t
        spared = ", ".join(f"{name!r}" for name, value in p.items() if value > self.alpha)
        if effect.high < low or effect.low > high:
            return "does not hold", f"the whole interval {effect} is on the wrong side: not {self.region}"
        clear = low < effect.low and effect.high < high
        if clear and not spared:
            return "holds", f"the whole interval {effect} is {self.region}, and every null is rejected"
        reasons = [] if clear else [f"the interval {effect} is not wholly {self.region}"]
        reasons += [f"not rejected: {spared}"] if spared else []
        return "holds in part", "; ".join(reasons)


@dataclass(frozen=True, repr=False, eq=False)
class ClaimCard:
    """One claim, tested once: made by ``Trial.test``; the verdict is computed from the fields."""

    id: str
    """Claim's number, ``"C01"`` to ``"C32"``."""
    text: str
    """The claim in one sentence."""
    source: str
    """Who says so; a press claim is marked as one."""
    statistic: str
    """What was measured."""
    prediction: str
    """What was expected before looking."""
    rule: Rule
    """What would count, fixed before looking."""
    effect: Estimate | None
    """What came out; None where the claim cannot be tested."""
    nulls: Mapping[str, Estimate | Collection]
    """Null's name → its values of the statistic, or its Estimate."""
    p: Mapping[str, float]
    """Null's name → p-value after Holm's correction."""
    objection: str
    """The strongest objection to this verdict."""
    notebook: str
    """Notebook that tested it, e.g. ``"09"``."""
    model: str
    """Model that it was tested on."""
    seconds: float
    """Time from prediction to verdict."""
    obstacle: str = ""
    """Why it is not testable here, if it is not."""

    @property
    def verdict(self) -> str:
        """*holds*, *holds in part*, *does not hold* or *not testable here*."""
        return "not testable here" if self.effect is None else self.rule.decide(self.effect, self.p)[0]

    @property
    def reason(self) -> str:
        """Why this verdict, in words."""
        return self.obstacle if self.effect is None else self.rule.decide(self.effect, self.p)[1]

    def null_estimates(self) -> dict[str, Estimate]:
        """Return each null as mean and central 95 % of its values."""
        return {name: null if isinstance(null, Estimate) else
                Estimate(*map(float, (np.mean(null), *np.quantile(null, [0.025, 0.975]))), n=len(null))
                for name, null in self.nulls.items()}

    def row(self) -> dict[str, Any]:
        """Return the card's row of the ledger."""
        nulls = {name: {**e._asdict(), "p": self.p[name]} for name, e in self.null_estimates().items()}
        effect = dict.fromkeys(Estimate._fields) if self.effect is None else self.effect._asdict()
        return {"id": self.id, "model": self.model, "notebook": self.notebook, "statistic": self.statistic,
                **effect, "nulls": nulls, "verdict": self.verdict, "seconds": round(self.seconds, 3),
                "rule": str(self.rule), "reason": self.reason}

    def _lines(self) -> list[tuple[str, str]]:
        nulls = [(f"Null: {name}", f"{e} (n = {e.n}), {_p_text(self.p[name])}{self._too_few(e)}")
                 for name, e in self.null_estimates().items()]
        measured = "nothing" if self.effect is None else f"{self.effect} (n = {self.effect.n})"
        return [("Claim", self.text), ("Who says so", self.source), ("Statistic", self.statistic),
                ("Prediction", self.prediction), ("Rule, fixed before", str(self.rule)),
                ("Measured", measured), *nulls, ("Verdict", f"{self.verdict}: {self.reason}."),
                ("Strongest objection", self.objection),
                ("Where", f"notebook {self.notebook}, {self.model}, {self.seconds:.1f} s")]

    def _too_few(self, null: Estimate) -> str:
        sides = 2 if self.rule.direction == "inside" else 1
        least = sides * len(self.nulls) / (null.n + 1)
        drawn = not any(null is given for given in self.nulls.values())
        return f"; {null.n} values are too few to reject" if drawn and least > self.rule.alpha else ""

    def __str__(self) -> str:
        """Return the card as text."""
        lines = [f"{name:<20} {text}" for name, text in self._lines()]
        return "\n".join([f"{self.id} {VERDICTS[self.verdict][0]} {self.verdict}", *lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        mark, colour = VERDICTS[self.verdict]
        cell = "padding:.15em .8em .15em 0;text-align:left;vertical-align:top"
        rows = "".join(f'<tr><th scope="row" style="{cell};white-space:nowrap">{escape(name)}</th>'
                       f'<td style="{cell}">{escape(text)}</td></tr>' for name, text in self._lines())
        # Colours of text and ground are left to the page, so that the card reads in light and dark themes.
        frame = f"border:1px solid #8888;border-left:.5em solid {colour};padding:.6em 1em;max-width:60em"
        return (f'<div role="group" aria-label="Claim card {self.id}: {self.verdict}" style="{frame}">'
                f'<table style="border:0"><caption style="text-align:left;font-weight:bold">{self.id} '
                f'<span aria-hidden="true">{mark}</span> {self.verdict}</caption>{rows}</table></div>')


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
