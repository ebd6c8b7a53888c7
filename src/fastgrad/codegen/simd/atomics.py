"""Raw words, atomics and calls by address: what the walker and the Python entry are written in."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

I64 = ir.IntType(64)
_i64 = types.int64


def _pointer(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, I64.as_pointer())


@intrinsic
def peek(typingctx, address):  # type: ignore[no-untyped-def]
    """The int64 at ``address``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load(_pointer(builder, args[0]), align=8)

    return _i64(_i64), codegen


@intrinsic
def peek32(typingctx, address):  # type: ignore[no-untyped-def]
    """The int32 at ``address``, widened."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        narrow = ir.IntType(32)
        return builder.sext(builder.load(builder.inttoptr(args[0], narrow.as_pointer()), align=4), I64)

    return _i64(_i64), codegen


@intrinsic
def poke(typingctx, address, value):  # type: ignore[no-untyped-def]
    """Write an int64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.store(args[1], _pointer(builder, args[0]), align=8)
        return context.get_dummy_value()

    return types.void(_i64, _i64), codegen


@intrinsic
def narrow(typingctx, value):  # type: ignore[no-untyped-def]
    """The C int in the low half of a register, widened: what a C function of type int has returned."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.sext(builder.trunc(args[0], ir.IntType(32)), I64)

    return _i64(_i64), codegen


@intrinsic
def room(typingctx, nbytes):  # type: ignore[no-untyped-def]
    """The address of so many bytes (a literal) of the stack."""
    if not isinstance(nbytes, types.IntegerLiteral):
        return None
    size = nbytes.literal_value

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        with builder.goto_entry_block():
            block = builder.alloca(ir.ArrayType(ir.IntType(8), size))
        block.align = 64
        return builder.ptrtoint(block, I64)

    return _i64(nbytes), codegen


@intrinsic
def acquire(typingctx, address):  # type: ignore[no-untyped-def]
    """Atomic load, acquire."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load_atomic(_pointer(builder, args[0]), "acquire", 8)

    return _i64(_i64), codegen


@intrinsic
def release(typingctx, address, value):  # type: ignore[no-untyped-def]
    """Atomic store, release."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.store_atomic(args[1], _pointer(builder, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(_i64, _i64), codegen


@intrinsic
def exchange_if(typingctx, address, old, new):  # type: ignore[no-untyped-def]
    """Compare-exchange; True where ``old`` stood and ``new`` stands now."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pair = builder.cmpxchg(_pointer(builder, args[0]), args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(_i64, _i64, _i64), codegen


@intrinsic
def add_atomic(typingctx, address, value):  # type: ignore[no-untyped-def]
    """Atomic fetch-and-add; the old value."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "seq_cst")

    return _i64(_i64, _i64), codegen


@intrinsic
def pause(typingctx):  # type: ignore[no-untyped-def]
    """Tell the core that this is a spin loop."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        triple = builder.module.triple
        if triple.startswith(("x86", "i686", "i386", "amd64")):
            name, kind = "llvm.x86.sse2.pause", ir.FunctionType(ir.VoidType(), [])
            function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            builder.call(function, [])
        elif triple.startswith(("aarch64", "arm64")):
            builder.asm(ir.FunctionType(ir.VoidType(), []), "yield", "", [], side_effect=True)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def ticks(typingctx):  # type: ignore[no-untyped-def]
    """The core's clock, in ticks of unknown but even length (x86's time stamp, Arm's virtual counter); 0 elsewhere.

    To read it takes some 10 ns, a third of what the system's clock takes.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        triple = builder.module.triple
        kind = ir.FunctionType(I64, [])
        if triple.startswith(("x86", "i686", "i386", "amd64")):
            name = "llvm.readcyclecounter"
            function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            return builder.call(function, [])
        if triple.startswith(("aarch64", "arm64")):
            return builder.asm(kind, "mrs $0, cntvct_el0", "=r", [], side_effect=True)
        return I64(0)

    return _i64(), codegen


def _caller(n: int) -> Any:
    """``call_n(address, a1..an) -> int64``: a C function of n int64."""
    names = ", ".join(["typingctx", "address", *(f"a{i}" for i in range(n))])
    kind = ir.FunctionType(I64, [I64] * n)

    def rule(typingctx, address, *args):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, values):  # type: ignore[no-untyped-def]
            return builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])

        return _i64(*[_i64] * (n + 1)), codegen

    # Numba wants an intrinsic's arguments by name.
    scope: dict[str, Any] = {"rule": rule}
    exec(f"def call_{n}({names}): return rule({names})", scope)
    return intrinsic(scope[f"call_{n}"])


call_0, call_1, call_2, call_3, call_4, call_6, call_8 = (_caller(n) for n in (0, 1, 2, 3, 4, 6, 8))
