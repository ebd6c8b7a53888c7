"""Which loops run in vectors of ours, and their text (`simd.wide` says what it means).

A map with a line that fills the vector units is worth it: its vectors take turns, the rest is one step under a mask, and the
functions may use tables in registers. So is one that waits for the divider and may share its work out (`divider`), and a
fold out of cache, in which only a loop of ours asks for lines ahead. Other loops are LLVM's to vectorise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..core.expr import SCALAR_ONLY, Map
from ..core.loops import StrideKind
from .divider import by_multiply_adds
from .writer import Writer

DEAR = frozenset(
    {"exp", "exp2", "expm1", "tanh", "sigmoid", "log", "log2", "log10", "log1p", "sin", "cos"}
    | {"pow", "cbrt", "rsqrt", "erf", "ndtr", "gelu", "gelu_tanh"}
)
"""Lines that take many instructions, one waiting for the other."""
LONG = frozenset({"pow"})
"""Lines whose constants leave no registers for a second vector."""
DIVISIONS = frozenset({"div", "sqrt"})
"""Lines for which there is one unit."""
FEW = 2
"""With more such lines, which wait for each other too, a step is of four vectors rather than two; with none, of one: a
prefetcher follows what a single load reads better than what several read by turns."""


class Step(NamedTuple):
    """Elements of ``itemsize`` bytes in so many vectors. ``shares``: of which lines how many vectors go by multiply-adds."""

    itemsize: int
    vectors: int
    shares: dict[int, int]

    def __str__(self) -> str:
        return f"w{self.itemsize}x{self.vectors}"


def step_of(
    lines: Map,
    loads: Sequence[str],
    load_kinds: Sequence[StrideKind],
    store_kinds: Sequence[StrideKind],
    folds: Sequence[tuple[str, np.dtype]] = (),
    waits: bool = False,
    rows: bool = False,
    past: int = 0,
) -> Step | None:
    """The step of an inner loop; None where LLVM makes the vectors.

    ``loads`` are the names of what loads, the kinds those of the operands' strides along the loop, ``folds`` what combines
    and the dtype of the total. ``waits`` says that the loop waits for memory. ``rows``, which may be short, are in steps of
    one vector. ``past`` are the bytes an element of a map whose arrays are far larger than the cache.
    """
    ops = {line.op for line in lines.lines}
    if not (ops & (DEAR | DIVISIONS) or waits) or ops & SCALAR_ONLY:
        return None
    if "run" in load_kinds or any(kind != "unit" for kind in store_kinds):
        return None
    if any(
        kind == "unit" and not name.startswith("load_") for name, kind in zip(loads, load_kinds, strict=True)
    ):
        return None
    dtypes = {*lines.inputs, *(line.dtype for line in lines.lines)}
    floats = {d.itemsize for d in dtypes if d.kind == "f"}
    if len(floats) != 1 or max(d.itemsize for d in dtypes) > max(floats):
        return None
    if any(
        combine not in ("add", "max", "min") or d.itemsize not in floats or d.kind != "f"
        for combine, d in folds
    ):
        return None
    itemsize, vectors = max(floats), 1 if rows else _vectors(lines)
    fixed = [i for i in range(len(lines.inputs)) if i >= len(loads) or load_kinds[i] == "zero"]
    shares = by_multiply_adds(lines, itemsize, vectors, fixed, past)
    return Step(itemsize, vectors, shares) if ops & DEAR or shares or waits else None


def _vectors(lines: Map) -> int:
    """How many vectors of a step take turns."""
    if any(line.op in LONG for line in lines.lines):
        return 1
    dear = sum(line.op in DEAR for line in lines.lines)
    return 4 if dear > FEW else 2 if dear or any(line.op in DIVISIONS for line in lines.lines) else 1


class Parts:
    """Prints the loops over both parts of ``[first, last)``, the accesses in them, and gives their names."""

    def __init__(self, w: Writer, step: Step, first: str, last: str):
        self.w, self.step, self.bounds = w, step, f"(part, {first}, {last})"

    def __enter__(self) -> Parts:
        w, step = self.w, self.step
        self.outer = w.block("for part in range(2):")
        self.outer.__enter__()
        w(f"m = mask_{step}{self.bounds}")
        begin, end = (f"{word}_{step}{self.bounds}" for word in ("begin", "end"))
        self.inner = w.block(f"for i in range({begin}, {end}, step_{step}()):")
        self.inner.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self.inner.__exit__(None, None, None)
        self.outer.__exit__(None, None, None)

    def load(self, name: str, access: str, address: str) -> None:
        """``v0 = load_f32_w4x2(x0k, i, m)``"""
        self.w(f"{name} = {access}_{self.step}({address}, i, m)")

    def ahead(self, access: str, address: str) -> None:
        """``ahead_f32_w4x1(x0k + 8192, i)``"""
        self.w(f"{access.replace('load', 'ahead')}_{self.step}({address}, i)")

    def store(self, k: int, dtype: str, address: str, value: str) -> None:
        """``store0_f32_w4x2(y0k, i, m, t0)``"""
        self.w(f"store{k}_{dtype}_{self.step}({address}, i, m, {value})")
