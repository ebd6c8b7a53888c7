"""Forward mode: `jvp`, and the Hessian's product with a vector, `hvp`, as forward over reverse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import autodiff, pytree
from .api import Jitted, _memoised, _renamed, _value_and_grad
from .arguments import DYNAMIC, aval
from .core.aval import Aval
from .errors import ArgumentError, DTypeError, ShapeError, user_line
from .ops.operands import operand
from .ops.pointwise import convert
from .selection import check_output, split_aux
from .trace import inline, trace


def jvp(
    f: Callable, primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False, **options: Any
) -> tuple:
    """``(f(*primals), J @ tangents)``: the value, and its derivative along ``tangents``, in one pass.

    Args:
        f: function of nestings of arrays to a nesting of arrays, or ``(out, aux)`` with ``has_aux``.
        primals: tuple or list of its positional arguments.
        tangents: nested like ``primals``, each leaf with its shape and dtype. None stands for zero, for a leaf or for a
            whole argument, and is the only tangent that integers and bools have.
        options: ``backend``, ``threads`` as in `jit`.
    Returns: ``(out, tangent_out)``, or ``(out, tangent_out, aux)``. ``tangent_out`` nests like ``out``, with None in place
    of outputs that are no floats.
    Raises: `ArgumentError`, `ShapeError`, `DTypeError` for tangents that do not fit their primals.

    Method: forward mode (Wengert 1964): each op's rule carries the tangent along; what is zero is never computed.

    >>> jvp(lambda x, y: x * y, (np.array([1.0, 2.0]), 3.0), (np.array([1.0, 0.0]), None))
    (array([3., 6.]), array([3., 0.]))
    """
    _check_tuples("jvp", primals, tangents)
    key = {"has_aux": has_aux, **options}
    pushed = _memoised(
        f, "jvp", key, lambda: Jitted(_renamed(f, "jvp", _pushforward("jvp", f, has_aux)), options)
    )
    return pushed(tuple(primals), tuple(tangents))


def hvp(
    f: Callable, primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False, **options: Any
) -> Any:
    """The Hessian of a scalar function times a vector, ``H(primals) @ tangents``; the Hessian itself is never formed.

    Args: ``f`` returns a float scalar, or ``(scalar, aux)`` with ``has_aux``. ``primals`` and ``tangents`` as in `jvp`; an
    argument whose tangent is None is held fixed, and has no product (a batch of data, labels).
    Returns: the product, shaped as the argument where ``primals`` holds one, else a tuple with one for each (None for those
    held fixed); ``(product, aux)`` with ``has_aux``.
    Raises: as `grad` (`ShapeError` where ``f`` is no scalar) and `jvp`.

    Method: forward over reverse (Pearlmutter 1994, *Fast exact multiplication by the Hessian*): at most some four times the
    cost of the gradient.

    >>> hvp(lambda x: (x**3).sum(), (np.array([1.0, 2.0]),), (np.array([1.0, 1.0]),))
    array([ 6., 12.])
    """
    _check_tuples("hvp", primals, tangents)
    moved = tuple(i for i, t in enumerate(tangents) if t is not None)
    if not moved:
        raise ArgumentError("hvp: no primal has a tangent", at=user_line())
    key = {"has_aux": has_aux, "moved": moved, **options}

    def make() -> Jitted:
        both = _value_and_grad(f, moved, has_aux, "hvp")

        def gradient(*primals: Any) -> tuple:
            value, gradients = both(*primals)
            return (gradients, value[1]) if has_aux else gradients

        pushed = _pushforward("hvp", gradient, has_aux)

        def product(primals: tuple, tangents: tuple) -> Any:
            _, products, *aux = pushed(primals, tangents)
            found = iter(products)
            every = tuple(next(found) if i in moved else None for i in range(len(primals)))
            result = every[0] if len(every) == 1 else every
            return (result, *aux) if has_aux else result

        return Jitted(_renamed(f, "hvp", product), options)

    return _memoised(f, "hvp", key, make)(tuple(primals), tuple(tangents))


def _check_tuples(op: str, primals: Any, tangents: Any) -> None:
    for name, value in (("primals", primals), ("tangents", tangents)):
        if not isinstance(value, tuple | list):
            raise ArgumentError(
                f"{op}: {name} must be a tuple or a list of arguments, got {type(value).__name__}",
                hint=f"({name},)" if isinstance(value, DYNAMIC) else None,
                at=user_line(),
            )
    if len(primals) != len(tangents):
        raise ArgumentError(f"{op}: {len(primals)} primals with {len(tangents)} tangents", at=user_line())


def _pushforward(op: str, f: Callable, has_aux: bool) -> Callable:
    """The function to trace: the value of ``f`` and its tangent, from the forward-mode graph of ``f``."""

    def pushed(primals: tuple, tangents: tuple) -> tuple:
        leaves, structure = pytree.flatten(primals)
        given = match_tangents(op, primals, tangents)
        moved = [i for i, t in enumerate(given) if t is not None]
        parts: dict[str, Any] = {}

        def flat(*values: Any) -> list[Any]:
            new = list(leaves)
            for i, value in zip(moved, values, strict=True):
                new[i] = value
            out, aux = split_aux(op, f(*pytree.unflatten(structure, new)), has_aux)
            outs, parts["out"] = pytree.flatten(out)
            auxs, parts["aux"] = pytree.flatten(aux)
            parts["count"] = len(outs)
            for value in (*outs, *auxs):
                check_output(op, value)
            return [*outs, *auxs]

        graph = trace(flat, [aval(leaves[i]) for i in moved], name=getattr(f, "__name__", "f"))
        n, count = len(graph.outputs), parts["count"]
        results = inline(autodiff.jvp(graph), [*(leaves[i] for i in moved), *(given[i] for i in moved)])
        tangent = iter(results[n:])
        out_tangents = [next(tangent) if autodiff.is_float(a) else None for a in graph.outputs[:count]]
        out = pytree.unflatten(parts["out"], results[:count])
        aux = (pytree.unflatten(parts["aux"], results[count:n]),) if has_aux else ()
        return out, pytree.unflatten(parts["out"], out_tangents), *aux

    return pushed


def match_tangents(op: str, primals: tuple, tangents: tuple) -> list[Any]:
    """One tangent a leaf of ``primals``, in its dtype; None where it is zero. Raises where one does not fit."""
    found: list[Any] = []
    for n, (primal, tangent) in enumerate(zip(primals, tangents, strict=True)):
        leaves, structure = pytree.flatten(primal)
        try:
            mine = [None] * len(leaves) if tangent is None else structure.flatten_up_to(tangent)
        except ValueError:
            raise ArgumentError(
                f"{op}: the tangent of argument [{n}] nests as {pytree.flatten(tangent)[1]}, its primal as {structure}",
                at=user_line(),
            ) from None
        for leaf, t, path in zip(leaves, mine, pytree.paths(primal), strict=True):
            found.append(None if t is None else _fitting(op, f"[{n}]{path}", leaf, t))
    return found


def _fitting(op: str, name: str, primal: Any, tangent: Any) -> Any:
    """``tangent`` in the dtype of ``primal``, once it is known to fit."""
    if not isinstance(tangent, DYNAMIC):
        tangent = _leaf(op, name, tangent)
    want = aval(primal) if isinstance(primal, DYNAMIC) else None
    got = aval(tangent)
    if want is None or want.dtype.kind != "f":
        raise DTypeError(
            f"{op}: argument {name} is {want or type(primal).__name__}, which has no tangent, got {got}",
            hint="None in its place",
            at=user_line(),
        )
    if got.shape != want.shape:
        raise ShapeError(
            f"{op}: the tangent of argument {name} must be {Aval(want.shape, want.dtype)}, got {got}",
            at=user_line(),
        )
    if got.dtype != want.dtype and not got.weak:
        raise DTypeError(
            f"{op}: the tangent of argument {name} must be {Aval(want.shape, want.dtype)}, got {got}",
            hint=f".astype(np.{want.dtype.name})",
            at=user_line(),
        )
    if got.dtype == want.dtype:
        return tangent
    number = convert(operand(tangent), want.dtype)
    return number.value if hasattr(number, "value") else number


def _leaf(op: str, name: str, tangent: Any) -> Any:
    leaves, structure = pytree.flatten(tangent)
    if structure == pytree.LEAF and hasattr(leaves[0], "__array__"):
        return np.asarray(tangent)
    raise ArgumentError(
        f"{op}: the tangent of argument {name} must be an array, got {type(tangent).__name__}", at=user_line()
    )
