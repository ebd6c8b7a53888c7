"""What this machine offers a run."""

from __future__ import annotations

import os

from .errors import ArgumentError


def cores() -> int:
    """Processor cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_threads() -> int:
    """Threads that a run may use: the cores, capped by ``FASTGRAD_NUM_THREADS``."""
    text = os.environ.get("FASTGRAD_NUM_THREADS")
    if text is None:
        return cores()
    if not text.isdigit() or int(text) < 1:
        raise ArgumentError(f"FASTGRAD_NUM_THREADS must be a positive integer, got {text!r}")
    return min(int(text), cores())
