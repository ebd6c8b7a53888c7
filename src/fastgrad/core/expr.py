"""Scalar lines: a `Map` says in typed single-assignment form what a kernel does to one element.

    values 0..n-1 are the inputs, then one value a line:   %2 = mul %0 %1 : f32

A Map is data. Two printers read it: scalar source for loops (`codegen.cpu`), vector IR for epilogues inside a
microkernel (`codegen.simd.lines`). Constants that belong to an op's definition (the 0 of relu) stand in the lines;
everything that a user may choose (a learning rate, an exponent) comes in as an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .aval import short

LIBM_UNARY = {
    "tan": "tan", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "sinh": "sinh", "cosh": "cosh",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
}  # fmt: skip
LIBM = LIBM_UNARY | {"arctan2": "atan2", "hypot": "hypot"}
"""Lines that are one call into C's mathematical library, by their names there."""

SCALAR_ONLY = frozenset({"floor_divide", "remainder", *LIBM})
"""Lines that have no vector form yet: they stay out of the epilogue of a matrix product."""


def op_name(op: str) -> str:
    """The name of a scalar op in kernel text: Python keywords get an underscore."""
    return f"{op}_" if op in ("and", "or", "not", "abs", "max", "min", "pow") else op


class Line(NamedTuple):
    """One scalar operation. ``args`` are value numbers, except for ``const``, whose one arg is the number itself."""

    op: str
    args: tuple
    dtype: np.dtype


@dataclass(frozen=True)
class Map:
    """Typed SSA lines over scalars: ``inputs`` dtypes, ``lines``, and the value numbers that come out."""

    inputs: tuple[np.dtype, ...]
    lines: tuple[Line, ...]
    outputs: tuple[int, ...]

    def dtype(self, value: int) -> np.dtype:
        """Dtype of a value number."""
        n = len(self.inputs)
        return self.inputs[value] if value < n else self.lines[value - n].dtype

    def depends(self, output: int, source: int) -> bool:
        """Whether output number ``output`` is computed from input ``source``."""
        n, needed = len(self.inputs), {self.outputs[output]}
        for i in reversed(range(len(self.lines))):
            if n + i in needed and self.lines[i].op != "const":
                needed.update(self.lines[i].args)
        return source in needed

    def restricted(self, outputs: Sequence[int]) -> tuple[Map, tuple[int, ...]]:
        """The Map of these values alone, and which of the inputs it takes."""
        n, needed = len(self.inputs), set(outputs)
        for i in reversed(range(len(self.lines))):
            if n + i in needed and self.lines[i].op != "const":
                needed.update(self.lines[i].args)
        kept = tuple(i for i in range(n) if i in needed)
        number = {value: i for i, value in enumerate(kept)}
        lines: list[Line] = []
        for i, line in enumerate(self.lines, n):
            if i in needed:
                number[i] = len(kept) + len(lines)
                args = line.args if line.op == "const" else tuple(number[a] for a in line.args)
                lines.append(line._replace(args=args))
        inputs = tuple(self.inputs[i] for i in kept)
        return Map(inputs, tuple(lines), tuple(number[o] for o in outputs)), kept

    def __str__(self) -> str:
        n = len(self.inputs)
        head = " ".join(f"%{i}:{short(d)}" for i, d in enumerate(self.inputs))
        body = []
        for i, line in enumerate(self.lines, n):
            args = " ".join(repr(a) if line.op == "const" else f"%{a}" for a in line.args)
            body.append(f"  %{i} = {line.op} {args} : {short(line.dtype)}")
        return "\n".join([f"map {head}", *body, "  -> " + " ".join(f"%{o}" for o in self.outputs)])


class MapBuilder:
    """Grows a Map line by line; equal lines are shared (``const`` included)."""

    def __init__(self) -> None:
        self._inputs: list[np.dtype] = []
        self._lines: list[Line] = []
        self._line_values: dict[Line, int] = {}
        self._names: list[
            tuple[str, int]
        ] = []  # value -> ("in", i) or ("line", i); numbers are fixed in build()

    def input(self, dtype: np.dtype) -> int:
        """A new input; returns its provisional value number."""
        self._inputs.append(dtype)
        self._names.append(("in", len(self._inputs) - 1))
        return len(self._names) - 1

    def line(self, op: str, *args: int, dtype: np.dtype) -> int:
        """Append ``op`` on provisional values, or return the value of an equal line."""
        line = Line(op, args, dtype)
        if line not in self._line_values:
            self._lines.append(line)
            self._names.append(("line", len(self._lines) - 1))
            self._line_values[line] = len(self._names) - 1
        return self._line_values[line]

    def const(self, number: float, dtype: np.dtype) -> int:
        """A constant that belongs to an op's definition."""
        return self.line("const", number, dtype=dtype)  # type: ignore[arg-type]

    def dtype(self, value: int) -> np.dtype:
        """Dtype of a provisional value."""
        kind, i = self._names[value]
        return self._inputs[i] if kind == "in" else self._lines[i].dtype

    def __len__(self) -> int:
        return len(self._lines)

    def needed(self, outputs: Sequence[int]) -> set[int]:
        """The provisional values that ``outputs`` are computed from, themselves included."""
        needed = set(outputs)
        for value in reversed(range(len(self._names))):
            kind, i = self._names[value]
            if value in needed and kind == "line" and self._lines[i].op != "const":
                needed.update(self._lines[i].args)
        return needed

    def build(self, outputs: Sequence[int], inputs: Sequence[int]) -> Map:
        """The Map with ``inputs`` (provisional values) numbered first, in that order; lines that nobody needs left out."""
        n = len(inputs)
        position = {value: i for i, value in enumerate(inputs)}
        needed = self.needed(outputs)
        number: dict[int, int] = {}
        lines: list[Line] = []
        for value, (kind, i) in enumerate(self._names):
            if kind == "in":
                number[value] = position.get(value, -1)  # an input that no line reads may be left out
            elif value in needed:
                line = self._lines[i]
                args = line.args if line.op == "const" else tuple(number[a] for a in line.args)
                number[value] = n + len(lines)
                lines.append(Line(line.op, args, line.dtype))
        return Map(tuple(self.dtype(v) for v in inputs), tuple(lines), tuple(number[o] for o in outputs))

    def ops(self) -> list[str]:
        """The op of each line, constants aside."""
        return [line.op for line in self._lines if line.op != "const"]
