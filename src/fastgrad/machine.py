"""What this machine is: CPU features as LLVM names them, the number of threads to use."""

from __future__ import annotations

import os
from functools import cache

from .errors import ArgumentError


@cache
def cpu_features() -> dict[str, bool]:
    """LLVM's feature flags of the host CPU, e.g. ``{"avx2": True, ...}``."""
    from llvmlite import binding

    try:
        return dict(binding.get_host_cpu_features())
    except RuntimeError:  # LLVM does not know this host's features: the portable width serves
        return {}


def available_threads() -> int:
    """Threads that this process may run on, capped by ``FASTGRAD_NUM_THREADS``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = os.environ.get("FASTGRAD_NUM_THREADS")
    if text is None:
        return cores
    if not text.isdigit() or int(text) < 1:
        raise ArgumentError(f"FASTGRAD_NUM_THREADS must be a positive integer, got {text!r}")
    return min(int(text), cores)
