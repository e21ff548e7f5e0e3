"""Values between two processes that need not trust each other: JSON for the shape of a value, safetensors for arrays.

Reading runs no code that the other side wrote, except for functions, which are read only where `functions` is allowed:
in the cage, from the grader.
"""

from __future__ import annotations

import inspect
import json
from types import FunctionType
from typing import Any

import numpy as np
import safetensors.torch
import torch

from course_utils.errors import CourseError

_HEAD = 8  # bytes that say how long the JSON is


def encode(value: Any) -> bytes:
    """Return a value as bytes; of what is no number, string, array or container of them, only the type's name."""
    arrays: dict[str, torch.Tensor] = {}
    tree = json.dumps(_node(value, arrays)).encode()
    return len(tree).to_bytes(_HEAD, "little") + tree + safetensors.torch.save(arrays)


def decode(data: bytes, functions: bool = False) -> Any:
    """Return the value that `encode` was given.

    Parameters
    ----------
    data
        From `encode`, or anything.
    functions
        Make functions of their source, which runs it. Else they are told by their type only.

    Raises
    ------
    CourseError
        If these are no such bytes.
    """
    try:
        end = _HEAD + int.from_bytes(data[:_HEAD], "little")
        arrays = safetensors.torch.load(data[end:])
        return _value(json.loads(data[_HEAD:end]), arrays, functions)
    except (Exception, RecursionError) as error:
        raise CourseError(f"what came back cannot be read ({type(error).__name__}).") from None


def _node(value: Any, arrays: dict[str, torch.Tensor]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return _array(value, arrays)
    if isinstance(value, tuple | list):
        fields = getattr(value, "_fields", None)
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_node(item, arrays) for item in value], "fields": fields and list(fields)}
    if isinstance(value, dict):
        return {"dict": [[_node(key, arrays), _node(item, arrays)] for key, item in value.items()]}
    if type(value) is complex:
        return {"complex": [value.real, value.imag]}
    return {"other": type(value).__name__, "source": _source(value)}


def _source(value: Any) -> str | None:
    from course_utils.exercises.source import text_of

    try:
        plain = inspect.unwrap(value) if isinstance(value, FunctionType) else None
        return text_of(plain) if plain is not None and not plain.__closure__ else None
    except (OSError, TypeError, SyntaxError):  # written where no file keeps it
        return None


def _array(value: Any, arrays: dict[str, torch.Tensor]) -> dict:
    try:
        if isinstance(value, torch.Tensor):
            dense = value.detach().cpu().to_dense() if value.layout != torch.strided else value.detach().cpu()
            plain = dense.resolve_conj().resolve_neg().contiguous().clone()
        else:
            plain = torch.from_numpy(np.array(value, order="C"))
        safetensors.torch.save({"it": plain})
    except Exception:  # no memory (meta), or a dtype that only numpy has
        return {"other": type(value).__name__, "source": None}
    name = str(len(arrays))
    arrays[name] = plain
    return {"array": name, "kind": "tensor" if isinstance(value, torch.Tensor) else
            "scalar" if isinstance(value, np.generic) else "numpy"}


def _value(node: Any, arrays: dict[str, torch.Tensor], functions: bool) -> Any:
    if not isinstance(node, dict):
        return node
    if "array" in node:
        plain = arrays[node["array"]]
        return plain if node["kind"] == "tensor" else plain.numpy() if node["kind"] == "numpy" else plain.numpy()[()]
    if "dict" in node:
        return {_value(key, arrays, functions): _value(item, arrays, functions) for key, item in node["dict"]}
    if "complex" in node:
        return complex(*node["complex"])
    for kind in ("tuple", "list"):
        if kind in node:
            items = [_value(item, arrays, functions) for item in node[kind]]
            return items if kind == "list" else _tuple(items, node["fields"])
    if functions and node["source"]:
        space: dict[str, Any] = {"torch": torch, "np": np}
        exec(node["source"], space)
        return list(space.values())[-1]
    return _class(node["other"], object)()


def _tuple(items: list, fields: list[str] | None) -> tuple:
    if fields is None:
        return tuple(items)
    return type("Named", (tuple,), {"_fields": tuple(map(str, fields))})(items)  # namedtuple() would run their names


def _class(name: str, base: type) -> type:
    return type("".join(c for c in str(name)[:60] if c.isidentifier()) or "object", (base,), {"__module__": "builtins"})


def error_of(name: str, args: list, text: str) -> BaseException:
    """Return an error that says what one on the other side said, of the same class if it is one of Python's own."""
    import builtins

    known = getattr(builtins, name, None)
    # KeyboardInterrupt would stop the grader.
    if isinstance(known, type) and (issubclass(known, Exception) or known is SystemExit):
        try:
            made = known(*args)
            if str(made) == text:
                return made
        except Exception:  # it wants other arguments
            pass
    return _class(name, Exception)(text)
