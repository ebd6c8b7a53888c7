"""`vmap`: a function of examples as a function of batches. The graph of one example is batched, op by op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optree

from . import batching, pytree
from .api import Jitted, _memoised, _renamed
from .arguments import DYNAMIC, aval
from .core.aval import Aval
from .errors import ArgumentError, ShapeError, user_line
from .ops.movement import moveaxis
from .ops.operands import operand
from .selection import check_output
from .trace import inline, trace


def vmap(
    f: Callable, in_axes: Any = 0, out_axes: Any = 0, axis_size: int | None = None, **options: Any
) -> Jitted:
    """``f`` applied to every example along an axis of its arguments at once, with no loop.

    Args:
        f: function of nestings of arrays, written for one example.
        in_axes: the axis of each argument that runs over examples: an int (negative ones count from the end), None for an
            argument that all examples share, a tuple with one for each positional argument; within it any nesting that
            is a prefix of the argument's. Keyword arguments are mapped over axis 0.
        out_axes: where the outputs have the axis, an int or a nesting that is a prefix of the output's. None returns an
            output that is the same for all examples once.
        axis_size: the number of examples, needed only where no argument is mapped.
        options: as in `jit`.
    Returns: a function with the arguments of ``f`` and one more axis in each mapped argument and output.
    Raises: `ArgumentError` where ``in_axes`` or ``out_axes`` do not nest like the arguments or outputs, or None is said of
    an output that differs between examples; `ShapeError` where an argument has no such axis or sizes disagree, naming the
    arguments and sizes.

    >>> vmap(lambda x, y: x @ y, in_axes=(0, None))(np.ones((4, 3)), np.ones(3))
    array([3., 3., 3., 3.])
    """
    if axis_size is not None and (
        isinstance(axis_size, bool) or not isinstance(axis_size, int | np.integer) or axis_size < 0
    ):
        raise ArgumentError(f"vmap: axis_size must be 0 or more, got {axis_size!r}", at=user_line())
    in_axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
    key = {"in": _frozen("in_axes", in_axes), "out": _frozen("out_axes", out_axes), "n": axis_size, **options}

    def make() -> Jitted:
        return Jitted(_renamed(f, "vmap", _mapped(f, in_axes, out_axes, axis_size)), options)

    return _memoised(f, "vmap", key, make)


def _frozen(name: str, axes: Any) -> tuple:
    """``axes`` as a key; refuses what is no axis."""
    leaves, structure = _flatten(axes)
    for axis in leaves:
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int)):
            raise ArgumentError(f"vmap: {name} holds integers and None, got {axis!r}", at=user_line())
    return (tuple(leaves), structure)


def _flatten(axes: Any) -> tuple[list[Any], Any]:
    return optree.tree_flatten(axes, none_is_leaf=True, namespace=pytree.NAMESPACE)


def _mapped(f: Callable, in_axes: Any, out_axes: Any, axis_size: int | None) -> Callable:
    """The function to trace: it batches the graph of one example and replays it into the trace at hand."""

    def mapped(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = pytree.flatten((args, kwargs))
        names = _names(args, kwargs)
        axes = _input_axes(in_axes, args, kwargs)
        examples = [
            None if axis is None or not isinstance(leaf, DYNAMIC) else _front(name, leaf, axis)
            for leaf, axis, name in zip(leaves, axes, names, strict=True)
        ]
        moved = [i for i, e in enumerate(examples) if e is not None]
        size = _size([(names[i], axes[i], aval(leaves[i]).shape) for i in moved], axis_size)
        tree: list[Any] = []

        def flat(*values: Any) -> list[Any]:
            new = list(leaves)
            for i, value in zip(moved, values, strict=True):
                new[i] = value
            positional, named = pytree.unflatten(structure, new)
            outputs, nesting = pytree.flatten(f(*positional, **named))
            tree.append(nesting)
            for value in outputs:
                check_output("vmap", value)
            return outputs

        avals = [_example(aval(examples[i])) for i in moved]
        graph = trace(flat, avals, name=getattr(f, "__name__", "f"))
        places = _output_axes(out_axes, tree[0])
        wanted = [place is not None for place in places]
        batched, carried = batching.batch(graph, [True] * len(moved), size, wanted)
        outputs = inline(batched, [examples[i] for i in moved])
        results = [
            _placed(n, out, axis, carries)
            for n, (out, axis, carries) in enumerate(zip(outputs, places, carried, strict=True))
        ]
        return pytree.unflatten(tree[0], results)

    return mapped


def _example(batch: Aval) -> Aval:
    return Aval(batch.shape[1:], batch.dtype, batch.weak)


def _names(args: tuple, kwargs: dict) -> list[str]:
    """``argument [0]['w']`` for each leaf."""
    positional = [f"argument {path}" for path in pytree.paths(args)]
    return positional + [
        f"argument {key}{path}" for key in sorted(kwargs) for path in pytree.paths(kwargs[key])
    ]


def _input_axes(in_axes: Any, args: tuple, kwargs: dict) -> list[int | None]:
    """An axis a leaf."""
    if isinstance(in_axes, tuple) and len(in_axes) != len(args):
        raise ArgumentError(
            f"vmap: in_axes has {len(in_axes)} entries, the call {len(args)} positional arguments",
            at=user_line(),
        )
    given = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(args)
    axes: list[int | None] = []
    for n, (entry, arg) in enumerate(zip(given, args, strict=True)):
        axes += _spread(entry, arg, f"in_axes of argument [{n}]", "the argument")
    return axes + [0] * len(pytree.flatten(kwargs)[0])


def _spread(axes: Any, tree: Any, what: str, whose: str) -> list[int | None]:
    """``axes``, a prefix of ``tree``, once for each leaf of it."""
    leaves, prefix = _flatten(axes)
    try:
        parts = prefix.flatten_up_to(tree)
    except ValueError:
        raise ArgumentError(
            f"vmap: {what} nests as {prefix}, {whose} as {pytree.flatten(tree)[1]}", at=user_line()
        ) from None
    return [axis for axis, part in zip(leaves, parts, strict=True) for _ in pytree.flatten(part)[0]]


def _output_axes(out_axes: Any, structure: Any) -> list[int | None]:
    return _spread(
        out_axes, pytree.unflatten(structure, range(structure.num_leaves)), "out_axes", "the output"
    )


def _front(name: str, leaf: Any, axis: int) -> Any:
    """``leaf`` with its ``axis`` in front."""
    shown = aval(leaf)
    if not -shown.ndim <= axis < shown.ndim:
        raise ShapeError(
            f"vmap: in_axes maps axis {axis} of {name}, which is {shown}",
            hint="None for an argument that all examples share",
            at=user_line(),
        )
    return leaf if axis % shown.ndim == 0 else moveaxis(operand(leaf), axis, 0)


def _size(mapped: Sequence[tuple[str, int | None, tuple[int, ...]]], axis_size: int | None) -> int:
    """The one number of examples."""
    sizes = [(f"axis {axis} of {name}", shape[axis]) for name, axis, shape in mapped if axis is not None]
    if axis_size is not None:
        sizes.insert(0, ("axis_size", axis_size))
    if not sizes:
        raise ArgumentError("vmap: no argument is mapped", hint="axis_size=", at=user_line())
    first = sizes[0][1]
    if any(size != first for _, size in sizes):
        different = next(entry for entry in sizes if entry[1] != first)
        shown = ", ".join(f"{what} has {size}" for what, size in (sizes[0], different))
        raise ShapeError(f"vmap: sizes disagree: {shown}", at=user_line())
    return first


def _placed(n: int, out: Any, axis: int | None, carries: bool) -> Any:
    """An output with the axis of examples where it was asked for."""
    if axis is None:
        if carries:
            raise ArgumentError(
                f"vmap: output {n} differs between examples, out_axes says None",
                hint="out_axes=0",
                at=user_line(),
            )
        return out
    ndim = len(aval(out).shape)
    if not -ndim <= axis < ndim:
        raise ShapeError(
            f"vmap: out_axes puts the examples on axis {axis} of output {n}, which is {aval(out)}",
            at=user_line(),
        )
    return out if axis % ndim == 0 else moveaxis(operand(out), 0, axis)
