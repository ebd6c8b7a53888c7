"""Measured rates of this machine."""

from __future__ import annotations

from ..codegen.target import cpu_features
from ..machine import Rates, shipped


def rates() -> Rates:
    """What this machine can do."""
    features = cpu_features()
    return shipped(64 if features.get("avx512f") else 32 if features.get("avx2") else 16)
