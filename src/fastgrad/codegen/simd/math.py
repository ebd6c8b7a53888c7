"""The functions of mathematics as LLVM IR: scalar or vector, float32 or float64, at most 2 ulp.

The plan is the textbook one: reduce the argument to a short interval, a polynomial there, put the exponent back. Selects
only, so that LLVM vectorises a loop that holds one of these; what is dear for rare arguments alone is a call (`variants`).
Explicit fma where one rounding matters; special values as in C99, Annex F. float32 stays in float32, but for what
``FLOAT64_IN_FLOAT32`` lists. Beside the IR, ``TWINS`` holds what runs with the JIT off.

    exponential     exp exp2 expm1 tanh sigmoid
    logarithm       log log2 log10 log1p
    trigonometric   sin cos
    power           pow cbrt rsqrt
    error_function  erf ndtr gelu gelu_tanh
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from ...core import error_function as plain
from . import avx512, error_function, exponential, logarithm, lookup, power, table_power, trigonometric, vec

FLOAT64_IN_FLOAT32 = frozenset({"fastgrad.sin.far.f32", "fastgrad.cos.far.f32"})
"""The functions that compute in float64 for float32 arguments: sines of arguments from 2**17 on, a lane at a time."""


def _pow(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    by_table = vec.width(x.type) == 32 and avx512.available(x.type)
    return (table_power if by_table else power).pow(b, x, y)


BINARY: dict[str, Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]] = {"pow": _pow}
_GENERAL: dict[str, Callable[[ir.IRBuilder, ir.Value], ir.Value]] = {
    "exp": exponential.exp,
    "exp2": exponential.exp2,
    "expm1": exponential.expm1,
    "tanh": exponential.tanh,
    "sigmoid": exponential.sigmoid,
    "log": logarithm.log,
    "log2": logarithm.log2,
    "log10": logarithm.log10,
    "log1p": logarithm.log1p,
    "sin": trigonometric.sin,
    "cos": trigonometric.cos,
    "cbrt": power.cbrt,
    "rsqrt": power.rsqrt,
    "erf": error_function.erf,
    "ndtr": error_function.ndtr,
    "gelu": error_function.gelu,
    "gelu_tanh": error_function.gelu_tanh,
}


def _best(name: str) -> Callable[[ir.IRBuilder, ir.Value], ir.Value]:
    """The function by tables in registers where the vectors allow it, else its general form."""

    def function(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
        by_table = lookup.UNARY[vec.width(x.type)].get(name) if avx512.available(x.type) else None
        return (by_table or _GENERAL[name])(b, x)

    return function


UNARY = {name: _best(name) for name in _GENERAL}


def _sigmoid_py(x: np.floating) -> np.floating:
    e = np.exp(-np.abs(x))
    one = x.dtype.type(1)
    return (e if x < 0 else one) / (one + e)


def _pow_py(x: Any, y: Any) -> Any:
    # Two exponents, because for a single 0.5 NumPy takes the square root: NaN for -inf, where C99 says inf.
    return np.power(x, np.array([y, 1], y.dtype))[0]


_quiet = np.errstate(all="ignore")
TWINS: dict[str, Callable[..., Any]] = {
    **{name: _quiet(getattr(np, name)) for name in UNARY if hasattr(np, name)},
    "sigmoid": _quiet(_sigmoid_py),
    "rsqrt": _quiet(lambda x: x.dtype.type(1) / np.sqrt(x)),
    "pow": _quiet(_pow_py),
    "erf": lambda x: plain.erf(x)[()],
    "ndtr": lambda x: plain.ndtr(x)[()],
    "gelu": lambda x: plain.gelu(x)[()],
    "gelu_tanh": lambda x: plain.gelu_tanh(x)[()],
}
