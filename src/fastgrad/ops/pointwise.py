"""The factory of elementwise primitives, and what all of them share: promotion, cast, select.

An elementwise primitive takes operands of one dtype and of shapes that broadcast; NumPy's broadcasting is part of the
equation. Its Jacobian is diagonal, so one line per operand, ``partial(t, out, *inputs) = t * d out / d input``, is both
its VJP (t a cotangent, then summed back to the operand's shape) and its JVP (t a tangent, then added up).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from ..core.aval import Aval, broadcast_shapes, inexact, result_type
from ..core.expr import MapBuilder
from ..core.graph import Literal, Tracer
from ..core.loops import Pointwise
from ..core.primitive import Primitive
from ..errors import DTypeError, user_line
from .operands import aval, dtype_of, operand, shape_of
from .shaping import broadcast_to_p, reshape_p, unbroadcast

Partial = Callable[..., Any]
_ARRAYS = (Tracer, np.ndarray)


def pointwise(
    name: str,
    reference: Callable[..., Any],
    lines: Callable[..., int] | None = None,
    partials: Sequence[Partial | None] = (),
    *,
    accepts: str = "biuf",
    result: Callable[..., tuple[np.dtype, bool]] | None = None,
    jvp: Callable[..., Any] | None = None,
) -> Primitive:
    """An elementwise primitive with all its rules.

    ``reference(*arrays, **params)`` is the NumPy twin; ``lines(k, dtype, *values, **params)`` writes the op into a
    `MapBuilder` (default: the one scalar op ``name``); ``partials`` are the derivatives, None or missing where zero.
    ``accepts`` names the operand kinds; ``result(*avals, **params)`` gives dtype and weakness of the output (default:
    as the operands); ``jvp(tangents, out, *inputs)`` replaces the sum of partials when all tangents are there.
    """

    def rule(*avals: Aval, **params: Any) -> Aval:
        dtype, weak = result(*avals, **params) if result else same_dtype(name, accepts, avals)
        shape = broadcast_shapes(name, *avals)
        for known in avals:  # most often one that is there already
            if known.shape is shape and known.dtype is dtype and known.weak is weak:
                return known
        return Aval(shape, dtype, weak)

    def vjp(ct: Any, out: Any, *inputs: Any, **params: Any) -> list:
        values = [_value(x) for x in inputs]
        cts: list[Any] = []
        for x, partial in zip_longest(inputs, partials):
            if partial is None or isinstance(x, Literal) or dtype_of(x).kind != "f":
                cts.append(None)
            else:
                cts.append(unbroadcast(partial(ct, out, *values, **params), shape_of(x)))
        return cts

    def push(tangents: Sequence[Any], out: Any, *inputs: Any, **params: Any) -> Any:
        values = [_value(x) for x in inputs]
        if jvp is not None and all(
            t is not None for t, p in zip_longest(tangents, partials) if p is not None
        ):
            total = jvp(tangents, out, *values, **params)
        else:
            total = None
            for t, partial in zip_longest(tangents, partials):
                if t is not None and partial is not None:
                    term = partial(t, out, *values, **params)
                    total = term if total is None else total + term
        if total is None or shape_of(total) == shape_of(out):
            return total
        return broadcast_to_p(total, shape=shape_of(out))

    def batch(args: Sequence[Any], batched: Sequence[bool], **params: Any) -> Any:
        rank = max(len(shape_of(a)) - b for a, b in zip(args, batched, strict=True))
        return prim(*(_lead(a, rank) if b else a for a, b in zip(args, batched, strict=True)), **params)

    prim = Primitive(name, rule, reference, vjp, push, batch, Pointwise(lines or _one_line(name)))
    return prim


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Literal) else x


def _one_line(op: str) -> Callable[..., int]:
    return lambda k, dtype, *values: k.line(op, *values, dtype=dtype)


def _lead(x: Any, rank: int) -> Any:
    """``x`` with its batch axis first and ``rank`` axes after it, to broadcast against operands of that rank."""
    size, *rest = shape_of(x)
    return x if len(rest) == rank else reshape_p(x, shape=(size, *(1,) * (rank - len(rest)), *rest))


def same_dtype(name: str, accepts: str, avals: Sequence[Aval]) -> tuple[np.dtype, bool]:
    """The one dtype of ``avals``; `DTypeError` when they differ or ``name`` does not take it."""
    dtype, weak, fits = avals[0].dtype, True, avals[0].dtype.kind in accepts
    for each in avals:
        weak = weak and each.weak
        fits = fits and (each.dtype is dtype or each.dtype == dtype)
    if not fits:
        raise DTypeError(f"{name}: does not take {', '.join(map(str, avals))}")
    return dtype, dtype.kind != "b" and weak


def to_bool(name: str, accepts: str = "biuf") -> Callable[..., tuple[np.dtype, bool]]:
    """``result`` of an op that takes operands of one dtype and answers True or False."""

    def result(*avals: Aval) -> tuple[np.dtype, bool]:
        same_dtype(name, accepts, avals)
        return np.dtype(bool), False

    return result


# --- cast[dtype, weak=False] ----------------------------------------------------------------------------------------


def _cast_lines(k: MapBuilder, out: np.dtype, x: int, *, dtype: np.dtype, weak: bool = False) -> int:
    if dtype == k.dtype(x):
        return x
    if dtype.kind == "b":
        return k.line("ne", x, k.const(0, k.dtype(x)), dtype=dtype)
    return k.line("cast", x, dtype=dtype)


cast_p = pointwise(
    "cast",
    lambda x, *, dtype, weak=False: np.asarray(x).astype(dtype),
    _cast_lines,
    [lambda ct, out, x, *, dtype, weak=False: cast(ct, dtype_of(x))],
    result=lambda x, *, dtype, weak=False: (dtype, weak),
    jvp=lambda tangents, out, x, *, dtype, weak=False: (
        cast(tangents[0], dtype) if dtype.kind == "f" else None
    ),
)


def cast(x: Any, dtype: np.dtype) -> Any:
    """``x`` in ``dtype``; as it is when it has that dtype already."""
    return x if dtype_of(x) == dtype and not aval(x).weak else cast_p(x, dtype=dtype)


def copied(x: Any) -> Any:
    """``x`` as a value of its own, for an op that has nothing to do: the result may be written to, ``x`` stays.

    In a trace that is an equation which `passes.simplify` drops.
    """
    return cast_p(x, dtype=dtype_of(x), weak=aval(x).weak)


def unshared(x: Any) -> Any:
    """An array of its own where, outside a trace, ``x`` may lie in the memory of an operand; a traced value as it is."""
    return x.copy() if isinstance(x, np.ndarray) and x.base is not None else x


# --- select(condition, x, y) ----------------------------------------------------------------------------------------


def _select_result(condition: Aval, x: Aval, y: Aval) -> tuple[np.dtype, bool]:
    if condition.dtype.kind != "b":
        raise DTypeError(f"select: the condition must be bool, got {condition}")
    return same_dtype("select", "biuf", (x, y))


select_p = pointwise(
    "select",
    lambda condition, x, y: np.where(condition, x, y),
    None,
    [
        None,
        lambda t, out, c, x, y: select_p(c, t, zero_like(t)),
        lambda t, out, c, x, y: select_p(c, zero_like(t), t),
    ],
    result=_select_result,
    jvp=lambda tangents, out, c, x, y: select_p(c, tangents[1], tangents[2]),
)


def zero_like(t: Any) -> Literal:
    """The scalar 0 in the dtype of ``t``."""
    return Literal(dtype_of(t).type(0))


# --- stop_gradient --------------------------------------------------------------------------------------------------

stop_gradient_p = pointwise("stop_gradient", lambda x: np.array(x), lambda k, dtype, x: x)


def stop_gradient(x: Any) -> Any:
    """``x``, through which no derivative passes: its VJP and JVP are zero."""
    return stop_gradient_p(operand(x))


# --- promotion ------------------------------------------------------------------------------------------------------


def promote(*values: Any, floats: bool = False) -> list:
    """The operands of an elementwise op in their common dtype, by NumPy 2's rules (Python numbers are weak).

    With ``floats`` integers and bools become float64, as in ``np.exp``. Numbers become literals, other operands get a
    cast equation where their dtype differs. Raises `DTypeError` for a Python integer that the dtype cannot hold.
    """
    operands = [operand(v) for v in values]
    avals = [aval(x) for x in operands]
    dtype, weak = result_type(*avals)
    return [convert(x, inexact(dtype) if floats else dtype, weak) for x in operands]


def convert(x: Any, dtype: np.dtype, weak: bool = False) -> Any:
    """``x`` in ``dtype``: scalars as literals, anything else by a cast where its dtype differs."""
    if isinstance(x, Literal):
        return x if x.value.dtype == dtype else Literal(dtype.type(x.value), x.weak and dtype.kind != "b")
    if not isinstance(x, _ARRAYS):
        return literal(x, dtype)
    if aval(x).dtype == dtype:
        return x
    return cast_p(x, dtype=dtype, weak=True) if weak else cast_p(x, dtype=dtype)


def literal(value: Any, dtype: np.dtype) -> Literal:
    """The literal of a Python number or NumPy scalar in ``dtype``; `DTypeError` when an integer does not fit."""
    weak = not isinstance(value, np.generic) and dtype.kind != "b"
    try:
        if dtype.itemsize == 8 or -1e38 < value < 1e38:  # no float warns: half of what a literal would cost
            return Literal(dtype.type(value), weak)
        with np.errstate(all="ignore"):
            return Literal(dtype.type(value), weak)
    except (OverflowError, ValueError):
        kind = "Python integer" if isinstance(value, int) else "number"  # NaN and infinities are no integers
        raise DTypeError(f"the {kind} {value} is out of bounds for {dtype.name}", at=user_line()) from None
