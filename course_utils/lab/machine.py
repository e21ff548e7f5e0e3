"""What this machine offers: the device to run on, the precision that it does fast, and how much it holds at once."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from course_utils.errors import CourseError, one_of

T = TypeVar("T")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BIG = 1_000_000_000  # weights; from here on float32 needs more memory than a small machine has


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep transformers' bars and warnings out of a notebook while a model is opened."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def pick_device(device: str) -> torch.device:
    """Return the device to use; ``"auto"`` is cuda, else mps, else cpu."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    if not there.get(device.partition(":")[0], False):
        raise one_of("device", device, ["auto", *(name for name, available in there.items() if available)])
    return torch.device(device)


def pick_dtype(dtype: str, device: torch.device, weights: int) -> torch.dtype:
    """Return the precision to use; ``"auto"`` is float32 but for big models where half measures faster."""
    if dtype != "auto":
        if dtype not in DTYPES:
            raise one_of("dtype", dtype, ["auto", *DTYPES])
        return DTYPES[dtype]
    if weights < BIG:
        return torch.float32
    # float16 on a CPU overflows in the residual stream of large models, and old GPUs only imitate bfloat16.
    native = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
    half = torch.bfloat16 if native else torch.float16
    return half if _seconds(half, device) < 0.7 * _seconds(torch.float32, device) else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Say whether this is a CPU that multiplies bfloat16 natively, several times as fast as float32.

    Asked of the processor, not measured: what is computed must not depend on how busy the machine was.
    """
    known = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.10 cannot say
    return device.type == "cpu" and bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def _seconds(dtype: torch.dtype, device: torch.device) -> float:
    """Time ten products of a model's size."""
    x = torch.ones(512, 1024, device=device, dtype=dtype)
    w = torch.ones(1024, 1024, device=device, dtype=dtype)
    for repeat in range(12):
        if repeat == 2:  # the first ones pay for start-up
            float((x @ w)[0, 0])  # waits for the device
            start = time.perf_counter()
        x = (x @ w) * 2**-10
    float(x[0, 0])
    return time.perf_counter() - start


class Portions:
    """How much is computed at once: all of it, and half of that whenever an accelerator's memory runs out.

    What was once too much is not tried again.

    Examples
    --------
    >>> portions = Portions()
    >>> def attempt(n):
    ...     if n > 3:
    ...         raise torch.OutOfMemoryError("out of memory")
    ...     return f"{n} at a time"
    >>> portions(attempt, 16), portions.most
    ('2 at a time', 2)
    """

    def __init__(self) -> None:
        self.most: int | None = None

    def __call__(self, attempt: Callable[[int], T], size: int) -> T:
        """Return what ``attempt(n)`` returns, for the first n among ``size``, a half of it, a quarter … that succeeds.

        Parameters
        ----------
        attempt
            Does all the work, at most ``n`` at a time; it is begun anew after a failure.
        size
            How much there is.

        Raises
        ------
        CourseError
            If memory does not even suffice for one.
        """
        n = min(size, self.most or size)
        while True:
            try:
                return attempt(n)
            except RuntimeError as error:  # torch.OutOfMemoryError is one; mps raises a plain one
                if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error):
                    raise
                if n <= 1:
                    raise CourseError("the device's memory does not suffice, however little is computed at once; take "
                                      "a smaller model, or device='cpu'.") from error
            # Behind the except block: within it the traceback holds on to what filled the memory.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            n = self.most = n // 2
