"""Reverse mode in √n memory: the carry of every k-th step is kept, and the steps between are run again.

A scan of n steps becomes a scan over n / k segments whose body is a scan of k steps. Backward goes over the segments the
other way round and runs each again, with residuals, before it goes back through it: n / k carries and one segment's
residuals are alive at a time (Griewank 1992, *Achieving logarithmic growth of temporal and spatial complexity in reverse
automatic differentiation*, with two levels; Chen et al. 2016). Steps that fill no segment run last, by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.graph import Graph
from ..core.primitive import Primitive
from ..ops.movement import concatenate_p, slice_axis
from ..ops.operands import shape_of
from ..ops.shaping import reshape_p
from .bodies import bind, closed, stacked, zeros
from .reverse import Back, active_inputs, pull_steps


def pull_segments(
    scan_p: Primitive, inputs: Sequence[Any], wanted: Sequence[bool], every: int, *,
    body: Graph, consts: int, carry: int, length: int, reverse: bool,
) -> tuple[list[Any], Back]:  # fmt: skip
    """As `reverse.pull_steps`, where the body reads only carries that were kept."""
    first, whole = consts + carry, length // every * every
    lo, hi = (length - whole, length) if reverse else (0, whole)
    shared: dict[str, Any] = {"body": body, "consts": consts, "carry": carry, "reverse": reverse}
    xs = [_part(x, lo, hi) for x in inputs[first:]]
    outs, back_whole = _pull_whole(scan_p, [*inputs[:first], *xs], wanted, every, length=whole, **shared)
    if whole == length:
        return outs, back_whole
    left, right = (0, lo) if reverse else (hi, length)
    xs = [_part(x, left, right) for x in inputs[first:]]
    # A carry that is not wanted at first may be by the time that the rest begins.
    live = set(active_inputs(body, wanted, consts, carry))
    outs_rest, back_rest = pull_steps(
        scan_p, [*inputs[:consts], *outs[:carry], *xs], [i in live for i in range(len(inputs))],
        length=length - whole, recompute=False, **shared,
    )  # fmt: skip
    ys = [_joined(a, b, reverse) for a, b in zip(outs[carry:], outs_rest[carry:], strict=True)]

    def back(cts: Sequence[Any]) -> list[Any]:
        late = [None if ct is None else _part(ct, left, right) for ct in cts[carry:]]
        early = [None if ct is None else _part(ct, lo, hi) for ct in cts[carry:]]
        rest = back_rest([*cts[:carry], *late])
        found = back_whole([*rest[consts:first], *early])
        for i in range(consts):
            found[i] = _sum(found[i], rest[i])
        for i in range(first, len(inputs)):
            if wanted[i] and not (found[i] is None and rest[i] is None):
                shape, dtype = body.inputs[i].aval.shape, body.inputs[i].aval.dtype
                a = zeros((whole, *shape), dtype) if found[i] is None else found[i]
                b = zeros((length - whole, *shape), dtype) if rest[i] is None else rest[i]
                found[i] = _joined(a, b, reverse)
        return found

    return [*outs_rest[:carry], *ys], back


def _pull_whole(
    scan_p: Primitive, inputs: Sequence[Any], wanted: Sequence[bool], every: int, *,
    body: Graph, consts: int, carry: int, reverse: bool, length: int,
) -> tuple[list[Any], Back]:  # fmt: skip
    """The steps that fill segments."""
    first = consts + carry
    shared: dict[str, Any] = {"consts": consts, "carry": carry, "reverse": reverse}

    def segment(*args: Any) -> list[Any]:
        return bind(scan_p, args, body=body, length=every, **shared)

    avals = [v.aval for v in body.inputs]
    graph, extra = closed(segment, [*avals[:first], *(stacked(a, every) for a in avals[first:])], body.name)
    assert not extra
    rows = [_folded(x, every) for x in inputs[first:]]
    outs, back = pull_steps(
        scan_p, [*inputs[:first], *rows], wanted, body=graph, length=length // every, recompute=True, **shared
    )

    def back_segments(cts: Sequence[Any]) -> list[Any]:
        found = back([*cts[:carry], *(None if ct is None else _folded(ct, every) for ct in cts[carry:])])
        return [*found[:first], *(None if ct is None else _unfolded(ct) for ct in found[first:])]

    return [*outs[:carry], *map(_unfolded, outs[carry:])], back_segments


def _part(x: Any, start: int, stop: int) -> Any:
    return x if (start, stop) == (0, shape_of(x)[0]) else slice_axis(x, 0, start, stop)


def _folded(x: Any, every: int) -> Any:
    """``[n, ...]`` as ``[n / every, every, ...]``."""
    n, *rest = shape_of(x)
    return reshape_p(x, shape=(n // every, every, *rest))


def _unfolded(x: Any) -> Any:
    """``[n, k, ...]`` as ``[n * k, ...]``."""
    n, k, *rest = shape_of(x)
    return reshape_p(x, shape=(n * k, *rest))


def _sum(a: Any, b: Any) -> Any:
    """The sum of two cotangents, None where both are zero."""
    return a if b is None else b if a is None else a + b


def _joined(a: Any, b: Any, reverse: bool) -> Any:
    """The segments' part and the rest's, in the order of the slices."""
    return concatenate_p(*((b, a) if reverse else (a, b)), axis=0)
