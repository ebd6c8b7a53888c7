"""Special functions of SciPy.

Derivatives: Abramowitz & Stegun, *Handbook of Mathematical Functions*, §26.2.
"""

from __future__ import annotations

import math
from typing import Any

from ..core import quantile
from .elementwise import exp_p
from .pointwise import pointwise, promote

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
