"""A number as the unevaluated sum of two floats, for what one float does not hold.

Error-free sums and products: T. J. Dekker, "A floating-point technique for extending the available precision", Numer. Math.
18, 1971; the product's error by a fused multiply-add.
"""

from __future__ import annotations

from fractions import Fraction

from llvmlite import ir

from . import vec
from .formats import parts

Pair = tuple[ir.Value, ir.Value]
"""The number to a float's precision, and what that lacks."""


def constant(t: ir.Type, number: Fraction) -> Pair:
    """A constant of scalars or vectors of type ``t``."""
    high, low = parts(t, number, 2)
    return vec.const(t, high), vec.const(t, low)


def square(b: ir.IRBuilder, x: ir.Value) -> Pair:
    """x * x, exactly."""
    high = vec.mul(b, x, x)
    return high, vec.fma(b, x, x, b.fneg(high))


def product(b: ir.IRBuilder, x: Pair, y: Pair) -> Pair:
    """x * y, but for the product of the lower parts."""
    high = vec.mul(b, x[0], y[0])
    low = vec.fma(b, x[0], y[0], b.fneg(high))
    return high, vec.fma(b, x[1], y[0], vec.fma(b, x[0], y[1], low))


def total(b: ir.IRBuilder, x: Pair, y: Pair) -> Pair:
    """x + y for |x| >= |y|, or x = 0."""
    high = vec.add(b, x[0], y[0])
    low = vec.add(b, vec.sub(b, x[0], high), y[0])
    return high, vec.add(b, low, vec.add(b, x[1], y[1]))


def exact_sum(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> Pair:
    """x + y, exactly; either may be the larger one (Knuth, TAOCP 2, §4.2.2)."""
    high = vec.add(b, x, y)
    other = vec.sub(b, high, x)
    return high, vec.add(b, vec.sub(b, x, vec.sub(b, high, other)), vec.sub(b, y, other))


def reciprocal(b: ir.IRBuilder, x: Pair) -> Pair:
    """1 / x, by one division and its remainder."""
    one = vec.const(x[0].type, 1.0)
    high = vec.div(b, one, x[0])
    left = vec.fma(b, b.fneg(high), x[1], vec.fma(b, b.fneg(high), x[0], one))
    return high, vec.mul(b, left, high)
