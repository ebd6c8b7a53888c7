"""Comparison, logic on bools and bits, and choosing by a condition. Answers have no derivative, choices do."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.aval import result_type
from ..core.graph import Literal
from ..core.primitive import Primitive
from ..errors import DTypeError, ShapeError, user_line
from .operands import aval, dtype_of, number, operand
from .pointwise import cast, convert, copied, literal, pointwise, promote, select_p, to_bool

_BOOL = np.dtype(bool)

# --- eq ne lt le gt ge ----------------------------------------------------------------------------------------------

eq_p = pointwise("eq", np.equal, result=to_bool("eq"))
ne_p = pointwise("ne", np.not_equal, result=to_bool("ne"))
lt_p = pointwise("lt", np.less, result=to_bool("lt"))
le_p = pointwise("le", np.less_equal, result=to_bool("le"))
gt_p = pointwise("gt", np.greater, result=to_bool("gt"))
ge_p = pointwise("ge", np.greater_equal, result=to_bool("ge"))


def _compare(prim: Primitive, x: Any, y: Any) -> Any:
    try:
        return prim(*promote(x, y))
    except DTypeError:
        # A Python integer outside the other's dtype still compares, as in NumPy: both go to a dtype that holds them.
        wide = [np.min_scalar_type(v) if isinstance(number(v), int) else dtype_of(operand(v)) for v in (x, y)]
        common = np.result_type(*wide)
        if common.kind not in "biuf" or common == result_type(aval(operand(x)), aval(operand(y)))[0]:
            raise
        return prim(*(convert(operand(v), common) for v in (x, y)))


def equal(x: Any, y: Any) -> Any:
    """``x == y`` elementwise, bool. NaN equals nothing; dtypes promote as in NumPy."""
    return _compare(eq_p, x, y)


def not_equal(x: Any, y: Any) -> Any:
    """``x != y`` elementwise, bool. NaN differs from everything."""
    return _compare(ne_p, x, y)


def less(x: Any, y: Any) -> Any:
    """``x < y`` elementwise, bool; False where either is NaN."""
    return _compare(lt_p, x, y)


def less_equal(x: Any, y: Any) -> Any:
    """``x <= y`` elementwise, bool; False where either is NaN."""
    return _compare(le_p, x, y)


def greater(x: Any, y: Any) -> Any:
    """``x > y`` elementwise, bool; False where either is NaN."""
    return _compare(gt_p, x, y)


def greater_equal(x: Any, y: Any) -> Any:
    """``x >= y`` elementwise, bool; False where either is NaN."""
    return _compare(ge_p, x, y)


# --- and or xor not: of bools, and of the bits of integers -----------------------------------------------------------

and_p = pointwise("and", np.bitwise_and, accepts="biu")
or_p = pointwise("or", np.bitwise_or, accepts="biu")
xor_p = pointwise("xor", np.bitwise_xor, accepts="biu")
not_p = pointwise("not", np.invert, accepts="biu")
shl_p = pointwise("shl", np.left_shift, accepts="iu")
shr_p = pointwise("shr", np.right_shift, accepts="iu")


def bitwise_and(x: Any, y: Any) -> Any:
    """``x & y``: logical on bools, bit by bit on integers. Raises `DTypeError` on floats."""
    return and_p(*promote(x, y))


def bitwise_or(x: Any, y: Any) -> Any:
    """``x | y``: logical on bools, bit by bit on integers. Raises `DTypeError` on floats."""
    return or_p(*promote(x, y))


def bitwise_xor(x: Any, y: Any) -> Any:
    """``x ^ y``: logical on bools, bit by bit on integers. Raises `DTypeError` on floats."""
    return xor_p(*promote(x, y))


def invert(x: Any) -> Any:
    """``~x``: logical on bools, bit by bit on integers. Raises `DTypeError` on floats."""
    return not_p(*promote(x))


def _shift_operands(op: str, x: Any, n: Any) -> list:
    operands = promote(x, n)
    if dtype_of(operands[0]).kind not in "iu":
        got = ", ".join(str(aval(operand(v))) for v in (x, n))
        raise DTypeError(f"{op}: shifts integers, got {got}", hint="x.astype(np.int64)", at=user_line())
    return operands


def left_shift(x: Any, n: Any) -> Any:
    """``x << n``: the bits of integers moved left, zeros from the right (all zeros once ``n`` bits are out).

    Raises `DTypeError` on bools and floats.

    >>> left_shift(np.array([1, 3]), 2)
    array([ 4, 12])
    """
    return shl_p(*_shift_operands("left_shift", x, n))


def right_shift(x: Any, n: Any) -> Any:
    """``x >> n``: the bits of integers moved right, the sign from the left. Raises `DTypeError` on bools and floats."""
    return shr_p(*_shift_operands("right_shift", x, n))


def truth(x: Any) -> Any:
    """``x != 0`` as bool: how NumPy reads any array as a condition (NaN is true)."""
    x = operand(x)
    if dtype_of(x) == _BOOL:
        return x
    return literal(x, _BOOL) if number(x) is not None else cast(x, _BOOL)


def logical_and(x: Any, y: Any) -> Any:
    """``x and y`` elementwise, of the truth of any dtype."""
    return and_p(*promote(truth(x), truth(y)))


def logical_or(x: Any, y: Any) -> Any:
    """``x or y`` elementwise, of the truth of any dtype."""
    return or_p(*promote(truth(x), truth(y)))


def logical_xor(x: Any, y: Any) -> Any:
    """Whether exactly one of ``x`` and ``y`` is true, elementwise."""
    return xor_p(*promote(truth(x), truth(y)))


def logical_not(x: Any) -> Any:
    """``not x`` elementwise, of the truth of any dtype."""
    return not_p(*promote(truth(x)))


# --- choosing by a condition ----------------------------------------------------------------------------------------


def where(condition: Any, x: Any, y: Any) -> Any:
    """``x`` where ``condition`` holds, else ``y``; the three broadcast, x and y promote.

    A condition of another dtype holds where it is not 0. The cotangent goes to the side that was chosen alone (so a NaN
    derivative of the side not chosen is not masked if that side itself is evaluated at a singular point).

    >>> where(np.array([True, False]), 1.0, np.array([5.0, 6.0]))
    array([1., 6.])
    """
    return select_p(truth(condition), *promote(x, y))


def clip(x: Any, a_min: Any = None, a_max: Any = None) -> Any:
    """``x`` limited to ``[a_min, a_max]``; None is no limit; where ``a_min > a_max`` the result is ``a_max``.

    Kinks: at its bounds clip passes the cotangent to ``x``; beyond them the bound receives it. NaN stays NaN.

    >>> clip(np.array([-2.0, 0.5, 3.0]), 0, 1)
    array([0. , 0.5, 1. ])
    """
    x = operand(x)
    if a_min is None and a_max is None:
        return copied(promote(x)[0])
    if a_min is not None:
        x, low = promote(x, a_min)
        x = select_p(_beyond(lt_p, x, low), low, x)
    if a_max is not None:
        x, high = promote(x, a_max)
        x = select_p(_beyond(gt_p, x, high), high, x)
    return x


def _beyond(test: Primitive, x: Any, bound: Any) -> Any:
    """Where the bound takes over: beyond it, or where it is NaN (checked only when it is no literal)."""
    outside = test(x, bound)
    if isinstance(bound, Literal) or dtype_of(bound).kind != "f":
        return outside
    return or_p(outside, ne_p(bound, bound))


def nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    """``x`` with NaN replaced by ``nan``, infinities by ``posinf`` and ``neginf`` (the dtype's largest numbers when None).

    No derivative passes where an element is replaced.

    >>> nan_to_num(np.array([np.nan, 1.0]))
    array([0., 1.])
    """
    (x,) = promote(x)
    if dtype_of(x).kind != "f":
        return copied(x) if copy else x
    limits = np.finfo(dtype_of(x))
    x = where(ne_p(x, x), nan, x)
    x = where(equal(x, np.inf), limits.max if posinf is None else posinf, x)
    return where(equal(x, -np.inf), limits.min if neginf is None else neginf, x)


def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """For each element the choice of the first condition that holds, or ``default``; all broadcast.

    >>> select([np.array([True, False])], [np.array([1, 2])], 5)
    array([1, 5])
    """
    if len(condlist) != len(choicelist):
        raise ShapeError(f"select: {len(condlist)} conditions for {len(choicelist)} choices", at=user_line())
    out = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        out = where(condition, choice, out)
    return out
