"""PyTorch's names on `Tensor`. They are there so that the loops of textbooks run as they are written.

Each stands for a function of `fastgrad.numpy` or `fastgrad.nn.functional`: those are the names for new code, and the only
ones in a function that is traced. Not here is what has another meaning in NumPy, which `Tensor` follows: ``size`` is a
number, ``max(axis)`` gives no indices, ``std`` and ``var`` divide by n, ``transpose`` takes all axes.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from .. import numpy as fnp
from ..array import Array
from ..errors import ArgumentError, ShapeError, user_line
from ..ops.elementwise import relu, sigmoid, tanh
from ..ops.nn import log_softmax, softmax

_HINTS = {
    "add": "x + y", "sub": "x - y", "mul": "x * y", "div": "x / y", "neg": "-x", "bmm": "x @ y", "mv": "x @ y",
    "eq": "x == y", "ne": "x != y", "lt": "x < y", "le": "x <= y", "gt": "x > y", "ge": "x >= y",
    "amax": "x.max(axis)", "amin": "x.min(axis)", "ndimension": "x.ndim", "rsqrt": "1 / np.sqrt(x)",
    "permute": "x.transpose(axes)", "expand": "np.broadcast_to(x, shape)", "expand_as": "np.broadcast_to(x, y.shape)",
    "chunk": "np.split", "index_select": "np.take(x, indices, axis)",
    "gather": "fg.nn.functional.one_hot(indices, n)", "logsumexp": "fg.nn.functional.logsumexp(x, axis)",
    "masked_fill": "np.where(mask, value, x)", "new_zeros": "np.zeros_like(x), fnp.zeros(shape)",
    "type": "x.astype(dtype)", "type_as": "x.astype(y.dtype)", "int": "x.astype(np.int32)", "half": "x.float()",
    "to": "x.astype(dtype); there is one device, the CPU", "cpu": "x; there is one device, the CPU",
    "cuda": "x; there is one device, the CPU", "device": "nothing; there is one device, the CPU", "contiguous": "x",
    "clamp_": "x.copy_(x.clip(low, high))", "normal_": "x.copy_(rng.standard_normal(x.shape))",
    "uniform_": "x.copy_(rng.uniform(low, high, x.shape))", "grad_fn": "x.is_leaf", "register_hook": "x.retain_grad()",
}  # fmt: skip
"""What to write for names that `Tensor` does not have."""


def _renamed(name: str) -> Any:
    """A reduction of `Array` that takes ``dim`` and ``keepdim`` beside ``axis`` and ``keepdims``."""
    plain = getattr(Array, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        for theirs, ours in (("dim", "axis"), ("keepdim", "keepdims")):
            if theirs in kwargs:
                if ours in kwargs or (ours == "axis" and args):
                    raise ArgumentError(f"{name}: {ours} is given twice, as {theirs}, too", at=user_line())
                kwargs[ours] = kwargs.pop(theirs)
        return plain(self, *args, **kwargs)

    return _named(method, name, f"{plain.__doc__} Takes ``dim`` and ``keepdim``, too.")


def _unary(name: str, function: Any) -> Any:
    def method(self: Any) -> Any:
        return function(self)

    return _named(method, name, f"``{name}`` of each element.")


def _in_place(name: str, operator: str) -> Any:
    def method(self: Any, other: Any) -> Any:
        return _change(self, name, operator, other)

    return _named(method, name, f"`{operator}`, in place or not at all; the tensor itself.")


def _named(method: Any, name: str, doc: str) -> Any:
    method.__name__, method.__qualname__, method.__doc__ = name, f"Tensor.{name}", doc
    return method


def _change(x: Any, name: str, operator: str, other: Any) -> Any:
    if getattr(x, operator)(other) is not x:  # recorded: a new tensor, which the caller would never see
        raise x._lost(name)
    return x


class PyTorchNames(Array):
    """The names, for `Tensor` to inherit."""

    __slots__ = ()

    sum, mean = _renamed("sum"), _renamed("mean")
    argmax, argmin = _renamed("argmax"), _renamed("argmin")
    all, any = _renamed("all"), _renamed("any")

    exp, log, sqrt, abs = (_unary(name, getattr(fnp, name)) for name in ("exp", "log", "sqrt", "abs"))
    sin, cos, square, sign = (_unary(name, getattr(fnp, name)) for name in ("sin", "cos", "square", "sign"))
    tanh, sigmoid, relu = (_unary(f.__name__, f) for f in (tanh, sigmoid, relu))

    mul_, div_ = _in_place("mul_", "__imul__"), _in_place("div_", "__itruediv__")

    def add_(self, other: Any, *, alpha: Any = 1) -> Any:
        """``x += alpha * other``, in place or not at all; the tensor itself."""
        return _change(self, "add_", "__iadd__", fnp.multiply(alpha, other))

    def sub_(self, other: Any, *, alpha: Any = 1) -> Any:
        """``x -= alpha * other``, in place or not at all; the tensor itself."""
        return _change(self, "sub_", "__isub__", fnp.multiply(alpha, other))

    def pow(self, exponent: Any) -> Any:
        """`fnp.power`."""
        return fnp.power(self, exponent)

    def matmul(self, other: Any) -> Any:
        """`fnp.matmul`."""
        return fnp.matmul(self, other)

    def mm(self, other: Any) -> Any:
        """`fnp.matmul`."""
        return fnp.matmul(self, other)

    def clamp(self, min: Any = None, max: Any = None) -> Any:
        """`fnp.clip`."""
        return fnp.clip(self, min=min, max=max)

    def softmax(self, dim: int) -> Any:
        """`fg.nn.functional.softmax`."""
        return softmax(self, dim)

    def log_softmax(self, dim: int) -> Any:
        """`fg.nn.functional.log_softmax`."""
        return log_softmax(self, dim)

    def norm(self, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Any:
        """`fnp.linalg.norm`: the root of the sum of squares; ``p`` is 2."""
        if p not in (2, "fro"):
            raise ArgumentError(f"norm: p must be 2, got {p!r}", hint="x.abs().sum(axis)", at=user_line())
        return fnp.linalg.norm(self, None, dim, keepdims=keepdim)

    def view(self, *shape: Any) -> Any:
        """`fnp.reshape`."""
        return self.reshape(*shape)

    def t(self) -> Any:
        """`fnp.transpose` of a matrix."""
        if self.ndim > 2:
            raise ShapeError(f"t: a matrix is transposed, got {self.aval}", hint="x.mT", at=user_line())
        return fnp.transpose(self)

    def unsqueeze(self, dim: int) -> Any:
        """`fnp.expand_dims`."""
        return fnp.expand_dims(self, dim)

    def numel(self) -> int:
        """``size``."""
        return self.size

    def dim(self) -> int:
        """``ndim``."""
        return self.ndim

    def float(self) -> Any:
        """In float32, as PyTorch's; the tensor itself where it is."""
        return self.astype(np.float32, copy=False)

    def double(self) -> Any:
        """In float64; the tensor itself where it is."""
        return self.astype(np.float64, copy=False)

    def long(self) -> Any:
        """In int64; the tensor itself where it is."""
        return self.astype(np.int64, copy=False)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # of protocols, which NumPy looks for at each conversion
            raise AttributeError(name)
        near = "NumPy's methods, fastgrad.numpy, fastgrad.nn.functional"
        if callable(getattr(fnp, name, None)):
            near = f"fnp.{name}(x)"
        raise AttributeError(
            f"fg.Tensor has no {name!r}\n  try: {_HINTS.get(name, near)}", name=name, obj=self
        )
