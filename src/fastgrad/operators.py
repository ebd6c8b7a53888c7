"""The methods behind Python's operators on traced arrays: ``x + y``, ``2 - x``, ``x += y``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .core.graph import Tracer
from .errors import DTypeError, ShapeError, user_line
from .ops.operands import aval, operand
from .ops.pointwise import cast
from .views import View, store


def binary(op: Callable[[Any, Any], Any]) -> Any:
    """``x op y``."""

    def method(self: Tracer, other: Any) -> Any:
        return op(self, other) if _operand_like(other) else NotImplemented

    return method


def reflected(op: Callable[[Any, Any], Any]) -> Any:
    """``y op x``, where ``y`` does not know of ``x``."""

    def method(self: Tracer, other: Any) -> Any:
        return op(other, self) if _operand_like(other) else NotImplemented

    return method


def in_place(symbol: str, op: Callable[[Any, Any], Any]) -> Any:
    """``x op= y``: what ``x`` is a handle on, and every view of it, has another value from then on.

    ``method.compute(x, y)`` is that value alone.
    """

    def compute(self: Tracer, other: Any) -> Any:
        return kept(self, f"a {symbol} b", op(self, other), other, f"a = a {symbol[:-1]} b")

    def method(self: Tracer, other: Any) -> Any:
        if not self.aval.shape and not isinstance(self, View):
            return op(self, other)  # what NumPy gives for one element is a number, and numbers do not change
        store(self, (), compute(self, other))
        return self

    method.compute = compute  # type: ignore[attr-defined]
    return method


def kept(a: Any, what: str, out: Any, other: Any, hint: str) -> Any:
    """``out``, which an op computed from ``a`` to replace it, in the dtype of ``a``; shape and kind must be kept."""
    if out.shape != a.shape:
        raise ShapeError(
            f"{what}: keeps the shape of a, got {a.aval} and {aval(operand(other))}",
            hint=hint,
            at=user_line(),
        )
    if not np.can_cast(out.dtype, a.dtype, "same_kind"):
        raise DTypeError(
            f"{what}: keeps the dtype of a, {a.aval} cannot hold {out.aval}", hint=hint, at=user_line()
        )
    return cast(out, a.dtype)


def _operand_like(value: Any) -> bool:
    return not (value is None or isinstance(value, str | bytes | dict | set))
