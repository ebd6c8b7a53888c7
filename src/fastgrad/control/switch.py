"""switch[branches](index, operands...): one of several branches runs, the others cost nothing.

``index`` is an int64 scalar, clamped into the range of branches. All branches take the same operands and give results
of equal shapes and dtypes. `cond` is a switch between two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import autodiff, batching, passes, pytree
from ..autodiff import is_float
from ..core.aval import Aval, result_type
from ..core.graph import Graph, Var, verify
from ..core.loops import Region
from ..core.primitive import Primitive
from ..errors import ArgumentError, DTypeError, GraphError, ShapeError, TraceError, user_line
from ..interpreter import runner
from ..ops.comparison import equal, greater_equal, less, truth
from ..ops.elementwise import minimum
from ..ops.operands import shape_of
from ..ops.pointwise import convert, promote, select_p
from ..ops.reduce import any as any_
from ..ops.shaping import reshape_p
from ..trace import close, inline, trace
from .bodies import (
    Leaves,
    bind,
    check_callable,
    check_operands,
    closed,
    nesting,
    number_aval,
    scalar_aval_of,
    zeros,
)
from .guard import guarded, may_be_refused
from .linear import without_zeros

# --- switch[branches] -------------------------------------------------------------------------------------------------


def _rule(index: Aval, *operands: Aval, branches: tuple[Graph, ...]) -> tuple[Aval, ...]:
    if index.shape or index.dtype != np.int64:
        raise ShapeError(f"switch: the index must be an i64 scalar, got {index}")
    first = [a.aval for a in branches[0].outputs]
    for i, branch in enumerate(branches):
        check_operands(f"switch, branch {i}", [v.aval for v in branch.inputs], operands)
        mine = [a.aval for a in branch.outputs]
        if [(a.shape, a.dtype) for a in mine] != [(a.shape, a.dtype) for a in first]:
            raise GraphError(f"switch: branch {i} gives {_list(mine)}, branch 0 gives {_list(first)}")
    weak = (all(b.outputs[i].aval.weak for b in branches) for i in range(len(first)))
    return tuple(Aval(a.shape, a.dtype, w) for a, w in zip(first, weak, strict=True))


def _list(avals: Sequence[Aval]) -> str:
    return ", ".join(map(str, avals))


def _reference(index: Any, *operands: Any, branches: tuple[Graph, ...]) -> Any:
    out = runner(branches[min(max(int(index), 0), len(branches) - 1)])(*operands)
    return out[0] if len(out) == 1 else tuple(out)


class _Joint:
    """Branches under construction: each closes over values of its own, which become operands of all."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.graphs: list[tuple[Graph, int, int]] = []  # a graph, where its values begin, how many they are

    def add(self, graph: Graph) -> None:
        """One more branch; its captured values come first among its inputs."""
        graph, extra = close(graph)
        self.graphs.append((graph, len(self.values), len(extra)))
        self.values += extra

    def branches(self) -> tuple[Graph, ...]:
        """All branches with the same operands: ``values``, then the rest."""
        out = []
        for graph, start, count in self.graphs:
            spare = [Var(scalar_aval_of(v)) for v in self.values]
            spare[start : start + count] = graph.inputs[:count]
            out.append(verify(replace(graph, inputs=(*spare, *graph.inputs[count:])), typed=graph.eqns))
        return tuple(out)


def _push(inputs: Sequence[Any], tangents: Sequence[Any], *, branches: tuple[Graph, ...]) -> tuple:
    given = [t is not None for t in tangents[1:]]
    wanted = [False] * len(branches[0].outputs)
    for branch in branches:
        moved = autodiff.push(branch, given, wanted)[1]
        wanted = [a or b for a, b in zip(wanted, moved, strict=True)]
    joint = _Joint()
    for branch in branches:
        joint.add(autodiff.push(branch, given, wanted)[0])
    moving = [t for t in tangents[1:] if t is not None]
    results = bind(switch_p, [inputs[0], *joint.values, *inputs[1:], *moving], branches=joint.branches())
    rest = iter(results[len(wanted) :])
    return results[: len(wanted)], [next(rest) if w else None for w in wanted]


def _batch(args: Sequence[Any], batched: Sequence[bool], *, branches: tuple[Graph, ...]) -> tuple:
    """One index: a switch of batched branches. An index for each element: all branches run, and a select chooses."""
    index, operands = args[0], args[1:]
    size = next(shape_of(a)[0] for a, b in zip(args, batched, strict=True) if b)
    carried = [batched[0]] * len(branches[0].outputs)
    for branch in branches:
        flags = batching.batch(branch, batched[1:], size, carried)[1]
        carried = [a or b for a, b in zip(carried, flags, strict=True)]
    graphs = [batching.batch(branch, batched[1:], size, carried)[0] for branch in branches]
    if not batched[0]:
        joint = _Joint()
        for graph in graphs:
            joint.add(graph)
        return bind(switch_p, [index, *joint.values, *operands], branches=joint.branches()), carried
    results: list[Any] = []
    for i, (branch, graph) in enumerate(zip(branches, graphs, strict=True)):
        given = operands
        if len(branches) > 1 and may_be_refused(branch):
            alive = _taken(index, i, len(branches))
            given = [alive, any_(alive), *operands]
            inputs = [True, False, *batched[1:]]
            graph, _ = batching.batch(guarded(branch, batched[1:]), inputs, size, carried)
        new = inline(graph, given)
        chosen = greater_equal(index, i)
        results = [_chosen(chosen, a, b) for a, b in zip(new, results, strict=True)] if i else new
    return results, carried


def _taken(index: Any, i: int, count: int) -> Any:
    """Which elements take branch ``i`` of several, the first and the last of them also those beyond."""
    if i == 0:
        return less(index, 1)
    return greater_equal(index, i) if i == count - 1 else equal(index, i)


def _chosen(taken: Any, new: Any, old: Any) -> Any:
    shape = shape_of(new)
    return select_p(reshape_p(taken, shape=(shape[0], *(1,) * (len(shape) - 1))), *promote(new, old))


def _pull(inputs: Sequence[Any], wanted: Sequence[bool], *, branches: tuple[Graph, ...]) -> tuple:
    """Forward also returns the residuals of the branch taken, in slots that branches share by shape and dtype."""
    wrt = [i for i, w in enumerate(wanted[1:]) if w]
    outs = len(branches[0].outputs)
    joint = _Joint()
    for branch in branches:
        joint.add(passes.tidy(autodiff.vjp(branch, wrt)))
    operands = [*joint.values, *inputs[1:]]
    n = len(operands)
    halves = [autodiff.split(graph, n, outs) for graph in joint.branches()]
    slots: list[Aval] = []
    places = [_places(forward, outs, slots) for forward, _ in halves]
    avals = [scalar_aval_of(v) for v in operands]
    forward = [
        _forward(half, outs, place, slots, avals) for (half, _), place in zip(halves, places, strict=True)
    ]
    results = bind(switch_p, [inputs[0], *operands], branches=tuple(forward))
    floats = [i for i, a in enumerate(branches[0].outputs) if is_float(a)]

    def back(cts: Sequence[Any]) -> list[Any]:
        given = [cts[i] is not None for i in floats]
        parts = [without_zeros(b, len(b.inputs) - len(floats), given) for _, b in halves]
        reached = [any(flags[p] for _, flags in parts) for p in range(len(wrt))]
        found: list[Any] = [None] * len(inputs)
        if not any(reached):
            return found
        alive = [cts[i] for i, g in zip(floats, given, strict=True) if g]
        kinds = [avals[len(joint.values) + i] for i in wrt]
        every = [*avals, *slots, *map(scalar_aval_of, alive)]
        backward = tuple(
            _backward(graph, flags, place, reached, kinds, every, n, len(slots))
            for (graph, flags), place in zip(parts, places, strict=True)
        )
        arguments = [inputs[0], *operands, *results[outs:], *alive]
        outputs = iter(bind(switch_p, arguments, branches=backward))
        for i, r in zip(wrt, reached, strict=True):
            found[1 + i] = next(outputs) if r else None
        return found

    return results[:outs], back


Place = tuple[bool, int]
"""Where backward reads a residual: (False, operand number) or (True, slot number)."""


def _places(forward: Graph, outs: int, slots: list[Aval]) -> list[Place]:
    """A place for each residual; ``slots`` grows where no slot of its kind is free."""
    operands = {v: i for i, v in enumerate(forward.inputs)}
    free = dict(enumerate(slots))
    places: list[Place] = []
    for v in forward.outputs[outs:]:
        if v in operands:
            places.append((False, operands[v]))  # type: ignore[index]
            continue
        kind = Aval(v.aval.shape, v.aval.dtype)
        at = next((i for i, have in free.items() if have == kind), len(slots))
        if at == len(slots):
            slots.append(kind)
        free.pop(at, None)
        places.append((True, at))
    return places


def _forward(
    half: Graph, outs: int, places: Sequence[Place], slots: Sequence[Aval], avals: Sequence[Aval]
) -> Graph:
    """A branch that fills its slots; those of others are zero."""

    def branch(*operands: Any) -> list[Any]:
        results = inline(half, operands)
        filled = {at: v for (slot, at), v in zip(places, results[outs:], strict=True) if slot}
        return [
            *results[:outs],
            *(filled[i] if i in filled else zeros(a.shape, a.dtype) for i, a in enumerate(slots)),
        ]

    return closed(branch, avals, half.name)[0]


def _backward(
    graph: Graph, flags: Sequence[bool], places: Sequence[Place], reached: Sequence[bool], kinds: Sequence[Aval],
    avals: Sequence[Aval], n: int, slots: int,
) -> Graph:  # fmt: skip
    """A branch from operands, slots and cotangents to the cotangents that some branch gives."""

    def branch(*args: Any) -> list[Any]:
        residuals = [args[n + at] if slot else args[at] for slot, at in places]
        outputs = iter(inline(graph, [*residuals, *args[n + slots :]]))
        found = [next(outputs) if flag else None for flag in flags]
        return [
            zeros(kind.shape, kind.dtype) if ct is None else ct
            for ct, kind, r in zip(found, kinds, reached, strict=True)
            if r
        ]

    return closed(branch, avals, graph.name)[0]


switch_p = Primitive(
    "switch",
    abstract=_rule,
    reference=_reference,
    vjp=None,
    jvp=None,
    batch=_batch,
    kernel=Region("switch"),
    pull=_pull,
    push=_push,
)


def switch(index: Any, branches: Sequence[Callable], *operands: Any) -> Any:
    """``branches[index](*operands)``; only that branch runs. ``index`` is clamped into ``[0, len(branches))``.

    Args: ``index`` an integer scalar; ``branches`` functions of the operands whose results agree in structure, shapes and
    dtypes (Python numbers take the dtype of the others); ``operands`` any nestings of arrays.
    Under `vmap` with an index for each element every branch runs and the results are chosen from.
    Raises: `ShapeError`, `DTypeError` where branches disagree, `ArgumentError` without branches.

    >>> switch(1, [np.sin, np.square], np.array(3.0))
    array(9.)
    """
    if not isinstance(branches, Iterable):
        raise TraceError(
            f"switch: branches must be a list of functions, got {type(branches).__name__}", at=user_line()
        )
    branches = list(branches)
    if not branches:
        raise ArgumentError("switch: wants at least one branch, got none", at=user_line())
    check_callable("switch", **{f"branches[{i}]": fn for i, fn in enumerate(branches)})
    kind = number_aval("switch", "index", index)
    if kind.shape or kind.dtype.kind not in "iu":
        hint = "fg.cond" if kind.dtype.kind == "b" else None
        raise ShapeError(
            f"switch: the index must be an integer scalar, got {kind}", hint=hint, at=user_line()
        )
    if kind.dtype == np.uint64:  # beyond int64 it would come out negative
        index = minimum(index, np.uint64(len(branches)))
    return _switch("switch", convert(index, np.dtype(np.int64)), branches, operands)


def cond(pred: Any, true_fun: Callable, false_fun: Callable, *operands: Any) -> Any:
    """``true_fun(*operands)`` where ``pred`` holds, else ``false_fun(*operands)``; only one of them runs.

    Args: ``pred`` a bool scalar (a number holds where it is not 0); the functions' results agree in structure, shapes
    and dtypes. Under `vmap` with a ``pred`` for each element both run and the results are chosen from.
    Raises: `ShapeError`, `DTypeError` where the branches disagree or ``pred`` is no scalar.

    >>> cond(True, lambda x: x + 1, lambda x: x - 1, np.array(3.0))
    array(4.)
    """
    check_callable("cond", true_fun=true_fun, false_fun=false_fun)
    kind = number_aval("cond", "pred", pred)
    if kind.shape:
        raise ShapeError(
            f"cond: the predicate must be a bool scalar, got {kind}",
            hint="np.where(pred, x, y), or pred.all()",
            at=user_line(),
        )
    return _switch("cond", convert(truth(pred), np.dtype(np.int64)), [false_fun, true_fun], operands)


_NAMES = {"cond": ("false_fun", "true_fun")}


def _switch(op: str, index: Any, functions: Sequence[Callable], operands: Sequence[Any]) -> Any:
    given = Leaves(op, "operands", tuple(operands))
    names = _NAMES.get(op) or [f"branches[{i}]" for i in range(len(functions))]
    kinds: list[Aval] | None = None
    while True:
        joint, found = _Joint(), []
        for name, fn in zip(names, functions, strict=True):
            graph, out = _branch(op, name, fn, given, kinds)
            joint.add(graph)
            found.append(out)
        wanted = _agreed(op, names, found)
        if all([a.dtype for a in out.avals] == [a.dtype for a in wanted] for out in found) or kinds == wanted:
            break
        kinds = wanted
    if not wanted:
        return pytree.unflatten(found[0].structure, [])
    results = bind(switch_p, [index, *joint.values, *given.values], branches=joint.branches())
    return pytree.unflatten(found[0].structure, results)


def _branch(
    op: str, name: str, fn: Callable, given: Leaves, kinds: list[Aval] | None
) -> tuple[Graph, Leaves]:
    """One branch traced; its results in the dtypes of ``kinds``, once those are known."""
    found: list[Leaves] = []

    def flat(*args: Any) -> list[Any]:
        out = Leaves(op, f"the result of {name}", fn(*pytree.unflatten(given.structure, args)))
        found.append(out)
        if kinds is None:
            return out.values
        return [convert(v, k.dtype) for v, k in zip(out.values, kinds, strict=True)]

    graph = trace(flat, given.avals, name=getattr(fn, "__name__", "f"))
    return graph, found[0]


def _agreed(op: str, names: Sequence[str], found: Sequence[Leaves]) -> list[Aval]:
    """The avals that all branches have in common, weak ones adopting the others' dtype; raises where they disagree."""
    first = found[0]
    agreed = list(first.avals)
    for name, out in zip(names[1:], found[1:], strict=True):
        if out.structure != first.structure:
            raise ShapeError(
                f"{op}: branches must return one structure, {names[0]} gives {nesting(first)}, "
                f"{name} gives {nesting(out)}",
                at=user_line(),
            )
        for i, (a, b) in enumerate(zip(agreed, out.avals, strict=True)):
            dtype, weak = result_type(a, b)
            path = first.paths[i].removeprefix(f"the result of {names[0]}")
            message = f"{op}: branches must agree, result{path} is {a} from {names[0]} and {b} from {name}"
            if a.shape != b.shape:
                raise ShapeError(message, hint=_broadcast_hint(a, b), at=user_line())
            if a.dtype != b.dtype and not (a.weak or b.weak):
                raise DTypeError(message, hint=f".astype(np.{dtype.name})", at=user_line())
            agreed[i] = Aval(a.shape, dtype, weak)
    return agreed


def _broadcast_hint(a: Aval, b: Aval) -> str | None:
    """How one of two shapes becomes the other, where it can."""
    try:
        common = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        return None
    return f"np.broadcast_to(x, {common})" if common in (a.shape, b.shape) else None
