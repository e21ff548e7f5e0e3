"""The world: lists of things with facts, topics that write about them, and documents with an answer key.

1. Every ``data/world/*.yaml`` adds ``lists`` (rows of facts, the frequent ones first) and ``topics`` (templates). They
   share one namespace; ``data/world/README.md`` describes the format, so that an instructor can plant a concept.
2. A document is drawn so: a topic; its draws, once, so that subject and attributes persist; an opening sentence; some
   of the other sentences in random order; a closing one.
3. Every choice has a known probability, so every document has a known cost in nats. Their mean is the entropy of the
   generator: the loss that no model can beat.
4. Every token has labels, because the generator knows why it printed it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from course_utils.errors import CourseError, one_of
from course_utils.organism.spec import Topic, WordList, read_lists, read_topic
from course_utils.paths import DATA

LONGEST = 126  # tokens of one document: the organism's context of 128 less the mark before it and the one after it
# Upper ends of the frequency classes, in occurrences per million tokens; the last class has none.
FREQUENCY_CLASSES = (10, 100, 1_000, 10_000)


class Document(NamedTuple):
    """One document of the world.

    Attributes
    ----------
    ids
        Token ids without the end-of-text mark.
    text
        What the ids decode to.
    topic
        Name of its topic.
    labels
        Column → one value a token (see :func:`course_utils.organism.sampler.label`), or None if not asked for.
    entropy
        Cost of the whole document under the generator in nats, its end included, or None if not asked for.
    """

    ids: list[int]
    text: str
    topic: str
    labels: dict[str, list[Any]] | None
    entropy: float | None


class World:
    """A set of lists and topics, ready to write.

    Parameters
    ----------
    source
        Merged contents of the YAML files: ``lists``, ``topics``, ``chains``, ``exams``.

    Raises
    ------
    CourseError
        If anything in it is unknown, misspelt, or could print a document longer than 126 tokens.
    """

    def __init__(self, source: dict[str, dict[str, Any]]) -> None:
        from course_utils.organism.sampler import Sampler

        self.lists: dict[str, WordList] = read_lists(source.get("lists", {}))
        self.chains: dict[str, dict[str, dict[str, float]]] = source.get("chains", {})
        self.exams: dict[str, dict[str, Any]] = source.get("exams", {})
        self.topics: dict[str, Topic] = {
            name: read_topic(name, spec, self.lists, self.chains) for name, spec in source.get("topics", {}).items()
        }
        if not self.topics:
            raise CourseError("The world has no topics; add at least one under 'topics:' in a file of data/world.")
        self.sampler = Sampler(self)

    @classmethod
    def load(cls, folder: str | Path | None = None) -> World:
        """Read every YAML file of a folder (default: the course's own ``data/world``).

        Raises
        ------
        CourseError
            If the folder has no YAML file, or one of them is malformed; the message names file and place.

        Examples
        --------
        >>> world = World.load()
        >>> len(world.topics) >= 40
        True
        """
        return cls(read_yaml(Path(folder) if folder is not None else DATA / "world"))

    @property
    def vocabulary(self) -> list[str]:
        """Byte-level pieces in the order of their ids; the tokenizer is made of them."""
        return self.sampler.compiler.vocabulary

    @cached_property
    def frequency_class(self) -> list[int]:
        """For each token id its class by occurrences per million: 0 (< 10) to 4 (≥ 10,000), from 8,000 documents."""
        counts: Counter[int] = Counter()
        for _, document in zip(range(8_000), self.documents(seed=0, split="count"), strict=False):
            counts.update(document.ids)
        million = counts.total() / 1e6
        return [sum(counts[i] / million >= edge for edge in FREQUENCY_CLASSES) for i in range(len(self.vocabulary))]

    def documents(
        self,
        seed: int | str = 0,
        *,
        split: str = "train",
        labels: bool = False,
        entropy: bool = False,
        topic: str | Collection[str] | None = None,
    ) -> Iterator[Document]:
        """Write documents without end; the same arguments give the same documents.

        Parameters
        ----------
        seed
            Which stream; any integer or string.
        split
            Name of the split, mixed into the seed: splits never share a stream.
        labels, entropy
            Whether to keep the answer key and the cost; neither changes which documents come.
        topic
            Write about this topic, or these, only.

        Raises
        ------
        CourseError
            If the topic is unknown.
        """
        wanted = tuple(self.topics) if topic is None else (topic,) if isinstance(topic, str) else tuple(topic)
        for name in wanted:
            if name not in self.topics:
                raise one_of("topic", name, self.topics)
        rng = random.Random(f"{split}:{seed}")
        while True:
            yield self.sampler.document(rng, wanted, labels=labels, entropy=entropy)


def read_yaml(folder: Path) -> dict[str, dict[str, Any]]:
    """Merge the YAML files of a folder; a name may be defined only once."""
    import yaml

    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise CourseError(f"No *.yaml file in {folder.name}/; a world needs at least one.")
    merged: dict[str, dict[str, Any]] = {"lists": {}, "topics": {}, "chains": {}, "exams": {}}
    for file in files:
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise CourseError(f"{file.name} is not valid YAML: {' '.join(str(error).split())}") from error
        for section, entries in content.items():
            if section not in merged:
                raise one_of(f"{file.name}: section", section, merged)
            for name, entry in (entries or {}).items():
                if name in merged[section]:
                    raise CourseError(f"{file.name}: {section}.{name} is defined a second time; rename one of the two.")
                merged[section][name] = entry
    return merged
