"""`core.counter` as LLVM IR, on scalars or vectors of uint32; the twins are its NumPy form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from ...core import counter
from . import vec

_I64 = ir.IntType(64)


def _block(
    b: ir.IRBuilder, k0: ir.Value, k1: ir.Value, c0: ir.Value, c1: ir.Value
) -> tuple[ir.Value, ir.Value]:
    t = k0.type
    keys = (k0, k1, b.xor(b.xor(k0, k1), vec.const(t, counter.PARITY)))
    x, y = b.add(c0, k0), b.add(c1, k1)
    for block in range(counter.BLOCKS):
        for r in counter.ROTATIONS[block % 2]:
            x = b.add(x, y)
            y = b.xor(
                vec.intrinsic(b, "fshl", y, y, vec.const(t, r)), x
            )  # a funnel shift of a word with itself
        x = b.add(x, keys[(block + 1) % 3])
        y = b.add(y, b.add(keys[(block + 2) % 3], vec.const(t, block + 1)))
    return x, y


def mixed(b: ir.IRBuilder, k0: ir.Value, k1: ir.Value, c0: ir.Value, c1: ir.Value) -> ir.Value:
    """32 random bits of one block."""
    return b.xor(*_block(b, k0, k1, c0, c1))


def both(b: ir.IRBuilder, k0: ir.Value, k1: ir.Value, c0: ir.Value, c1: ir.Value) -> ir.Value:
    """64 random bits of one block, the first word high."""
    wide = vec.like(k0.type, _I64)
    x, y = (b.zext(word, wide) for word in _block(b, k0, k1, c0, c1))
    return b.or_(b.shl(x, vec.const(wide, 32)), y)


TWINS: dict[str, Callable[..., Any]] = {"threefry32": counter.mixed, "threefry64": counter.both}
