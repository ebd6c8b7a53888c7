"""The error function and what is made of it, in NumPy: obvious and slow, the reference of `codegen.simd.error_function`.

All take floats and compute in float64 by C's ``erf`` and ``erfc``; the result has the dtype of the argument.
In float64 the left tails, whose exponent is rounded, are known to some 1e-13 of themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

GELU_SLOPE, GELU_CUBE = 2 * math.sqrt(2 / math.pi), 0.044715
"""The tanh form of gelu is x sigmoid(w), w = GELU_SLOPE (x + GELU_CUBE x^3)."""


def _each(fn: Callable[[float], float]) -> Callable[[Any], Any]:
    """``fn`` on every element, in float64."""
    vectorized = np.vectorize(fn, otypes=[np.float64])
    return lambda x: vectorized(np.asarray(x, np.float64))


_erf = _each(math.erf)
_ndtr = _each(lambda x: 0.5 * math.erfc(-x / math.sqrt(2)))


def erf(x: Any) -> Any:
    """2/sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    return _erf(x).astype(np.asarray(x).dtype)


def ndtr(x: Any) -> Any:
    """The normal distribution function, P(X <= x) for a standard normal X."""
    return _ndtr(x).astype(np.asarray(x).dtype)


def _weighted(x: Any, share: Any) -> Any:
    """x * share, for a share that vanishes at -inf faster than x grows."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(x), -0.0, x * share).astype(np.asarray(x).dtype)


def gelu(x: Any) -> Any:
    """x ndtr(x); -0.0 at -inf."""
    wide = np.asarray(x, np.float64)
    return _weighted(wide, _ndtr(wide)).astype(np.asarray(x).dtype)


def gelu_tanh(x: Any) -> Any:
    """x sigmoid(w); -0.0 at -inf."""
    wide = np.asarray(x, np.float64)
    with np.errstate(over="ignore"):
        w = GELU_SLOPE * (wide + GELU_CUBE * wide**3)
        return _weighted(wide, 1 / (1 + np.exp(-w))).astype(np.asarray(x).dtype)
