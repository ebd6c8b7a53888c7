"""What the machine itself can do: multiply-adds from registers, copies and reads of memory; each on n threads at once.

Measured by the probes of `fastgrad calibrate`. Of copies the faster of those and C's ``memcpy`` counts, which goes past the
cache where arrays are large.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from time import perf_counter
from typing import Any

import numpy as np

from fastgrad.codegen.bfloat16 import OF_FLOAT32
from fastgrad.codegen.target import amx
from fastgrad.executor.calibration import copying, multiply_adds, streaming

ROUNDS = 15
LARGE = 16 << 20
"""Bytes from which on a call of ``memcpy`` through ctypes is worth timing."""


def bfloat16_ratio() -> int:
    """What bfloat16 products can do beside float32's peak, by the instructions: AMX's tiles 16 times, AVX512_BF16 twice."""
    return int(OF_FLOAT32["tiles" if amx() else "pairs"])


def flops(threads: int = 1, dtype: str = "float32") -> float:
    """GF/s of multiply-adds whose operands never leave the registers: no program does more."""
    return multiply_adds(dtype, threads)


def reads(nbytes: int, threads: int = 1) -> float:
    """GB/s of reading ``nbytes``, split over the threads."""
    return streaming("read", nbytes, threads)


def copies(nbytes: int, threads: int = 1) -> float:
    """GB/s, read and written bytes together, of copying ``nbytes``, split over the threads."""
    ours = streaming("copy", 2 * nbytes, threads)
    return max(ours, _memcpy(nbytes, threads)) if nbytes >= LARGE else ours


def copier(nbytes: int, threads: int = 1) -> Callable[[], Any]:
    """A call that moves ``nbytes``, half of them read and half written, split over the threads; `LARGE` halves go past the
    cache, as no copy is faster whose target is not in it."""
    return copying(nbytes, threads, nbytes >= 2 * LARGE)


def _memcpy(nbytes: int, threads: int) -> float:
    part = nbytes // threads
    held = [(np.zeros(part, np.int8), np.ones(part, np.int8)) for _ in range(threads)]
    works = [partial(ctypes.memmove, to.ctypes.data, at.ctypes.data, part) for to, at in held]  # no GIL held
    return 2.0 * part * threads / _fastest(works) / 1e9


def _fastest(works: list[Callable[[], Any]]) -> float:
    """Seconds of the fastest of `ROUNDS` rounds, in each of which all ``works`` run at once."""
    barrier = Barrier(len(works))

    def run(work: Callable[[], Any]) -> tuple[float, float]:
        barrier.wait()
        start = perf_counter()
        work()
        return start, perf_counter()

    times = []
    with ThreadPoolExecutor(len(works)) as pool:
        for _ in range(ROUNDS):
            starts, ends = zip(*pool.map(run, works), strict=True)
            times.append(max(ends) - min(starts))
    return min(times)


if __name__ == "__main__":
    for n in (1, 2):
        print(f"{n} threads: float32 {flops(n):.0f} GF/s, float64 {flops(n, 'float64'):.0f}")
        for nbytes in (2**15, 2**18, 2**20, 2**26):
            print(f"  {nbytes:>10} bytes: copy {copies(nbytes, n):.1f} GB/s, read {reads(nbytes, n):.1f}")
