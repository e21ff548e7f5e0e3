"""How good is an explanation? Whoever reads it has to say, on other text, where the unit fires.

*Detection*: half of the passages hold a token on which the unit fires, drawn over its whole range of activity; in the
others it is silent. *Fuzzing*: every passage holds one, and a token is pointed at; in half of them it is that one. Both
are scored by AUROC, .5 for an explanation that says nothing. The null is the explanation of another unit.

References
----------
Explanations scored by what they predict: Bills et al. 2023, neurons explained by models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array
from tqdm.auto import tqdm

from course_utils.errors import CourseError
from course_utils.raters.passages import Column, Passage, Reader, active, band_rows, one_a_document, quiet_rows
from course_utils.raters.protocol import Explanation, Rater


class Questions(NamedTuple):
    """Blind passages about one unit, and the right answers."""

    passages: list[Passage]
    truth: Bool[np.ndarray, " n"]


class Judged(NamedTuple):
    """Scores of explanations, one a unit."""

    units: Int[np.ndarray, " u"]
    explanations: list[Explanation]
    detection: Float[np.ndarray, " u"]
    """AUROC with the unit's own explanation."""
    fuzzing: Float[np.ndarray, " u"]
    detection_null: Float[np.ndarray, "draws u"]
    """The same with another unit's explanation."""
    fuzzing_null: Float[np.ndarray, "draws u"]


def examples(reader: Reader, column: Column, n_bands: int = 5, n: int = 4, seed: int = 0,
             strongest: bool = False) -> list[Passage]:
    """Return passages over the whole range of a unit's activity, the strongest first, one a document in each band.

    ``strongest=True``: the ``n`` strongest instead, one a document.
    """
    if strongest:
        order = column.rows[np.argsort(-column.values, kind="stable")]
        return reader.passages(one_a_document(order, reader.doc, n), column)
    return [p for rows in band_rows(column, reader.doc, n_bands, n, seed) for p in reader.passages(rows, column)]


def detection_questions(reader: Reader, column: Column, n: int = 10, seed: int = 0) -> Questions:
    """Return ``n`` passages in which a unit fires, spread over its range, and ``n`` in which it is silent.

    Raises
    ------
    CourseError
        If it fires in fewer than ``n`` documents, or is silent in fewer.
    """
    loud = _spread(reader, column, n, seed)
    quiet = quiet_rows(column, reader, n, np.random.default_rng(seed))
    return Questions([p.blind() for p in reader.passages([*loud, *quiet])], np.repeat([True, False], n))


def fuzzing_questions(reader: Reader, column: Column, n: int = 10, seed: int = 0) -> Questions:
    """Return ``2 n`` passages in which a unit fires: the first half points at where it does, the others elsewhere."""
    rng, found = np.random.default_rng(seed), []
    for i, row in enumerate(_spread(reader, column, 2 * n, seed, shuffled=True)):
        p = reader.passage(row, column)
        silent = [j for j, value in enumerate(p.values) if value == 0]
        if i >= n and not silent:  # it fires on every token here: there is nowhere else to point at
            silent = [j for j in range(len(p.tokens)) if j != p.at] or [p.at]
        found.append((p if i < n else p._replace(at=int(rng.choice(silent)))).blind())
    return Questions(found, np.repeat([True, False], n))


def _spread(reader: Reader, column: Column, n: int, seed: int, shuffled: bool = False) -> list[int]:
    """Draw ``n`` rows in different documents from the whole range of activity."""
    documents = len(np.unique(reader.doc[column.rows]))
    if documents < n:
        raise CourseError(f"the unit fires in {documents} documents; {n} are needed. Give more text or smaller n.")
    pools = band_rows(column, reader.doc, 5, n, seed)
    seen, rows = set(), []
    while len(rows) < n:  # one of each band in turn, until there are enough
        for pool in pools:
            while pool and reader.doc[pool[0]] in seen:
                pool.pop(0)
            if pool and len(rows) < n:
                rows.append(pool.pop(0))
                seen.add(reader.doc[rows[-1]])
        if not any(pools) and len(rows) < n:
            left = [int(r) for r in column.rows if reader.doc[r] not in seen]
            rows.append(left[0])
            seen.add(reader.doc[left[0]])
    return np.random.default_rng(seed).permutation(rows).tolist() if shuffled else rows


def auroc(scores: Float[np.ndarray, "u n"], truth: Bool[np.ndarray, "u n"]) -> Float[np.ndarray, " u"]:
    """Return, row by row, the chance that a true entry scores higher than a false one, ties counting a half."""
    from scipy.stats import rankdata  # lazy: scipy.stats takes a second to import

    p, n = truth.sum(1), (~truth).sum(1)
    ranks = (rankdata(scores, axis=1) * truth).sum(1)
    return (ranks - p * (p + 1) / 2) / (p * n)


def judge(rater: Rater, train: Reader, train_latents: csc_array, heldout: Reader, heldout_latents: csc_array,
          units: Sequence[int], *, n_examples: int = 4, n: int = 10, n_shuffles: int = 10, seed: int = 0) -> Judged:
    """Explain units on one text and score the explanations on another, beside explanations of other units.

    Parameters
    ----------
    rater
        Writes the explanations, and reads them.
    train, train_latents
        Where examples are taken from, over five bands of activity.
    heldout, heldout_latents
        Where the questions are taken from.
    units
        Which latents; each must fire in ``2 n`` held-out documents.
    n_examples
        Examples a band.
    n
        Questions of each kind and answer.
    n_shuffles
        How often explanations are dealt out anew, so that nobody keeps his own.
    seed
        Draws examples, questions and shuffles.
    """
    units = np.asarray(units, dtype=int)
    if len(units) < 2:
        raise CourseError(f"units has {len(units)} entries; with fewer than 2 there is no other explanation to try.")
    said = [rater.explain(examples(train, active(train_latents, u), n=n_examples, seed=seed))
            for u in tqdm(units.tolist(), "explain", delay=2, leave=False)]
    asked = [(detection_questions(heldout, column, n, seed), fuzzing_questions(heldout, column, n, seed))
             for column in (active(heldout_latents, u) for u in units.tolist())]
    rng = np.random.default_rng(seed)
    orders = [np.arange(len(units)), *(_derangement(len(units), rng) for _ in range(n_shuffles))]
    answers = np.array([[[ask(said[j], questions[kind].passages) for j, questions in zip(order, asked, strict=True)]
                         for kind, ask in enumerate((rater.detect, rater.fuzz))]
                        for order in tqdm(orders, "score", delay=2, leave=False)], dtype=float)  # [orders 2 u 2n]
    truth = np.array([[questions[kind].truth for questions in asked] for kind in (0, 1)])
    areas = np.array([[auroc(answers[i, kind], truth[kind]) for kind in (0, 1)] for i in range(len(orders))])
    return Judged(units, said, *areas[0], areas[1:, 0], areas[1:, 1])


def _derangement(n: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Deal out ``n`` things so that nobody keeps his own: a shuffled circle, each one passed on."""
    circle = rng.permutation(n)
    order = np.empty(n, dtype=int)
    order[circle] = np.roll(circle, 1)
    return order
