"""How much work a step is: floating-point operations, bytes read and written, what to call it, whose line it stems from.

An arithmetic line of a kernel (an addition, a product, a comparison, a choice) counts as one operation an element; a
product of matrices as 2 k an element, as in the literature; a function as the operations of the polynomial that computes
it. Bytes are those of the arrays that a step names, each once: what passes by a cache that holds them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from ..codegen.bfloat16 import OF_FLOAT32
from ..core.expr import Map, MapBuilder
from ..core.graph import Eqn, Var
from ..core.loops import Pointwise, Reduce
from ..schedule import Computed, Gemm, Indices, Loop, Pack, Phases, Ref, Routine, nest

FUNCTION_OPS = {
    "exp": 16, "exp2": 14, "expm1": 18, "log": 18, "log2": 18, "log10": 18, "log1p": 20, "plain_log": 18,
    "tanh": 24, "sigmoid": 20, "softplus": 36, "erf": 24, "gelu": 28, "sin": 22, "cos": 22, "tan": 30,
    "pow": 40, "sqrt": 1, "rsqrt": 4, "cbrt": 20, "ndtri": 40, "threefry32": 80, "threefry64": 80,
}  # fmt: skip
"""Operations of one value of a function, roughly; every other line counts as one."""
_FREE = frozenset({"const", "cast"})


class Work(NamedTuple):
    """What one run of a step does: operations, bytes read and written, and the dtype that it mostly computes in.

    ``pace``: how many times the rate of that dtype's multiply-adds its instructions can reach.
    """

    flops: int
    read: int
    written: int
    dtype: str
    pace: float = 1.0


def work_of(step: Computed) -> Work:
    """The work of one step."""
    if isinstance(step, Gemm):
        batch, m, n, k = step.sizes
        flops = 2 * batch * m * n * k + batch * m * n * map_ops(step.map)
        pace = OF_FLOAT32.get(step.form, 1.0)
        return Work(flops, _bytes(step.reads), _bytes(step.writes), _name(step.a.buffer.dtype), pace)
    if isinstance(step, Loop):
        elements = math.prod(step.shape)
        flops = elements * (map_ops(step.map) + len(step.folds))
        written = _bytes(step.stores)
        written += sum(
            (nest(step).tiles if step.partial else math.prod(f.ref.layout.shape))
            * f.ref.buffer.dtype.itemsize
            for f in step.folds
        )
        dtypes = [line.dtype for line in step.map.lines] or [r.buffer.dtype for r in step.writes]
        return Work(flops, _bytes(step.loads), written, _main(dtypes))
    if isinstance(step, Phases):
        parts = [work_of(part) for part in step.parts]
        dtype = _main([np.dtype(part.dtype) for part in parts])
        return Work(sum(part.flops for part in parts), _bytes(step.reads), _bytes(step.writes), dtype)
    if isinstance(step, Pack):
        return Work(0, _bytes(step.reads), _bytes(step.writes), _name(step.source.buffer.dtype))
    return _routine(step)


def map_ops(lines: Map) -> int:
    """Operations an element."""
    return sum(FUNCTION_OPS.get(line.op, line.op not in _FREE) for line in lines.lines)


def _bytes(refs: Sequence[Ref]) -> int:
    """Bytes of the distinct elements: an axis of stride 0 shows the same ones again, a window that is read twice is one."""
    seen: Iterable[Ref] = (
        refs if len(refs) < 2 else dict.fromkeys(refs)
    )  # a window on a buffer: the same window counts once
    return sum(
        r.buffer.dtype.itemsize
        * math.prod(n for n, axis in zip(r.layout.shape, r.layout.axes, strict=True) if axis.kind != "zero")
        for r in seen
        if not isinstance(r.buffer, Indices)
    )


def _main(dtypes: Sequence[np.dtype]) -> str:
    floats = [d for d in dtypes if d.kind == "f"]
    return _name(max(floats, key=floats.count) if floats else dtypes[0]) if dtypes else "float32"


@cache
def _name(dtype: np.dtype) -> str:
    return dtype.name  # NumPy puts it together each time


def _routine(step: Routine) -> Work:
    """Routines that pick by index touch as much of the array as there are indices to it, at most."""
    read, written, flops = _bytes(step.reads), _bytes(step.writes), 0
    size = step.writes[0].buffer.dtype.itemsize
    if step.name == "take":
        outer, _, count, inner = step.sizes
        read = min(read, outer * count * inner * size + step.reads[1].nbytes)
    elif step.name.startswith("write_"):
        outer, _, count, inner = step.sizes
        written = min(written, outer * count * inner * size)
        flops = 0 if step.name == "write_set" else outer * count * inner
    elif step.name == "scatter_add":
        outer, _, count, inner = step.sizes
        flops = outer * count * inner
    elif step.name == "cumsum":
        flops = step.writes[0].buffer.size
    return Work(flops, read, written, _name(step.writes[0].buffer.dtype))


def work_of_eqn(eqn: Eqn) -> Work:
    """The work of one equation that is computed by itself, as the interpreter does: every operand comes from memory."""
    kernel, out = eqn.prim.kernel, eqn.outputs[0].aval if eqn.outputs else None
    read = sum(v.aval.nbytes for v in dict.fromkeys(a for a in eqn.inputs if isinstance(a, Var)))
    written = sum(v.aval.nbytes for v in eqn.outputs)
    if out is None:
        return Work(0, read, written, "float32")
    flops = 0
    if isinstance(kernel, Pointwise):
        lines = MapBuilder()
        values = [lines.input(a.aval.dtype) for a in eqn.inputs]
        result = kernel.lines(lines, out.dtype, *values, **eqn.params)
        flops = out.size * map_ops(lines.build([result], values))
    elif isinstance(kernel, Reduce):
        flops = eqn.inputs[0].aval.size
    elif eqn.prim.name == "matmul":
        flops = 2 * out.size * eqn.inputs[0].aval.shape[-1]
    dtype = (
        out.dtype.name
        if out.dtype.kind == "f"
        else eqn.inputs[0].aval.dtype.name
        if eqn.inputs
        else out.dtype.name
    )
    return Work(flops, read, written, dtype)


def kind_of(step: Computed) -> str:
    """Which kind of kernel a step is: "product", "map", "fold", "copy" or "library"."""
    if isinstance(step, Gemm):
        return "product"
    if isinstance(step, Routine):
        return "library"
    if isinstance(step, Pack):
        return "copy"
    if isinstance(step, Phases):
        return "fold"
    if step.folds:
        return "fold"
    return "map" if any(line.op not in _FREE for line in step.map.lines) else "copy"


def names_of(step: Computed) -> str:
    """The ops of a step, each with how often it occurs: ``matmul add max``, ``mul*3``."""
    names = [e.prim.name for e in step.eqns]
    if isinstance(step, Pack):
        return " ".join(["pack for", *dict.fromkeys(names)]) if names else "pack"
    return (
        " ".join(f"{n}*{names.count(n)}" if names.count(n) > 1 else n for n in dict.fromkeys(names)) or "copy"
    )


def lines_of(eqns: Sequence[Eqn]) -> tuple[str, ...]:
    """The user's lines that a step stems from, ``file.py:12``, in order; none where they are not known."""
    return tuple(dict.fromkeys(e.source for e in eqns if e.source != "<unknown>"))
