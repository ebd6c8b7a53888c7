"""Checks of forward and reverse mode against differences: `check_vjp`, `check_jvp`, `check_grads`.

One random direction finds a wrong derivative almost surely, at the cost of four values (HIPS autograd's ``check_vjp`` does
so); single elements are only looked at to say where it is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..api import jit
from ..errors import ArgumentError, CheckError
from .differences import (
    Tolerance,
    alone,
    difference,
    elementwise,
    inner,
    kink,
    magnitude,
    random_like,
    worst,
)
from .flat import Flat, flatten, pulled, pushed

MODES = ("fwd", "rev")


def check_vjp(
    f: Callable, args: Sequence[Any], *, rtol: float = 1e-6, atol: float = 1e-9, eps: float = 1e-5,
    seed: int = 0, backends: Sequence[str | None] = (None,),
) -> None:  # fmt: skip
    """Reverse-mode derivatives of ``f`` at ``args`` against central differences.

    Args:
        f: any function of nestings of arrays to a nesting of arrays: plain NumPy, transformed by fastgrad, or with a custom
            rule. Integers among its arguments and outputs are held fixed and not looked at.
        args: tuple of its positional arguments; floats are taken to float64.
        rtol, atol: how far derivatives may differ, relative to what is compared and absolute.
        eps: the step of the differences, in units of the argument times a standard normal direction.
        seed: of the random directions and cotangents.
        backends: where the derivative runs, e.g. ``("numpy", "numba")``; None is the default backend.
    Raises: `errors.CheckError` that names the argument, the element that differs most, what was got and expected, and says
    so where the function has a kink at the point; `errors.ArgumentError` where there is no float to differentiate by.

    >>> check_vjp(lambda p: np.sin(p["w"]) * p["b"], ({"w": np.ones(3), "b": 2.0},))
    """
    for backend in backends:
        rng = np.random.default_rng(seed)
        _check_rev(flatten("check_vjp", f, args), backend, Tolerance(rtol, atol, eps), rng)


def check_jvp(
    f: Callable, args: Sequence[Any], *, rtol: float = 1e-6, atol: float = 1e-9, eps: float = 1e-5,
    seed: int = 0, backends: Sequence[str | None] = (None,),
) -> None:  # fmt: skip
    """Forward-mode derivatives of ``f`` at ``args`` against central differences. Arguments and errors as `check_vjp`.

    >>> check_jvp(lambda x, y: np.exp(x) @ y, (np.ones(3), np.ones((3, 2))))
    """
    for backend in backends:
        rng = np.random.default_rng(seed)
        _check_fwd(flatten("check_jvp", f, args), backend, Tolerance(rtol, atol, eps), rng)


def check_grads(
    f: Callable, args: Sequence[Any], order: int = 2, modes: Sequence[str] = MODES, *, rtol: float = 1e-6,
    atol: float = 1e-9, eps: float = 1e-5, seed: int = 0, backends: Sequence[str | None] = (None,),
) -> None:  # fmt: skip
    """Derivatives of ``f`` up to ``order`` in each of ``modes``, nested in every way, against central differences.

    Order 2 in both modes: forward and reverse of f, then forward and reverse of each of the two; the message calls the
    reverse of the forward mode "rev of fwd". Leave a mode out of ``modes`` that f does not have (a custom VJP has no
    forward mode). Tolerances widen tenfold an order. Other arguments and errors as `check_vjp`.

    >>> check_grads(lambda x: np.sum(np.tanh(x) ** 2), (np.array([0.1, 0.5]),), order=2)
    """
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    if order < 1 or not modes or not set(modes) <= set(MODES):
        raise ArgumentError(
            f"check_grads: wants an order of 1 or more and modes among 'fwd' and 'rev', got {order} and {modes}"
        )
    for backend in backends:
        rng = np.random.default_rng(seed)
        _check_order(flatten("check_grads", f, args), order, modes, backend, Tolerance(rtol, atol, eps), rng)


# -- one derivative ----------------------------------------------------------------------------------------------------


def _check_rev(flat: Flat, backend: str | None, t: Tolerance, rng: np.random.Generator) -> None:
    """Argument by argument: its cotangent along a random direction, against the outputs' differences along it."""
    outputs = flat.outputs()
    cts = random_like(rng, outputs)
    results = [np.asarray(r) for r in jit(pulled(flat), backend=backend)(*flat.arrays, *cts)]
    head = f"{flat.check} ({flat.how('rev')}{_on(backend)})"
    _same_values(head, flat, results[: len(outputs)], outputs, t)
    noise = t.noise(magnitude(cts, outputs))
    for k, gradient in enumerate(results[len(outputs) :]):
        direction = rng.standard_normal(flat.arrays[k].shape)
        along = alone(flat, k, direction)
        slopes = difference(flat, along, t.eps)
        got, want = inner([gradient], [direction]), inner(cts, slopes)
        scale = max(magnitude([gradient], [direction]), magnitude(cts, slopes))
        if not abs(got - want) <= t.atol + noise + t.rtol * scale:
            single = elementwise(flat, k, cts, gradient, t.eps)
            where = worst(gradient, single, t.rtol, t.atol, "differences give")
            if where is None:
                where = f"along a random direction: got {got:.9g}, differences give {want:.9g} (tolerance {t.rtol:g})"
            raise CheckError(f"{head}: cotangent of {flat.names[k]}, {where}", hint=kink(flat, along, t.eps))


def _check_fwd(flat: Flat, backend: str | None, t: Tolerance, rng: np.random.Generator) -> None:
    """The outputs' tangents along random directions of all arguments; where they are wrong, of each argument alone."""
    outputs = flat.outputs()
    push = jit(pushed(flat), backend=backend)
    head = f"{flat.check} ({flat.how('fwd')}{_on(backend)})"

    def wrong(tangents: list[np.ndarray]) -> str | None:
        results = [np.asarray(r) for r in push(*flat.arrays, *tangents)]
        _same_values(head, flat, results[: len(outputs)], outputs, t)
        slopes = difference(flat, tangents, t.eps)
        for name, value, got, want in zip(
            flat.out_names, outputs, results[len(outputs) :], slopes, strict=True
        ):
            slack = t.atol + t.noise(_largest(value)) + t.rtol * _largest(want)
            where = worst(got, want, t.rtol, slack, "differences give")
            if where is not None:
                return f"tangent of {name}, {where}"
        return None

    directions = random_like(rng, flat.arrays)
    together = wrong(directions)
    if together is None:
        return
    for k, name in enumerate(flat.names):
        along = alone(flat, k, directions[k])
        where = wrong(along)
        if where is not None:
            raise CheckError(f"{head}: along {name}, {where}", hint=kink(flat, along, t.eps))
    raise CheckError(f"{head}: along all arguments at once, {together}")


def _check_order(
    flat: Flat, order: int, modes: Sequence[str], backend: str | None, t: Tolerance, rng: np.random.Generator
) -> None:
    """Every mode of ``flat``, then of its derivative in every mode."""
    for mode in modes:
        (_check_fwd if mode == "fwd" else _check_rev)(flat, backend, t, rng)
        if order > 1:
            derivative = _derivative(flat, mode, backend, rng)
            _check_order(
                derivative, order - 1, modes, backend, t._replace(rtol=10 * t.rtol, atol=10 * t.atol), rng
            )


def _derivative(flat: Flat, mode: str, backend: str | None, rng: np.random.Generator) -> Flat:
    """The derivative of ``flat`` as a function of its arguments and of tangents (or cotangents) at a random point."""
    derived = jit((pushed if mode == "fwd" else pulled)(flat), backend=backend)
    n = len(flat.out_names)
    ins, outs, word = flat.names, flat.out_names, "tangent"
    if mode == "rev":
        ins, outs, word = outs, ins, "cotangent"
    more = random_like(rng, flat.arrays if mode == "fwd" else flat.values(flat.arrays))
    return Flat(
        flat.check,
        lambda *values: list(derived(*values))[n:],
        [*flat.arrays, *more],
        [*flat.names, *(f"the {word} of {name}" for name in ins)],
        [f"the {word} of {name}" for name in outs],
        flat.how(mode),
        flat.narrow,
    )


def _same_values(
    head: str, flat: Flat, got: Sequence[np.ndarray], outputs: Sequence[np.ndarray], t: Tolerance
) -> None:
    """What comes out beside the derivative is what the function itself gives (a custom rule may disagree)."""
    for name, mine, theirs in zip(flat.out_names, got, outputs, strict=True):
        if mine.shape != theirs.shape:
            raise CheckError(f"{head}: {name} has shape {mine.shape}, the function gives {theirs.shape}")
        where = worst(mine, theirs, t.rtol, t.atol + t.rtol * _largest(theirs), "the function gives")
        if where is not None:
            raise CheckError(f"{head}: {name}, {where}")


def _largest(x: np.ndarray) -> float:
    return float(np.max(np.abs(x), initial=0.0))


def _on(backend: str | None) -> str:
    return f", backend {backend!r}" if backend else ""
