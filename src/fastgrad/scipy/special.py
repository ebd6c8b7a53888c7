"""`scipy.special`'s names. All take traced values, NumPy arrays and numbers."""

from __future__ import annotations

from ..ops.elementwise import sigmoid as expit
from ..ops.special import erf, ndtr, ndtri

__all__ = ["erf", "expit", "ndtr", "ndtri"]
