"""Steer: push the model along a direction, or bring what it holds of the direction to a value."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from course_utils.dictionaries.reading import encode
from course_utils.errors import CourseError
from course_utils.lab import Lab

Reader = Callable[[Float[Tensor, "batch pos d"]], Float[Tensor, "batch pos"]]


def reads(sae: Any, latent: int) -> Reader:
    """Return the function that reads one latent of an SAE, for ``steer(..., clamp=...)``.

    Raises
    ------
    CourseError
        If there is no such latent.
    """
    if not 0 <= latent < sae.cfg.d_sae:
        raise CourseError(f"latent={latent} must lie in 0 to {sae.cfg.d_sae - 1}.")

    def read(x: Tensor) -> Tensor:
        return encode(sae, x.to(sae.W_dec.device, sae.W_dec.dtype))[..., latent]

    return read


@contextlib.contextmanager
def steer(
    lab: Lab, hook: str | Sequence[str], direction: Tensor | Sequence[Tensor],
    scale: float | int | Float[Tensor, " batch"], positions: Sequence[int] | slice | None = None,
    clamp: Reader | None = None,
) -> Iterator[None]:
    """Add ``scale * direction`` to an activation (activation addition), or clamp it.

    Parameters
    ----------
    lab
        The opened model.
    hook
        Where to add, e.g. ``"blocks.1.hook_resid_post"``; several names steer at each of them.
    direction
        What to add, ``[d]``, as long as the activation is wide (heads side by side): a latent's decoder row, a
        difference of means, a probe, any other; it is not normalised. ``[batch d]`` gives every row of the batch a
        direction of its own, so that one run tries many. With several hooks, one for all or one for each.
    scale
        How much of it, in the activation's own units; one number, or one for each row. 0 changes nothing at all, not
        even a bit.
    positions
        Which positions of each row, counted from BOS; None: all but BOS.
    clamp
        A function that says how much of the direction is there (``reads(sae, latent)``): what is there is then
        *brought to* ``scale``, and not added to. Then 0 turns the latent off.

    Raises
    ------
    CourseError
        If a hook is unknown, or a direction or scale is not finite or does not fit the activation.

    References
    ----------
    Adding: Turner et al. 2023, activation addition, arXiv 2308.10248. Clamping a latent to a multiple of its maximum:
    Templeton et al. 2024, Scaling Monosemanticity.
    """
    hooks = [hook] if isinstance(hook, str) else list(hook)
    directions = one_each("direction", direction, len(hooks), Tensor)
    scales = torch.as_tensor(scale, dtype=torch.float32)
    for each in hooks:
        lab.check_hook(each)
    if not all(torch.isfinite(part).all() for part in (*directions, scales)):
        raise CourseError("direction and scale must be finite; one of them holds NaN or infinity.")

    def pushing(name: str, vector: Tensor) -> Callable[[Tensor], Tensor]:
        def push(activation: Tensor) -> Tensor:
            where = columns(positions, lab.past, activation.shape[1])
            return _pushed(name, activation, vector, scales, where, clamp)

        return push

    still = clamp is None and not scales.any()
    pairs = zip(hooks, directions, strict=True)
    with lab.hooked(*([] if still else [(name, pushing(name, vector)) for name, vector in pairs])):
        yield


def one_each(argument: str, given: object, n: int, kind: type) -> list:
    """Repeat what is given for ``n`` hooks, unless there is one for each."""
    each = [given] * n if isinstance(given, kind) else list(given)
    if len(each) != n:
        raise CourseError(f"{argument} holds {len(each)} for {n} hooks; give one, or one for each.")
    return each


def _pushed(name: str, activation: Tensor, vector: Tensor, scale: Tensor, where: list[int],
            clamp: Reader | None) -> Tensor:
    x = activation.flatten(2)
    batch, _, width = x.shape
    if vector.shape not in ((width,), (batch, width)):
        raise CourseError(f"direction has shape {list(vector.shape)}; activations at {name!r} have width {width}, so "
                          f"it must be [{width}], or [{batch}, {width}] for the {batch} rows of this run.")
    if scale.ndim > 1 or scale.numel() not in (1, batch):
        raise CourseError(f"scale holds {scale.numel()} numbers; give one, or one for each of the {batch} rows.")
    amount = scale.to(x).reshape(-1, 1)
    if clamp is not None:
        amount = amount - clamp(x[:, where]).to(x)
    steered = x.clone()
    # In this order: amount is [batch 1] or [batch columns], vector [1 d] or [batch d].
    steered[:, where] += amount[..., None] * vector.to(x).reshape(-1, 1, width)
    return steered.reshape(activation.shape)


def columns(positions: Sequence[int] | slice | None, past: int | None, n: int) -> list[int]:
    """Find where the wanted positions stand in a run of ``n``; behind a cache it begins at position ``past``."""
    whole = range((past or 0) + n)
    if positions is None or isinstance(positions, slice):
        wanted = whole[slice(1, None) if positions is None else positions]
    else:
        # Written with a cache, a text reaches a position in one of its runs and not in the others.
        reached = positions if past is None else [p for p in positions if p < len(whole)]
        try:
            wanted = [whole[p] for p in reached]
        except IndexError as error:
            raise CourseError(f"positions={positions} must lie within {n}.") from error
    return [p - (past or 0) for p in wanted if p >= (past or 0)]
