"""Values that are cheap to compute again from another one stored beside them are not stored.

    z, u, t = gemm(...)          u = 0.04 * z * z         z, t = gemm(...)
    dz = gemm(...)  reads z, u, t                   ->    dz = gemm(...)  reads z, t; computes u again

That is a store and a load an element less each, of some bytes, for a few lines that a core computes in less time than
they take. How many follows from what the machine does at best (`machine.Rates.lines_worth_storing`), never from a size, so
that kernels serve every size. Whoever reads the value must read what it comes from already, element for element. Bits stay,
as the lines are the same: an addition or a product is rounded by itself, whatever stands around it.

Measured (Xeon, AVX-512, float32, [rows, 32] between two products): at 4 lines 13% less time in the first cache, 12% in the
second, 24% in the third, 19% in memory; even at 12 lines in the first two, beyond 24 in the others. The rates say 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..core.expr import Line, Map, MapBuilder
from .group import MAX_LINES
from .steps import Buffer, Gemm, Loop, Ref, Schedule, Step

MOST_LINES = 8
"""What is worth a store and a load where nothing is known of the machine."""
_CHEAP = frozenset(
    {
        "const", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "neg", "abs", "cast", "add", "sub", "mul",
        "max", "min", "select",
    }
)  # fmt: skip


class Recipe(NamedTuple):
    """How a stored value comes of others: ``map`` over the elements of ``sources``, then ``scalars``."""

    map: Map
    sources: tuple[Ref, ...]
    scalars: tuple[np.generic, ...]


def recomputed(schedule: Schedule, most_lines: int = MOST_LINES) -> Schedule:
    """The schedule with values of at most so many cheap lines computed where they are read.

    Each reader computes them: with n of them the value saves n + 1 moves, not 2 n.
    """
    steps = list(schedule.steps)
    writers: dict[Buffer, list[int]] = {}
    readers: dict[Buffer, list[int]] = {}
    for i, step in enumerate(steps):
        for buffer in {ref.buffer for ref in step.writes}:
            writers.setdefault(buffer, []).append(i)
        for buffer in {ref.buffer for ref in step.reads}:
            readers.setdefault(buffer, []).append(i)
    kept = {*schedule.inputs, *schedule.outputs}
    for i, step in enumerate(steps):
        if not isinstance(step, Loop | Gemm) or len(step.stores) < 2:
            continue
        for ref in step.stores:
            if ref.buffer in kept or writers[ref.buffer] != [i]:
                continue
            users = readers.get(ref.buffer, [])
            room = most_lines * (1 + len(users)) // (2 * len(users)) if users else 0
            recipe = _recipe(steps[i], ref, {b for b, found in writers.items() if found == [i]}, room)
            if recipe is not None and all(_may_compute(steps[u], ref, recipe) for u in users):
                for u in users:
                    steps[u] = _computing(steps[u], ref, recipe)
                steps[i] = _without(steps[i], ref)
    return replace(schedule, steps=tuple(steps))


def _first(step: Step) -> int:
    """The number of the first load among a Map's inputs."""
    return int(isinstance(step, Gemm))


def _recipe(step: Step, target: Ref, whole: set[Buffer], most_lines: int) -> Recipe | None:
    """How ``target`` comes of what ``step`` stores besides, in so many lines; it writes the ``whole`` of some."""
    assert isinstance(step, Loop | Gemm)
    n = len(step.map.inputs)
    stored = {
        value: ref
        for value, ref in zip(step.map.outputs, step.stores, strict=False)
        if ref.buffer in whole and ref.layout == target.layout and ref.buffer is not target.buffer
    }
    scalars = range(_first(step) + len(step.loads), n)
    value = step.map.outputs[[ref.buffer for ref in step.stores].index(target.buffer)]
    if value in stored or value < n:
        return None
    lines: set[int] = set()
    sources: set[int] = set()
    literals: set[int] = set()
    todo = [value]
    while todo:
        v = todo.pop()
        if v in stored:
            sources.add(v)
        elif v in scalars:
            literals.add(v)
        elif v < n or step.map.lines[v - n].op not in _CHEAP:
            return None
        elif v not in lines:
            lines.add(v)
            todo += step.map.lines[v - n].args if step.map.lines[v - n].op != "const" else ()
    if not sources or sum(step.map.lines[v - n].op != "const" for v in lines) > most_lines:
        return None
    k = MapBuilder()
    number = {v: k.input(step.map.dtype(v)) for v in (*sorted(sources), *sorted(literals))}
    inputs = list(number.values())
    for v in sorted(lines):
        number[v] = _line(k, step.map.lines[v - n], number)
    refs = tuple(stored[v] for v in sorted(sources))
    given = tuple(step.scalars[v - scalars.start] for v in sorted(literals))
    return Recipe(k.build([number[value]], inputs), refs, given)


def _line(k: MapBuilder, line: Line, number: Mapping[int, int]) -> int:
    args = line.args if line.op == "const" else tuple(number[a] for a in line.args)
    return k.line(line.op, *args, dtype=line.dtype)


def _may_compute(step: Step, target: Ref, recipe: Recipe) -> bool:
    """Whether ``step`` reads ``target`` as an operand of its lines alone, and what it comes from too."""
    if not isinstance(step, Loop | Gemm):
        return False
    reads = [ref for ref in step.reads if ref.buffer is target.buffer]
    room = len(step.map.lines) + len(recipe.map.lines) <= MAX_LINES
    return (
        room
        and reads == [target]
        and target in step.loads
        and all(ref in step.loads for ref in recipe.sources)
    )


def _computing(step: Step, target: Ref, recipe: Recipe) -> Step:
    """``step`` with the recipe's lines in front instead of a load of ``target``."""
    assert isinstance(step, Loop | Gemm)
    first, given = _first(step), step.map
    k = MapBuilder()
    inputs = [k.input(d) for d in given.inputs]
    extra = [k.input(d) for d in recipe.map.inputs[len(recipe.sources) :]]
    loads = {ref: inputs[first + i] for i, ref in enumerate(step.loads)}
    local = dict(enumerate([*(loads[ref] for ref in recipe.sources), *extra]))
    for i, line in enumerate(recipe.map.lines, len(local)):
        local[i] = _line(k, line, local)
    number = dict(enumerate(inputs))
    number[first + step.loads.index(target)] = local[recipe.map.outputs[0]]
    for i, line in enumerate(given.lines, len(inputs)):
        number[i] = _line(k, line, number)
    rest = [value for value in inputs if value != loads[target]]
    lines = k.build([number[o] for o in given.outputs], [*rest, *extra])
    kept = tuple(ref for ref in step.loads if ref != target)
    return replace(step, map=lines, loads=kept, scalars=(*step.scalars, *recipe.scalars))


def _without(step: Step, target: Ref) -> Step:
    """``step`` without its store of ``target``; the lines that only that took go, with their operands."""
    assert isinstance(step, Loop | Gemm)
    first, given = _first(step), step.map
    outputs = [
        o for o, ref in zip(given.outputs, step.stores, strict=False) if ref.buffer is not target.buffer
    ]
    outputs += given.outputs[len(step.stores) :]
    k = MapBuilder()
    number = {i: k.input(d) for i, d in enumerate(given.inputs)}
    for i, line in enumerate(given.lines, len(given.inputs)):
        number[i] = _line(k, line, number)
    needed = k.needed([number[o] for o in outputs])
    operands: Sequence[int] = [number[i] for i in range(first, len(given.inputs))]
    used = [value in needed for value in operands]
    n = len(step.loads)
    inputs = [*(number[i] for i in range(first)), *(v for v, use in zip(operands, used, strict=True) if use)]
    return replace(
        step,
        map=k.build([number[o] for o in outputs], inputs),
        loads=tuple(ref for ref, use in zip(step.loads, used[:n], strict=True) if use),
        scalars=tuple(s for s, use in zip(step.scalars, used[n:], strict=True) if use),
        stores=tuple(ref for ref in step.stores if ref.buffer is not target.buffer),
    )
