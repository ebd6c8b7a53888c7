"""`core.quantile` as LLVM IR, on scalars or vectors: the same operations in the same order; the twins are its NumPy form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from ...core import quantile
from . import vec


def _polynomial(b: ir.IRBuilder, x: ir.Value, coefficients: tuple[float, ...]) -> ir.Value:
    *lower, leading = coefficients
    total = vec.const(x.type, leading)
    for c in reversed(lower):
        total = vec.add(b, vec.mul(b, total, x), vec.const(x.type, c))
    return total


def log(b: ir.IRBuilder, p: ir.Value) -> ir.Value:
    """Natural logarithm of finite numbers, nothing fused."""
    t, fmt = p.type, quantile.LOG32 if vec.width(p.type) == 32 else quantile.LOG64
    small = vec.compare(b, "<", p, vec.const(t, fmt.tiny))
    bits = vec.to_bits(b, b.select(small, vec.mul(b, p, vec.const(t, 2.0**fmt.mantissa)), p))
    shifted = b.add(bits, vec.const(bits.type, (fmt.bias << fmt.mantissa) - fmt.root))
    fraction = b.and_(shifted, vec.const(bits.type, (1 << fmt.mantissa) - 1))
    m = vec.from_bits(b, b.add(fraction, vec.const(bits.type, fmt.root)))
    # The biased exponent as the low bits of 2**mantissa: a conversion to float that every SIMD set has.
    power = (fmt.bias + fmt.mantissa) << fmt.mantissa
    biased = b.or_(b.lshr(shifted, vec.const(bits.type, fmt.mantissa)), vec.const(bits.type, power))
    k = vec.sub(b, vec.from_bits(b, biased), vec.const(t, 2.0**fmt.mantissa + fmt.bias))
    k = b.select(small, vec.sub(b, k, vec.const(t, fmt.mantissa)), k)
    f = vec.sub(b, m, vec.const(t, 1.0))
    s = vec.div(b, f, vec.add(b, f, vec.const(t, 2.0)))
    z = vec.mul(b, s, s)
    half_square = vec.mul(b, vec.mul(b, f, f), vec.const(t, 0.5))
    inner = vec.add(b, vec.mul(b, z, _polynomial(b, z, fmt.tail)), half_square)
    low = vec.mul(b, k, vec.const(t, fmt.ln2_low))
    rest = vec.sub(b, f, vec.sub(b, half_square, vec.add(b, vec.mul(b, s, inner), low)))
    total = vec.add(b, vec.mul(b, k, vec.const(t, fmt.ln2_high)), rest)
    zero = vec.const(t, 0.0)
    pole = b.select(vec.compare(b, "==", p, zero), vec.const(t, -np.inf), vec.const(t, np.nan))
    return b.select(vec.compare(b, ">", p, zero), total, pole)


def ndtri(b: ir.IRBuilder, p: ir.Value) -> ir.Value:
    """The normal quantile of p: one of three rational functions, chosen before the one division."""
    t = p.type
    fit = quantile.PPND7 if vec.width(t) == 32 else quantile.PPND16
    q = vec.sub(b, p, vec.const(t, 0.5))
    z = vec.sub(b, vec.const(t, quantile.SHIFT), vec.mul(b, q, q))
    other = vec.sub(b, vec.const(t, 1.0), p)
    smaller = b.select(vec.compare(b, "<", other, p), other, p)  # keeps a NaN
    r = vec.intrinsic(b, "sqrt", b.fneg(log(b, smaller)))
    middle = vec.compare(b, "<=", vec.intrinsic(b, "fabs", q), vec.const(t, quantile.MIDDLE))
    out = vec.compare(b, ">", r, vec.const(t, quantile.FAR))
    s = vec.sub(b, r, b.select(out, vec.const(t, quantile.FAR), vec.const(t, quantile.NEAR)))
    above = b.select(out, _polynomial(b, s, fit.far), _polynomial(b, s, fit.tail))
    below = b.select(out, _polynomial(b, s, fit.far_over), _polynomial(b, s, fit.tail_over))
    above = b.select(middle, vec.mul(b, _polynomial(b, z, fit.center), q), above)
    x = vec.div(b, above, b.select(middle, _polynomial(b, z, fit.center_over), below))
    x = b.select(vec.compare(b, "==", r, vec.const(t, np.inf)), r, x)
    return b.select(middle, x, vec.intrinsic(b, "copysign", x, q))


TWINS: dict[str, Callable[..., Any]] = {
    "ndtri": lambda p: quantile.ndtri(p)[()],
    "plain_log": lambda p: quantile.log(p)[()],
}
