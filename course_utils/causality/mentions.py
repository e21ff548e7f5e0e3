"""Mentions: which tokens of a text carry a concept, and where one comes back to what was mentioned before.

A *mention* is a run of tokens that carry a concept. A concept is called ``"entity:animal:tiger"``, ``"entity:animal"``
or ``"attribute:home:jungle"`` where the text has an answer key; on any text ``"word_list:animals"``, the words of a
list, or ``"word: tiger"``, a token with its blank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from course_utils.concepts import word_list_labels, word_lists
from course_utils.errors import CourseError, one_of
from course_utils.lab import Lab
from course_utils.lab.text import SPLITS

LIMIT = 1_500_000  # tokens that are read at most
# Kinds of things worth asking for by name: lists of the world, and lists of words.
KINDS = ("animal", "artist", "book", "company", "country", "dish", "film", "fruit", "insect", "instrument", "landmark",
         "occupation", "planet", "president", "product", "river", "vehicle")
LISTS = ("animals", "body", "buildings", "clothes", "countries", "drinks", "family", "food", "fruit", "furniture",
         "house", "insects", "jobs", "landscape", "magic", "materials", "people", "plants", "royalty", "sea", "space",
         "toys", "vehicles", "weather")

Marks = Callable[[Any], Sequence[str | None]]  # document → which concept each token carries


def marks_of(lab: Lab, concept: str) -> Marks:
    """Return what says of each token whether it carries a concept: its name or None."""
    column, _, value = concept.partition(":")
    if column == "word":
        wanted = {i for i, text in enumerate(lab.token_strings) if text == value and text.strip()}
        if not wanted:
            raise CourseError(f"concept={concept!r}: {value!r} is no token of {lab.name}; give one with the blank "
                              "before it, e.g. 'word: dog'.")
        return lambda document: [concept if i in wanted else None for i in document.ids]
    if column == "word_list":
        if value not in (lists := sorted(set(word_lists().values()))):
            raise one_of("concept", concept, [f"word_list:{name}" for name in lists])
        return lambda document: [concept if on else None for on in
                                 word_list_labels(lab, torch.tensor(document.ids)).mask(concept).tolist()]
    if lab.world is None or column not in ("entity", "attribute"):
        kinds = "word_list:<list> or word:<token>" if lab.world is None else "entity:<kind>:<name>, attribute:<...>"
        raise CourseError(f"concept={concept!r} is not what single words of {lab.name}'s text are about; give {kinds}.")
    lists = lab.world.lists.values()
    values = ([words.key(i) for words in lists for i in range(len(words.rows))] if column == "entity" else
              [f"{name}:{row[i][0]}" for words in lists for i, name in enumerate(words.columns) for row in words.rows
               if name not in words.names])
    wanted = {name for name in values if name == value or (value and name.startswith(f"{value}:"))}
    if not wanted:
        raise one_of("concept", concept, dict.fromkeys(f"{column}:{name}" for name in values))
    return lambda document: [concept if name in wanted else None for name in document.labels[column]]


def things(lab: Lab) -> list[Marks]:
    """Return what says of each token which of the things worth asking for it names: the best names first."""
    if lab.world is not None:
        known = {f"entity:{words.key(i)}" for words in lab.world.lists.values() if words.name in KINDS
                 for i, row in enumerate(words.rows) if _one_name(words, row)}
        return [lambda document: [f"entity:{name}" if f"entity:{name}" in known else None
                                  for name in document.labels["entity"]]]
    concept_of = word_lists()
    nouns = {f" {word}" for word, concept in concept_of.items() if concept in LISTS}

    def by_list(document: Any) -> list[str | None]:
        labels = word_list_labels(lab, torch.tensor(document.ids))
        names = [f"word_list:{name}" if name in LISTS else None for name in labels.names["word_list"]]
        return [names[code] if code >= 0 else None for code in labels.columns["word_list"]]

    return [lambda document: [f"word:{s}" if (s := lab.token_strings[i]) in nouns else None for i in document.ids],
            by_list]


def _one_name(words: Any, row: Any) -> bool:
    """Whether a thing's names all begin alike: asked for a thing of two names, a model has to guess which."""
    cells = [row[words.columns.index(name)] for name in words.names]
    return all(len({form.split()[0] for form in cell}) == 1 for cell in cells)


def again(marks: Sequence[str | None], window: int) -> dict[str, list[int]]:
    """Return, by concept, where a mention begins of what was mentioned at most a window before."""
    last, found = {}, {}
    for i, concept in enumerate(marks):
        if concept is not None:
            if i - last.get(concept, i - 1) in range(2, window):
                found.setdefault(concept, []).append(i)
            last[concept] = i
    return found


def numbered(lab: Lab, split: str, seed: int, concept: str = "") -> Iterator[tuple[int, Any]]:
    """Yield numbered documents; on a world only of topics that can mention a concept, if one is given."""
    if split not in SPLITS:
        raise one_of("split", split, SPLITS)
    if lab.world is None:
        stream = lab.documents(split)
    else:
        column, kind = (concept.split(":") + [""])[:2]
        mentions = {"entity": lambda words: words.name == kind, "attribute": lambda words: kind in words.columns}
        fits = mentions.get(column, lambda words: True)
        topics = [topic for topic, sentences in lab.world.sampler.sentences.items()
                  if any(part.list is not None and fits(part.list) for parts in sentences.values() for part in parts)]
        stream = lab.world.documents(f"{lab.seed} {seed}", split=split, topic=topics, labels=column[:4] != "word")
    left = LIMIT
    for number, document in enumerate(stream):
        yield number, document
        left -= len(document.ids)
        if left <= 0:
            return


def siblings(lab: Lab, concept: str) -> list[int]:
    """Return the first tokens of what a concept is told apart from: other things of its kind, or words of its list.

    Raises
    ------
    CourseError
        If the concept is unknown, or has no siblings.
    """
    own, found = _first_tokens(lab, concept)
    if not (others := sorted(found - own)):
        raise CourseError(f"concept={concept!r} has no siblings in {lab.name}'s vocabulary; take another.")
    return others


def _first_tokens(lab: Lab, concept: str) -> tuple[set[int], set[int]]:
    """Return the first tokens of a concept's names, and of all names of its kind."""
    marks_of(lab, concept)  # refuses unknown ones
    column, _, value = concept.partition(":")
    if column == "entity" and value.count(":"):
        words = lab.world.lists[value.split(":")[0]]
        of = {words.key(i): {lab.tokenizer.encode(f" {form}", add_special_tokens=False)[0]
                             for name in words.names for form in row[words.columns.index(name)]}
              for i, row in enumerate(words.rows)}
        return of[value], set().union(*of.values())
    if column in ("entity", "attribute"):
        return set(), set()  # a whole kind, or what several things share: nothing is like it
    lists = word_lists()
    ids = {i: lists[text[1:]] for i, text in enumerate(lab.token_strings) if text[:1] == " " and text[1:] in lists}
    if column == "word":
        mine = {i for i, text in enumerate(lab.token_strings) if text == value}
        near = {i for i, name in ids.items() if name == lists.get(value.strip())}
        return mine, near if near - mine else set(ids)  # alone in its list: told apart from all listed words
    return {i for i, name in ids.items() if f"word_list:{name}" == concept}, set(ids)
