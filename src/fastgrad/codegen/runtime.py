"""The run of this process: the walker's compiled functions, the thread pool, and what both need of the system."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import NamedTuple

import numpy as np

from ..locks import Lock
from .compile import Kernel, Unit, compile
from .threads import launched

UNITS = tuple(Unit("walker", name) for name in ("worker", "run", "entry"))
"""What is compiled once for all programs."""


class Runtime(NamedTuple):
    """Addresses of the compiled run, and of what it calls."""

    run: int
    worker: int
    entry: int
    parallel_for: int
    clock: int
    give_way: int
    cores: tuple[int, int, int, int]
    lock: np.ndarray
    pool_threads: int
    owners: tuple[Kernel, ...]


# A word that whoever opens a region holds. A forked child has none of its parent's threads: it holds the word for good,
# and so runs its rows serially (GNU OpenMP kills a child that launches).
_region_lock = np.zeros(8, np.int64)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _region_lock.__setitem__(0, 1))
_build_lock = Lock()


@cache
def runtime() -> Runtime:
    """The run, compiled or loaded once a process."""
    with _build_lock.current:
        worker, run, entry = (it.kernel for it in compile(UNITS))
        pool = launched()
    return Runtime(
        run.address,
        worker.address,
        entry.address,
        pool.parallel_for,
        _libc("clock_gettime"),
        _libc("sched_yield"),
        _cores(),
        _region_lock,
        pool.threads,
        (worker, run, entry),
    )


@cache
def measured_worker() -> Kernel:
    """The worker that notes each row's time: compiled when the first program is profiled."""
    with _build_lock.current:
        return compile([Unit("walker", "measured")])[0].kernel


def _cores() -> tuple[int, int, int, int]:
    """What `aside` calls: which thread, on which core, on which it may run; zeros where one of them is missing."""
    names = ("pthread_self", "sched_getcpu", "sched_getaffinity", "sched_setaffinity")
    self, core, get, put = map(_libc, names)
    return (self, core, get, put) if self and core and get and put else (0, 0, 0, 0)


def _libc(name: str) -> int:
    """Address of a function of Linux's C library, or 0 elsewhere (the run then never pauses, and spins without yielding)."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0
    except (AttributeError, OSError):
        return 0
