"""The functions of `codegen.simd.math` by other means: in float64, and to any precision."""

from __future__ import annotations

import mpmath
import numpy as np

from fastgrad.core import error_function

EXACT = {
    **{
        name: getattr(mpmath, name)
        for name in ("exp", "expm1", "tanh", "log", "log10", "log1p", "sin", "cos")
    },
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "log2": lambda x: mpmath.log(x, 2),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "erf": mpmath.erf,
    "ndtr": lambda x: mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    "gelu": lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    "gelu_tanh": lambda x: (
        x / (1 + mpmath.exp(-mpmath.sqrt(8 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)))
    ),
}
"""Functions of mpmath numbers, to mpmath's working precision."""


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """The function in float64: what float32 results are held against."""
    with np.errstate(all="ignore"):
        x = np.asarray(x, np.float64)
        if name == "sigmoid":
            e = np.exp(-np.abs(x))
            return np.where(x < 0, e, 1) / (1 + e)
        if name == "softplus":
            return np.logaddexp(x, 0)
        if name == "rsqrt":
            return 1 / np.sqrt(x)
        return getattr(error_function if hasattr(error_function, name) else np, name)(x)
