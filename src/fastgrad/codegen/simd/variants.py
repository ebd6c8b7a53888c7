"""Functions that a loop calls, with variants for vectors that LLVM's vectoriser puts in their place.

A loop that LLVM vectorises holds no branch: what stands behind one is done for every lane, or lane by lane. A function that
is dear for rare arguments only (the sine of 1e30) is therefore called. Beside the scalar function stand ones for vectors,
which ask once whether any lane is rare; the scalar one names them in the attribute ``vector-function-abi-variant``
(LLVM, "Vector Function ABI"), and the vectoriser calls them.

    define float @fastgrad.sin.f32(float) "vector-function-abi-variant"="_ZGV_LLVM_N16v_...(fastgrad.sin.v16f32)"
    define <16 x float> @fastgrad.sin.v16f32(<16 x float>)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import ir

from ..target import cpu_features
from . import vec
from .tile import host_tile

Build = Callable[..., ir.Value]
I32 = ir.IntType(32)


def call(b: ir.IRBuilder, name: str, build: Build, *args: ir.Value) -> ir.Value:
    """``build(b, *args)`` as a call of a function of its own, defined once per module for these lanes."""
    t = args[0].type
    function = _defined(b.module, name, build, t, len(args))
    if not vec.lanes(t):
        names = []
        for lanes in host_lanes(t):
            variant = _defined(b.module, name, build, vec.widen(t, lanes), len(args))
            names.append(f"_ZGV_LLVM_N{lanes}{'v' * len(args)}_{function.name}({variant.name})")
            _keep(b.module, variant)
        attribute(function, f'"vector-function-abi-variant"="{",".join(names)}"')
    return b.call(function, args)


def host_lanes(t: ir.Type) -> tuple[int, ...]:
    """Lanes of the vectors that loops on this machine are made of; of floats also half, where doubles stand beside them."""
    full = host_tile(np.dtype(np.float32 if vec.width(t) == 32 else np.float64), cpu_features()).lanes
    return (full, full // 2) if vec.width(t) == 32 else (full,)


def attribute(function: ir.Function, text: str) -> None:
    """Give a function an attribute that llvmlite does not know; it prints as it stands."""
    function.attributes._known = function.attributes._known | {text}
    function.attributes.add(text)


def rare(b: ir.IRBuilder, condition: ir.Value, common: ir.Value, x: ir.Value, build: Build) -> ir.Value:
    """``common``, but ``build(b, x)`` of a scalar x in the lanes where ``condition`` holds, behind one branch."""
    lanes = vec.lanes(x.type)
    before = b.block
    if not lanes:
        with b.if_then(condition, likely=False):
            result, after = build(b, x), b.block
        phi = b.phi(x.type)
        phi.add_incoming(common, before)
        phi.add_incoming(result, after)
        return phi
    some = b.icmp_unsigned("!=", b.bitcast(condition, ir.IntType(lanes)), ir.IntType(lanes)(0))
    with b.if_then(some, likely=False):
        result = _each_lane(b, condition, common, x, build)
        after = b.block
    phi = b.phi(x.type)
    phi.add_incoming(common, before)
    phi.add_incoming(result, after)
    return phi


def _each_lane(b: ir.IRBuilder, condition: ir.Value, common: ir.Value, x: ir.Value, build: Build) -> ir.Value:
    """A loop over the lanes, for code that is short rather than fast."""
    lanes, start = vec.lanes(x.type), b.block
    body, done = b.append_basic_block("lane"), b.append_basic_block("lanes_done")
    b.branch(body)
    b.position_at_end(body)
    lane, y = b.phi(I32), b.phi(x.type)
    lane.add_incoming(I32(0), start)
    y.add_incoming(common, start)
    chosen = b.select(
        b.extract_element(condition, lane), build(b, b.extract_element(x, lane)), b.extract_element(y, lane)
    )
    updated, following = b.insert_element(y, chosen, lane), b.add(lane, I32(1))
    lane.add_incoming(following, b.block)
    y.add_incoming(updated, b.block)
    b.cbranch(b.icmp_unsigned("<", following, I32(lanes)), body, done)
    b.position_at_end(done)
    return updated


def define(
    module: ir.Module, name: str, result: ir.Type, args: Sequence[ir.Type], build: Build
) -> ir.Function:
    """Find or make ``name``, a function of its arguments alone, whose result ``build(b, *args)`` computes."""
    found = module.globals.get(name)
    if found is not None:
        return found
    function = ir.Function(module, ir.FunctionType(result, args), name)
    function.linkage = "internal"
    for text in ("noinline", "nounwind", "readnone"):
        function.attributes.add(text)
    b = ir.IRBuilder(function.append_basic_block("entry"))
    b.ret(build(b, *function.args))
    return function


def _defined(module: ir.Module, name: str, build: Build, t: ir.Type, count: int) -> ir.Function:
    function = define(module, f"fastgrad.{name}.{vec.suffix(t)}", t, [t] * count, build)
    bits = vec.width(t) * vec.lanes(t)
    if bits >= 512:
        attribute(function, '"prefer-vector-width"="512"')
        attribute(function, '"min-legal-vector-width"="512"')
    return function


def _keep(module: ir.Module, function: ir.Function) -> None:
    """Keep a function that nothing calls yet until the vectoriser has seen it: it stands in ``llvm.compiler.used``."""
    pointer = ir.IntType(8).as_pointer()
    it = module.globals.get("llvm.compiler.used")
    if it is None:
        it = ir.GlobalVariable(module, ir.ArrayType(pointer, 0), "llvm.compiler.used")
        it.linkage, it.section = "appending", "llvm.metadata"
        it.initializer = ir.Constant(it.value_type, [])
    address = function.bitcast(pointer)
    kept = it.initializer.constant
    if not any(str(address) == str(other) for other in kept):
        it.value_type = ir.ArrayType(pointer, len(kept) + 1)
        it.type = it.value_type.as_pointer()
        it.initializer = ir.Constant(it.value_type, [*kept, address])
