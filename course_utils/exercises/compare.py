"""Is an answer what was expected, and if not, how is it different? One sentence, for any value an exercise returns."""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch

_SMALL = 12  # values up to which an array is written out
_FEW = 6  # items of a container that are shown
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def difference(got: Any, want: Any, rtol: float | int = 0.0, atol: float | int = 0.0, at: str = "answer") -> str | None:
    """Compare what was given with what was expected.

    Tensors, arrays, numbers, strings, None, and tuples, lists and dicts of them are compared by type, shape, dtype,
    device and value; other objects by ``==`` if their class defines it, else only by type.

    Parameters
    ----------
    got, want
        Given and expected.
    rtol, atol
        Tolerances for floating point; whole numbers and booleans must be equal.
    at
        What `got` is called in the sentence.

    Returns
    -------
    str or None
        None if they agree.

    Examples
    --------
    >>> difference([1.0, 2.0], [1.0, 2.5])
    'answer[1]: expected 2.5, given 2'
    """
    rtol, atol = float(rtol), float(atol)
    if isinstance(want, torch.Tensor | np.ndarray):
        return _array_difference(got, want, rtol, atol, at)
    if isinstance(want, numbers.Number | np.generic):
        return _number_difference(got, want, rtol, atol, at)
    if isinstance(want, dict | tuple | list):
        return _container_difference(got, want, rtol, atol, at)
    if type(got) is not type(want):
        return _another_kind(got, want, at)
    plain = type(want).__eq__ is object.__eq__
    return None if plain or got is want or got == want else f"{at}: expected {brief(want)}, given {brief(got)}"


def _another_kind(got: Any, want: Any, at: str) -> str:
    missing = ": is a 'return' missing?" if got is None else ""
    return f"{at} is {kind(got)}, expected {kind(want)}{missing}"


def _container_difference(got: Any, want: Any, rtol: float, atol: float, at: str) -> str | None:
    if isinstance(want, dict):
        alike = isinstance(got, Mapping)
    else:  # a named tuple is used by its fields, so a plain one does not do
        alike = isinstance(got, tuple | list) and getattr(got, "_fields", None) == getattr(want, "_fields", None)
    if not alike:
        return _another_kind(got, want, at)
    keys = list(want) if isinstance(want, dict) else range(len(want))
    given = list(got) if isinstance(want, dict) else range(len(got))
    if set(keys) != set(given):
        if not isinstance(want, dict):
            return f"{at} has {len(got)} items, expected {len(want)}"
        return f"{at} has the keys {brief(sorted(given, key=str))}, expected {brief(sorted(keys, key=str))}"
    found = (difference(got[key], want[key], rtol, atol, f"{at}[{key!r}]") for key in keys)
    return next((sentence for sentence in found if sentence), None)


def _number_difference(got: Any, want: Any, rtol: float, atol: float, at: str) -> str | None:
    if isinstance(got, torch.Tensor | np.ndarray) and got.ndim == 0:  # as good as a number
        got = _numpy(got)[()]
    if not isinstance(got, numbers.Number | np.generic):
        return _another_kind(got, want, at)
    boolean, whole = isinstance(want, bool | np.bool_), isinstance(want, numbers.Integral)
    if boolean != isinstance(got, bool | np.bool_) or whole and not isinstance(got, numbers.Integral | np.bool_):
        return f"{at} is {kind(got)} ({got}), expected {kind(want)}"
    return _value_difference(np.asarray(got), np.asarray(want), rtol, atol, at)


def _array_difference(got: Any, want: Any, rtol: float, atol: float, at: str) -> str | None:
    if want.ndim == 0 and isinstance(got, numbers.Number | np.generic):  # as good as a tensor without axes
        return _number_difference(got, _numpy(want)[()], rtol, atol, at)
    if not isinstance(got, torch.Tensor if isinstance(want, torch.Tensor) else np.ndarray):
        return _another_kind(got, want, at)
    if got.shape != want.shape:
        return f"{at} has shape {_shape(got)}, expected {_shape(want)}{_guess_shape(got, want, rtol, atol)}"
    if (device := getattr(want, "device", None)) != getattr(got, "device", None):
        return f"{at} is on the device {got.device}, expected {device}"
    values = _value_difference(_numpy(got), _numpy(want), rtol, atol, at)
    if got.dtype != want.dtype:
        right = "" if values else " (the values are right)"
        return f"{at} has dtype {_dtype(got)}, expected {_dtype(want)}{right}"
    return values


def _guess_shape(got: Any, want: Any, rtol: float, atol: float) -> str:
    if got.ndim == want.ndim == 2 and got.shape[::-1] == want.shape:
        same = not _value_difference(_numpy(got).T, _numpy(want), max(rtol, 1e-5), atol, "")
        return ": it is the transpose" if same else ": the axes are swapped"
    if [n for n in got.shape if n != 1] == [n for n in want.shape if n != 1]:
        return ": an axis of size 1 is " + ("missing (keepdim, unsqueeze)" if got.ndim < want.ndim else "left over")
    return ""


def _value_difference(got: np.ndarray, want: np.ndarray, rtol: float, atol: float, at: str) -> str | None:
    exact = want.dtype.kind not in "fc"
    with np.errstate(invalid="ignore"):
        bad = got != want if exact else ~np.isclose(got, want, rtol, atol, equal_nan=True)
    if not bad.any():
        return None
    if exact and want.dtype.kind not in "biu":
        return f"{at}: expected {brief(want)}, given {brief(got)}"
    number = complex if "c" in got.dtype.kind + want.dtype.kind else float
    g, w = got.astype(number), want.astype(number)
    lost = np.argwhere(np.isnan(g) & ~np.isnan(w))
    if len(lost):
        first = f", the first at {_index(lost[0])}" if g.ndim else ""
        return f"{at} holds {len(lost)} NaN among {g.size} values{first}"
    gap = np.where(bad, np.nan_to_num(np.abs(g - w), nan=np.inf, posinf=np.inf), -1)
    worst = np.unravel_index(gap.argmax(), gap.shape)
    pair = f"expected {_number(want[worst])}, given {_number(got[worst])}"
    if gap.size == 1:
        return f"{at}: {pair}{_pattern(g, w)}"
    return (f"{bad.sum()} of {bad.size} values of {at} differ, most at {_index(worst)}: {pair} "
            f"(difference {gap[worst]:.3g}){_pattern(g, w)}")


def _pattern(got: np.ndarray, want: np.ndarray) -> str:
    """Say so if all values are wrong in one and the same way."""
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        return ""
    if got.ndim == 2 and got.shape == want.T.shape and np.allclose(got.T, want, 1e-3, 1e-6):
        return "; it is the transpose"
    clear = np.abs(want) > 1e-6
    if got.size > 1 and clear.any():
        factor = (got[clear] / want[clear]).flat[0]
        if np.abs(factor) > 1e-6 and np.allclose(got, factor * want, 1e-3, 1e-6):
            turned = np.isclose(factor, -1)
            return "; the sign is wrong" if turned else f"; all are {_number(factor)} times what is expected"
    if got.size > 1 and np.allclose(got - want, (got - want).flat[0], 1e-3, 1e-6):
        return f"; all are off by {_number((got - want).flat[0])}"
    return "; the sign is wrong" if got.size == 1 and np.allclose(got, -want, 1e-4) else ""


def _numpy(x: Any) -> np.ndarray:
    if not isinstance(x, torch.Tensor):
        return np.asarray(x)
    x = x.detach().cpu().to_dense() if x.layout != torch.strided else x.detach().cpu()
    return (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).resolve_conj().resolve_neg().numpy()


def _index(position: Any) -> str:
    return "[" + ", ".join(str(int(i)) for i in position) + "]"


def _number(x: Any) -> str:
    return f"{x:.4g}" if np.asarray(x).dtype.kind in "fc" else str(x)


def _shape(x: Any) -> str:
    return "[" + " ".join(map(str, x.shape)) + "]"


def _dtype(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")


def kind(x: Any) -> str:
    """Name the type of a value in words: ``"a tensor"``, ``"a number (float)"``."""
    if x is None:
        return "None"
    if isinstance(x, torch.Tensor | np.ndarray):
        return "a tensor" if isinstance(x, torch.Tensor) else "a numpy array"
    name = type(x).__name__
    if isinstance(x, numbers.Number | np.generic) and not isinstance(x, bool | np.bool_ | np.str_):
        return f"a number ({name})"
    words = {"str": "a string", "bool": "True or False", "bool_": "True or False", "dict": "a dict"}
    return words.get(name, f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}")


def brief(x: Any) -> str:
    """Show a value in one short line: small ones in full, large ones by shape and dtype.

    Examples
    --------
    >>> brief(np.array([[1.0, 0.5]]))
    'array [1 2] float64 [[1, 0.5]]'
    >>> brief(np.zeros((20, 5)))
    'array [20 5] float64'
    """
    if isinstance(x, torch.Tensor | np.ndarray):
        text = f"{'tensor' if isinstance(x, torch.Tensor) else 'array'} {_shape(x)} {_dtype(x)}"
        if not 0 < math.prod(x.shape) <= _SMALL or getattr(x, "is_meta", False):
            return text
        shown = np.array2string(_numpy(x), separator=", ", formatter={"float_kind": "{:.4g}".format})
        return " ".join([text, *shown.split()])
    if isinstance(x, tuple | list | dict):
        items = x.items() if isinstance(x, dict) else enumerate(x)
        parts = [f"{key!r}: {brief(v)}" if isinstance(x, dict) else brief(v) for key, v in islice(items, _FEW)]
        inner = ", ".join(parts + [f"… {len(x)} in all"] * (len(x) > _FEW))
        if not isinstance(x, tuple):
            return f"{{{inner}}}" if isinstance(x, dict) else f"[{inner}]"
        return f"{type(x).__name__ if hasattr(x, '_fields') else ''}({inner})"
    if callable(x):
        return f"the function {getattr(x, '__name__', type(x).__name__)}"
    return _number(x) if isinstance(x, float | np.floating) else _SHORT.repr(x)

