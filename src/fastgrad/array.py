"""`Array`: what the user's function sees while it is traced. NumPy's operators, methods, protocols over a `Tracer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NoReturn

import numpy as np

from . import numpy as fnp
from . import protocols
from .core.graph import Tracer
from .errors import TraceError, user_line
from .operators import binary, in_place, kept, reflected
from .ops.assign import assign
from .ops.at import At
from .ops.subscript import subscript
from .views import View, handle, index, store

_AT = {np.add: "add", np.multiply: "mul", np.maximum: "max", np.minimum: "min"}
"""The ufuncs with an ``.at`` for traced arrays."""


def _method(op: Callable[..., Any]) -> Any:
    def method(self: Array, *args: Any, **kwargs: Any) -> Any:
        return op(self, *args, **kwargs)

    method.__name__, method.__doc__ = op.__name__, op.__doc__
    return method


class Array(Tracer):
    """A traced array: shape and dtype are known, values are not. Behaves as a NumPy array in every op fastgrad has."""

    __slots__ = ()
    __array_priority__ = 1000.0
    view_type: ClassVar[type[View] | None] = None  # `ArrayView`, which is defined below

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

    @property
    def real(self) -> Any:
        """The array itself: there are no complex numbers here."""
        return self

    def __len__(self) -> int:
        if not self.shape:
            raise TraceError(f"a traced value {self.aval} has no length", at=user_line())
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Array({self.aval})"

    # --- operators ----------------------------------------------------------------------------------------------

    __add__, __radd__, __iadd__ = binary(fnp.add), reflected(fnp.add), in_place("+=", fnp.add)
    __sub__, __rsub__, __isub__ = (
        binary(fnp.subtract),
        reflected(fnp.subtract),
        in_place("-=", fnp.subtract),
    )
    __mul__, __rmul__, __imul__ = (
        binary(fnp.multiply),
        reflected(fnp.multiply),
        in_place("*=", fnp.multiply),
    )
    __truediv__, __rtruediv__, __itruediv__ = (
        binary(fnp.divide),
        reflected(fnp.divide),
        in_place("/=", fnp.divide),
    )
    __floordiv__, __rfloordiv__ = binary(fnp.floor_divide), reflected(fnp.floor_divide)
    __ifloordiv__ = in_place("//=", fnp.floor_divide)
    __mod__, __rmod__, __imod__ = (
        binary(fnp.remainder),
        reflected(fnp.remainder),
        in_place("%=", fnp.remainder),
    )
    __pow__, __rpow__, __ipow__ = binary(fnp.power), reflected(fnp.power), in_place("**=", fnp.power)
    __matmul__, __rmatmul__, __imatmul__ = (
        binary(fnp.matmul),
        reflected(fnp.matmul),
        in_place("@=", fnp.matmul),
    )
    __lshift__, __rlshift__, __ilshift__ = (
        binary(fnp.left_shift),
        reflected(fnp.left_shift),
        in_place("<<=", fnp.left_shift),
    )
    __rshift__, __rrshift__, __irshift__ = (
        binary(fnp.right_shift),
        reflected(fnp.right_shift),
        in_place(">>=", fnp.right_shift),
    )
    __and__, __rand__, __iand__ = (
        binary(fnp.bitwise_and),
        reflected(fnp.bitwise_and),
        in_place("&=", fnp.bitwise_and),
    )
    __or__, __ror__, __ior__ = (
        binary(fnp.bitwise_or),
        reflected(fnp.bitwise_or),
        in_place("|=", fnp.bitwise_or),
    )
    __xor__, __rxor__, __ixor__ = (
        binary(fnp.bitwise_xor),
        reflected(fnp.bitwise_xor),
        in_place("^=", fnp.bitwise_xor),
    )
    __lt__, __le__, __gt__, __ge__ = (
        binary(fnp.less),
        binary(fnp.less_equal),
        binary(fnp.greater),
        binary(fnp.greater_equal),
    )
    __eq__, __ne__ = binary(fnp.equal), binary(fnp.not_equal)
    __hash__ = Tracer.__hash__

    def __divmod__(self, other: Any) -> tuple:
        return self // other, self % other

    def __neg__(self) -> Any:
        return fnp.negative(self)

    def __pos__(self) -> Any:
        return fnp.positive(self)

    def __abs__(self) -> Any:
        return fnp.absolute(self)

    def __invert__(self) -> Any:
        return fnp.invert(self)

    def __getitem__(self, key: Any) -> Any:
        return index(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, View) and value.parent is self and value.key is key:
            return  # ``x[i] += v`` has written to the view already
        if isinstance(value, list | tuple):
            value = fnp.asarray(value)
        items = key if isinstance(key, tuple) else (key,)
        if any(isinstance(i, Tracer) and i.aval.dtype.kind == "b" for i in items):
            store(self, (), assign(handle(self), key, value))
        else:
            store(self, subscript(self, key, writing=True).steps, value)

    @property
    def at(self) -> At:
        """``x.at[i].set(v)``, ``add``, ``multiply``, ...: a new array, ``x`` stays (see `fnp.at`)."""
        return At(self)

    def fill(self, value: Any) -> None:
        """All elements set to one value."""
        self[...] = value

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

    def max(self, axis: Any = None, *, keepdims: bool = False, initial: Any = None) -> Any:
        """`fnp.max`."""
        return fnp.max(self, axis, keepdims=keepdims, initial=initial)

    def min(self, axis: Any = None, *, keepdims: bool = False, initial: Any = None) -> Any:
        """`fnp.min`."""
        return fnp.min(self, axis, keepdims=keepdims, initial=initial)

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

    def reshape(self, *shape: Any, order: str = "C") -> Any:
        """`fnp.reshape`; the sizes as one tuple or as arguments."""
        return fnp.reshape(self, shape[0] if len(shape) == 1 else shape, order)

    def transpose(self, *axes: Any) -> Any:
        """`fnp.transpose`; the axes as one tuple or as arguments."""
        return fnp.transpose(
            self, (axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes) or None
        )

    def squeeze(self, axis: Any = None) -> Any:
        """`fnp.squeeze`."""
        return fnp.squeeze(self, axis)

    def ravel(self, order: str = "C") -> Any:
        """`fnp.ravel`."""
        return fnp.ravel(self, order)

    def flatten(self, order: str = "C") -> Any:
        """The elements as a vector of their own: a copy, where `ravel` is a view."""
        return fnp.ravel(handle(self), order)

    def copy(self) -> Any:
        """A handle of its own on the same value: what is written to one is not seen by the other."""
        return handle(self)

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        """`fnp.astype`; with ``copy=False`` the array itself where it has that dtype."""
        return fnp.astype(self, dtype, copy=copy)

    dot, take, swapaxes = _method(fnp.dot), _method(fnp.take), _method(fnp.swapaxes)
    round, conj, conjugate = _method(fnp.round), _method(fnp.conj), _method(fnp.conj)
    prod, cumsum, cumprod = _method(fnp.prod), _method(fnp.cumsum), _method(fnp.cumprod)
    diagonal, trace, repeat = _method(fnp.diagonal), _method(fnp.trace), _method(fnp.repeat)

    def clip(self, min: Any = None, max: Any = None) -> Any:
        """`fnp.clip`."""
        return fnp.clip(self, min, max)

    # --- NumPy's protocols --------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
        target = inputs[0] if method == "at" else (kwargs.pop("out", None) or (None,))[0]
        if target is not None and getattr(target, "view_type", None) is None:
            raise TraceError(
                f"{name}: a traced value cannot be stored in a NumPy array", hint="a = a + b", at=user_line()
            )
        if target is not None and method == "at" and ufunc in _AT:
            store(target, (), assign(handle(target), inputs[1], inputs[2], _AT[ufunc]))
            return None
        table = protocols.METHODS.get(method, {})
        if ufunc not in table:
            raise protocols.unsupported(name)
        if method in ("reduce", "accumulate"):
            kwargs = {"axis": 0, **kwargs}
        result = protocols.call(name, table[ufunc], inputs, kwargs)
        if target is None:
            return result
        store(target, (), kept(target, f"{name} with out=a", result, result, "leave out= away"))
        return target

    def __array_function__(self, func: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        module = (func.__module__ or "numpy").replace("numpy", "np", 1)
        name = f"{module}.{func.__name__}"
        if func not in protocols.FUNCTIONS:
            raise protocols.unsupported(name)
        return protocols.call(name, protocols.FUNCTIONS[func], args, kwargs)

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
            hint="fnp.take(x, i, axis=0)",
            at=user_line(),
        )

    def item(self, *args: Any) -> NoReturn:
        """Raises: the value is not known while tracing."""
        self._no_number(".item()")

    def tolist(self) -> NoReturn:
        """Raises: the value is not known while tracing."""
        self._no_number(".tolist()")

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        hint = "np.zeros_like(x), fnp.zeros or np.stack build traced arrays"
        if self.aval.dtype.kind in "iu":  # most often the index of a plain array: NumPy asks for its number
            hint = "fnp.take(x, i, axis=0) reads a plain array; " + hint
        raise TraceError(
            f"a traced value {self.aval} cannot be stored in a NumPy array or converted to one",
            hint=hint,
            at=user_line(),
        )


class ArrayView(View, Array):
    """A traced array that shares the elements of another: see `views`."""

    __slots__ = ()


Array.view_type = ArrayView
