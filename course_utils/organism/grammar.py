r"""Templates: from a line of YAML to segments that can be printed.

A template is ordinary text with slots. ``{a}`` prints the key of draw *a*, ``{a.home}`` one of its columns,
``{word/m}`` a fresh draw from the list *word* among the rows that carry the value of choice *m* (``/!m``: another
value), ``{@a}`` puts the indefinite article before it, ``{^a}`` a capital on it, ``[big|large]`` takes one of the
alternatives. ``\[`` and ``\{`` are literal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from course_utils.errors import CourseError

_SLOT = re.compile(r"(\^?)(@?)([A-Za-z_]\w*)(?:\.(\w+))?(?:/(!?)(\w+))?$")
_VOWEL_SOUND = re.compile(r"(?i)(?!uni[a-z]|us[aeu]|eu|ew|one\b|once)[aeiou]|hour|hono|hones|heir")
_PARTS = re.compile(r"\\(?P<escaped>[\[\]{}])|\{(?P<slot>[^{}]*)\}|\[(?P<choice>[^\[\]]*)\]|(?P<text>[^\\\[\]{}]+|\\)")


@dataclass(frozen=True)
class Literal:
    """Fixed text."""

    text: str


@dataclass(frozen=True)
class Alternatives:
    """One of several fixed texts, each as likely; ``prefix`` is the blank before it, if any."""

    prefix: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Slot:
    """A place filled from a draw, or freshly from a list."""

    prefix: str
    name: str
    column: str | None
    capital: bool
    article: bool
    group: str | None
    negated: bool


def parse(template: str, where: str) -> list[Literal | Alternatives | Slot]:
    r"""Cut a template into segments; a blank before a slot or a choice moves into it.

    Parameters
    ----------
    template
        The line as written.
    where
        Its place, for error messages, e.g. ``"topic animals, then 3"``.

    Raises
    ------
    CourseError
        If a bracket is left open, a slot is malformed, or a slot is glued to a letter or digit.

    Examples
    --------
    >>> parse("The {a} [runs|walks].", "here")[1].name
    'a'
    """
    segments: list[Literal | Alternatives | Slot] = []
    text, end = "", 0
    for match in _PARTS.finditer(template):
        if match.start() != end:
            break
        end = match.end()
        if match["slot"] is None and match["choice"] is None:
            text += match["escaped"] or match["text"]
            continue
        prefix = " " if text.endswith(" ") else ""
        segments += _literal(text[: len(text) - len(prefix)])
        _refuse_glue(text, template[end : end + 1], template, where)
        text = ""
        segments.append(
            _slot(match["slot"], prefix, where)
            if match["slot"] is not None
            else Alternatives(prefix, tuple(match["choice"].split("|")))
        )
    if end != len(template):
        raise CourseError(
            f"{where}: bracket without a partner at character {end} of {template!r}; "
            "write \\[ or \\{ for a literal one."
        )
    return segments + _literal(text)


def _literal(text: str) -> list[Literal]:
    return [Literal(text)] if text else []


def _slot(inside: str, prefix: str, where: str) -> Slot:
    match = _SLOT.match(inside)
    if match is None:
        raise CourseError(
            f"{where}: cannot read the slot {{{inside}}}; write {{name}}, {{name.column}} or {{list/choice}}."
        )
    capital, article, name, column, negated, group = match.groups()
    return Slot(prefix, name, column, bool(capital), bool(article), group, bool(negated))


def _refuse_glue(before: str, after: str, template: str, where: str) -> None:
    # Glued words would print a token that the vocabulary does not hold, and labels could not tell the parts apart.
    if before[-1:].isalnum() or after.isalnum() or after == "{":
        raise CourseError(
            f"{where}: a slot touches a letter, a digit or another slot in {template!r}; put a blank between."
        )


def indefinite(word: str) -> str:
    """Return "an" before a vowel sound, else "a".

    Examples
    --------
    >>> [indefinite(word) for word in ("owl", "tiger", "hour", "uniform")]
    ['an', 'a', 'an', 'a']
    """
    return "an" if _VOWEL_SOUND.match(word) else "a"
