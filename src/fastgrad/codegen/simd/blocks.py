"""What the vector functions are built of: LLVM functions found or made, loops, loads and stores under a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import vec

I1, I8, I32, I64 = (ir.IntType(n) for n in (1, 8, 32, 64))

Definition = Callable[[ir.Module], ir.Function]
"""How to find a function in a module, or to write it there."""


def define(key: str, n_args: int, build: Callable[[ir.IRBuilder], None]) -> Definition:
    """Find or make the function whose body ``build`` writes; ``key`` says all that the body depends on."""

    def define(module: ir.Module) -> ir.Function:
        name = "fastgrad." + "".join(c if c.isalnum() else "_" for c in key)
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * n_args), name)
            function.linkage = "internal"
            function.attributes.add("noinline")
            function.attributes.add("nounwind")
            # No unrolling beyond the register tile: a third less compile time, the same speed.
            function.attributes.add("optsize")
            # llvmlite knows no string attributes; they print as they stand.
            function.attributes._known = function.attributes._known | {'"prefer-vector-width"="512"'}
            function.attributes.add('"prefer-vector-width"="512"')
            b = ir.IRBuilder(function.append_basic_block("entry"))
            build(b)
            b.ret_void()
        return function

    return define


def tiles_of(function: Definition) -> Any:
    """The intrinsic ``tiles(desc, lo, hi)`` of a kernel's text: call ``function`` on tiles ``lo`` to ``hi``; 0."""

    @intrinsic
    def tiles(typingctx, desc, lo, hi):  # type: ignore[no-untyped-def]
        def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
            b.call(function(b.module), args)
            return I64(0)

        return types.int64(types.int64, types.int64, types.int64), codegen

    return tiles


@contextmanager
def loop(
    b: ir.IRBuilder, stop: ir.Value, step: ir.Value | int = 1, start: ir.Value | None = None
) -> Iterator[ir.Value]:
    """Emit ``for i in range(start, stop, step)``."""
    step = I64(step) if isinstance(step, int) else step
    with cgutils.for_range_slice(b, start or I64(0), stop, step, I64) as (i, _):
        yield i


def least(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """min(x, y), signed."""
    return b.select(b.icmp_signed("<", x, y), x, y)


def greatest(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """max(x, y), signed."""
    return b.select(b.icmp_signed(">", x, y), x, y)


def scratch(b: ir.IRBuilder, n: int) -> ir.Value:
    """The address of ``n`` bytes of the stack, on a cache line's bounds."""
    block = b.alloca(ir.ArrayType(I8, n))
    block.align = 64
    return b.ptrtoint(block, I64)


def fetch(b: ir.IRBuilder, address: ir.Value, nearest: bool = False) -> ir.Value:
    """Bring the cache line at an address, which may be anything, into the second-level cache, or the first one."""
    pointer = b.inttoptr(address, I8.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    name = "llvm.prefetch.p0"
    function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
    return b.call(function, [pointer, I32(0), I32(3 if nearest else 2), I32(1)])


def word(b: ir.IRBuilder, address: ir.Value, i: int) -> ir.Value:
    """Word number ``i`` of int64 words at ``address``."""
    return b.load(b.gep(b.inttoptr(address, I64.as_pointer()), [I64(i)]))


def opaque(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """``x`` in a register, as a value of which LLVM knows nothing: an empty piece of assembly in between."""
    empty = ir.InlineAsm(ir.FunctionType(x.type, [x.type]), "", "=r,0", side_effect=False)
    return b.call(empty, [x])


def lane_mask(b: ir.IRBuilder, n: int, count: ir.Value, v: int) -> ir.Value:
    """i1 lanes of vector ``v``: those whose number lies below ``count``."""
    numbers = ir.Constant(ir.VectorType(I32, n), list(range(v * n, (v + 1) * n)))
    return b.icmp_signed("<", numbers, vec.splat(b, b.trunc(count, I32), n))


def read(
    b: ir.IRBuilder, t: ir.Type, address: ir.Value, align: int, mask: ir.Value | None = None
) -> ir.Value:
    """What lies at an address, as type ``t``; 0 where the mask is off, and nothing there is touched."""
    pointer = b.inttoptr(address, t.as_pointer())
    if mask is None:
        return b.load(pointer, align=align)
    function = _masked(b, "load", ir.FunctionType(t, [pointer.type, I32, mask.type, t]), t)
    return b.call(function, [pointer, I32(align), mask, ir.Constant(t, None)])


def write(
    b: ir.IRBuilder, value: ir.Value, address: ir.Value, align: int, mask: ir.Value | None = None
) -> None:
    """Store a value at an address, only the lanes that the mask has on."""
    pointer = b.inttoptr(address, value.type.as_pointer())
    if mask is None:
        b.store(value, pointer, align=align)
        return
    kind = ir.FunctionType(ir.VoidType(), [value.type, pointer.type, I32, mask.type])
    b.call(_masked(b, "store", kind, value.type), [value, pointer, I32(align), mask])


def write_past(b: ir.IRBuilder, value: ir.Value, address: ir.Value, align: int) -> None:
    """Store a value past the cache, at an aligned address."""
    stored = b.store(value, b.inttoptr(address, value.type.as_pointer()), align=align)
    stored.set_metadata("nontemporal", b.module.add_metadata([I32(1)]))


def _masked(b: ir.IRBuilder, name: str, kind: ir.FunctionType, t: ir.Type) -> ir.Function:
    full = f"llvm.masked.{name}.{vec.suffix(t)}.p0"
    return b.module.globals.get(full) or ir.Function(b.module, kind, full)
