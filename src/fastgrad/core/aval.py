"""Abstract values: what is known of an array while tracing (shape, dtype, weakness), and NumPy 2's promotion."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError

_SHORT = {"bool": "bool", "float32": "f32", "float64": "f64"} | {
    f"{kind}int{bits}": f"{kind or 'i'}{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)
}
_NUMPY = (np.ndarray, np.generic)
DTYPES = tuple(np.dtype(name) for name in _SHORT)
"""Every dtype that fastgrad computes in."""


_SHORT_OF = {dtype: _SHORT[dtype.name] for dtype in DTYPES}  # `dtype.name` is Python code, and takes 2 µs


def short(dtype: np.dtype) -> str:
    """``f32`` for float32: how dtypes read in every printed stage and in kernel text."""
    return _SHORT_OF.get(dtype) or _SHORT[dtype.name]


@dataclass(frozen=True, slots=True)
class Aval:
    """Shape, dtype and weakness of a value; prints as ``f32[3,4]`` (``f64*[]`` when weak).

    ``weak`` marks values that come from Python numbers alone: they adopt the dtype of what they meet.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    weak: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size

    @property
    def nbytes(self) -> int:
        """Bytes of a contiguous array of this kind."""
        return self.size * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __str__(self) -> str:
        return f"{short(self.dtype)}{'*' if self.weak else ''}[{','.join(map(str, self.shape))}]"


def check_dtype(dtype: Any) -> np.dtype:
    """The `numpy.dtype` of ``dtype`` in native order; `DTypeError` when fastgrad does not compute in it.

    It is the one object that NumPy's own arrays carry, so that dtypes can be compared by identity.
    """
    return _check_dtype(np.dtype(dtype))


@lru_cache(maxsize=256)
def _check_dtype(dtype: np.dtype) -> np.dtype:
    if dtype.name in _SHORT:
        return np.dtype(dtype.name)
    hint = (
        "split it into its real and imaginary parts"
        if dtype.kind == "c"
        else "convert it to a numeric array first"
    )
    raise DTypeError(
        f"dtype {dtype.name} is not supported (bool, integers, float32, float64 are)",
        hint="x.astype(np.float32)" if dtype.char == "e" else hint,
    )


def aval_of(value: Any) -> Aval:
    """The aval of a NumPy array, NumPy scalar or Python number."""
    if isinstance(value, _NUMPY):
        return Aval(value.shape, check_dtype(value.dtype))
    if isinstance(value, bool):
        return Aval((), np.dtype(bool))
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise DTypeError(f"the Python integer {value} does not fit int64", hint="float(...)")
    if isinstance(value, int):
        return Aval((), np.dtype(np.int64), weak=True)
    if isinstance(value, float):
        return Aval((), np.dtype(np.float64), weak=True)
    if isinstance(value, complex):
        raise DTypeError(
            "complex numbers are not supported, got complex",
            hint="split it into its real and imaginary parts",
        )
    raise DTypeError(
        f"expected an array or a number, got {type(value).__name__}", hint="convert it with np.asarray"
    )


@lru_cache(maxsize=256)
def scalar_aval(dtype: np.dtype, weak: bool = False) -> Aval:
    """The aval of a scalar: one object for all scalars of a kind."""
    return Aval((), dtype, weak)


@lru_cache(maxsize=4096)
def _result_type(kinds: tuple[tuple[np.dtype, bool], ...]) -> tuple[np.dtype, bool]:
    # NumPy itself applies the weak-scalar rules when it is handed Python numbers.
    parts = [(0 if dtype.kind == "i" else 0.0) if weak else dtype for dtype, weak in kinds]
    return np.dtype(np.result_type(*parts)), all(weak for _, weak in kinds)


def result_type(*avals: Aval) -> tuple[np.dtype, bool]:
    """NumPy 2's common dtype of ``avals``, and whether the result is still weak."""
    return _result_type(tuple((a.dtype, a.weak) for a in avals))


def inexact(dtype: np.dtype) -> np.dtype:
    """The dtype in which NumPy computes ``exp`` of ``dtype``: floats stay, integers and bools become float64."""
    return dtype if dtype.kind == "f" else np.dtype(np.float64)


def broadcast_shapes(op: str, *avals: Aval) -> tuple[int, ...]:
    """The shape that NumPy broadcasting gives; `ShapeError` naming ``op`` when there is none."""
    shape: tuple[int, ...] = ()
    for aval in avals:
        if not shape:
            shape = aval.shape
        elif aval.shape and aval.shape != shape:  # NumPy's own function takes 3 µs
            try:
                shape = np.broadcast_shapes(shape, aval.shape)
            except ValueError:
                got = ", ".join(map(str, avals))
                raise ShapeError(
                    f"{op}: shapes do not broadcast, got {got}", hint=_reshape_hint(avals)
                ) from None
    return shape


def _reshape_hint(avals: tuple[Aval, ...]) -> str | None:
    """A suggestion that would type-check: a vector that fits the rows of a matrix wants a trailing axis."""
    if len(avals) == 2:
        for (big, small), name in zip((avals, avals[::-1]), ("y", "x"), strict=True):
            if small.ndim == 1 and big.ndim == 2 and small.shape[0] == big.shape[0]:
                return f"{name}[:, None]"
    return None
