"""``x.at[key].add(v)``: writing without writing. What JAX's arrays call ``.at``, for arrays of any kind."""

from __future__ import annotations

from typing import Any

from .assign import assign
from .elementwise import divide, negative, reciprocal
from .operands import aval, operand
from .power import power
from .subscript import getitem


class At:
    """``at(x)``: index it, then say what is to happen there."""

    __slots__ = ("_x",)

    def __init__(self, x: Any):
        self._x = operand(x)

    def __getitem__(self, key: Any) -> Place:
        return Place(self._x, key)

    def __repr__(self) -> str:
        return f"at({aval(self._x)})"


class Place:
    """The elements that ``x[key]`` selects, of which each method makes a new array; ``x`` stays as it is.

    Where an index repeats, `set` keeps the last value, the others apply each value in C order of the indices, with the
    same bits on every backend. Values broadcast and are cast as on assignment.
    """

    __slots__ = ("_key", "_x")

    def __init__(self, x: Any, key: Any):
        self._x, self._key = x, key

    def get(self) -> Any:
        """``x[key]``, a copy."""
        return getitem(self._x, self._key)

    def set(self, value: Any) -> Any:
        """``x[key] = value``. Derivatives: none of what is overwritten."""
        return assign(self._x, self._key, value)

    def add(self, value: Any) -> Any:
        """``x[key] += value``, repeated indices adding up (as ``np.add.at``)."""
        return assign(self._x, self._key, value, "add")

    def subtract(self, value: Any) -> Any:
        """``x[key] -= value``, each time an index appears."""
        return assign(self._x, self._key, negative(value), "add")

    def multiply(self, value: Any) -> Any:
        """``x[key] *= value``, each time an index appears. The derivative by a factor is the product of the others."""
        return assign(self._x, self._key, value, "mul")

    def divide(self, value: Any) -> Any:
        """``x[key] /= value``, each time an index appears."""
        return assign(self._x, self._key, reciprocal(divide(value, 1)), "mul")

    def power(self, value: Any) -> Any:
        """``x[key] **= value``, once where an index repeats."""
        return assign(self._x, self._key, power(self.get(), value))

    def max(self, value: Any) -> Any:
        """The larger of ``x[key]`` and all values that go there. Equal winners share the cotangent evenly."""
        return assign(self._x, self._key, value, "max")

    def min(self, value: Any) -> Any:
        """The smaller of ``x[key]`` and all values that go there. Equal winners share the cotangent evenly."""
        return assign(self._x, self._key, value, "min")


def at(x: Any) -> At:
    """``at(x)[key].set(v)`` and ``add, subtract, multiply, divide, power, max, min, get``: pure forms of assignment.

    For traced arrays (on which ``x.at[key]`` says the same), NumPy arrays, and `fastgrad.Tensor`; ``key`` is anything that
    indexes. Returns: a new array of x's shape and dtype. Raises: as ``x[key]``; `ShapeError` for a value that does not
    broadcast to the elements selected.

    >>> import numpy as np
    >>> at(np.zeros(3))[np.array([0, 2, 0])].add(1.0)
    array([2., 0., 1.])
    """
    return At(x)
