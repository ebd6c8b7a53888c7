"""Rough costs of scalar lines, to decide whether a loop is worth sharing among threads."""

from __future__ import annotations

from ..core.expr import LIBM
from ..schedule import Loop

LINE_COST = {
    **dict.fromkeys(("exp", "exp2", "sin", "cos"), 0.4),
    **dict.fromkeys(("expm1", "log", "sigmoid", "rsqrt"), 0.5),
    **dict.fromkeys(("tanh", "log2", "log10", "erf"), 0.6),
    **dict.fromkeys(("log1p", "cbrt"), 0.8),
    **dict.fromkeys(("pow", "ndtr", "gelu", "gelu_tanh"), 1.4),
    **dict.fromkeys(LIBM, 10.0),
    "div": 0.4,
    "sqrt": 0.4,
    "ndtri": 4.0,
    "plain_log": 1.5,
    "threefry32": 1.2,
    "threefry64": 2.4,
}
"""Rough nanoseconds an element in float32; every other line takes 0.06."""


def element_cost(loop: Loop) -> float:
    """Rough nanoseconds that one element takes."""
    lines = sum(LINE_COST.get(line.op, 0.06) for line in loop.map.lines)
    return lines + 0.06 * (len(loop.loads) + len(loop.writes))
