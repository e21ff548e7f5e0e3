"""Interchange: give one prompt what another says about an attribute, and see whether the answer follows.

1. A *space* says where in an activation the attribute is thought to be: all of it, some coordinates (neurons), a
   subspace (a probe, a difference of means), or some latents of an SAE.
2. At one place of the *base* prompt that part is set to what it is at a place of the *source* prompt.
3. **Cause**: asked for the attribute, the model now gives the source's answer. **Isolate**: asked for another
   attribute, it still gives the base's. A whole activation is good at the first and bad at the second.
4. The upper bound for subspaces is one that was trained to do this: distributed alignment search (``das``).

Source: Huang et al. 2024, RAVEL, arXiv 2402.17700.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad
from tqdm.auto import tqdm

from course_utils.errors import CourseError
from course_utils.interventions.spaces import Space
from course_utils.lab import Lab
from course_utils.lab.questions import at


@contextlib.contextmanager
def swap(lab: Lab, hook: str, source: Tensor, places: Tensor, space: Space) -> Iterator[None]:
    """Set the part of an activation that a space names to what it is in a source.

    Parameters
    ----------
    lab
        The opened model; inside the block it is run on ``n`` rows.
    hook
        Where, e.g. ``"blocks.1.hook_resid_post"``.
    source
        The source's activations, heads side by side: ``[n d]``, a vector for each row, or ``[n p d]``, several.
    places
        The positions of the base that they are put at, ``[n]`` or ``[n p]``, counted from BOS.
    space
        `Whole`, `Coordinates`, `Subspace` or `Latents`, or anything with such a ``swap``.

    Raises
    ------
    CourseError
        If the hook is unknown, there is not one place for each vector, or what is run has not these rows.
    """
    if source.shape[:-1] != places.shape or not places.numel():
        raise CourseError(f"source holds vectors {list(source.shape[:-1])} and places {list(places.shape)}; give one "
                          "place for each vector.")
    if not source.isfinite().all() or int(places.min()) < 0:
        raise CourseError("source must be finite, and places must be 0 (BOS) or more.")
    with lab.hooked((lab.check_hook(hook), _swapping(lab, hook, source, places, space))):
        yield


def _swapping(lab: Lab, hook: str, source: Tensor, places: Tensor, space: Space) -> Callable[[Tensor], Tensor]:
    source, places = (part.reshape(len(part), -1, *part.shape[places.ndim :]) for part in (source, places))  # [n p d]

    def replace(activation: Tensor) -> Tensor:
        x = activation.flatten(2)
        n, pos, width = x.shape
        if n != len(places) or width != source.shape[-1]:
            raise CourseError(f"source has {len(places)} rows of width {source.shape[-1]}; the activations at {hook!r} "
                              f"have {n} rows of width {width}.")
        columns = places.to(x.device) - (lab.past or 0)
        here = (columns >= 0) & (columns < pos)
        if lab.past is None and not here.all():  # behind a cache a place is reached in one run and not in the others
            raise CourseError(f"places reach up to {int(places.max())}; the rows have {pos} positions.")
        rows, which = here.nonzero(as_tuple=True)
        columns = columns[rows, which]
        new = x.clone()
        new[rows, columns] = space.swap(x[rows, columns], source.to(x.device, x.dtype)[rows, which]).to(x)
        return new.reshape(activation.shape)

    return replace


class Pairs(NamedTuple):
    """Questions about one attribute, each with a source of another entity; rows padded behind."""

    base: Int[Tensor, "n pos"]
    """The question about the base."""
    base_place: Int[Tensor, " n"]
    """Where it is changed, e.g. the entity's last token."""
    base_end: Int[Tensor, " n"]
    """Its last token, behind which the answer stands."""
    source: Int[Tensor, "n pos_source"]
    source_place: Int[Tensor, " n"]
    """Where what is put in comes from."""
    want: Int[Tensor, " n"]
    """First token of the source's answer to this question."""
    stay: Int[Tensor, " n"]
    """First token of the base's own answer."""

    @classmethod
    def joined(cls, parts: Sequence[Pairs], fill: int) -> Pairs:
        """Lay several below each other; ``fill`` pads the shorter rows behind, e.g. ``lab.bos``."""
        columns = dict(zip(cls._fields, zip(*parts, strict=True), strict=True))
        for name in ("base", "source"):
            width = max(part.shape[1] for part in columns[name])
            columns[name] = [pad(part, (0, width - part.shape[1]), value=fill) for part in columns[name]]
        return cls(**{name: torch.cat(tuple(column)) for name, column in columns.items()})

    def take(self, rows: Any) -> Pairs:
        """Pick some pairs, and cut off the padding that they do not need."""
        part = Pairs(*(field[rows] for field in self))
        base, source = int(part.base_end.max()) + 1, int(part.source_place.max()) + 1
        return part._replace(base=part.base[:, :base], source=part.source[:, :source])

    def batches(self, rows: int) -> Iterator[Pairs]:
        """Yield the pairs in their order, ``rows`` at once."""
        for start in range(0, len(self.base), rows):
            yield self.take(slice(start, start + rows))

    def sources(self, lab: Lab, hook: str) -> Float[Tensor, "n d"]:
        """Return what stands at the sources' places, heads side by side, on the CPU."""
        return at(lab.capture(self.source, hook).flatten(2), self.source_place)

    def check(self, lab: Lab, argument: str) -> None:
        """Raise a `CourseError` unless lengths, places and answers fit each other and the model."""
        if len({len(field) for field in self}) > 1 or not len(self.base):
            raise CourseError(f"{argument} has fields of lengths {[len(field) for field in self]}; all must have one "
                              "entry for each pair, and there must be a pair.")
        for name, low, value, high in (
            ("base_place", 0, self.base_place, self.base_end), ("base_end", 0, self.base_end, self.base.shape[1] - 1),
            ("source_place", 0, self.source_place, self.source.shape[1] - 1), ("base", 0, self.base, lab.d_vocab - 1),
            ("want", 0, self.want, lab.d_vocab - 1), ("stay", 0, self.stay, lab.d_vocab - 1),
        ):
            if not ((value >= low) & (value <= high)).all():
                limit = "base_end" if isinstance(high, Tensor) else high
                raise CourseError(f"{argument}.{name} must lie in {low} to {limit}; one of them does not.")


class Interchange(NamedTuple):
    """What an interchange did, pair by pair."""

    cause: Bool[np.ndarray, " n"]
    """Asked for the attribute, the model's most probable token begins the source's answer."""
    isolate: Bool[np.ndarray, " m"]
    """Asked for another, it still begins the base's answer; empty if nothing else was asked."""

    @property
    def disentangle(self) -> float:
        """The mean of both rates: RAVEL's score; NaN if nothing else was asked."""
        return float((self.cause.mean() + self.isolate.mean()) / 2) if len(self.isolate) else float("nan")


def tasks_of(lab: Lab, **given: Pairs | None) -> list[Pairs]:
    """Check questions about the attribute, and those about others, where the wanted answer is the base's own."""
    for argument, part in given.items():
        if part is not None:
            part.check(lab, argument)
    pairs, others = given.values()
    return [pairs] if others is None else [pairs, others._replace(want=others.stay)]


def interchange_scores(lab: Lab, hook: str, space: Space, pairs: Pairs, others: Pairs | None = None,
                       rows: int = 64) -> Interchange:
    """Swap a space between base and source in every pair, and compare the answers.

    Parameters
    ----------
    lab, hook, space
        As in `swap`.
    pairs
        Questions about the attribute that the space is said to hold; the wanted answer is ``want``.
    others
        Questions about other attributes; the wanted answer is ``stay``.
    rows
        How many at once.

    Returns
    -------
    Interchange
        Whether each answer was the wanted one. Take pairs that the model answers, and whose answers differ.

    Raises
    ------
    CourseError
        If the pairs do not fit the model, or the space not the hook.
    """
    tasks, right = tasks_of(lab, pairs=pairs, others=others), ([], [])
    total = sum(len(task.base) for task in tasks)
    with tqdm(total=total, desc="interchange", unit="pair", delay=2, leave=False) as bar:
        for task, found in zip(tasks, right, strict=False):
            for part in task.batches(rows):
                with swap(lab, hook, part.sources(lab, hook), part.base_place, space):
                    said = at(lab.logits(part.base), part.base_end).argmax(-1)
                found.extend((said == part.want.cpu()).tolist())
                bar.update(len(said))
    return Interchange(*(np.array(found, dtype=bool) for found in right))
