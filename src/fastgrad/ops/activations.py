"""Activations of neural networks that are neither one function of C's library nor one line: gelu, softplus."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ..core import error_function
from ..core.expr import MapBuilder
from ..errors import ArgumentError, user_line
from .elementwise import sigmoid_p
from .pointwise import pointwise, promote
from .special import density, ndtr_p

# --- gelu -----------------------------------------------------------------------------------------------------------

_SLOPE, _CUBE = error_function.GELU_SLOPE, error_function.GELU_CUBE


def _gelu_tanh_slope(t: Any, out: Any, x: Any) -> Any:
    z = x * x
    s = sigmoid_p(x * (_SLOPE + _SLOPE * _CUBE * z))
    return t * (s + x * (_SLOPE + 3 * _SLOPE * _CUBE * z) * (s * (1 - s)))


gelu_p = pointwise(
    "gelu", error_function.gelu, None, [lambda t, out, x: t * (ndtr_p(x) + x * density(x))], accepts="f"
)
gelu_tanh_p = pointwise("gelu_tanh", error_function.gelu_tanh, None, [_gelu_tanh_slope], accepts="f")


def gelu(x: Any, *, approximate: Literal["none", "tanh"] = "none") -> Any:
    """``x * ndtr(x)`` elementwise, ndtr the normal distribution function; integers give float64.

    With ``approximate="tanh"`` it is ``0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x**3)))``, another function, which differs
    from it by up to 5e-4. Both are within 2 ulp of what they say, in the left tail too.
    D. Hendrycks and K. Gimpel, *Gaussian error linear units*, 2016.
    Derivative: ``ndtr(x) + x exp(-x^2/2) / sqrt(2 pi)``, and that of the other form. Raises `ArgumentError` for another
    ``approximate``.

    >>> gelu(np.array([0.0, 1.0]))
    array([0.        , 0.84134475])
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(
            f'gelu: approximate is "none" or "tanh", got {approximate!r}',
            hint='approximate="tanh"',
            at=user_line(),
        )
    return (gelu_p if approximate == "none" else gelu_tanh_p)(*promote(x, floats=True))


# --- softplus -------------------------------------------------------------------------------------------------------


def _softplus_lines(k: MapBuilder, dtype: np.dtype, x: int) -> int:
    e = k.line("exp", k.line("neg", k.line("abs", x, dtype=dtype), dtype=dtype), dtype=dtype)
    above = k.line("max", x, k.const(0, dtype), dtype=dtype)
    return k.line("add", above, k.line("log1p", e, dtype=dtype), dtype=dtype)


softplus_p = pointwise(
    "softplus",
    lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    _softplus_lines,
    [lambda t, out, x: t * sigmoid_p(x)],
    accepts="f",
)


def softplus(x: Any, beta: float = 1.0) -> Any:
    """``log(1 + exp(beta x)) / beta`` elementwise, within 2 ulp (for beta 1) and without overflow; integers give float64.

    PyTorch's ``threshold`` is not needed. Derivative: ``sigmoid(beta x)``. Raises `ArgumentError` where ``beta`` is not a
    positive number.

    >>> softplus(np.array([0.0, 1000.0]))
    array([6.93147181e-01, 1.00000000e+03])
    """
    if not isinstance(beta, int | float) or not beta > 0:
        raise ArgumentError(f"softplus: beta is a positive number, got {beta!r}", at=user_line())
    (x,) = promote(x, floats=True)
    return softplus_p(x) if beta == 1 else softplus_p(x * beta) * (1 / beta)
