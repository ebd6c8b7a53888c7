"""`Array`: what the user's function sees while it is traced. NumPy's operators, methods, protocols over a `Tracer`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

from . import numpy as fnp
from . import protocols
from .core.graph import Tracer
from .errors import DTypeError, ShapeError, TraceError, UnsupportedError, user_line
from .ops.index import getitem


def _binary(op: Callable[[Any, Any], Any]) -> Any:
    def method(self: Array, other: Any) -> Any:
        return op(self, other) if _operand_like(other) else NotImplemented

    return method


def _reflected(op: Callable[[Any, Any], Any]) -> Any:
    def method(self: Array, other: Any) -> Any:
        return op(other, self) if _operand_like(other) else NotImplemented

    return method


def _in_place(symbol: str, op: Callable[[Any, Any], Any]) -> Any:
    def method(self: Array, other: Any) -> Any:
        out = op(self, other)
        if out.shape != self.shape:
            raise ShapeError(
                f"a {symbol} b: keeps the shape of a, got {self.aval} and {getattr(other, 'aval', other)}",
                hint=f"a = a {symbol[:-1]} b",
                at=user_line(),
            )
        if not np.can_cast(out.dtype, self.dtype, "same_kind"):
            raise DTypeError(
                f"a {symbol} b: keeps the dtype of a, {self.aval} cannot hold {out.aval}",
                hint=f"a = a {symbol[:-1]} b",
                at=user_line(),
            )
        return fnp.astype(out, self.dtype)

    return method


def _method(op: Callable[..., Any]) -> Any:
    def method(self: Array, *args: Any, **kwargs: Any) -> Any:
        return op(self, *args, **kwargs)

    method.__name__, method.__doc__ = op.__name__, op.__doc__
    return method


def _operand_like(value: Any) -> bool:
    return not (value is None or isinstance(value, str | bytes | dict | set))


class Array(Tracer):
    """A traced array: shape and dtype are known, values are not. Behaves as a NumPy array in every op fastgrad has."""

    __slots__ = ()
    __array_priority__ = 1000.0

    # --- what is known ------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.atom.aval.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the elements."""
        return self.atom.aval.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.atom.aval.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.atom.aval.size

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.atom.aval.nbytes

    @property
    def T(self) -> Any:
        """The axes in reverse order."""
        return fnp.transpose(self)

    @property
    def mT(self) -> Any:
        """The last two axes exchanged."""
        return fnp.swapaxes(self, -1, -2)

    def __len__(self) -> int:
        if not self.shape:
            raise TraceError(f"a traced value {self.aval} has no length", at=user_line())
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Array({self.aval})"

    # --- operators ----------------------------------------------------------------------------------------------

    __add__, __radd__, __iadd__ = _binary(fnp.add), _reflected(fnp.add), _in_place("+=", fnp.add)
    __sub__, __rsub__, __isub__ = (
        _binary(fnp.subtract),
        _reflected(fnp.subtract),
        _in_place("-=", fnp.subtract),
    )
    __mul__, __rmul__, __imul__ = (
        _binary(fnp.multiply),
        _reflected(fnp.multiply),
        _in_place("*=", fnp.multiply),
    )
    __truediv__, __rtruediv__, __itruediv__ = (
        _binary(fnp.divide),
        _reflected(fnp.divide),
        _in_place("/=", fnp.divide),
    )
    __floordiv__, __rfloordiv__ = _binary(fnp.floor_divide), _reflected(fnp.floor_divide)
    __ifloordiv__ = _in_place("//=", fnp.floor_divide)
    __mod__, __rmod__, __imod__ = (
        _binary(fnp.remainder),
        _reflected(fnp.remainder),
        _in_place("%=", fnp.remainder),
    )
    __pow__, __rpow__, __ipow__ = _binary(fnp.power), _reflected(fnp.power), _in_place("**=", fnp.power)
    __matmul__, __rmatmul__, __imatmul__ = (
        _binary(fnp.matmul),
        _reflected(fnp.matmul),
        _in_place("@=", fnp.matmul),
    )
    __and__, __rand__, __iand__ = (
        _binary(fnp.bitwise_and),
        _reflected(fnp.bitwise_and),
        _in_place("&=", fnp.bitwise_and),
    )
    __or__, __ror__, __ior__ = (
        _binary(fnp.bitwise_or),
        _reflected(fnp.bitwise_or),
        _in_place("|=", fnp.bitwise_or),
    )
    __xor__, __rxor__, __ixor__ = (
        _binary(fnp.bitwise_xor),
        _reflected(fnp.bitwise_xor),
        _in_place("^=", fnp.bitwise_xor),
    )
    __lt__, __le__, __gt__, __ge__ = (
        _binary(fnp.less),
        _binary(fnp.less_equal),
        _binary(fnp.greater),
        _binary(fnp.greater_equal),
    )
    __eq__, __ne__ = _binary(fnp.equal), _binary(fnp.not_equal)
    __hash__ = Tracer.__hash__

    def __neg__(self) -> Any:
        return fnp.negative(self)

    def __pos__(self) -> Any:
        return fnp.positive(self)

    def __abs__(self) -> Any:
        return fnp.absolute(self)

    def __invert__(self) -> Any:
        return fnp.invert(self)

    def __getitem__(self, key: Any) -> Any:
        return getitem(self, key)

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TraceError(f"a traced value {self.aval} has no axis to iterate over", at=user_line())
        return (self[i] for i in range(self.shape[0]))

    # --- methods, with NumPy's signatures -----------------------------------------------------------------------

    def sum(self, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
        """`fnp.sum`."""
        return fnp.sum(self, axis, dtype=dtype, keepdims=keepdims)

    def mean(self, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
        """`fnp.mean`."""
        return fnp.mean(self, axis, dtype=dtype, keepdims=keepdims)

    def var(self, axis: Any = None, dtype: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
        """`fnp.var`."""
        return fnp.var(self, axis, dtype=dtype, ddof=ddof, keepdims=keepdims)

    def std(self, axis: Any = None, dtype: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
        """`fnp.std`."""
        return fnp.std(self, axis, dtype=dtype, ddof=ddof, keepdims=keepdims)

    def max(self, axis: Any = None, *, keepdims: bool = False) -> Any:
        """`fnp.max`."""
        return fnp.max(self, axis, keepdims=keepdims)

    def min(self, axis: Any = None, *, keepdims: bool = False) -> Any:
        """`fnp.min`."""
        return fnp.min(self, axis, keepdims=keepdims)

    def argmax(self, axis: Any = None, *, keepdims: bool = False) -> Any:
        """`fnp.argmax`."""
        return fnp.argmax(self, axis, keepdims=keepdims)

    def argmin(self, axis: Any = None, *, keepdims: bool = False) -> Any:
        """`fnp.argmin`."""
        return fnp.argmin(self, axis, keepdims=keepdims)

    def all(self, axis: Any = None, *, keepdims: bool = False) -> Any:
        """`fnp.all`."""
        return fnp.all(self, axis, keepdims=keepdims)

    def any(self, axis: Any = None, *, keepdims: bool = False) -> Any:
        """`fnp.any`."""
        return fnp.any(self, axis, keepdims=keepdims)

    def reshape(self, *shape: Any) -> Any:
        """`fnp.reshape`; the sizes as one tuple or as arguments."""
        return fnp.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Any:
        """`fnp.transpose`; the axes as one tuple or as arguments."""
        return fnp.transpose(
            self, (axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes) or None
        )

    def swapaxes(self, axis1: int, axis2: int) -> Any:
        """`fnp.swapaxes`."""
        return fnp.swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Any = None) -> Any:
        """`fnp.squeeze`."""
        return fnp.squeeze(self, axis)

    def ravel(self) -> Any:
        """`fnp.ravel`."""
        return fnp.ravel(self)

    def flatten(self) -> Any:
        """`fnp.ravel`: a traced value never changes, so it needs no copy."""
        return fnp.ravel(self)

    def copy(self) -> Any:
        """The value itself: it never changes."""
        return self

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        """`fnp.astype`."""
        return fnp.astype(self, dtype)

    def dot(self, other: Any) -> Any:
        """`fnp.dot`."""
        return fnp.dot(self, other)

    def take(self, indices: Any, axis: Any = None) -> Any:
        """`fnp.take`."""
        return fnp.take(self, indices, axis)

    prod, cumsum, cumprod = _method(fnp.prod), _method(fnp.cumsum), _method(fnp.cumprod)
    diagonal, trace, repeat = _method(fnp.diagonal), _method(fnp.trace), _method(fnp.repeat)

    def clip(self, min: Any = None, max: Any = None) -> Any:
        """`fnp.clip`."""
        return fnp.clip(self, min, max)

    # --- NumPy's protocols --------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
        if kwargs.get("out") is not None:
            raise TraceError(
                f"{name}: a traced value cannot be stored in a NumPy array", hint="a = a + b", at=user_line()
            )
        table = protocols.METHODS.get(method, {})
        if ufunc not in table:
            raise _unsupported(name)
        if method != "__call__":
            kwargs = {"axis": 0, **kwargs}
        return _call(name, table[ufunc], inputs, kwargs)

    def __array_function__(self, func: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        module = (func.__module__ or "numpy").replace("numpy", "np", 1)
        name = f"{module}.{func.__name__}"
        if func not in protocols.FUNCTIONS:
            raise _unsupported(name)
        return _call(name, protocols.FUNCTIONS[func], args, kwargs)

    # --- what a value that is not known yet cannot do -----------------------------------------------------------

    def __bool__(self) -> NoReturn:
        raise TraceError(
            f"a Python `if` on a traced value {self.aval}: its value is not known while tracing",
            hint="np.where(condition, x, y)",
            at=user_line(),
        )

    def _no_number(self, what: str) -> NoReturn:
        raise TraceError(
            f"{what} of a traced value {self.aval}: its value is not known while tracing",
            hint="keep it an array: np.* functions take it; to fill an array use np.zeros_like(x), fnp.zeros, np.stack",
            at=user_line(),
        )

    def __float__(self) -> NoReturn:
        self._no_number("float()")

    def __int__(self) -> NoReturn:
        self._no_number("int()")

    def __complex__(self) -> NoReturn:
        self._no_number("complex()")

    def __index__(self) -> NoReturn:
        raise TraceError(
            f"a traced value {self.aval} as a Python index or size: its value is not known while tracing",
            hint="np.take(x, i, axis=0)",
            at=user_line(),
        )

    def item(self, *args: Any) -> NoReturn:
        """Raises: the value is not known while tracing."""
        self._no_number(".item()")

    def tolist(self) -> NoReturn:
        """Raises: the value is not known while tracing."""
        self._no_number(".tolist()")

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise TraceError(
            f"a traced value {self.aval} cannot be stored in a NumPy array or converted to one",
            hint="np.zeros_like(x), fnp.zeros or np.stack build traced arrays",
            at=user_line(),
        )

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise UnsupportedError(
            f"x[i] = v on a traced value {self.aval} is not supported yet",
            hint="np.where(mask, v, x) or np.concatenate",
            at=user_line(),
        )


def _unsupported(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"{name} is not supported on traced values",
        hint="compose it of functions in fastgrad.numpy, or call it outside the traced function",
        at=user_line(),
    )


@lru_cache(maxsize=256)
def _signature(fn: Callable) -> inspect.Signature:
    return inspect.signature(fn)


def _call(name: str, fn: Callable, args: Sequence[Any], kwargs: dict) -> Any:
    """``fn(*args, **kwargs)``; arguments that only NumPy has may be given at their defaults alone."""
    given = {k: v for k, v in kwargs.items() if v is not None and v is not np._NoValue}
    if given.get("order") == "C" or given.get("order") == "K":
        del given["order"]
    try:
        bound = _signature(fn).bind(*args, **given)
    except TypeError as error:
        raise UnsupportedError(f"{name}: {error}", hint="leave the argument out", at=user_line()) from None
    if bound.arguments.get("out") is not None:
        raise UnsupportedError(
            f"{name}: out= is not supported on traced values", hint="leave it out", at=user_line()
        )
    return fn(*args, **given)
