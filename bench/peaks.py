"""What the machine itself can do: multiply-adds from registers, copies and reads of memory; each on n threads at once.

Measured by the probes of `fastgrad calibrate`, and, of copies of large arrays, by one that goes past the cache.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

from fastgrad.codegen.bfloat16 import OF_FLOAT32
from fastgrad.codegen.target import amx
from fastgrad.executor.calibration import copying, multiply_adds, streaming

ROUNDS = 15
LARGE = 16 << 20
"""Bytes that go past the cache when they are copied."""


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
    """GB/s, read and written bytes together, of copying ``nbytes``, split over the threads; the best of several."""
    if nbytes < LARGE:
        return streaming("copy", 2 * nbytes, threads)
    return 2e-9 * nbytes / min(timeit.repeat(copier(2 * nbytes, threads), number=1, repeat=ROUNDS))


def copier(nbytes: int, threads: int = 1) -> Callable[[], Any]:
    """A call that moves ``nbytes``, half of them read and half written, split over the threads.

    Of `LARGE` halves, past the cache: no copy is faster whose target is not in it.
    """
    return copying(nbytes, threads, nbytes >= 2 * LARGE)


if __name__ == "__main__":
    for n in (1, 2):
        print(f"{n} threads: float32 {flops(n):.0f} GF/s, float64 {flops(n, 'float64'):.0f}")
        for nbytes in (2**15, 2**18, 2**20, 2**26):
            print(f"  {nbytes:>10} bytes: copy {copies(nbytes, n):.1f} GB/s, read {reads(nbytes, n):.1f}")
