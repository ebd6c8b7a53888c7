"""Batch normalisation (Ioffe & Szegedy 2015) with running statistics that are handed in and out, never changed in place."""

from __future__ import annotations

import math
from typing import Any, Literal

from ..errors import ArgumentError, DTypeError, ShapeError, user_line
from ..ops.elementwise import add, divide, multiply, sqrt, subtract
from ..ops.operands import aval, dtype_of, number, operand, shape_of
from ..ops.pointwise import cast, promote, stop_gradient
from ..ops.reduce import mean
from ..ops.shaping import reshape

Layout = Literal["NHWC", "NCHW"]


def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    layout: Layout = "NHWC",
) -> tuple[Any, Any, Any]:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for each channel, and the new running mean and variance.

    In training mean and variance (over its count) are those of the batch, and the running ones move by ``momentum``
    towards them, the variance there over count - 1, as in PyTorch; else the running ones serve and come back as they are.
    Both may be None in training, and then are None again. No derivative passes into the new running statistics.

    Args: x ``[N, ..., C]`` (``[N, C, ...]`` with ``layout="NCHW"``) of floats; all others ``[C]`` or None.
    Returns: ``(y, new mean, new variance)``, y of the shape of ``x``, statistics of the given dtypes.
    Raises: `ShapeError` where shapes do not fit or training has one value a channel; `ArgumentError` for a momentum
    outside [0, 1], an eps not above 0, another layout, or no running statistics when not training; `DTypeError` for
    integers.

    >>> import numpy as np
    >>> y, mean, var = batch_norm(np.array([[1.0], [3.0]]), np.zeros(1), np.ones(1), training=True)
    >>> y.round(3).tolist(), mean.tolist(), var.tolist()
    ([[-1.0], [1.0]], [0.2], [1.1])
    """
    x = operand(x)
    _check_options(x, momentum, eps, layout)
    axis = 1 if layout == "NCHW" else len(shape_of(x)) - 1
    channels = shape_of(x)[axis]
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, value in given.items():
        if value is not None and shape_of(operand(value)) != (channels,):
            raise ShapeError(
                f"batch_norm: {name} must be [{channels}], got {aval(operand(value))} for {aval(x)}",
                hint='layout="NCHW"'
                if layout == "NHWC" and shape_of(operand(value)) == shape_of(x)[1:2]
                else None,
                at=user_line(),
            )
    if (running_mean is None) != (running_var is None) or (running_mean is None and not training):
        raise ArgumentError(
            "batch_norm: running_mean and running_var are both given, or both None in training",
            at=user_line(),
        )
    if not training:
        y = _normalised(x, running_mean, running_var, weight, bias, eps, axis)
        return y, operand(running_mean), operand(running_var)
    axes = tuple(i for i in range(len(shape_of(x))) if i != axis)
    count = math.prod(shape_of(x)[a] for a in axes)
    if count < 2:
        raise ShapeError(
            f"batch_norm: training wants more than one value a channel, got {aval(x)}",
            hint="training=False",
            at=user_line(),
        )
    center = mean(x, axes)
    deviation = subtract(x, _along(center, x, axis))
    spread = mean(multiply(deviation, deviation), axes)
    y = _scaled(deviation, spread, weight, bias, eps, axis)
    if running_mean is None:
        return y, None, None
    unbiased = multiply(spread, count / (count - 1))
    return y, _moved(running_mean, center, momentum), _moved(running_var, unbiased, momentum)


def _check_options(x: Any, momentum: Any, eps: Any, layout: Any) -> None:
    if layout not in ("NHWC", "NCHW"):
        raise ArgumentError(f"batch_norm: layout is NHWC or NCHW, got {layout!r}", at=user_line())
    if len(shape_of(x)) < 2:
        raise ShapeError(f"batch_norm: wants a batch of channels [N, ..., C], got {aval(x)}", at=user_line())
    if dtype_of(x).kind != "f":
        raise DTypeError(
            f"batch_norm: wants floats, got {aval(x)}", hint="x.astype(np.float32)", at=user_line()
        )
    rate, least = number(operand(momentum)), number(operand(eps))
    if rate is None or not 0 <= rate <= 1:
        raise ArgumentError(
            f"batch_norm: momentum is a Python number in [0, 1], got {momentum!r}", at=user_line()
        )
    if least is None or not least > 0:
        raise ArgumentError(f"batch_norm: eps is a Python number above 0, got {eps!r}", at=user_line())


def _along(channel: Any, x: Any, axis: int) -> Any:
    """A vector of channels, to broadcast against ``x``."""
    return reshape(channel, (shape_of(x)[axis], *(1,) * (len(shape_of(x)) - 1 - axis)))


def _normalised(x: Any, center: Any, spread: Any, weight: Any, bias: Any, eps: float, axis: int) -> Any:
    return _scaled(subtract(x, _along(center, x, axis)), spread, weight, bias, eps, axis)


def _scaled(deviation: Any, spread: Any, weight: Any, bias: Any, eps: float, axis: int) -> Any:
    """The factor of each channel first: a vector of them, then one pass over the batch."""
    factor = divide(1 if weight is None else weight, sqrt(add(spread, eps)))
    y = multiply(deviation, _along(factor, deviation, axis))
    return y if bias is None else add(y, _along(bias, deviation, axis))


def _moved(running: Any, batch: Any, momentum: float) -> Any:
    """The running statistic a step further, in its own dtype."""
    running = operand(running)
    (old,) = promote(running, floats=True)
    moved = add(multiply(old, 1 - momentum), multiply(cast(batch, dtype_of(old)), momentum))
    return stop_gradient(cast(moved, dtype_of(running)))
