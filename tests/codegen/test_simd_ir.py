"""The IR of kernels made from every function of mathematics: no call of C's library, no float64 for float32, vectors."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from codegen.functions import OPS as UNARY
from fastgrad import autodiff, passes
from fastgrad.codegen import cpu, toolchain
from fastgrad.codegen.simd import math
from fastgrad.core.aval import aval_of
from fastgrad.schedule import schedule
from fastgrad.trace import trace

OPS: dict[str, Callable[..., Any]] = {**UNARY, "pow": np.power}
MACHINE = re.compile(
    r"llvm\.(x86\.avx512\.\w+|fma|rint|fabs|copysign|sqrt|floor|maximum|minimum|[su]m(ax|in)|assume|lifetime|masked|vector|is.fpclass|ldexp|prefetch)\b"
)
"""Intrinsics that are instructions, or none (``ldexp`` where `formats.scale` takes it); ``llvm.sin`` and its kin are
calls of C's library."""


@cache
def kernels(name: str, dtype: str) -> tuple[Any, ...]:
    """The optimised modules of the kernels for the value of an op and its gradient."""
    x = [np.ones((64, 64), dtype)] * (2 if name == "pow" else 1)
    graph = trace(OPS[name], [aval_of(v) for v in x])
    joint = passes.run(autodiff.vjp(graph, range(len(x))))
    texts = {cpu.emit(step).text for step in schedule(joint).steps}
    return tuple(
        llvm.parse_assembly(toolchain.compile_unit("kernel", text)._library.get_llvm_str()) for text in texts
    )


def functions(name: str, dtype: str) -> Iterator[Any]:
    return (function for module in kernels(name, dtype) for function in module.functions)


every_op = pytest.mark.parametrize("name", sorted(OPS))


def test_every_function_is_here():
    assert set(OPS) == {*math.UNARY, *math.BINARY, "softplus"}


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@every_op
def test_no_scalar_call_of_the_c_library(name, dtype):
    called = {function.name for function in functions(name, dtype) if function.is_declaration}
    assert not [f for f in called if not MACHINE.match(f)], called


@every_op
def test_float32_stays_in_float32(name):
    for function in functions(name, "f4"):
        if not function.is_declaration and function.name not in math.FLOAT64_IN_FLOAT32:
            assert not re.search(r"\bdouble\b|fpext", str(function)), function.name


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names the types of x86's vectors")
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@every_op
def test_loops_are_vectors(name, dtype):
    """Stores of vectors, in a function that calls nothing but functions of vectors, or of one element in the rest loop."""
    scalar = {"f4": "float", "f8": "double"}[dtype]
    stores = [str(f) for f in functions(name, dtype) if "fastgrad." not in f.name and not f.is_declaration]
    assert any(re.search(rf"store <\d+ x {scalar}>", text) for text in stores)
