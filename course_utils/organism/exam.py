"""Questions with known answers, asked of the trained organism, and its loss against the generator's entropy.

An exam in the YAML names a topic, a prompt, what to enumerate (``over``), and what counts as right: one text
(``answer``), any row of a list (``answer_in``), or, for a planted bias, the probabilities of a choice (``choice``). A
question is right if every token of an accepted answer is the model's most probable next token.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_utils.organism.compiler import Segment, Value
from course_utils.organism.recipe import END
from course_utils.organism.sampler import is_held_out
from course_utils.organism.spec import Topic
from course_utils.organism.world import World

Logits = Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch pos d_vocab"]]
MOST = 1_000  # questions per exam; longer lists are sampled


class Question(NamedTuple):
    """A prompt as token ids (with the mark before it), the accepted answers, and the draws behind it."""

    prompt: list[int]
    answers: list[tuple[int, ...]]
    env: dict[str, Value]


class Result(NamedTuple):
    """One exam: what was measured, on how many questions, and a Wilson or bootstrap interval at 95 %."""

    name: str
    measure: str
    value: float
    low: float
    high: float
    n: int


def questions(world: World, name: str, seed: int = 0) -> list[Question]:
    """Write all questions of one exam; lists longer than ``sample`` (default 1,000) are sampled by the seed."""
    spec, rng = world.exams[name], random.Random(f"exam:{name}:{seed}")
    topic = world.topics[spec["topic"]]
    prompt = world.sampler.compiler.compile_text(topic, spec["prompt"], f"exam {name}, prompt")
    settings = list(_settings(topic, spec["over"]))
    most = int(spec.get("sample", MOST))
    if spec["over"] != "held_out" and len(settings) < most and "sample" in spec:
        settings = [settings[i % len(settings)] for i in range(most)]
    elif len(settings) > most:
        settings = rng.sample(settings, most)
    found = []
    for fixed in settings:
        env = world.sampler.draws(topic, rng, fixed)
        ids = [END, *(i for piece in world.sampler.fill(prompt, env, rng) for i in piece.ids)]
        found.append(Question(ids, _answers(world, topic, name, spec, env), env))
    return found


def _settings(topic: Topic, over: str | list[str]) -> Iterator[dict[str, Value]]:
    if over == "held_out":
        rule = topic.held_out[0]
        ranges = [range(topic.draws[v].low, topic.draws[v].high + 1) for v in rule[0]]
        combinations = (dict(zip(rule[0], values, strict=True)) for values in itertools.product(*ranges))
        yield from (c for c in combinations if is_held_out(rule, c))
        return
    values = [_values(topic, var) for var in over]
    for combination in itertools.product(*values):
        rows = [
            (topic.draws[v].list.name, x)
            for v, x in zip(over, combination, strict=True)
            if topic.draws[v].kind == "row"
        ]
        if len(set(rows)) == len(rows):  # draws of one list are distinct in documents too
            yield dict(zip(over, combination, strict=True))


def _values(topic: Topic, var: str) -> list[Value]:
    draw = topic.draws[var]
    if draw.kind == "int":
        return list(range(draw.low, draw.high + 1))
    return list(range(len(draw.list.rows))) if draw.list is not None and draw.kind == "row" else draw.values


def _answers(
    world: World, topic: Topic, name: str, spec: dict[str, Any], env: dict[str, Value]
) -> list[tuple[int, ...]]:
    where = f"exam {name}, answer"
    if "answer" in spec:
        return [
            sum(ids, ())
            for ids in itertools.product(
                *(
                    s.table[_value(s, env)]
                    for s in world.sampler.compiler.compile_text(topic, " " + spec["answer"], where)
                )
            )
        ]
    if "choice" in spec:
        draw = topic.draws[spec["choice"]]
        segment = world.sampler.compiler.compile_text(topic, f" {{{spec['choice']}}}", where)[0]
        keys = [draw.list.rows_with(v)[0] if draw.list is not None else v for v in draw.values]
        return [segment.table[key][0] for key in keys]
    words = world.lists[spec["answer_in"]["list"]]
    ((column, var),) = spec["answer_in"]["where"].items()
    at = words.column(column, where)
    segment = world.sampler.compiler.compile_text(topic, f" {{{words.name}}}", where)[0]
    return [form for i, row in enumerate(words.rows) if row[at][0] == env[var] for form in segment.table[i]]


def _value(segment: Segment, env: dict[str, Value]) -> Value:
    return 0 if segment.slot is None else env[segment.slot.name]


@torch.no_grad()
def grade(logits: Logits, asked: list[Question]) -> np.ndarray:
    """Return for each question whether some accepted answer is the model's greedy continuation."""
    pairs = [
        (q, [*question.prompt, *answer], len(answer)) for q, question in enumerate(asked) for answer in question.answers
    ]
    right = np.zeros(len(asked), dtype=bool)
    pairs.sort(key=lambda p: len(p[1]))
    for start in range(0, len(pairs), 256):
        some = pairs[start : start + 256]
        tokens = torch.full((len(some), max(len(ids) for _, ids, _ in some)), END)
        for row, (_, ids, _) in enumerate(some):
            tokens[row, : len(ids)] = torch.tensor(ids)
        greedy = logits(tokens).argmax(-1)
        for row, (q, ids, n) in enumerate(some):
            right[q] |= greedy[row, len(ids) - n - 1 : len(ids) - 1].tolist() == ids[-n:]
    return right


@torch.no_grad()
def choice_probabilities(logits: Logits, asked: list[Question]) -> np.ndarray:
    """Return the model's probability of each value of the choice, given that it is one of them: [questions, values]."""
    found = []
    for question in asked:
        scores = logits(torch.tensor([question.prompt]))[0, -1]
        found.append(torch.softmax(scores[[answer[0] for answer in question.answers]].double(), -1).numpy())
    return np.stack(found)


def sit(world: World, logits: Logits, seed: int = 0) -> list[Result]:
    """Sit every exam of the world."""
    results = []
    for name, spec in world.exams.items():
        asked = questions(world, name, seed)
        results += (
            _planted(world, name, spec, asked, choice_probabilities(logits, asked))
            if "choice" in spec
            else [_share(name, grade(logits, asked))]
        )
    return results


def _share(name: str, right: np.ndarray) -> Result:
    from scipy.stats import binomtest

    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return Result(name, "accuracy", float(right.mean()), float(interval.low), float(interval.high), len(right))


def _planted(world: World, name: str, spec: dict[str, Any], asked: list[Question], found: np.ndarray) -> list[Result]:
    topic = world.topics[spec["topic"]]
    draw, results = topic.draws[spec["choice"]], []
    groups = np.array([world.sampler.given(topic, draw, question.env) for question in asked])
    for group, planted in draw.options.items():
        value = next(iter(planted))
        mine = found[groups == group][:, draw.values.index(value)]
        half = 1.96 * mine.std(ddof=1) / np.sqrt(len(mine))
        results.append(
            Result(
                f"{name}: P({value} | {group}), planted {planted[value]:.2f}",
                "probability",
                float(mine.mean()),
                float(mine.mean() - half),
                float(mine.mean() + half),
                len(mine),
            )
        )
    return results


@torch.no_grad()
def loss_gap(
    world: World, logits: Logits, n_documents: int = 2_000, seed: int = 0, n_boot: int = 1_000
) -> dict[str, Result]:
    """Measure loss and entropy in nats a token on whole held-out documents, each alone behind the end-of-text mark.

    Returns
    -------
    dict
        ``"loss"``, ``"entropy"`` and ``"gap"`` with bootstrap intervals over documents.
    """
    documents = sorted(
        itertools.islice(world.documents(seed, split="heldout", entropy=True), n_documents),
        key=lambda d: len(d.ids),
    )
    sums = np.zeros((n_documents, 3))  # loss, entropy, tokens
    for start in range(0, n_documents, 64):
        some = documents[start : start + 64]
        tokens = torch.full((len(some), max(len(d.ids) for d in some) + 2), END)
        for row, document in enumerate(some):
            tokens[row, 1 : len(document.ids) + 1] = torch.tensor(document.ids)
        losses = torch.nn.functional.cross_entropy(
            logits(tokens[:, :-1]).float().transpose(1, 2), tokens[:, 1:], reduction="none"
        )
        for row, document in enumerate(some):
            n = len(document.ids) + 1
            sums[start + row] = float(losses[row, :n].sum()), document.entropy, n
    weights = np.random.default_rng(seed).multinomial(n_documents, np.full(n_documents, 1 / n_documents), n_boot)
    drawn = np.vstack([sums.sum(0), weights @ sums])
    curves = {
        "loss": drawn[:, 0] / drawn[:, 2],
        "entropy": drawn[:, 1] / drawn[:, 2],
        "gap": (drawn[:, 0] - drawn[:, 1]) / drawn[:, 2],
    }
    return {
        k: Result(k, "nats a token", float(c[0]), *map(float, np.quantile(c[1:], (0.025, 0.975))), n_documents)
        for k, c in curves.items()
    }
