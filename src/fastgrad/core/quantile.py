"""The quantile function of the normal distribution and the logarithm it takes: coefficients and formulas, in NumPy.

M. J. Wichura 1988, *Algorithm AS 241: The percentage points of the normal distribution*, Applied Statistics 37(3),
477-484. Three rational functions: of q = p - 1/2 in the middle, of r = sqrt(-log(p)) in the tails and far out. Machine
code (`codegen.simd.quantile`) does the same operations in the same order, none of them fused and the logarithm among
them, so that both give the same bits on every processor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

MIDDLE = 0.425
"""|p - 1/2| up to which the first function holds."""
SHIFT = 0.180625
"""The square of `MIDDLE`: its argument is SHIFT - q^2."""
NEAR, FAR = 1.6, 5.0
"""What the second and the third function take off r; the third begins at r = FAR."""


class Logarithm(NamedTuple):
    """log(2^k m) for m in [sqrt(1/2), sqrt(2)), as `codegen.simd.math` has it, without its fused operations."""

    integer: np.dtype
    mantissa: int  # stored bits of the fraction
    bias: int
    root: int  # the bits of sqrt(1/2)
    tiny: float  # the smallest normal number
    ln2_high: float  # so few bits that k * ln2_high is exact
    ln2_low: float
    tail: tuple[float, ...]  # (2 atanh(s)/s - 2) / s^2 in s^2, for |s| <= (sqrt(2)-1)/(sqrt(2)+1)


LOG64 = Logarithm(
    np.dtype(np.int64), 52, 1023, 0x3FE6A09E667F3BCD, 2.0**-1022,
    6.93147180369123816490e-01, 1.90821492927058770002e-10,
    (0.666666666666667, 0.39999999999899505, 0.28571428625975487, 0.2222221113479508,
     0.18182889125261723, 0.15331721600556042, 0.14616449685043406),
)  # fmt: skip
LOG32 = Logarithm(
    np.dtype(np.int32), 23, 127, 0x3F3504F3, 2.0**-126, 0.693359375, -2.12194440e-4,
    (0.6666668653488159, 0.3998878002166748, 0.29579949378967285),
)  # fmt: skip


class Quantile(NamedTuple):
    """Numerators and denominators, constant terms first."""

    center: tuple[float, ...]
    center_over: tuple[float, ...]
    tail: tuple[float, ...]
    tail_over: tuple[float, ...]
    far: tuple[float, ...]
    far_over: tuple[float, ...]


PPND16 = Quantile(
    center=(
        3.3871328727963665,
        133.14166789178438,
        1971.5909503065513,
        13731.69376550946,
        45921.95393154987,
        67265.7709270087,
        33430.57558358813,
        2509.0809287301227,
    ),
    center_over=(
        1.0,
        42.31333070160091,
        687.1870074920579,
        5394.196021424751,
        21213.794301586597,
        39307.89580009271,
        28729.085735721943,
        5226.495278852854,
    ),
    tail=(
        1.4234371107496835,
        4.630337846156546,
        5.769497221460691,
        3.6478483247632045,
        1.2704582524523684,
        0.2417807251774506,
        0.022723844989269184,
        0.0007745450142783414,
    ),
    tail_over=(
        1.0,
        2.053191626637759,
        1.6763848301838038,
        0.6897673349851,
        0.14810397642748008,
        0.015198666563616457,
        0.0005475938084995345,
        1.0507500716444169e-09,
    ),
    far=(
        6.657904643501103,
        5.463784911164114,
        1.7848265399172913,
        0.29656057182850487,
        0.026532189526576124,
        0.0012426609473880784,
        2.7115555687434876e-05,
        2.0103343992922881e-07,
    ),
    far_over=(
        1.0,
        0.599832206555888,
        0.1369298809227358,
        0.014875361290850615,
        0.0007868691311456133,
        1.8463183175100548e-05,
        1.421511758316446e-07,
        2.0442631033899397e-15,
    ),
)
"""About 16 digits."""
PPND7 = Quantile(
    center=(3.3871327179, 50.434271938, 159.29113202, 59.10937472),
    center_over=(1.0, 17.895169469, 78.757757664, 67.1875636),
    tail=(1.4234372777, 2.75681539, 1.3067284816, 0.17023821103),
    tail_over=(1.0, 0.7370016425, 0.12021132975),
    far=(6.657905115, 3.081226386, 0.42868294337, 0.017337203997),
    far_over=(1.0, 0.24197894225, 0.012258202635),
)
"""About 7 digits."""


def polynomial(x: Any, coefficients: tuple[float, ...]) -> Any:
    """Horner's rule in the dtype of ``x``, each product rounded."""
    *lower, leading = (x.dtype.type(c) for c in coefficients)
    total = leading
    for c in reversed(lower):
        total = total * x + c
    return total


def log(p: Any) -> Any:
    """Natural logarithm of finite numbers, -inf at 0, NaN below. Within 2 ulp, the same bits on every processor."""
    p = np.asarray(p)
    number, fmt = p.dtype.type, LOG32 if p.dtype.itemsize == 4 else LOG64
    small = p < number(fmt.tiny)
    bits = np.where(small, p * number(2.0**fmt.mantissa), p).view(fmt.integer)
    one = fmt.bias << fmt.mantissa
    shifted = bits + fmt.integer.type(one - fmt.root)
    fraction = shifted & fmt.integer.type((1 << fmt.mantissa) - 1)
    m = (fraction + fmt.integer.type(fmt.root)).view(p.dtype)
    k = (shifted >> fmt.integer.type(fmt.mantissa)).astype(p.dtype) - number(fmt.bias)
    k = np.where(small, k - number(fmt.mantissa), k)
    f = m - number(1)
    s = f / (f + number(2))
    z = s * s
    half_square = (f * f) * number(0.5)
    inner = z * polynomial(z, fmt.tail) + half_square
    rest = f - (half_square - (s * inner + k * number(fmt.ln2_low)))
    total = k * number(fmt.ln2_high) + rest
    total = np.where(p > number(0), total, np.where(p == number(0), number(-np.inf), number(np.nan)))
    return total.astype(p.dtype)


def ndtri(p: Any) -> Any:
    """The x below which a standard normal falls with probability ``p``; -inf at 0, inf at 1, NaN outside."""
    p = np.asarray(p)
    one, half = p.dtype.type(1), p.dtype.type(0.5)
    fit = PPND7 if p.dtype.itemsize == 4 else PPND16
    q = p - half
    z = p.dtype.type(SHIFT) - q * q
    r = np.sqrt(-log(np.minimum(p, one - p)))
    middle, out = np.abs(q) <= p.dtype.type(MIDDLE), r > p.dtype.type(FAR)
    t = r - np.where(out, p.dtype.type(FAR), p.dtype.type(NEAR))
    above = np.where(out, polynomial(t, fit.far), polynomial(t, fit.tail))
    below = np.where(out, polynomial(t, fit.far_over), polynomial(t, fit.tail_over))
    above = np.where(middle, polynomial(z, fit.center) * q, above)
    x = above / np.where(middle, polynomial(z, fit.center_over), below)
    x = np.where(r == np.inf, r, x)
    return np.where(middle, x, np.copysign(x, q)).astype(p.dtype)
