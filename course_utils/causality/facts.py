"""Facts: things of one kind with several attributes each, and for each attribute a prompt that ends before its answer.

1. ``data/prompts/facts.yaml`` says how to ask, so that nothing but the thing's name gives the answer away. On a world
   the sentences are those of its documents, cut short, and what is right comes from its own lists; for any other model
   answers are written out.
2. ``facts`` asks the model; what it does not know is no use for what follows.
3. ``pairs`` are for interchange: a base is asked for an attribute, a source of the same kind has another answer. Things
   are dealt into two halves, so that what is trained on one is scored on things never seen.

Source: Huang et al. 2024, RAVEL, arXiv 2402.17700.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from course_utils.errors import CourseError, one_of
from course_utils.interventions.interchange import Pairs
from course_utils.lab import Lab
from course_utils.lab.questions import at, padded
from course_utils.lab.text import SPLITS
from course_utils.paths import checked

_ROWS = 64  # prompts run at a time

Filled = tuple[str, list[int], int, set[int]]  # thing, tokens, place of its name, first tokens of right answers


class Fact(NamedTuple):
    """One question about one thing, and whether the model knows."""

    kind: str
    """What it is a question about, e.g. ``"pet"``."""
    entity: str
    """Which of them: ``"dog"``."""
    attribute: str
    """What is asked: ``"food"``."""
    tokens: Int[Tensor, "1 pos"]
    """The prompt, BOS first; its last token is the one behind which the answer stands."""
    entity_place: int
    """Place of the last token of the thing's name."""
    answer: int
    """First token of the right answer; of several right ones that which the model says, if it does."""
    right: bool
    """Whether the model's most probable next token begins a right answer."""

    @property
    def end(self) -> int:
        """Place of the prompt's last token."""
        return self.tokens.shape[1] - 1


def kinds(lab: Lab) -> dict[str, list[str]]:
    """Return what a model can be asked about: kind of thing → attributes.

    Raises
    ------
    CourseError
        If the model's world writes about none of them.
    """
    entries = {kind: entry for kind, entry in _entries(lab).items()
               if lab.world is None or entry["topic"] in lab.world.topics}
    if not entries:
        raise CourseError(f"{lab.name}'s world has none of the topics of data/prompts/facts.yaml; add prompts there.")
    return {kind: list(entry["asks"]) for kind, entry in entries.items()}


def facts(lab: Lab, kind: str | None = None) -> list[Fact]:
    """Ask a model everything about things of a kind.

    Parameters
    ----------
    lab
        The opened model; whatever is in force applies to its answers.
    kind
        One of :func:`kinds`; None: all.

    Returns
    -------
    list
        By kind, attribute and thing, the same each time.

    Raises
    ------
    CourseError
        If the kind is unknown.
    """
    known = kinds(lab)
    if kind is not None and kind not in known:
        raise one_of("kind", kind, known)
    asked = [ask for name in ([kind] if kind else known) for ask in _asked(lab, name)]
    found = []
    for start in range(0, len(asked), _ROWS):
        some = asked[start : start + _ROWS]
        tokens, ends = padded(lab, [fact.tokens[0] for fact, _ in some])
        said = at(lab.logits(tokens), ends).argmax(-1).tolist()
        for (fact, accepted), token in zip(some, said, strict=True):
            right = token in accepted and bool(lab.token_strings[token].strip())  # a mere blank says nothing
            found.append(fact._replace(answer=token, right=True) if right else fact)
    return found


def pairs(lab: Lab, kind: str, n: int, seed: int = 0, split: str = "train") -> dict[str, Pairs]:
    """Pair things of a kind for interchange, attribute by attribute: bases and sources that have different answers.

    Parameters
    ----------
    lab
        The opened model.
    kind
        One of :func:`kinds`.
    n
        At most so many pairs an attribute, no two alike.
    seed
        Draws them.
    split
        ``"train"`` or ``"heldout"``: from which half of the things, a half by hash.

    Returns
    -------
    dict
        Attribute → its pairs, all of answers that the model knows; base and source are asked alike. Attributes of which
        it knows too little are left out.

    Raises
    ------
    CourseError
        If the kind or split is unknown, ``n`` is below 1, or the model knows too little of everything.
    """
    if split not in SPLITS:
        raise one_of("split", split, SPLITS)
    if n < 1:
        raise CourseError(f"n={n} must be at least 1 pair.")
    asked = facts(lab, kind)
    mine, found = half({fact.entity for fact in asked}, split), {}
    for attribute in dict.fromkeys(fact.attribute for fact in asked):
        known = [f for f in asked if f.attribute == attribute and f.right and f.entity in mine]
        both = [(base, source) for base in known for source in known if base.answer != source.answer]
        if both:
            rng = random.Random(f"{kind} {attribute} {split} {seed}")
            found[attribute] = _laid_out(lab, rng.sample(both, min(n, len(both))))
    if not found:
        raise CourseError(f"kind={kind!r}: {lab.name} knows no two different answers in the {split} half of them; take "
                          f"another kind: {', '.join(kinds(lab))}.")
    return found


def half(entities: set[str], split: str) -> set[str]:
    """Return the half of some things that a split may use; the halves have no thing in common."""
    order = sorted(entities, key=lambda name: (zlib.crc32(name.encode()), name))
    middle = (len(order) + 1) // 2
    return set(order[:middle] if split == "train" else order[middle:])


def _laid_out(lab: Lab, both: list[tuple[Fact, Fact]]) -> Pairs:
    bases, sources = zip(*both, strict=True)
    base, end = padded(lab, [fact.tokens[0] for fact in bases])
    source, _ = padded(lab, [fact.tokens[0] for fact in sources])
    places = (torch.tensor([fact.entity_place for fact in side]) for side in (bases, sources))
    answers = (torch.tensor([fact.answer for fact in side]) for side in (sources, bases))
    base_place, source_place = places
    return Pairs(base, base_place, end, source, source_place, *answers)


def _entries(lab: Lab) -> Mapping[str, Any]:
    import yaml

    entries = yaml.safe_load(checked("prompts/facts.yaml").read_text(encoding="utf-8"))
    return entries["words" if lab.world is None else "world"]


def _asked(lab: Lab, kind: str) -> Iterator[tuple[Fact, set[int]]]:
    """Yield every question of a kind, not yet asked, with the first tokens of its right answers."""
    entry = _entries(lab)[kind]
    fill = _written if lab.world is None else _from_world
    for attribute, ask in entry["asks"].items():
        for entity, ids, place, accepted in fill(lab, entry, attribute, f"{entry['first']} {ask}"):
            tokens = torch.tensor([ids], device=lab.device)
            yield Fact(kind, entity, attribute, tokens, place, min(accepted), False), accepted


def _written(lab: Lab, entry: Mapping[str, Any], attribute: str, prompt: str) -> Iterator[Filled]:
    """Fill in a written prompt; a name ends where a text that ends with it does."""
    for entity, answers in entry["answers"].items():
        text = prompt.format(e=entity)
        named = prompt.partition("{e}")[0] + entity
        ids, before, on = (lab.encode(part)[0].tolist() for part in (text, named, f"{text} {answers[attribute]}"))
        yield entity, ids, len(before) - 1, {on[len(ids)]}


def _from_world(lab: Lab, entry: Mapping[str, Any], attribute: str, prompt: str) -> Iterator[Filled]:
    """Let the world fill in a prompt; who else is in it is drawn, the same for all attributes of a thing."""
    sampler, topic, var = lab.world.sampler, lab.world.topics[entry["topic"]], entry["draw"]
    segments = sampler.compiler.compile_text(topic, prompt, f"facts.yaml, {topic.name}, {attribute}")
    answer = sampler.compiler.compile_text(topic, f" {{{var}.{attribute}}}", f"facts.yaml, {topic.name}")[-1]
    for row, cells in enumerate(topic.draws[var].list.rows):
        rng, ids, place = random.Random(f"{topic.name} {cells[0][0]}"), [lab.bos], 0
        for piece in sampler.fill(segments, sampler.draws(topic, rng, {var: row}), rng):
            ids += piece.ids
            if piece.segment.slot is not None and piece.segment.slot.name == var:
                place = len(ids) - 1
        yield cells[0][0], ids, place, {form[0] for form in answer.table[row]}
