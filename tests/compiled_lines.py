"""What `lines.emit` writes, compiled by llvmlite alone: hundreds of lines in a second, on scalars and on vectors."""

from __future__ import annotations

import ctypes
import itertools

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from fastgrad.codegen.simd import lines

LANES = 8


def define(module: ir.Module, name: str, op: str, in_dtypes: tuple, out_dtype: np.dtype, lanes: int) -> None:
    """``void name(i64 n, in..., out)``: the line over n elements, ``lanes`` (0: one scalar) at a time."""
    index = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [index] * (len(in_dtypes) + 2)), name)
    n, *addresses = function.args
    blocks = [function.append_basic_block(label) for label in ("entry", "loop", "done")]
    b = ir.IRBuilder(blocks[0])
    b.branch(blocks[1])
    b.position_at_end(blocks[1])
    i = b.phi(index)

    def element(address: ir.Value, dtype: np.dtype) -> ir.Value:
        offset = b.add(address, b.mul(i, index(dtype.itemsize)))
        return b.inttoptr(offset, lines.memory_type(dtype, lanes).as_pointer())

    args = []
    for address, dtype in zip(addresses, in_dtypes, strict=False):
        value = b.load(element(address, dtype), align=dtype.itemsize, typ=lines.memory_type(dtype, lanes))
        args.append(lines.from_memory(b, value, dtype))
    result = lines.emit(op, b, args, in_dtypes, out_dtype)
    assert result.type == lines.ir_type(out_dtype, lanes)
    b.store(
        lines.to_memory(b, result, out_dtype), element(addresses[-1], out_dtype), align=out_dtype.itemsize
    )
    following = b.add(i, index(lanes or 1))
    i.add_incoming(index(0), blocks[0])
    i.add_incoming(following, b.block)
    b.cbranch(b.icmp_signed("<", following, n), blocks[1], blocks[2])
    ir.IRBuilder(blocks[2]).ret_void()


class Compiled:
    """Every (op, in_dtypes, out_dtype) of ``cases``, for scalars and vectors of so many lanes, in one module."""

    def __init__(self, cases: list, widths: tuple[int, ...] = (0, LANES)) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        module = ir.Module()
        self.names = {}
        for (op, ins, out), lanes in itertools.product(cases, widths):
            name = self.names[op, ins, out, lanes] = f"f{len(self.names)}"
            define(module, name, op, ins, out, lanes)
        features = llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=1)
        self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine)
        self.engine.finalize_object()

    def __call__(self, op: str, ins: tuple, out: np.dtype, lanes: int, args: list) -> np.ndarray:
        n = args[0].size
        step = max(lanes, LANES)
        padded = [np.resize(a, -(-n // step) * step) for a in args]
        result = np.empty(padded[0].size, out)
        address = self.engine.get_function_address(self.names[op, ins, out, lanes])
        call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * (len(args) + 2))(address)
        call(result.size, *[a.ctypes.data for a in padded], result.ctypes.data)
        return result[:n]
