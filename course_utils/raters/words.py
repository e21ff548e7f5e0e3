"""A rater without a model: it reads which words a unit's activity prefers, by their log-odds against all text.

1. ``explain``: for each token, how much more often than in all text does the unit fire on it, and after it? The best of
   both lists are the explanation.
2. ``detect``, ``fuzz``: a token scores the log-odds of its word, and of the words before it; a passage, those of its
   best token.
3. ``choose``, ``rate``: which of some given word lists fits the examples, and how clearly they show one thing.

It knows no synonyms and no grammar: what it cannot see, a person or a large model may. It is quick, repeats exactly,
and needs nothing, so that a claim about raters can be tried at all where no people and no large model are at hand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from course_utils.errors import CourseError
from course_utils.raters.passages import Passage, Reader
from course_utils.raters.protocol import Explanation

_BEFORE = 0.5  # a word that stands before says less than the word itself


def log_odds(there: Float[np.ndarray, " v"], everywhere: Float[np.ndarray, " v"],
             strength: float | int = 1.0) -> Float[np.ndarray, " v"]:
    """Return the log of each word's rate there over its rate everywhere, drawn towards 0 where little was seen.

    Parameters
    ----------
    there, everywhere
        ``[v]`` counts (or weights) of each word where the unit fires, and in all text.
    strength
        So many imagined words, dealt out as in all text, are added to those seen there.
    """
    base = (everywhere + 1) / (everywhere + 1).sum()
    return np.log((there + strength * base) / (there.sum() + strength) / base)


def words_of(passage: Passage) -> list[str]:
    """Return, for each token, the whole word that it is part of, in small letters; empty for what is no word."""
    found, spans = [], [(m.start(), m.end(), m.group().lower()) for m in re.finditer(r"[^\W_]+", passage.text)]
    start, i = 0, 0
    for token in passage.tokens:
        end = start + len(token)
        while i < len(spans) and spans[i][1] <= start:
            i += 1
        found.append(spans[i][2] if i < len(spans) and spans[i][0] < end else "")
        start = end
    return found


class WordRater:
    """Rates by statistics of words.

    Parameters
    ----------
    reader
        The text that says how frequent words are: the one that examples come from.
    n_words
        Words in each list of an explanation.
    window
        How many tokens before the one that fires are looked at; 0: only the token itself.
    log_odds
        The function that compares words there with words everywhere: `log_odds`, or one of your own.
    pull
        For `choose`: what a label that somebody put forward is worth, as a share of the examples. 0: it is not primed
        by it. People have such a pull, of unknown size; here it is set, so that an experiment can be tried on it.
    """

    def __init__(self, reader: Reader, n_words: int = 8, window: int = 8, log_odds: Callable = log_odds,
                 pull: float | int = 0.0) -> None:
        if n_words < 1 or window < 0 or pull < 0:
            raise CourseError(f"{n_words=} must be at least 1, {window=} and {pull=} at least 0.")
        self.name, self.n_words, self.window, self.log_odds, self.pull = "words", n_words, window, log_odds, pull
        counts = Counter(reader.tokens.tolist())
        seen: Counter[str] = Counter()
        for token, n in counts.items():
            seen[reader.strings[token]] += n
        self.vocabulary = sorted(seen)
        self.place = {word: i for i, word in enumerate(self.vocabulary)}
        self.everywhere = np.array([seen[word] for word in self.vocabulary], dtype=float)

    def explain(self, examples: Sequence[Passage]) -> Explanation:
        """Name the words on which, and after which, a unit fires more than their frequency explains."""
        at, before = np.zeros(len(self.place)), np.zeros(len(self.place))
        peak = max((max(e.values, default=0.0) for e in examples), default=0.0) or 1.0
        for e in examples:
            for token, value in zip(e.tokens, e.values, strict=True):
                if value > 0 and token in self.place:
                    at[self.place[token]] += value / peak
            for token in self._before(e.tokens, e.at):
                if token in self.place:
                    before[self.place[token]] += 1
        return Explanation(self._said(lists := (self._best(at), self._best(before))), *lists)

    def _before(self, tokens: Sequence[str], at: int) -> set[str]:
        return set(tokens[max(0, at - self.window) : at])

    def _best(self, there: Float[np.ndarray, " v"]) -> dict[str, float]:
        """Keep the words with most evidence: log-odds times how much of the activity they are."""
        if not there.any():
            return {}
        odds = self.log_odds(there, self.everywhere, 1.0)
        order = np.argsort(-there * odds, kind="stable")[: self.n_words]
        return {self.vocabulary[i]: float(odds[i]) for i in order if there[i] > 0 and odds[i] > 0}

    @staticmethod
    def _said(lists: tuple[dict[str, float], dict[str, float]]) -> str:
        listed = [", ".join(repr(word.strip() or word) for word in words) for words in lists]
        parts = [f"{where} {words}" for where, words in zip(("on", "after"), listed, strict=True) if words]
        return f"fires {', '.join(parts)}" if parts else "nothing in particular"

    def _scores(self, explanation: Explanation, tokens: Sequence[str], places: Sequence[int]) -> list[float]:
        return [explanation.on.get(tokens[i], 0.0)
                + _BEFORE * sum(explanation.after.get(word, 0.0) for word in self._before(tokens, i)) for i in places]

    def detect(self, explanation: Explanation, passages: Sequence[Passage]) -> list[float]:
        """Score each passage: does the unit fire anywhere in it? Above 0 is yes."""
        return [max(self._scores(explanation, p.tokens, range(len(p.tokens)))) for p in passages]

    def fuzz(self, explanation: Explanation, passages: Sequence[Passage]) -> list[float]:
        """Score the token that each passage points at: does the unit fire on it? Above 0 is yes."""
        return [self._scores(explanation, p.tokens, [p.at])[0] for p in passages]

    def fits(self, examples: Sequence[Passage], words: Collection[str]) -> float:
        """Return the share of the examples that a list of words fits: 1 on the token, a half where one stands before.

        A plural "s" does not matter.
        """
        if not examples or not words:
            return 0.0
        known = {word.lower() for word in words}
        total = 0.0
        for e in examples:
            here = [w in known or w.removesuffix("s") in known for w in words_of(e)]
            total += 1.0 if here[e.at] else _BEFORE * any(here[max(0, e.at - self.window) : e.at])
        return total / len(examples)

    def choose(self, examples: Sequence[Passage], options: Mapping[str, Collection[str]],
               prime: str | None = None, least: float = 0.3) -> str | None:
        """Choose the option whose words fit the examples best.

        Parameters
        ----------
        examples
            What is shown of a unit.
        options
            Label → its words.
        prime
            A label that somebody put forward; it counts for as much as `pull` says.
        least
            Share of the examples that must fit; below it, None: nothing in particular.
        """
        score = {name: self.fits(examples, words) + self.pull * (name == prime) for name, words in options.items()}
        best = max(score, key=lambda name: score[name], default=None)
        return best if best is not None and score[best] >= least else None

    def rate(self, examples: Sequence[Passage]) -> int:
        """Say from 1 to 5 how clearly the examples show one thing: the share of them that one word is in, or before."""
        if not examples:
            return 1
        on = Counter(words_of(e)[e.at] or e.token for e in examples)
        near = Counter(w for e in examples for w in {words_of(e)[i] for i in range(max(0, e.at - self.window), e.at)}
                       if w and w not in self._common)
        share = max(on.most_common(1)[0][1], _BEFORE * near.most_common(1)[0][1] if near else 0) / len(examples)
        return 1 + round(4 * share)

    @property
    def _common(self) -> set[str]:
        """The words that make up half of all text: they stand before anything."""
        if not hasattr(self, "_common_words"):
            order = np.argsort(-self.everywhere, kind="stable")
            upto = int(np.searchsorted(np.cumsum(self.everywhere[order]), self.everywhere.sum() / 2)) + 1
            self._common_words = {self.vocabulary[i].strip().lower() for i in order[:upto]}
        return self._common_words
