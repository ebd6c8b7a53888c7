"""Derivatives from values alone, and where two arrays differ most, in words.

Differences are central of fourth order, (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h: an error of h⁴ and rounding of 1/h
(B. Fornberg, "Generation of finite difference formulas on arbitrarily spaced grids", 1988, table 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .flat import Flat

ELEMENTS = 4096
"""So many elements of an argument are looked at one by one; of a larger one, that many spread over it."""


class Tolerance(NamedTuple):
    """How far derivatives may differ, relative and absolute, and the step of the differences."""

    rtol: float
    atol: float
    eps: float

    def noise(self, magnitude: float) -> float:
        """What rounding of values of this magnitude makes of a difference of them."""
        return 1e-14 * magnitude / self.eps


def difference(flat: Flat, directions: Sequence[np.ndarray], h: float) -> list[np.ndarray]:
    """Derivative of each output along ``directions``."""

    def at(step: float) -> list[np.ndarray]:
        return flat.values([a + step * d for a, d in zip(flat.arrays, directions, strict=True)])

    return [
        (8 * (p - m) - (pp - mm)) / (12 * h)
        for p, m, pp, mm in zip(at(h), at(-h), at(2 * h), at(-2 * h), strict=True)
    ]


def elementwise(flat: Flat, k: int, cts: Sequence[np.ndarray], like: np.ndarray, h: float) -> np.ndarray:
    """The cotangent of argument k, element by element; ``like`` stands where `ELEMENTS` do not reach."""
    want = np.array(like, np.float64)
    for i in np.unique(np.linspace(0, want.size - 1, min(want.size, ELEMENTS)).astype(np.int64)):
        basis = np.zeros_like(flat.arrays[k])
        basis.flat[i] = 1.0
        want.flat[i] = inner(cts, difference(flat, alone(flat, k, basis), h))
    return want


def alone(flat: Flat, k: int, direction: np.ndarray) -> list[np.ndarray]:
    """``direction`` for argument k, zeros for the others."""
    return [direction if i == k else np.zeros_like(a) for i, a in enumerate(flat.arrays)]


def inner(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> float:
    """The inner product of two lists of arrays."""
    return float(sum(np.vdot(x, y) for x, y in zip(xs, ys, strict=True)))


def magnitude(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> float:
    """The inner product without cancellation: what rounding errors of it are relative to."""
    return inner([np.abs(x) for x in xs], [np.abs(y) for y in ys])


def random_like(rng: np.random.Generator, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Standard normals in the shapes of ``arrays``."""
    return [rng.standard_normal(a.shape) for a in arrays]


def worst(got: np.ndarray, want: np.ndarray, rtol: float, atol: float, source: str) -> str | None:
    """The element that is furthest beyond ``atol + rtol * |want|``, in words; None where none is. NaN equals NaN."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    with np.errstate(all="ignore"):
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        error = np.where(same, 0.0, np.abs(got - want))
        excess = error - (atol + rtol * np.abs(want))
    excess = np.where(same, -np.inf, np.where(np.isnan(excess), np.inf, excess))
    if not excess.size or excess.max() <= 0:
        return None
    place = np.unravel_index(int(np.argmax(excess)), excess.shape)
    a, b, e = float(got[place]), float(want[place]), float(error[place])
    relative = e / abs(b) if b else np.inf
    at = f"element [{', '.join(str(int(i)) for i in place)}]: " if place else ""
    return f"{at}got {a:.9g}, {source} {b:.9g} (relative error {relative:.2g}, tolerance {rtol:g})"


def kink(flat: Flat, directions: Sequence[np.ndarray], eps: float) -> str | None:
    """What to try where the one-sided differences do not approach each other as the step shrinks: a kink or a jump.

    Rounding to float32 looks so as well.
    """
    if flat.narrow and eps < 1e-3:
        return "eps=1e-2, rtol=1e-3: the function computes in float32, whose rounding such differences see"
    values = flat.values(flat.arrays)

    def slopes(h: float) -> np.ndarray:
        moved = flat.values([a + h * d for a, d in zip(flat.arrays, directions, strict=True)])
        return np.concatenate([np.ravel((m - v) / h) for m, v in zip(moved, values, strict=True)])

    wide, narrow = (float(np.max(np.abs(slopes(h) - slopes(-h)), initial=0.0)) for h in (2 * eps, 0.2 * eps))
    if wide > 1e-3 * np.max(np.abs(slopes(eps)), initial=0.0) and narrow > 0.5 * wide:
        return "another point: one-sided differences disagree, the function has a kink or a jump here"
    return None
