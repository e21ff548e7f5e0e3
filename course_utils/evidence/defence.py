"""Defend a claim card: what somebody says of it must be complete, and agree with what was measured.

A card states numbers; whoever defends it states them again, names what they were compared with, and gives the best
argument of either side. `defend` compares words with card and names every gap, so that none is left to a reader.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from html import escape

from course_utils.errors import CourseError
from course_utils.evidence.cards import VERDICTS, ClaimCard

LEAST = 12  # words that an argument needs at least: fewer are a slogan


@dataclass(frozen=True, repr=False)
class Defence:
    """What `defend` found."""

    faults: tuple[str, ...]
    """Each in a sentence; none: the defence stands."""

    @property
    def stands(self) -> bool:
        """Whether nothing was found."""
        return not self.faults

    def __repr__(self) -> str:
        """Return the faults, or that there are none."""
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        if self.stands:
            return ["✓ The defence stands: complete, and every number is the card's."]
        return [f"{len(self.faults)} to mend:", *(f"✗ {fault}" for fault in self.faults)]

    def _repr_html_(self) -> str:
        head, *rest = map(escape, self._lines())
        return f"<p>{head}</p>" + (f"<ul>{''.join(f'<li>{line}</li>' for line in rest)}</ul>" if rest else "")


def defend(card: ClaimCard, *, value: float | int, low: float | int, high: float | int, verdict: str,
           nulls: Collection, case_for: str, case_against: str) -> Defence:
    """Compare what is said about a card with the card.

    Parameters
    ----------
    card
        What was measured, from ``Trial.test``.
    value, low, high
        The effect and its interval, as you would say them: rounded as the card shows them, to a fiftieth of the
        interval's width, or better.
    verdict
        ``"holds"``, ``"holds in part"``, ``"does not hold"`` or ``"not testable here"``.
    nulls
        Names of all nulls that the effect was compared with, as on the card.
    case_for, case_against
        The strongest argument that the verdict is right, and the strongest that it is not, in your own words: of at
        least a dozen, not alike, and not the card's own objection.

    Raises
    ------
    CourseError
        If the card has no effect to defend.
    """
    if card.effect is None:
        raise CourseError(f"{card.id} has no effect to defend: {card.obstacle}")
    return Defence((*_numbers(card, value, low, high), *_words(card, verdict, set(map(str, nulls))),
                    *_arguments(card, case_for, case_against)))


def _numbers(card: ClaimCard, *said: float | int) -> list[str]:
    effect, faults = card.effect, []
    shown = map(float, re.findall(r"[^][, ]+", str(effect)))
    for name, mine, true, seen in zip(("value", "low", "high"), said, effect[:3], shown, strict=True):
        near = max((effect.high - effect.low) / 50, abs(seen - true)) + 1e-9 * abs(true)
        if not isinstance(mine, int | float) or mine != mine:
            faults.append(f"{name}={mine!r} is no number; the card has one.")
        elif abs(mine - true) > near:
            faults.append(f"{name}={mine:g} is not what was measured; read the card again: {effect}.")
    return faults


def _words(card: ClaimCard, verdict: str, nulls: set[str]) -> list[str]:
    faults = []
    if verdict not in VERDICTS:
        faults.append(f"verdict={verdict!r} is none of {', '.join(VERDICTS)}.")
    elif verdict != card.verdict:
        faults.append(f"verdict={verdict!r} does not follow from rule and numbers: {card.reason}.")
    if missing := [name for name in card.nulls if name not in nulls]:
        faults.append(f"nulls leave out {', '.join(map(repr, missing))}: whoever attacks the card will ask for it.")
    if strange := sorted(nulls - {*card.nulls}):
        faults.append(f"nulls name {strange[0]!r}, which was not measured; the card has {', '.join(card.nulls)}.")
    return faults


def _arguments(card: ClaimCard, case_for: str, case_against: str) -> list[str]:
    faults, said = [], {"case_for": case_for, "case_against": case_against}
    for name, text in said.items():
        if not isinstance(text, str) or len(text.split()) < LEAST:
            faults.append(f"{name} is too short to be an argument; say in at least {LEAST} words what speaks "
                          f"{'for' if name == 'case_for' else 'against'} it, and by what number.")
    plain = [" ".join(str(text).lower().split()) for text in (case_for, case_against, card.objection)]
    if plain[0] == plain[1]:
        faults.append("case_for and case_against are the same text; a verdict with one side is no verdict.")
    if plain[2] in plain[:2]:
        faults.append("one argument is the card's own objection, word for word; find another, or say it better.")
    return faults
