"""Rows of the special functions and of the activations made of them; see `case`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from case import Case, label
from fastgrad.nn import functional as F
from fastgrad.scipy import special

_erf = np.vectorize(math.erf, otypes=[np.float64])


def erf(x: Any) -> Any:
    return _erf(x).astype(x.dtype)


def _ndtr(x: Any) -> Any:
    return 0.5 * (1 + erf(x / math.sqrt(2)))


def _gelu_tanh(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_tanh(x: Any) -> Any:
    return F.gelu(x, approximate="tanh")


def softplus_2(x: Any) -> Any:
    return F.softplus(x, 2.0)


_TABLE: list[tuple[Any, Any]] = [
    (special.erf, erf), (special.ndtr, _ndtr), (special.expit, lambda x: 1 / (1 + np.exp(-x))),
    (F.gelu, lambda x: x * _ndtr(x)), (gelu_tanh, _gelu_tanh), (F.softplus, lambda x: np.log1p(np.exp(x))),
    (softplus_2, lambda x: np.log1p(np.exp(2 * x)) / 2),
]  # fmt: skip
SPECIAL_ROWS = [
    Case(label(fn.__name__, *more), fn, (shape,), (dtype,), twin=twin, order=order)
    for fn, twin in _TABLE
    for shape, dtype, order, more in (
        ((), "f8", 2, ("scalar",)),
        ((2, 3), "f8", 2, ()),
        ((2, 0), "f8", 1, ("empty",)),
        ((2, 3), "f4", 0, ("f4",)),
    )
]
