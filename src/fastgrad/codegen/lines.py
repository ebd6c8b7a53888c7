"""What the printers of loops share: accesses, addresses, numbers and lines as kernel text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..core.aval import short
from ..core.expr import Map, op_name
from ..core.loops import StrideKind
from ..schedule import Indices, Ref, Unplaced
from .writer import Word, Writer, scalar_word


def loader(ref: Ref) -> str:
    """What reads an element: a load, or arithmetic on the loop's counters."""
    return ("index_" if isinstance(ref.buffer, Indices) else "load_") + short(ref.buffer.dtype)


def base(ref: Ref) -> Word:
    """Where a window begins; what has no place begins at so many bytes: indices at the address in an array at 0, local
    rows in the kernel's frame."""
    return ref.layout.offset * ref.buffer.dtype.itemsize if isinstance(ref.buffer, Unplaced) else ref


def reads_stride(kind: StrideKind, inner: bool) -> bool:
    """Whether a kernel reads an operand's stride along an axis; outer ones are in bytes, the inner one in elements."""
    return kind == "run" or (kind == "unit" and not inner)


def constants(lines: Map) -> tuple[str, ...]:
    """A Map's constants in full: 0.0 and -0.0 compare equal."""
    return tuple(repr(line.args[0]) for line in lines.lines if line.op == "const")


def constant(value: np.generic) -> str:
    """A number in kernel text, to the bit."""
    return f"const_{short(value.dtype)}({scalar_word(value)})"


def print_lines(
    w: Writer, lines: Map, names: list[str], prefix: str = "t", shares: Mapping[int, int] | None = None
) -> list[str]:
    """Print a Map as scalar source on inputs ``names``, its lines ``prefix`` and a number; the names of its outputs.

    ``shares``: of which divisions how many registers go by multiply-adds, ``div_fma1``.
    """
    values = list(names)
    for k, line in enumerate(lines.lines):
        if line.op == "const":
            values.append(constant(line.dtype.type(line.args[0])))
            continue
        args = ", ".join(values[a] for a in line.args)
        op = f"cast_{short(line.dtype)}" if line.op == "cast" else op_name(line.op)
        if shares and k in shares:
            op += f"_fma{shares[k]}"
        w(f"{prefix}{k} = {op}({args})")
        values.append(f"{prefix}{k}")
    return [values[o] for o in lines.outputs]
