"""bfloat16, the upper half of a float32: 8 bits of exponent, 7 of fraction, so rounding errs by up to 2^-8 of a value.

Rounding is to the nearest, ties to the even, by arithmetic on the bits (as in TensorFlow's and PyTorch's `bfloat16` types):

    bits + 0x7fff + (bits >> 16 & 1), then the upper half        a carry goes into the exponent, as it must; a NaN stays one
"""

from __future__ import annotations

import numpy as np

HALF, QUIET, UPPER = 0x7FFF, 0x400000, 0xFFFF0000
"""What is added to the bits before they are cut (0x8000 in front of an odd digit); the bit of a quiet NaN; what is kept."""


def rounded(x: np.ndarray) -> np.ndarray:
    """A float32 array with every element rounded to the nearest bfloat16, as float32."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    near = bits + (((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(HALF))
    kept = np.where(np.isnan(x), bits | np.uint32(QUIET), near) & np.uint32(UPPER)
    return kept.view(np.float32).reshape(np.shape(x))
