"""Dropout (Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014), scaled while training, as PyTorch does it."""

from __future__ import annotations

from typing import Any

from ..core.graph import Literal
from ..errors import ArgumentError, user_line
from ..ops.elementwise import mul_p
from ..ops.operands import dtype_of, number, operand, shape_of
from ..ops.pointwise import promote, select_p, zero_like
from ..random.discrete import keep_mask


def dropout(x: Any, p: float = 0.5, training: bool = True, *, key: Any = None) -> Any:
    """``x`` with each element 0 with probability ``p``, else ``x / (1 - p)``; ``x`` itself where not ``training`` or p is 0.

    Args: x of floats, any shape; p a Python number in [0, 1), kept to within 2**-32; key from `fastgrad.random`, of this
    call alone. Returns: the shape and dtype of ``x`` (integers give float64). A dropped NaN is 0.
    Derivative: the same elements of the cotangent, scaled alike (the mask is kept, a byte an element).
    Raises: `ArgumentError` for another p or without a key in training, `DTypeError` or `ShapeError` for what is no key.

    >>> import numpy as np
    >>> import fastgrad as fg
    >>> sorted(set(dropout(np.ones(100), 0.5, key=fg.random.key(0)).tolist()))
    [0.0, 2.0]
    """
    rate = number(operand(p))
    if rate is None or isinstance(rate, bool) or not 0 <= rate < 1:
        hint = "np.zeros_like(x)" if rate == 1 else None
        raise ArgumentError(f"dropout: p is a Python number in [0, 1), got {p!r}", hint=hint, at=user_line())
    if not training or rate == 0:
        return operand(x)
    if key is None:
        raise ArgumentError(
            "dropout: needs a key in training",
            hint="dropout(x, p, key=key), key = fg.random.key(0)",
            at=user_line(),
        )
    (x,) = promote(x, floats=True)
    scaled = mul_p(x, Literal(dtype_of(x).type(1 / (1 - rate))))
    return select_p(keep_mask(key, rate, shape_of(x)), scaled, zero_like(scaled))
