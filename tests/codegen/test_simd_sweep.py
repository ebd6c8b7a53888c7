"""Vector mathematics on float32 bit patterns from 0 to 2^32, by the kernels that users get.

A stride keeps it short. ``FASTGRAD_SWEEP=every pytest tests/codegen/test_simd_sweep.py`` takes all 2^32, some minutes a
function. The reference is the function in float64: NumPy's, or where NumPy has none our own (`test_simd_math` holds
that against mpmath).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

import fastgrad as fg
from codegen.functions import OPS
from exact_functions import exact
from fastgrad.codegen.simd import math

STEP = {"every": 1, "": 19_997}[os.environ.get("FASTGRAD_SWEEP", "")]
CHUNK = 1 << 16
F32, F64 = np.dtype("f4"), np.dtype("f8")
OURS = {"erf", "ndtr", "gelu", "gelu_tanh"}


@cache
def kernel(name: str) -> Callable[..., np.ndarray]:
    return fg.jit(OPS[name], threads=1)


def reference(name: str, x: np.ndarray) -> np.ndarray:
    return np.asarray(kernel(name)(x) if name in OURS else exact(name, x))


@pytest.mark.parametrize("name", sorted(OPS))
def test_float32_within_2_ulp(name):
    assert set(OPS) == {*math.UNARY, "softplus"}
    worst = (0.0, 0.0)
    for start in range(0, 2**32, CHUNK * STEP):
        bits = np.arange(start, min(start + CHUNK * STEP, 2**32), STEP, dtype=np.uint64)
        x = bits.astype(np.uint32).view(F32)
        with np.errstate(invalid="ignore"):
            wide = x.astype(F64)
        worst = max(worst, checked(x, kernel(name)(x), reference(name, wide)))
    assert worst[0] <= 2, worst


def checked(x: np.ndarray, y: np.ndarray, want: np.ndarray) -> tuple[float, float]:
    """The largest error in ulp and where it is; infinities, NaNs and signs must be those of the rounded ``want``.

    What differs by 2**-23 of itself or less, which is below 2 ulp, counts only among the points of a stride.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if STEP == 1:
            doubtful = np.abs(y - want) > np.abs(want) * 2.0**-23
            doubtful |= ~((want > 0) | (want < 0)) | ~np.isfinite(y)
            x, y, want = x[doubtful], y[doubtful], want[doubtful]
            if not x.size:
                return 0.0, 0.0
        rounded = want.astype(F32)
        finite = np.isfinite(rounded)
        error = np.abs(y - want) / np.maximum(2.0**-149, np.exp2(np.frexp(rounded)[1] - 24.0))
    if not finite.all():
        np.testing.assert_array_equal(y[~finite], rounded[~finite])
        error[~finite] = 0
    wrong = finite & (np.signbit(y) != np.signbit(rounded))
    assert not wrong.any(), (x[wrong][0], y[wrong][0], rounded[wrong][0])
    at = int(error.argmax())
    return float(error[at]), float(x[at])
