"""``np.pad``: a constant around an array, or elements of it repeated there."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, UnsupportedError, user_line
from .assign import fit
from .comparison import where
from .index import take
from .movement import pad_p
from .operands import number, operand, shape_of

_REPEATING = ("edge", "reflect", "symmetric", "wrap")


def pad(x: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Any:
    """``x`` with elements around it: ``pad_width`` is one number, ``(before, after)``, or such a pair for each axis.

    Modes: "constant" (``constant_values``, one number, traced or not), "edge", "reflect", "symmetric" and "wrap", which
    repeat elements of x. Raises: `ArgumentError` for widths that do not fit, `UnsupportedError` for another mode or a
    constant for each side.

    >>> pad(np.ones(2), (1, 2))
    array([0., 1., 1., 0., 0.])
    >>> pad(np.array([1, 2, 3]), 1, mode="wrap")
    array([3, 1, 2, 3, 1])
    """
    x = operand(x)
    shape = shape_of(x)
    widths = _widths(pad_width, len(shape))
    if mode in _REPEATING:
        for axis, width in enumerate(widths):
            if any(width):
                x = take(x, _places(shape[axis], width, mode), axis)
        return x
    if mode != "constant" or shape_of(operand(constant_values)):
        what = f"mode={mode!r}" if mode != "constant" else "a constant for each side"
        raise UnsupportedError(f"pad: {what} is not supported", hint="np.concatenate", at=user_line())
    lo, hi = tuple(w[0] for w in widths), tuple(w[1] for w in widths)
    out = pad_p(x, lo=lo, hi=hi, interior=(0,) * len(lo))
    if number(constant_values) == 0:
        return out
    border = np.pad(np.zeros(shape, bool), widths or 0, constant_values=True)
    return where(border, fit(constant_values, shape_of(out), x), out)


def _widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
    """How many elements go before and after, for each axis."""
    given = np.asarray(pad_width)
    try:
        pairs = np.broadcast_to(given, (ndim, 2))
    except ValueError:
        pairs = None
    if pairs is None or given.dtype.kind not in "iu" or (given < 0).any():
        raise ArgumentError(
            f"pad: widths are counts, one pair for each of {ndim} axes, got {pad_width}", at=user_line()
        )
    return [(int(before), int(after)) for before, after in pairs]


def _places(n: int, width: tuple[int, int], mode: str) -> np.ndarray:
    """Which elements of an axis of ``n`` stand in the padded one."""
    if not n:
        raise ArgumentError(f"pad: an empty axis has no elements to repeat for mode={mode!r}", at=user_line())
    return np.pad(np.arange(n), width, mode=mode)  # type: ignore[call-overload]
