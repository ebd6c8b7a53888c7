"""PyTorch's names and arguments with NumPy's ``axis``. All take traced values, NumPy arrays and numbers."""

from __future__ import annotations

from typing import Any, Literal

from .. import numpy as fnp
from ..errors import ArgumentError, user_line
from ..ops.activations import gelu, softplus
from ..ops.elementwise import relu, rsqrt, sigmoid, tanh
from ..ops.nn import cross_entropy, log_softmax, logsumexp, one_hot, softmax
from .batch_norm import batch_norm
from .dropout import dropout

__all__ = [
    "batch_norm",
    "cross_entropy",
    "dropout",
    "gelu",
    "linear",
    "log_softmax",
    "logsumexp",
    "mse_loss",
    "one_hot",
    "relu",
    "rsqrt",
    "sigmoid",
    "softmax",
    "softplus",
    "tanh",
]


def linear(x: Any, w: Any, b: Any = None) -> Any:
    """``x @ w + b`` of ``x [..., in]``, ``w [in, out]`` (the transpose of PyTorch's weight) and ``b [out]``.

    Raises: `ShapeError` where the inner dimensions differ, with the transpose that would fit.

    >>> import numpy as np
    >>> linear(np.ones((2, 3)), np.ones((3, 4)), np.zeros(4)).shape
    (2, 4)
    """
    out = fnp.matmul(x, w)
    return out if b is None else fnp.add(out, b)


def mse_loss(x: Any, target: Any, *, reduction: Literal["mean", "sum", "none"] = "mean") -> Any:
    """Mean of ``(x - target)**2``; ``reduction`` is "mean", "sum" or "none". Shapes broadcast.

    >>> import numpy as np
    >>> float(mse_loss(np.array([1.0, 3.0]), np.array([1.0, 1.0])))
    2.0
    """
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f"mse_loss: reduction is mean, sum or none, got {reduction!r}", at=user_line())
    losses = fnp.square(fnp.subtract(x, target))
    return losses if reduction == "none" else fnp.mean(losses) if reduction == "mean" else fnp.sum(losses)
