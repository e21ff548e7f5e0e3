"""Erase: take out of an activation what a linear reader could say of a concept, and nothing more.

With activations x of mean μ and covariance Σ, and a concept z (one column or several) whose covariance with x is C:

1. Whiten: W = Σ^(-1/2), its pseudo-inverse where x does not vary in every direction.
2. P projects on the columns of W C: what the concept moves, in coordinates in which all directions vary alike.
3. x → x − W⁺ P W (x − μ). Then x and z do not covary, so that no linear classifier does better than a constant, and no
   other affine map that achieves this changes x less on average (LEACE).

Plain projection is the same with W = 1: it takes out directions that were chosen, at right angles.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from course_utils.errors import CourseError
from course_utils.interventions.steering import columns, one_each
from course_utils.lab import Lab

_CHUNK = 8192  # rows in double precision at once
_RELATED = 1e-8  # a canonical correlation below this is rounding
_APART = 1e-6  # directions, scaled to length 1, that add less than this to the others' span add nothing


class Eraser(NamedTuple):
    """An affine map that takes something out of activations: x → x − project (x − mean)."""

    project: Float[Tensor, "d d"]
    """What is taken away; a projection, at right angles only where it says so."""
    mean: Float[Tensor, " d"]
    """Where nothing is taken away."""
    rank: int
    """Dimensions that are lost; 0 where there is nothing to erase."""

    def __call__(self, x: Float[Tensor, "*n d"], strength: float | int = 1.0) -> Float[Tensor, "*n d"]:
        """Erase; ``strength`` takes only a part away, or with 2 turns it around."""
        if not self.rank or not strength:
            return x
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        project, mean = (part.to(wide.dtype).to(x.device) for part in (self.project, self.mean))
        return (wide - strength * ((wide - mean) @ project.T)).to(x.dtype)


def leace(x: Float[Tensor, "n d"], z: Tensor) -> Eraser:
    """Find the eraser that hides a concept from every linear reader and changes activations least.

    Parameters
    ----------
    x
        Activations, BOS left out: its size would decide the covariance.
    z
        The concept at each of them, ``[n c]``, of any type: one column, or several (one-hot classes, or many concepts).

    Returns
    -------
    Eraser
        In double precision. Its rank is at most the number of columns; 0 if they do not covary with ``x`` at all.

    Raises
    ------
    CourseError
        If ``x`` and ``z`` differ in length, are too few, or hold NaN.

    References
    ----------
    Belrose et al. 2023, LEACE: Perfect linear concept erasure in closed form, arXiv 2306.03819, Theorem 4.3.

    Examples
    --------
    >>> x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0], [2.0, 4.0]])
    >>> leace(x, torch.tensor([[False], [True], [False], [True]]))(x)[:, 0]
    tensor([1., 1., 1., 1.])
    """
    n, d = x.shape
    if z.ndim != 2 or len(z) != n or n < 2:
        raise CourseError(f"x has shape {[n, d]} and z {list(z.shape)}; give a row [c] of z for each row of x, and two "
                          "rows or more.")
    mean, sigma, cross = _moments(x.detach().cpu(), z.detach().cpu())
    if not all(part.isfinite().all() for part in (sigma, cross)):
        raise CourseError("x and z must be finite; one of them holds NaN or infinity.")
    size, basis = torch.linalg.eigh(sigma)
    # A direction in which x varies by less than its own rounding, or eigh's, does not vary.
    rounding = torch.finfo(x.dtype).eps ** 2 * float((sigma.diagonal() + mean**2).max())
    varies = size > max(rounding, d * torch.finfo(torch.float64).eps * float(size[-1]))
    deviation, basis = size[varies].sqrt(), basis[:, varies]
    left, correlation, _ = torch.linalg.svd(basis.T @ cross / deviation[:, None], full_matrices=False)
    left = left[:, correlation > _RELATED]
    return Eraser((basis * deviation) @ left @ left.T @ (basis / deviation).T, mean, left.shape[1])


def _moments(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return x's mean and covariance, and its covariance with z in units of z's deviation, in double precision."""
    pairs = list(zip(x.split(_CHUNK), z.split(_CHUNK), strict=True))
    mean, centre = (sum(pair[i].double().sum(0) for pair in pairs) / len(x) for i in (0, 1))
    sigma, cross = torch.zeros(len(mean), len(mean)).double(), torch.zeros(len(mean), len(centre)).double()
    square = torch.zeros_like(centre)
    for a, b in pairs:
        a, b = a.double() - mean, b.double() - centre
        sigma += a.T @ a
        cross += a.T @ b
        square += (b * b).sum(0)
    deviation = (square / len(x)).sqrt()
    return mean, sigma / len(x), cross / len(x) / torch.where(deviation > 0, deviation, 1)


def spanned(directions: Float[Tensor, "k d"] | Float[Tensor, " d"]) -> Float[Tensor, "d rank"]:
    """Return an orthonormal basis of what directions span, in double precision.

    Whatever their lengths, and without the directions that are zero or follow from others: a plain QR decomposition
    would put an arbitrary column in the place of such a one.

    Raises
    ------
    CourseError
        If a direction is not finite.
    """
    rows = directions.detach().cpu().double().reshape(-1, directions.shape[-1])
    if not rows.isfinite().all():
        raise CourseError("directions must be finite; one of them holds NaN or infinity.")
    length = rows.norm(dim=1, keepdim=True)
    left, size, _ = torch.linalg.svd((rows / torch.where(length > 0, length, 1)).T, full_matrices=False)
    return left[:, size > _APART]


@contextlib.contextmanager
def erase(
    lab: Lab, hook: str | Sequence[str], eraser: Eraser | Sequence[Eraser],
    positions: Sequence[int] | slice | None = None, strength: float | int = 1.0,
) -> Iterator[None]:
    """Apply an eraser to activations while the model runs.

    Parameters
    ----------
    lab
        The opened model.
    hook
        Where, e.g. ``"blocks.1.hook_resid_post"``; several names erase at each of them: what one layer lost, a later
        one may write again.
    eraser
        From `leace`, of activations at this hook (heads side by side). With several hooks, one for all or one for each.
    positions
        Which positions of each row, counted from BOS; None: all but BOS.
    strength
        How much of it is taken away. 0, or an eraser of rank 0, changes nothing at all, not even a bit.

    Raises
    ------
    CourseError
        If a hook is unknown, or an eraser is not finite or not as wide as the activation.
    """
    hooks = [lab.check_hook(name) for name in ([hook] if isinstance(hook, str) else hook)]
    erasers = one_each("eraser", eraser, len(hooks), Eraser)
    if not all(part.isfinite().all() for each in erasers for part in (each.project, each.mean, torch.tensor(strength))):
        raise CourseError("eraser and strength must be finite; one of them holds NaN or infinity.")

    def erasing(name: str, each: Eraser) -> Callable[[Tensor], Tensor]:
        def replace(activation: Tensor) -> Tensor:
            x = activation.flatten(2)
            if each.mean.shape != x.shape[-1:] or each.project.shape != 2 * x.shape[-1:]:
                raise CourseError(f"eraser is made for width {each.mean.shape[-1]}; activations at {name!r} have width "
                                  f"{x.shape[-1]}.")
            where = columns(positions, lab.past, x.shape[1])
            new = x.clone()
            new[:, where] = each(x[:, where], strength)
            return new.reshape(activation.shape)

        return replace

    pairs = zip(hooks, erasers, strict=True)
    with lab.hooked(*((name, erasing(name, each)) for name, each in pairs if each.rank and strength)):
        yield


@contextlib.contextmanager
def project_out(
    lab: Lab, hook: str | Sequence[str], directions: Tensor | Sequence[Tensor],
    towards: Tensor | Sequence[Tensor] | None = None, positions: Sequence[int] | slice | None = None,
) -> Iterator[None]:
    """Take the component along directions out of an activation, or bring it to that of a mean.

    Parameters
    ----------
    lab
        The opened model.
    hook
        Where; one or several, as in `erase`.
    directions
        ``[d]`` or ``[k d]``, of any lengths and at any angles: all that they span goes. None at all (k = 0) changes no
        bit. With several hooks, one tensor for all or a list of one for each.
    towards
        An activation ``[d]``, such as the mean, whose component is put in; None: 0. With several hooks, again one for
        all or one for each.
    positions
        Which positions of each row, counted from BOS; None: all but BOS.

    Raises
    ------
    CourseError
        If a hook is unknown, or something is not finite or not as wide as the activation.
    """
    n = 1 if isinstance(hook, str) else len(hook)
    bases = [spanned(each) for each in one_each("directions", directions, n, Tensor)]
    if towards is None:
        towards = [torch.zeros(len(basis)) for basis in bases]
    means = one_each("towards", towards, n, Tensor)
    for basis, mean in zip(bases, means, strict=True):
        if mean.shape != basis.shape[:1]:
            raise CourseError(f"towards has shape {list(mean.shape)}; the directions have width {len(basis)}.")
    pairs = zip(bases, means, strict=True)
    with erase(lab, hook, [Eraser(basis @ basis.T, mean, basis.shape[1]) for basis, mean in pairs], positions):
        yield
