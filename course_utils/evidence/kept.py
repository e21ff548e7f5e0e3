"""Results of long measurements, kept as JSON: written row by row as they come, read back, found by the weights.

A result is a frozen dataclass with the fields ``model``, ``weights`` (SHA-256) and ``plan`` beside its rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from course_utils.errors import CourseError
from course_utils.paths import DATA, checked, write_text

Result = TypeVar("Result")


def write(file: str | os.PathLike, head: Mapping[str, Any], **rows: Sequence[Any]) -> None:
    """Write ``head`` and one list of rows, a line each, whole or not at all."""
    ((name, values),) = rows.items()
    lines = ",\n  ".join(json.dumps(value) for value in values)
    write_text(Path(file), f'{json.dumps(head, indent=1)[:-2]},\n "{name}": [\n  {lines}\n ]\n}}\n')


def rounded(value: Any) -> Any:
    """Return numbers, lists and mappings with every float to five digits.

    >>> rounded({"ev": (0.12345678, 3)})
    {'ev': [0.12346, 3]}
    """
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: rounded(v) for key, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list | tuple) else value


@contextmanager
def reading(file: str | os.PathLike, what: str) -> Iterator[dict[str, Any]]:
    """Give what `write` wrote, with the plan's lists as tuples, to a block that makes objects of it.

    Raises
    ------
    CourseError
        If the file, or what the block finds in it, is no ``what``, or was cut short.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        content["plan"] = {key: tuple(v) if isinstance(v, list) else v for key, v in content["plan"].items()}
        yield content
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CourseError(f"{str(file)!r} is no {what} that can be read ({error}); make it anew.") from error


def shipped(kind: str, weights: str, load: Callable[[Path], Result]) -> Result | None:
    """Return the result ``data/results/<kind>-*.json`` for a model's very weights, or None."""
    for path in sorted((DATA / "results").glob(f"{kind}-*.json")):
        found = load(checked(f"results/{path.name}"))
        if found.weights == weights:
            return found
    return None
