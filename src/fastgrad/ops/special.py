"""Special functions of SciPy.

Derivatives: Abramowitz & Stegun, *Handbook of Mathematical Functions*, §7.1 and §26.2.
"""

from __future__ import annotations

import math
from typing import Any

from ..core import error_function, quantile
from .elementwise import exp_p
from .pointwise import pointwise, promote

# --- erf ndtr -------------------------------------------------------------------------------------------------------

erf_p = pointwise(
    "erf",
    error_function.erf,
    None,
    [lambda t, out, x: t * (exp_p(-(x * x)) * (2 / math.sqrt(math.pi)))],
    accepts="f",
)


def density(x: Any) -> Any:
    """The density of the standard normal distribution, exp(-x^2/2) / sqrt(2 pi), of floats."""
    return exp_p(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))


ndtr_p = pointwise("ndtr", error_function.ndtr, None, [lambda t, out, x: t * density(x)], accepts="f")


def erf(x: Any) -> Any:
    """The error function, elementwise: 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x.

    Integers give float64. Within 2 ulp. Derivative: 2/sqrt(pi) exp(-x^2).

    >>> float(erf(0.0))
    0.0
    """
    return erf_p(*promote(x, floats=True))


def ndtr(x: Any) -> Any:
    """The normal distribution function, elementwise: P(X <= x) for a standard normal X.

    Integers give float64. Within 2 ulp, in the left tail too. Derivative: the density, exp(-x^2/2) / sqrt(2 pi).

    >>> float(ndtr(0.0))
    0.5
    """
    return ndtr_p(*promote(x, floats=True))


# --- plain_log ------------------------------------------------------------------------------------------------------

plain_log_p = pointwise("plain_log", quantile.log, None, [lambda t, out, x: t / x], accepts="f")
"""The logarithm of finite numbers with the same bits interpreted and compiled: draws of random numbers are made of it."""

# --- ndtri ----------------------------------------------------------------------------------------------------------

ndtri_p = pointwise(
    "ndtri",
    quantile.ndtri,
    None,
    [lambda t, out, p: t * (exp_p(out * out * 0.5) * math.sqrt(2 * math.pi))],
    accepts="f",
)


def ndtri(p: Any) -> Any:
    """The quantile function of the standard normal distribution, elementwise: the x with ``P(X <= x) = p``.

    -inf at 0, inf at 1, NaN outside [0, 1]; integers give float64. Within 6 ulp of the exact value for p up to 1/2
    (above it, it is p that is known less well), and the same bits interpreted and compiled.
    Derivative: the reciprocal of the density, sqrt(2 pi) exp(x^2 / 2).

    >>> float(ndtri(0.5))
    0.0
    """
    return ndtri_p(*promote(p, floats=True))
