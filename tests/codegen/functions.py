"""The functions of mathematics by the names of their scalar lines, as users call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastgrad.codegen.simd import math
from fastgrad.nn import functional as F
from fastgrad.scipy import special

OPS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in math.UNARY if hasattr(np, name)},
    "sigmoid": F.sigmoid,
    "rsqrt": F.rsqrt,
    "softplus": F.softplus,
    "erf": special.erf,
    "ndtr": special.ndtr,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
