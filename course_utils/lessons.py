"""What differs between models in a lesson: sizes, concepts, prompts; read from ``data/lessons.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from types import SimpleNamespace

import torch
from jaxtyping import Int
from torch import Tensor

from course_utils.errors import CourseError, one_of
from course_utils.lab import Lab
from course_utils.paths import checked

SMALL = 20_000_000  # weights up to which a model counts as small: seconds instead of minutes on a CPU


def size_of(lab: Lab) -> str:
    """Return how much a model is asked for: ``small``, or ``large`` on a CPU and ``gpu`` elsewhere."""
    return "small" if lab.n_params <= SMALL else "large" if lab.device.type == "cpu" else "gpu"


def lesson(notebook: str, lab: Lab) -> SimpleNamespace:
    """Return what a notebook needs for the opened model: its sizes, and what it looks for.

    An entry of ``data/lessons.yaml`` has ``size``, by size of model (``small``, ``large``, ``gpu``), and any other
    key by kind of text (``world`` where there is an answer key, ``words`` elsewhere).

    Parameters
    ----------
    notebook
        Its two digits, e.g. ``"04"``.
    lab
        The opened model: its size, device and kind of text decide.

    Raises
    ------
    CourseError
        If no lesson has that number.
    """
    import yaml

    lessons = yaml.safe_load(checked("lessons.yaml").read_text(encoding="utf-8"))
    if notebook not in lessons:
        raise one_of("notebook", notebook, lessons)
    kind = "world" if lab.world is not None else "words"
    chosen = {key: of[size_of(lab) if key == "size" else kind] for key, of in lessons[notebook].items()}
    return SimpleNamespace(**chosen.pop("size", {}), **chosen)


def task_prompts(
    lab: Lab, tasks: Mapping[str, Sequence[str]], n: int, n_tokens: int
) -> dict[str, list[Int[Tensor, "1 pos"]]]:
    """Return prompts of several tasks, as token ids with BOS first.

    Parameters
    ----------
    lab
        The opened model.
    tasks
        Task → topics of the organism's world, whose held-out documents are the prompts; or, where there is no
        world, ``[list]``: the name of a list in ``data/prompts/tasks.yaml``.
    n
        Prompts a task, no two of them alike; fewer if a list is shorter.
    n_tokens
        Longer texts are cut here, BOS not counted.

    Raises
    ------
    CourseError
        If a topic or list is unknown, or a topic has fewer than ``n`` different beginnings.
    """
    found = {}
    for task, names in tasks.items():
        rows: dict[tuple[int, ...], None] = {}  # in order
        for ids in _texts(lab, task, names, 50 * n):
            rows[tuple(ids[:n_tokens])] = None
            if len(rows) == n:
                break
        if lab.world is not None and len(rows) < n:
            raise CourseError(f"n={n}: {task!r} has only {len(rows)} prompts that differ in their first tokens.")
        found[task] = [torch.tensor([[lab.bos, *ids]], device=lab.device) for ids in rows]
    return found


def _texts(lab: Lab, task: str, names: Sequence[str], limit: int) -> Iterator[list[int]]:
    """Yield the token ids of a task's texts."""
    if lab.world is not None:
        stream = lab.world.documents(lab.seed, split="heldout", topic=list(names))
        return (document.ids for document in islice(stream, limit))
    import yaml

    lists = yaml.safe_load(checked("prompts/tasks.yaml").read_text(encoding="utf-8"))
    if unknown := [name for name in names if name not in lists]:
        raise one_of(f"tasks[{task!r}]", unknown[0], lists)
    encode = partial(lab.tokenizer.encode, add_special_tokens=False)
    return (encode(text) for name in names for text in lists[name])
