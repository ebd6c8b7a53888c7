"""scan[body, consts, carry, length, reverse]: a loop of known length over slices of arrays, with a carry.

    carry = init
    for t in range(length):                                # reversed where ``reverse``
        carry, y_t = body(consts, carry, (x[t] for x in xs))
    -> carry, ys                                           ys[j][t] = y_t[j]

Operands ``consts..., init..., xs...``, results ``carry..., ys...``. How often it runs is part of the equation, never of
kernel text: compiling does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import autodiff, batching, pytree
from ..core.aval import Aval
from ..core.graph import Graph
from ..core.loops import Region
from ..core.primitive import Primitive
from ..errors import ArgumentError, ShapeError, TraceError, user_line
from ..interpreter import runner
from ..ops.movement import concatenate_p, slice_axis, swapaxes
from ..ops.operands import shape_of
from ..ops.shaping import broadcast_to_p, reshape_p
from ..trace import close, inline
from .bodies import (
    Leaves,
    arranged,
    bind,
    check_callable,
    check_carry,
    check_operands,
    closed,
    initial,
    kept,
    sliced,
    stacked,
    zeros,
)
from .reverse import pull_steps
from .segments import pull_segments

# --- scan[body, consts, carry, length, reverse, every] --------------------------------------------------------------


def _rule(
    *avals: Aval, body: Graph, consts: int, carry: int, length: int, reverse: bool, every: int | None = None
) -> tuple[Aval, ...]:
    first = consts + carry
    for x in avals[first:]:
        if not x.shape or x.shape[0] != length:
            raise ShapeError(f"scan: wants {length} slices on axis 0, got {x}")
    check_operands("scan", [v.aval for v in body.inputs], [*avals[:first], *map(sliced, avals[first:])])
    out = [a.aval for a in body.outputs]
    check_carry("scan", avals[consts:first], out[:carry])
    return (*out[:carry], *(stacked(a, length) for a in out[carry:]))


def _reference(
    *arrays: Any, body: Graph, consts: int, carry: int, length: int, reverse: bool, every: int | None = None
) -> Any:
    run, first = runner(body), consts + carry
    fixed, values, xs = arrays[:consts], list(arrays[consts:first]), arrays[first:]
    ys = [np.empty((length, *a.aval.shape), a.aval.dtype) for a in body.outputs[carry:]]
    for t in reversed(range(length)) if reverse else range(length):
        out = run(*fixed, *values, *[x[t] for x in xs])
        values = out[:carry]
        for y, value in zip(ys, out[carry:], strict=True):
            y[t] = value
    results = (*values, *ys)
    return results[0] if len(results) == 1 else results


def _push(inputs: Sequence[Any], tangents: Sequence[Any], *, body: Graph, **params: Any) -> tuple:
    """One scan over values and tangents. A carry moves when its init does, or what flows into it."""
    c, k = params["consts"], params["carry"]
    given = [t is not None for t in tangents]
    while True:
        pushed, moved = autodiff.push(body, given, [*given[c : c + k], *[False] * (len(body.outputs) - k)])
        if list(moved[:k]) == given[c : c + k]:
            break
        given[c : c + k] = moved[:k]
    pushed, extra = close(pushed)
    n, e, outs = len(inputs), len(extra), len(body.outputs)
    # As traced: extra, consts, carry, xs, tangents of them in that order; as a scan: consts all first, and so on.
    moving = [i for i in range(n) if given[i]]
    dots = {i: pushed.inputs[e + n + p] for p, i in enumerate(moving)}
    parts = [range(c), range(c, c + k), range(c + k, n)]
    order = list(pushed.inputs[:e])
    operands, counts = list(extra), []
    for part in parts:
        mine = [i for i in part if given[i]]
        order += [*(pushed.inputs[e + i] for i in part), *(dots[i] for i in mine)]
        operands += [inputs[i] for i in part]
        operands += [_tangent(tangents[i], pushed.inputs[e + i].aval) for i in mine]
        counts.append(len(part) + len(mine))
    moved_out = [i for i in range(outs) if moved[i]]
    groups = [[i for i in moved_out if i < k], [i for i in moved_out if i >= k]]
    dot_of = {i: pushed.outputs[outs + p] for p, i in enumerate(moved_out)}
    outputs = [*pushed.outputs[:k], *(dot_of[i] for i in groups[0])]
    outputs += [*pushed.outputs[k:outs], *(dot_of[i] for i in groups[1])]
    graph = arranged(pushed, order, outputs)
    results = bind(scan_p, operands, body=graph, **params | {"consts": e + counts[0], "carry": counts[1]})
    a = k + len(groups[0])
    values = results[:k] + results[a : a + outs - k]
    out_tangents: list[Any] = [None] * outs
    for i, t in zip(groups[0] + groups[1], results[k:a] + results[a + outs - k :], strict=True):
        out_tangents[i] = t
    return values, out_tangents


def _tangent(tangent: Any, aval: Aval) -> Any:
    return zeros(aval.shape, aval.dtype) if tangent is None else tangent


def _batch(args: Sequence[Any], batched: Sequence[bool], *, body: Graph, **params: Any) -> tuple:
    """A scan of the batched body: a carry is batched when its init is, or what flows into it; the loop axis comes first."""
    c, k = params["consts"], params["carry"]
    size = next(shape_of(a)[0] for a, b in zip(args, batched, strict=True) if b)
    flags = list(batched)
    while True:
        wanted = [*flags[c : c + k], *[False] * (len(body.outputs) - k)]
        mapped, carried = batching.batch(body, flags, size, wanted)
        if list(carried[:k]) == flags[c : c + k]:
            break
        flags[c : c + k] = carried[:k]
    mapped, extra = close(mapped)
    operands = list(args)
    for i in range(c, c + k):
        if flags[i] and not batched[i]:
            operands[i] = broadcast_to_p(args[i], shape=(size, *shape_of(args[i])))
    for i in range(c + k, len(args)):
        if batched[i]:
            operands[i] = swapaxes(args[i], 0, 1)
    results = bind(scan_p, [*extra, *operands], body=mapped, **params | {"consts": c + len(extra)})
    for i in range(k, len(results)):
        if carried[i]:
            results[i] = swapaxes(results[i], 0, 1)
    return results, carried


def _pull(inputs: Sequence[Any], wanted: Sequence[bool], *, every: int | None = None, **params: Any) -> tuple:
    """In reverse mode (`reverse`), with ``every`` in limited memory (`segments`)."""
    if every is not None and 1 < every < params["length"]:
        return pull_segments(scan_p, inputs, wanted, every, **params)
    return pull_steps(scan_p, inputs, wanted, recompute=every == 1, **params)


scan_p = Primitive(
    "scan",
    abstract=_rule,
    reference=_reference,
    vjp=None,
    jvp=None,
    batch=_batch,
    kernel=Region("scan"),
    pull=_pull,
    push=_push,
)


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    *,
    checkpoint_every: int | None = None,
) -> tuple[Any, Any]:
    """``carry, y = f(carry, x)`` for each slice ``x`` of ``xs`` along axis 0; the last carry, and all ``y`` stacked.

    Args: ``f`` takes and returns ``(carry, x)`` and ``(carry, y)``, any nesting of arrays; ``init`` the first carry (a
    Python number takes the dtype that ``f`` makes of it); ``xs`` arrays with one leading size, or None with ``length``;
    ``reverse`` runs from the last slice to the first (``ys`` stay at the index of their slice); ``unroll`` writes that
    many steps (all of them when True) one after the other, which compiles longer and is rarely faster.
    ``checkpoint_every=k``: reverse mode keeps the carry of every k-th step and computes the steps between anew, so that
    ``length / k`` carries and ``k`` steps' residuals are alive instead of ``length`` (Griewank 1992; √length is best).
    Returns: ``(carry, ys)``; the carry keeps the structure, shapes and dtypes of ``init``.
    Raises: `ShapeError`, `DTypeError` for a carry that changes, `ShapeError` for sizes that differ, `ArgumentError` for a
    length that is missing or negative.

    >>> scan(lambda total, x: (total + x, total), 0.0, np.array([1.0, 2.0, 4.0]))
    (array(7.), array([0., 1., 3.]))
    """
    check_callable("scan", f=f)
    carry, slices = Leaves("scan", "carry", init), Leaves("scan", "xs", xs)
    length = _length(slices, length)
    every, steps = _every(checkpoint_every), _unrolled(unroll, length)
    body, consts, avals, y_tree = _body(f, carry, slices)
    k = len(avals)
    operands = [*consts, *initial(carry, avals), *slices.values]
    params = {"consts": len(consts), "carry": k, "length": length, "reverse": bool(reverse)}
    if every is not None and every < length:
        params["every"] = every
    if steps > 1:
        results = _unroll(body, operands, steps, params)
    else:
        results = bind(scan_p, operands, body=body, **params) if body.outputs else []
    return pytree.unflatten(carry.structure, results[:k]), pytree.unflatten(y_tree[0], results[k:])


def _body(f: Callable, carry: Leaves, slices: Leaves) -> tuple[Graph, list[Any], list[Aval], list[Any]]:
    """The closed graph of one step, what it closes over, the avals of its carry, and how its ``y`` nests."""
    avals, k = list(carry.avals), len(carry.avals)
    y_tree: list[Any] = [None]
    while True:
        promoted: dict[int, Aval] = {}

        def step(*args: Any, promoted: dict[int, Aval] = promoted) -> list[Any]:
            out = f(pytree.unflatten(carry.structure, args[:k]), pytree.unflatten(slices.structure, args[k:]))
            if not isinstance(out, tuple) or len(out) != 2:
                raise TraceError(
                    f"scan: the function must return (carry, y), got {_what(out)}",
                    hint="return carry, None",
                    at=user_line(),
                )
            ys = Leaves("scan", "y", out[1])
            y_tree[0] = ys.structure
            return [*kept("scan", carry, avals, out[0], promoted), *ys.values]

        body, consts = closed(step, [*avals, *map(sliced, slices.avals)], getattr(f, "__name__", "f"))
        if not promoted:
            return body, consts, avals, y_tree
        for i, aval in promoted.items():
            avals[i] = aval


def _what(out: Any) -> str:
    return f"{len(out)} values" if isinstance(out, tuple) else type(out).__name__


_LONGEST = np.iinfo(np.int64).max


def _length(slices: Leaves, length: int | None) -> int:
    if length is not None and (isinstance(length, bool) or not isinstance(length, int | np.integer)):
        raise ArgumentError(f"scan: length must be an integer, got {length!r}", at=user_line())
    if length is not None and length < 0:
        raise ArgumentError(f"scan: length must be 0 or more, got {length}", at=user_line())
    if length is not None and length > _LONGEST:
        raise ArgumentError(f"scan: length must be at most {_LONGEST}, got {length}", at=user_line())
    sizes = {}
    for path, aval in zip(slices.paths, slices.avals, strict=True):
        if not aval.shape:
            raise ShapeError(
                f"scan: {path} has no axis to scan over, got {aval}", hint="x[None]", at=user_line()
            )
        sizes[path] = aval.shape[0]
    if len(set(sizes.values())) > 1:
        got = ", ".join(f"{path} has {n}" for path, n in sizes.items())
        raise ShapeError(f"scan: all xs must have one leading size, {got}", at=user_line())
    if not sizes:
        if length is None:
            raise ArgumentError("scan: without xs it needs a length", hint="length=n", at=user_line())
        return int(length)
    path, size = next(iter(sizes.items()))
    if length is not None and length != size:
        raise ShapeError(f"scan: length={length}, but {path} has {size} slices", at=user_line())
    return size


def _every(every: int | None) -> int | None:
    if every is None:
        return None
    if isinstance(every, bool) or not isinstance(every, int | np.integer) or every < 1:
        raise ArgumentError(
            f"scan: checkpoint_every must be 1 or more, got {every!r}",
            hint="the root of length",
            at=user_line(),
        )
    return int(every)


def _unrolled(unroll: int | bool, length: int) -> int:
    if unroll is True:
        return max(length, 1)
    if not isinstance(unroll, int | np.integer) or unroll < 0:
        raise ArgumentError(f"scan: unroll must be True or 1 or more, got {unroll!r}", at=user_line())
    return min(max(int(unroll), 1), max(length, 1))


def _unroll(body: Graph, operands: Sequence[Any], steps: int, params: dict[str, Any]) -> list[Any]:
    """``steps`` copies of ``body`` in a row; what does not fill a row of copies runs by itself at the loop's end."""
    c, k, length, reverse = params["consts"], params["carry"], params["length"], params["reverse"]
    fixed, values, xs = operands[:c], list(operands[c : c + k]), operands[c + k :]
    rows, rest = divmod(length, steps)

    def row(values: Sequence[Any], xs: Sequence[Any], count: int) -> list[Any]:
        ys: list[list[Any]] = [[] for _ in body.outputs[k:]]
        for t in reversed(range(count)) if reverse else range(count):
            at_t = [reshape_p(slice_axis(x, 0, t, t + 1), shape=shape_of(x)[1:]) for x in xs]
            out = inline(body, [*fixed, *values, *at_t])
            values = out[:k]
            for y, value in zip(ys, out[k:], strict=True):
                y.append(value)
        return [
            *values,
            *(_stack(y[::-1] if reverse else y, a.aval) for y, a in zip(ys, body.outputs[k:], strict=True)),
        ]

    cut = rest if reverse else rows * steps
    head = [slice_axis(x, 0, cut, length) if reverse else slice_axis(x, 0, 0, cut) for x in xs]
    tail = [slice_axis(x, 0, 0, cut) if reverse else slice_axis(x, 0, cut, length) for x in xs]
    if rows > 1:
        grouped = [reshape_p(x, shape=(rows, steps, *shape_of(x)[1:])) for x in head]
        avals = [*(a.aval for a in body.outputs[:k]), *(stacked(v.aval, steps) for v in body.inputs[c + k :])]
        graph, consts = closed(lambda *a: row(a[:k], a[k:], steps), avals, body.name)
        results = bind(
            scan_p,
            [*consts, *values, *grouped],
            body=graph,
            consts=len(consts),
            carry=k,
            length=rows,
            reverse=reverse,
        )
        done = [reshape_p(y, shape=(rows * steps, *shape_of(y)[2:])) for y in results[k:]]
        values = results[:k]
    else:
        out = row(values, head, rows * steps)
        values, done = out[:k], out[k:]
    if rest:
        out = row(values, tail, rest)
        values = out[:k]
        done = [
            concatenate_p(*((b, a) if reverse else (a, b)), axis=0)
            for a, b in zip(done, out[k:], strict=True)
        ]
    return [*values, *done]


def _stack(ys: Sequence[Any], aval: Aval) -> Any:
    rows = [reshape_p(y, shape=(1, *aval.shape)) for y in ys]
    return concatenate_p(*rows, axis=0) if len(rows) > 1 else rows[0]
