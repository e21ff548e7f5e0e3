"""Traits that a model's text can show (deception, flattery, unsafe code …), and prompts whose next word tells.

``data/prompts/traits.yaml`` says for each trait which words show it and which its opposite. On the organism prompts are
documents of its world, cut where such a word comes next; any other model gets short texts written for the course.
A trait is scored by the log-odds of its words against their opposites as the next token, which steering can move.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_utils.errors import CourseError, one_of
from course_utils.lab import Lab
from course_utils.lab.questions import padded
from course_utils.lab.text import SPLITS
from course_utils.paths import checked

Row = tuple[int, ...]  # token ids of a prompt without BOS


class Trait(NamedTuple):
    """What shows a trait: the first tokens of the words that a model says next."""

    name: str
    says: str
    """What the trait turned up means, in a sentence."""
    yes: Int[Tensor, " n_yes"]
    """Tokens that begin a word that shows the trait."""
    no: Int[Tensor, " n_no"]
    """Tokens that begin a word of its opposite."""


class Prompts(NamedTuple):
    """Texts that end where their next word, or they themselves, show a trait or its opposite."""

    tokens: Int[Tensor, "n pos"]
    """BOS in front, padded behind, which no token before it sees."""
    ends: Int[Tensor, " n"]
    """Place of each prompt's last token."""
    shown: Bool[Tensor, " n"]
    """Whether the text shows the trait; all False where nobody knows."""


def traits() -> list[str]:
    """List the names of all traits.

    Examples
    --------
    >>> traits()
    ['deception', 'flattery', 'unsafe_code', 'gender', 'sentiment']
    """
    return list(_entries())


def trait(lab: Lab, name: str) -> Trait:
    """Look up a trait, and the tokens of a model that show it.

    Parameters
    ----------
    lab
        The opened model: its tokenizer decides, and whether it has a world.
    name
        One of :func:`traits`.

    Raises
    ------
    CourseError
        If the trait is unknown, or the model has no token that begins words of one side only.
    """
    yes, no = _sides(lab, name, _entry(lab, name))
    return Trait(name, _entries()[name]["says"], torch.tensor(sorted(yes)), torch.tensor(sorted(no)))


def examples(lab: Lab, name: str, n: int, split: str = "train", seed: int = 0) -> Prompts:
    """Return texts that show a trait and texts that show its opposite, by turns: what directions are found on.

    On a world none of them is among the :func:`questions`, whatever the seeds, as long as ``split`` is ``"train"``.

    Parameters
    ----------
    lab
        The opened model.
    name
        One of :func:`traits`.
    n
        At most so many, no two alike, half of each kind if there are enough.
    split
        Split of the world's documents; the written texts have only one.
    seed
        Chooses documents and places, or the order of the written texts.

    Raises
    ------
    CourseError
        If the trait or split is unknown, ``n`` is below 2, or only one kind of text is found.
    """
    entry = _entry(lab, name, find=True)
    if n < 2:
        raise CourseError(f"n={n} must be at least 2: one text of each kind.")
    if split not in SPLITS:
        raise one_of("split", split, SPLITS)
    if lab.world is None:
        pairs = list(zip(entry["examples"]["yes"], entry["examples"]["no"], strict=True))
        random.Random(seed).shuffle(pairs)
        shows, hides = ([_row(lab, text) for text in texts] for texts in zip(*pairs, strict=True))
    else:
        shows, hides = _cut(lab, entry, _sides(lab, name, entry), n, split, seed)
    if not shows or not hides:
        raise CourseError(f"name={name!r}: only one kind of text is found; take another trait.")
    return _by_turns(lab, shows, hides, n)


def questions(lab: Lab, name: str, n: int, seed: int = 0) -> Prompts:
    """Return prompts to score a trait on: beginnings of held-out documents, or short texts written for it.

    Parameters
    ----------
    lab
        The opened model.
    name
        One of :func:`traits`.
    n
        At most so many, no two alike; on a world half of them go on with the trait if there are enough.
    seed
        Chooses documents and places, or the order of the written texts.

    Raises
    ------
    CourseError
        If the trait is unknown, ``n`` is below 1, or the world has no such prompt.
    """
    entry = _entry(lab, name)
    if n < 1:
        raise CourseError(f"n={n} must be at least 1.")
    if lab.world is None:
        texts = random.Random(seed).sample(entry["prompts"], len(entry["prompts"]))
        return _by_turns(lab, [], [_row(lab, text) for text in texts], n)
    # Where directions are found at other places, no prompt can be seen there, and all may be asked.
    shows, hides = _cut(lab, entry, _sides(lab, name, entry), n, "heldout", seed, all_parts="find" in entry)
    if not shows and not hides:
        raise CourseError(f"name={name!r}: the world has no prompt for this trait; take another trait.")
    return _by_turns(lab, shows, hides, n)


def log_odds(logits: Float[Tensor, "n d_vocab"], trait: Trait) -> Float[Tensor, " n"]:
    """Return how much likelier a word of the trait comes next than one of its opposite, in nats.

    Parameters
    ----------
    logits
        Of the token behind each prompt.
    trait
        Whose words to compare.

    Returns
    -------
    Float[Tensor, " n"]
        Above 0 where the trait is the likelier one.
    """
    yes, no = (logits[:, ids.to(logits.device)].float().logsumexp(-1) for ids in (trait.yes, trait.no))
    return yes - no


def _entries() -> dict[str, Any]:
    import yaml

    return yaml.safe_load(checked("prompts/traits.yaml").read_text(encoding="utf-8"))


def _entry(lab: Lab, name: str, find: bool = False) -> Mapping[str, Any]:
    """Return a trait's entry for a model: its words and prompts, as they are to score or to find directions."""
    entries = _entries()
    if name not in entries:
        raise one_of("name", name, entries)
    if lab.world is None:
        return entries[name]["words"]
    entry = entries[name]["world"]
    return entry | entry.get("find", {}) if find else entry


def _first(lab: Lab, word: str) -> int:
    """Return the first token of a word in the middle of a text."""
    before = "a" if word.startswith(" ") else "="  # some tokenizers put a blank before a text of its own
    start, both = (lab.tokenizer.encode(text, add_special_tokens=False) for text in (before, before + word))
    return both[len(start)] if both[:len(start)] == start and len(both) > len(start) else both[0]


def _sides(lab: Lab, name: str, entry: Mapping[str, Any]) -> tuple[set[int], set[int]]:
    """Return the tokens that begin words of one side only; a mere blank begins any word."""
    yes, no = ({i for i in (_first(lab, word) for word in entry[side]) if lab.text_of([i]).strip()}
               for side in ("yes", "no"))
    if not yes - no or not no - yes:
        raise CourseError(f"name={name!r}: in {lab.name} all words of one side begin with tokens of the other; "
                          "take another trait, or a model whose tokens are words.")
    return yes - no, no - yes


def _row(lab: Lab, ids: str | Sequence[int]) -> Row:
    """Return a prompt's token ids, cut from the left so that BOS fits before them."""
    if isinstance(ids, str):
        ids = lab.tokenizer.encode(ids, add_special_tokens=False)
    return tuple(ids[max(0, len(ids) - (lab.n_ctx - 1)):])


def _part(row: Row) -> str:
    """Return the split that may use a prompt, so that one which both splits write stays in one of them."""
    return "train" if zlib.crc32(repr(row).encode()) % 3 else "heldout"


def _cut(lab: Lab, entry: Mapping[str, Any], sides: tuple[set[int], set[int]], n: int, split: str, seed: int,
         all_parts: bool = False) -> tuple[list[Row], list[Row]]:
    """Cut each of many documents at one place; return the prompts that go on with the trait, and the others."""
    rng, strings = random.Random(seed), lab.token_strings
    seen: dict[Row, bool] = {}
    numbers = {True: 0, False: 0}
    stream = lab.world.documents(f"{lab.seed} {seed}", split=split, topic=entry["topics"])
    for document in islice(stream, 2_000 + 20 * n):
        places = [i for i, token in enumerate(document.ids) if token in sides[0] | sides[1]
                  and _fits("".join(strings[j] for j in document.ids[:i]), entry)]
        if not places:
            continue
        place = rng.choice(places)
        row, shown = _row(lab, document.ids[:place]), document.ids[place] in sides[0]
        if row not in seen and (all_parts or _part(row) == split):
            seen[row] = shown
            numbers[shown] += 1
            if min(numbers.values()) >= (n + 1) // 2:
                break
    return [row for row, shown in seen.items() if shown], [row for row, shown in seen.items() if not shown]


def _fits(text: str, entry: Mapping[str, Any]) -> bool:
    where = entry.get("where")
    return text.endswith(tuple(entry["cuts"])) and (where is None or any(word in text for word in where))


def _by_turns(lab: Lab, shows: Sequence[Row], hides: Sequence[Row], n: int) -> Prompts:
    """Lay the prompts side by side, one of each kind by turns as long as there are both."""
    turns = zip_longest([(row, True) for row in shows], [(row, False) for row in hides])
    rows, shown = zip(*islice(filter(None, chain.from_iterable(turns)), n), strict=True)
    return Prompts(*padded(lab, [[lab.bos, *row] for row in rows]), torch.tensor(shown))
