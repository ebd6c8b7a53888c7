"""`Tensor`: an array whose values are known and whose history may be differentiated."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..array import Array
from ..core.aval import Aval, aval_of
from ..errors import ArgumentError, DTypeError, ShapeError, user_line
from ..ops.operands import as_dtype, operand
from ..ops.pointwise import cast_p
from .backward import backward
from .mode import recording
from .pytorch_names import PyTorchNames
from .recording import Node, Recorder


def _in_place(name: str, symbol: str) -> Any:
    """``a += b``: into the memory of ``a`` where nothing is recorded, else a new tensor under the old name."""
    compute: Callable[[Any, Any], Any] = getattr(Array, name).compute

    def method(self: Tensor, other: Any) -> Any:
        if self._requires and self._node is None and recording():
            raise self._lost(f"a {symbol} b")
        out = compute(self, other)
        if not isinstance(out, Tensor) or out._requires or (self._requires and recording()):
            return out  # recorded (or traced): what was recorded before keeps its values
        self._write(out._value)
        return self

    return method


class Tensor(PyTorchNames):
    """An array for define-by-run: ops compute at once and are recorded, `backward` fills ``.grad``.

    Takes all that `fastgrad.numpy`, plain ``np.*`` functions, operators and `fastgrad.nn.functional` take, by the same
    rules and errors as in a trace; methods are NumPy's, and PyTorch's where textbook loops need them (`PyTorchNames`).
    Functions made by `fg.jit`, `fg.grad` and their kin run op by op when they are given tensors, or close over one, and
    are part of the recording; `fg.TrainStep` takes tensors as the arrays that they hold.
    Higher derivatives are `fg.grad`'s: what `backward` computes is not recorded.

    Args: ``data``, a number, array, tensor or nested list, is copied; ``dtype`` converts it. ``requires_grad`` for
    floats only. Shape and dtype never change.
    Raises: `DTypeError` for a dtype without gradients (with ``requires_grad``), or that fastgrad does not compute in.

    Memory: ``detach()``, ``.data`` and basic indexing share the tensor's memory, and so do ``np.asarray(t)`` and
    ``t.numpy()``, as read-only arrays. In place change ``+=`` and its kin, ``t[...] = v``, ``zero_``, ``fill_``,
    ``copy_`` and an optimizer's step; where backward needs a value that was changed since, it raises `ArgumentError`.
    A ``+=`` that is itself recorded makes a new tensor under the old name.
    A NumPy operand of a recorded op is copied each time, a read-only one, too (NumPy counts no changes, and other views
    may write): make a tensor of large data once.

    >>> w = Tensor([1.0, 2.0], requires_grad=True)
    >>> ((w * w).sum()).backward()
    >>> w.grad
    Tensor([2., 4.])
    """

    __slots__ = ("_grad", "_index", "_node", "_requires", "_value", "_version", "aval")

    _value: Any  # an array; a NumPy scalar where an op gave one, which is faster to compute with
    _grad: Tensor | None
    _node: Node | None  # the op that made it; None for a leaf
    _index: int  # which of the node's outputs it is
    _requires: bool
    _version: list[int]  # counts changes in place; one counter for all that share the memory
    aval: Aval
    builder: Recorder
    view_type = None  # views share memory by themselves

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None):
        array = np.asarray(operand(data) if not isinstance(data, Tensor) else data)
        target = as_dtype(array.dtype if dtype is None else dtype)
        self._set(np.array(array, target), [0])
        self.requires_grad = requires_grad

    def _set(self, value: Any, version: list[int]) -> Tensor:
        self._value, self.aval, self._version = value, aval_of(value), version
        self._grad, self._node, self._index, self._requires = None, None, 0, False
        return self

    @property
    def atom(self) -> Any:  # type: ignore[override]
        """What `Array` reads shape and dtype of."""
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.aval.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the elements."""
        return self.aval.dtype

    # --- gradients ----------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether ops on it are recorded; may be set on leaves. `DTypeError` for integers and bools."""
        return self._requires

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self.dtype.kind != "f":
            raise DTypeError(
                f"only floats can require a gradient, got {self.aval}",
                hint="dtype=np.float64",
                at=user_line(),
            )
        if not value and self._node is not None:
            raise ArgumentError(
                "requires_grad can be cleared on a leaf only", hint="t.detach()", at=user_line()
            )
        self._requires = bool(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad`; the tensor itself."""
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made it: its gradient is kept in ``.grad``."""
        return self._node is None

    @property
    def grad(self) -> Tensor | None:
        """What `backward` added up, a tensor of the same shape and dtype that requires no gradient; None before.

        May be set: None, or anything of the shape and dtype (a tensor is taken as it is, an array copied).
        """
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                value = Tensor(value)
            value = value.detach() if value._requires else value
            if value.shape != self.shape:
                raise ShapeError(f"grad: must be {self.aval}, got {value.aval}", at=user_line())
            if value.dtype != self.dtype:
                raise DTypeError(f"grad: must be {self.aval}, got {value.aval}", at=user_line())
        self._grad = value

    def _add_grad(self, ct: Any, fresh: bool) -> None:
        if self._grad is not None:
            self._grad._write(self._grad._value + ct)
            return
        value = ct if fresh and isinstance(ct, np.ndarray) else np.array(ct, self.dtype)
        self._grad = _wrap(value, [0])

    def retain_grad(self) -> None:
        """Keep the gradient of this tensor, too, in ``.grad``, though it is no leaf."""
        if not self._requires:
            raise self._no_history("retain_grad")
        if self._node is not None:
            retained = self._node.retained or {}
            self._node.retained = retained | {self._index: weakref.ref(self)}

    def backward(self, gradient: Any = None, *, retain_graph: bool = False) -> None:
        """Add the derivatives of this tensor to ``.grad`` of the leaves that require one (and where it is retained).

        Args: ``gradient``, the cotangent, with the tensor's shape and dtype; 1 for a single element.
        ``retain_graph`` keeps the recording for another call, else it is freed.
        Raises: `ArgumentError` where nothing was recorded, where several elements come without a ``gradient``, after the
        recording was freed, and where a value that is needed was changed in place; `ShapeError` and `DTypeError` for a
        ``gradient`` that does not fit. Nothing is changed then.

        >>> x = Tensor(3.0, requires_grad=True)
        >>> (x * x).backward()
        >>> x.grad
        Tensor(6.)
        """
        if not self._requires:
            raise self._no_history("backward")
        backward(self, self._seed(gradient), retain_graph)

    def _seed(self, gradient: Any) -> Any:
        shape, dtype = self.aval.shape, self.aval.dtype
        if gradient is None:
            if self.size != 1:
                raise ArgumentError(
                    f"backward: a gradient is started by one element, got {self.aval}",
                    hint="t.sum().backward(), or t.backward(gradient) with a cotangent of that shape",
                    at=user_line(),
                )
            return np.ones(shape, dtype) if shape else dtype.type(1)
        given = gradient.aval if isinstance(gradient, Tensor) else aval_of(operand(gradient))
        if given.shape != shape:
            raise ShapeError(f"backward: gradient must be {self.aval}, got {given}", at=user_line())
        if given.dtype != dtype and not given.weak:
            raise DTypeError(
                f"backward: gradient must be {self.aval}, got {given}",
                hint=f".astype(np.{dtype.name})",
                at=user_line(),
            )
        return np.array(gradient, dtype)

    def _no_history(self, what: str) -> ArgumentError:
        return ArgumentError(
            f"{what}: {self.aval} was not recorded and requires no gradient",
            hint="fg.Tensor(..., requires_grad=True) before computing, outside fg.no_grad()",
            at=user_line(),
        )

    def detach(self) -> Tensor:
        """The same memory without the history: a change in place of one is seen in the other."""
        memory = self._own()
        return _wrap(memory, self._version)

    @property
    def data(self) -> Tensor:
        """`detach`; to assign copies the values in, also into a leaf that requires a gradient."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        self.detach().copy_(value)

    def clone(self) -> Tensor:
        """A copy in memory of its own, recorded: gradients flow through it."""
        return cast_p(self, dtype=self.dtype)

    # --- what NumPy copies is a copy: this value may change later ---------------------------------------------------

    def copy(self) -> Tensor:
        """`clone`."""
        return self.clone()

    def flatten(self, order: str = "C") -> Tensor:
        """`clone`, as a vector."""
        return self.clone().ravel(order)

    def astype(self, dtype: Any, copy: bool = True) -> Tensor:
        """A copy in ``dtype``; with ``copy=False`` the tensor itself where it has that dtype."""
        target = as_dtype(dtype)
        return self if not copy and target == self.dtype else cast_p(self, dtype=target)

    def __pos__(self) -> Tensor:
        return super().__pos__().clone()

    # --- values -----------------------------------------------------------------------------------------------------

    def _array(self) -> np.ndarray:
        """The value as an array that stays this tensor's memory."""
        if not isinstance(self._value, np.ndarray):
            self._value = np.asarray(self._value)
        return self._value

    def numpy(self) -> np.ndarray:
        """A read-only NumPy view of the memory; ``np.array(t)`` copies."""
        view = self._array().view()
        view.flags.writeable = False
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:  # type: ignore[override]
        array = self.numpy()
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise ValueError(f"cannot view {self.aval} as {np.dtype(dtype).name} without a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def item(self, *args: Any) -> Any:  # type: ignore[override]
        """The single element (or the one at ``args``) as a Python number."""
        return self._array().item(*args)

    def tolist(self) -> Any:  # type: ignore[override]
        """Nested lists of Python numbers."""
        return self._array().tolist()

    def __bool__(self) -> bool:  # type: ignore[override]
        return bool(self._value)

    def __float__(self) -> float:  # type: ignore[override]
        return float(self.item())

    def __int__(self) -> int:  # type: ignore[override]
        return int(self.item())

    def __complex__(self) -> complex:  # type: ignore[override]
        return complex(self.item())

    def __index__(self) -> int:  # type: ignore[override]
        return operator.index(self._array())  # NumPy's error for what is no integer scalar

    def __len__(self) -> int:
        return len(self._array())

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.size == 1 else format(repr(self), spec)

    def __repr__(self) -> str:
        text = np.array2string(self._array(), separator=", ", prefix="Tensor(")
        if self.dtype.name not in ("float64", "int64", "bool"):
            text += f", dtype={self.dtype.name}"
        if self._requires:
            text += ", requires_grad=True" if self._node is None else f", from {self._node.op.prim.name}"
        return f"Tensor({text})"

    def __reduce__(self) -> tuple:
        """Pickling and ``copy.deepcopy``: values and ``requires_grad`` of a leaf."""
        if self._node is not None:
            raise ArgumentError("only leaves are pickled and deep-copied", hint="t.detach()", at=user_line())
        return Tensor, (np.array(self._value), self._requires)

    # --- changes in place -------------------------------------------------------------------------------------------

    __iadd__, __isub__ = _in_place("__iadd__", "+="), _in_place("__isub__", "-=")
    __imul__, __itruediv__ = _in_place("__imul__", "*="), _in_place("__itruediv__", "/=")
    __ifloordiv__, __imod__ = _in_place("__ifloordiv__", "//="), _in_place("__imod__", "%=")
    __ipow__, __imatmul__ = _in_place("__ipow__", "**="), _in_place("__imatmul__", "@=")
    __iand__, __ior__ = _in_place("__iand__", "&="), _in_place("__ior__", "|=")
    __ixor__ = _in_place("__ixor__", "^=")

    def zero_(self) -> Tensor:
        """Set all elements to 0 in place; the tensor itself."""
        return self.fill_(0)

    def fill_(self, value: Any) -> Tensor:
        """Set all elements to a number in place; the tensor itself."""
        return self._assign("fill_", ..., value)

    def copy_(self, source: Any) -> Tensor:
        """Set the elements to those of ``source`` (broadcast, in this dtype) in place; the tensor itself."""
        return self._assign("copy_", ..., source)

    def __setitem__(self, key: Any, value: Any) -> None:  # type: ignore[override]
        plain = tuple(_index(k) for k in key) if isinstance(key, tuple) else _index(key)
        self._assign("t[i] = v", plain, value)

    def _assign(self, what: str, key: Any, value: Any) -> Tensor:
        if recording() and (self._requires or getattr(value, "_requires", False)):
            raise self._lost(what)
        source = value._value if isinstance(value, Tensor) else operand(value)
        given = aval_of(source) if not isinstance(source, Array) else source.aval
        if not given.weak and not np.can_cast(given.dtype, self.dtype, "same_kind"):
            raise DTypeError(
                f"{what}: {self.aval} cannot hold {given}",
                hint=f".astype(np.{self.dtype.name})",
                at=user_line(),
            )
        target = self._own()
        try:
            target[key] = source
        except ValueError:
            raise ShapeError(f"{what}: {given} does not fit into {self.aval}", at=user_line()) from None
        self._version[0] += 1
        return self

    def _write(self, value: Any) -> None:
        """Replace all elements: the one way in which optimizers and ``+=`` change a tensor."""
        np.copyto(self._own(), value)
        self._version[0] += 1

    def _own(self) -> np.ndarray:
        """The memory, writable. What repeats elements by strides (``np.zeros_like``) is written out first."""
        array = self._array()
        if not array.flags.writeable:
            self._value, self._version = array.copy(), [self._version[0] + 1]
        return self._value

    def _lost(self, what: str) -> ArgumentError:
        kind = (
            "a leaf that requires a gradient" if self._node is None and self._requires else "a recorded value"
        )
        return ArgumentError(
            f"{what}: in place on {kind} would lose it",
            hint="with fg.no_grad(): w -= lr * w.grad",
            at=user_line(),
        )


def _wrap(value: np.ndarray, version: list[int]) -> Tensor:
    """A leaf around ``value``, not copied."""
    return Tensor.__new__(Tensor)._set(value, version)


def _index(key: Any) -> Any:
    return key._value if isinstance(key, Tensor) else key


# One for all, in place of the slot of `Tracer`.
Tensor.builder = Recorder(Tensor)  # type: ignore[misc]
