"""Bodies: a user's function as a closed graph, and what every rule does with one.

A closed graph captures nothing. `closed` turns what a trace captured into inputs that come first, so that in the
operands of a loop they join the ``consts``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import pytree
from ..core.aval import Aval, aval_of, result_type
from ..core.graph import Atom, Graph, Literal, Tracer, Var, joined, verify
from ..core.primitive import Primitive
from ..errors import DTypeError, FastgradError, ShapeError, TraceError, user_line
from ..ops.operands import aval, operand
from ..ops.pointwise import convert
from ..ops.shaping import broadcast_to_p
from ..trace import close, current, trace


def bind(prim: Primitive, args: Sequence[Any], **params: Any) -> list[Any]:
    """All outputs of ``prim``, emitted into the innermost trace; outside of every trace computed by the reference."""
    builder = joined(args) or current()
    if builder is not None:
        return list(builder.emit(prim, args, params))
    out = prim(*args, **params)
    return list(out) if isinstance(out, tuple) else [out]


def closed(fn: Callable[..., Sequence[Any]], avals: Sequence[Aval], name: str) -> tuple[Graph, list[Any]]:
    """``fn`` traced on ``avals``, and the values that it captured: they are the first inputs of the graph."""
    return close(trace(fn, avals, name=name))


def zeros(shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """0 all over ``shape``, in the trace under way."""
    return bind(broadcast_to_p, [Literal(dtype.type(0))], shape=shape)[0]


def arranged(graph: Graph, inputs: Sequence[Var], outputs: Sequence[Atom]) -> Graph:
    """The same equations with inputs and outputs in another order, or fewer of them."""
    return verify(replace(graph, inputs=tuple(inputs), outputs=tuple(outputs)), typed=graph.eqns)


def sliced(aval: Aval) -> Aval:
    """One element along the first axis."""
    return Aval(aval.shape[1:], aval.dtype, aval.weak)


def stacked(aval: Aval, length: int) -> Aval:
    """``length`` of them along a new first axis."""
    return Aval((length, *aval.shape), aval.dtype, aval.weak)


def check_carry(op: str, before: Sequence[Aval], after: Sequence[Aval]) -> None:
    """`GraphError` in the making: the carry that leaves a body is of the kind that entered."""
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ShapeError(f"{op}: carry {i} is {a} before and {b} after its body")


def check_operands(op: str, wanted: Sequence[Aval], got: Sequence[Aval]) -> None:
    """What a body takes is what it is given."""
    if len(wanted) != len(got):
        raise ShapeError(f"{op}: the body takes {len(wanted)} operands, got {len(got)}")
    for i, (a, b) in enumerate(zip(wanted, got, strict=True)):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ShapeError(f"{op}: operand {i} of the body is {a}, got {b}")


# --- the user's side: nested values -----------------------------------------------------------------------------------


class Leaves:
    """A nested value taken apart: flat operands, their avals, how they nest and the name of each."""

    __slots__ = ("avals", "paths", "structure", "values")

    def __init__(self, op: str, what: str, tree: Any):
        leaves, self.structure = pytree.flatten(tree)
        self.paths = [f"{what}{path}" for path in pytree.paths(tree)]
        self.values, self.avals = [], []
        for leaf, path in zip(leaves, self.paths, strict=True):
            try:
                value = operand(leaf)
                self.avals.append(value.aval if isinstance(value, Tracer | Literal) else aval_of(value))
            except FastgradError as error:
                raise type(error)(f"{op}: {path}: {error.message}", hint=error.hint, at=user_line()) from None
            self.values.append(value)


def check_callable(op: str, **functions: Any) -> None:
    """`TraceError` for what is no function."""
    for name, fn in functions.items():
        if not callable(fn):
            raise TraceError(f"{op}: {name} must be a function, got {type(fn).__name__}", at=user_line())


def kept(op: str, carry: Leaves, avals: Sequence[Aval], out: Any, promoted: dict[int, Aval]) -> list[Any]:
    """The leaves of the carry ``out`` that a body returned, each in the dtype in which it came in.

    A weak carry (a Python number) that left in another dtype is noted in ``promoted``: the body is traced anew with
    that. Raises where structure, shape or dtype changed.
    """
    after = Leaves(op, "carry", out)
    if after.structure != carry.structure:
        raise ShapeError(
            f"{op}: the carry must keep its structure, it came in as {nesting(carry)} and left as {nesting(after)}",
            hint="return the carry nested as init is",
            at=user_line(),
        )
    values = []
    for i, (path, before, now) in enumerate(zip(carry.paths, avals, after.avals, strict=True)):
        value = after.values[i]
        if before.shape != now.shape:
            raise ShapeError(
                f"{op}: the carry must keep its shape and dtype, {path} came in as {before} and left as {now}",
                hint=_shape_hint(before, now),
                at=user_line(),
            )
        if before.dtype == now.dtype and not (before.weak and not now.weak):
            values.append(value)
            continue
        common, weak = result_type(before, now)
        if common == before.dtype and now.weak:
            values.append(convert(value, before.dtype))
        elif before.weak:
            promoted[i] = Aval(before.shape, common, weak)
            values.append(value)
        else:
            raise DTypeError(
                f"{op}: the carry must keep its shape and dtype, {path} came in as {before} and left as {now}",
                hint=f".astype(np.{before.dtype.name}) in the body, or init in {now.dtype.name}",
                at=user_line(),
            )
    return values


def nesting(leaves: Leaves) -> str:
    """How a value nests, leaves as stars."""
    return str(leaves.structure).removeprefix("PyTreeSpec(").split(", namespace=")[0].removesuffix(")")


def _shape_hint(before: Aval, now: Aval) -> str | None:
    if not before.shape:
        return f"init = np.zeros({now.shape}, np.{now.dtype.name})"
    return None


def initial(carry: Leaves, avals: Sequence[Aval]) -> list[Any]:
    """The operands of the loop: the initial carry in the dtypes that its body found."""
    return [
        value if have == want else convert(value, want.dtype, want.weak)
        for value, have, want in zip(carry.values, carry.avals, avals, strict=True)
    ]


def scalar_aval_of(value: Any) -> Aval:
    """Aval of an operand (a tracer, an array, a number)."""
    return aval(operand(value))


def number_aval(op: str, what: str, value: Any) -> Aval:
    """The aval of an argument that is to be one number; the error for what is no array says which argument."""
    try:
        return scalar_aval_of(value)
    except FastgradError as error:
        raise type(error)(f"{op}: {what}: {error.message}", hint=error.hint, at=user_line()) from None
