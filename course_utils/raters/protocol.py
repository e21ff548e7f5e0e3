"""What a rater is: anything that explains a unit from examples, and says where an explanation makes it fire."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from course_utils.raters.passages import Passage


class Explanation(NamedTuple):
    """What a unit is said to stand for."""

    text: str
    """In words, for people and for chat models."""
    on: Mapping[str, float] = {}
    """Tokens on which it fires, with their log-odds (the word-statistics rater's)."""
    after: Mapping[str, float] = {}
    """Tokens after which it fires, likewise."""


@runtime_checkable
class Rater(Protocol):
    """Explains units and judges explanations; write one of your own with these four methods."""

    name: str

    def explain(self, examples: Sequence[Passage]) -> Explanation:
        """Explain a unit from passages with its activity."""

    def detect(self, explanation: Explanation, passages: Sequence[Passage]) -> Sequence[float]:
        """Score each passage, blind: the higher, the surer that the unit fires somewhere in it; above 0 is yes."""

    def fuzz(self, explanation: Explanation, passages: Sequence[Passage]) -> Sequence[float]:
        """Score the token that each passage points at, blind: the higher, the surer that the unit fires on it."""

    def choose(self, examples: Sequence[Passage], options: Mapping[str, Collection[str]],
               prime: str | None = None) -> str | None:
        """Choose the label that fits the examples, perhaps under the impression of one that was put forward."""
