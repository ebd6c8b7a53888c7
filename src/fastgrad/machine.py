"""What this machine offers a run."""

from __future__ import annotations

import os

from .errors import ArgumentError


def available_threads() -> int:
    """Threads that this process may run on, capped by ``FASTGRAD_NUM_THREADS``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = os.environ.get("FASTGRAD_NUM_THREADS")
    if text is None:
        return cores
    if not text.isdigit() or int(text) < 1:
        raise ArgumentError(f"FASTGRAD_NUM_THREADS must be a positive integer, got {text!r}")
    return min(int(text), cores)
