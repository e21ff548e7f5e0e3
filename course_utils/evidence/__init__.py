"""Claims on trial: predict under a rule fixed beforehand, measure against nulls, let the verdict follow.

1. ``claim("C26")`` reads the claim from ``data/claims.yaml``.
2. ``.predict(statistic=..., rule=Rule(...))`` fixes what will be measured and what would count: a Trial.
3. ``trial.test(effect, nulls={...}, ...)`` compares, returns a :class:`ClaimCard` and writes the ledger.

The rule comes before the effect by construction, and a verdict is computed, never typed. The statistics live
in ``estimates``, ``effects``, ``nulls`` and ``agreement``, the cards in ``cards``, the file in ``ledger``; this room
hands on their names, so that a notebook imports from one place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml

from course_utils.errors import CourseError, one_of
from course_utils.evidence.agreement import cohen_kappa, krippendorff_alpha
from course_utils.evidence.cards import ClaimCard, Rule
from course_utils.evidence.defence import Defence, defend
from course_utils.evidence.effects import difference, paired_difference
from course_utils.evidence.estimates import Estimate, bootstrap, bootstrap_ratio, bootstrap_sums, numbers
from course_utils.evidence.ledger import Ledger
from course_utils.evidence.nulls import calibrate, holm, null_p, permutation_null, permutation_test
from course_utils.paths import checked

__all__ = [
    "Claim", "ClaimCard", "Defence", "Estimate", "Ledger", "Published", "Rule", "Trial", "bootstrap", "bootstrap_ratio",
    "bootstrap_sums", "calibrate", "claim", "claims", "cohen_kappa", "defend", "difference", "holm",
    "krippendorff_alpha", "null_p", "paired_difference", "permutation_null", "permutation_test",
]

_TEXTS = ("id", "claim", "says", "for", "against", "statistic", "objection")
_LISTS = ("source", "notebooks", "nulls", "published")
_SOURCES = ("press", "paper")
_READ = ("abstract", "project files", "secondary source", "press, unverified")


class Published(NamedTuple):
    """A number that others report about a claim."""

    number: str
    """As printed there."""
    what: str
    """What it measures."""
    cite: str
    """The work, or "press"."""
    read: str
    """Where we read it: abstract, project files, secondary source, or press, unverified."""


@dataclass(frozen=True)
class Claim:
    """One entry of ``data/claims.yaml``."""

    id: str
    """``"C01"`` to ``"C32"``."""
    text: str
    """The claim in one sentence, in our words."""
    source: tuple[str, ...]
    """``"press"`` (reported, not verified), ``"paper"``, or both."""
    says: str
    """Who says so."""
    counts_for: str
    """What would count for it."""
    counts_against: str
    """What would count against it."""
    notebooks: tuple[str, ...]
    """Notebooks that test it, e.g. ``("03", "04")``."""
    statistic: str
    """What is measured by default."""
    nulls: tuple[str, ...]
    """Comparisons that it must survive."""
    published: tuple[Published, ...]
    """Numbers of others."""
    objection: str
    """The strongest objection to any verdict of ours."""
    correction: str = ""
    """What the press piece gets wrong about its source."""

    def predict(self, *, rule: Rule, statistic: str = "", prediction: str = "") -> Trial:
        """Fix, before looking, what will be measured and what would count.

        Parameters
        ----------
        rule
            Where the effect must be for the claim to hold.
        statistic
            What will be measured; the claim's own statistic by default. It names the ledger's row.
        prediction
            What you expect; by default, that the claim holds.
        """
        statistic = statistic or self.statistic
        return Trial(self, statistic, rule, prediction or f"{statistic}: {rule.region}", time.perf_counter())

    def test(self, *_: Any, **__: Any) -> ClaimCard:
        """Refuse an effect that comes before its rule."""
        raise CourseError(f"{self.id} has no rule yet; fix it before the effect: trial = claim('{self.id}')."
                          "predict(rule=Rule('greater', 0.1)), then trial.test(effect, nulls=...).")


@dataclass(frozen=True)
class Trial:
    """A claim with its statistic, rule and prediction, waiting for an effect."""

    claim: Claim
    """The claim on trial."""
    statistic: str
    """What will be measured."""
    rule: Rule
    """What would count."""
    prediction: str
    """What is expected."""
    declared: float
    """Clock (s) when all this was fixed."""

    def test(self, effect: Estimate | None, *, notebook: str, model: str,
             nulls: Mapping[str, Estimate | Collection] | None = None, seconds: float | int | None = None,
             objection: str = "", reason: str = "", ledger: Ledger | None = None) -> ClaimCard:
        """Compare the effect with the rule and the nulls, and write the ledger.

        Parameters
        ----------
        effect
            What was measured; None if the claim is not testable here, and then ``reason`` says why.
        notebook, model
            Where it was measured, e.g. ``"09"`` and ``"organism"``.
        nulls
            Name → values of the same statistic under that null, or their Estimate. At least one.
        seconds
            Time of the measurement; by default since the prediction.
        objection
            Strongest objection to the verdict; by default the claim's own.
        reason
            Why the claim is not testable here.
        ledger
            Where to write; by default ``build/ledger.json``.

        Raises
        ------
        CourseError
            If there is no null, an effect or null holds NaN, or there is neither effect nor reason.
        """
        seconds = time.perf_counter() - self.declared if seconds is None else float(seconds)
        effect, columns = self._checked(effect, dict(nulls or {}), reason)
        raw = {name: null_p(effect, null, self.rule.alternative) for name, null in columns.items()}
        card = ClaimCard(
            id=self.claim.id, text=self.claim.text, source=self.claim.says, statistic=self.statistic,
            prediction=self.prediction, rule=self.rule, effect=effect, nulls=columns,
            p=holm(raw) if raw else {}, objection=objection or self.claim.objection, notebook=notebook,
            model=model, seconds=seconds, obstacle=reason if effect is None else "")
        (ledger or Ledger()).record(card.row())
        return card

    def _checked(self, effect: Estimate | None, nulls: dict, reason: str) -> tuple[Estimate | None, dict]:
        name = self.claim.id
        if effect is None:
            if not reason:
                raise CourseError(f"{name} has effect=None; say in reason='...' why it is not testable here.")
            return None, {}
        if not isinstance(effect, Estimate):
            raise CourseError(f"effect={effect!r} of {name} has no interval; give e.g. bootstrap(values).")
        if not nulls:
            raise CourseError(f"{name} has no null; give nulls={{'name': values or Estimate}}, e.g. for "
                              f"{', '.join(self.claim.nulls)}.")
        for label, given in [("effect", effect), *((f"nulls[{key!r}]", nulls[key]) for key in nulls)]:
            if isinstance(given, Estimate) and not (
                    math.isfinite(given.value) and -math.inf < given.low <= given.high < math.inf):
                raise CourseError(f"{label}={tuple(given)} of {name} holds NaN or an interval upside down.")
        return Estimate(*map(float, effect[:3]), int(effect.n)), {
            key: Estimate(*map(float, null[:3]), int(null.n)) if isinstance(null, Estimate)
            else numbers(f"nulls[{key!r}]", null) for key, null in nulls.items()}


@cache
def claims(path: Path | None = None) -> Mapping[str, Claim]:
    """Return all claims by id, from ``data/claims.yaml`` (or another file of that form).

    Raises
    ------
    CourseError
        If the file is not YAML, or an entry lacks a key or has an unknown one, each named.
    """
    path = path or checked("claims.yaml")
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CourseError(f"{path.name} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CourseError(f"{path.name} must be a list of claims with keys {', '.join(_TEXTS + _LISTS)}.")
    table: dict[str, Claim] = {}
    for number, entry in enumerate(entries, start=1):
        name = str(entry.get("id", f"number {number}"))
        if name in table:
            raise CourseError(f"{path.name}: claim {name} is there twice.")
        table[name] = _parse(entry, f"{path.name}: claim {name}")
    return MappingProxyType(table)


def _parse(entry: dict[str, Any], where: str) -> Claim:
    known = (*_TEXTS, *_LISTS)
    for key in (k for k in known if k not in entry):
        raise CourseError(f"{where} lacks the key {key!r}.")
    for key in (k for k in entry if k not in (*known, "correction")):
        raise one_of(f"{where}: key", key, (*known, "correction"))
    for key in _TEXTS:
        if not (isinstance(entry[key], str) and entry[key].strip()):
            raise CourseError(f"{where}: {key!r} must be a sentence; given {entry[key]!r}.")
    for key in _LISTS:
        if not isinstance(entry[key], list) or not (entry[key] or key == "published"):
            raise CourseError(f"{where}: {key!r} must be a list; given {entry[key]!r}.")
    for source in (s for s in entry["source"] if s not in _SOURCES):
        raise one_of(f"{where}: source", source, _SOURCES)
    for item in entry["published"]:
        if not isinstance(item, dict) or set(item) != set(Published._fields):
            raise CourseError(f"{where}: 'published' needs the keys {', '.join(Published._fields)}.")
        if item["read"] not in _READ:
            raise one_of(f"{where}: read", item["read"], _READ)
    return Claim(
        id=entry["id"], text=entry["claim"], source=tuple(entry["source"]), says=entry["says"],
        counts_for=entry["for"], counts_against=entry["against"], statistic=entry["statistic"],
        notebooks=tuple(map(str, entry["notebooks"])), nulls=tuple(map(str, entry["nulls"])),
        published=tuple(Published(**{k: str(v) for k, v in item.items()}) for item in entry["published"]),
        objection=entry["objection"], correction=entry.get("correction", ""))


def claim(id: str) -> Claim:
    """Return one claim.

    Examples
    --------
    >>> claim("C26").notebooks
    ('03', '04')
    """
    table = claims()
    name = str(id).strip().upper()
    if name not in table:
        raise one_of("id", id, table)
    return table[name]
