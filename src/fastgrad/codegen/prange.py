"""The public way into Numba's threads: a `prange`, for releases whose ``parallel_for`` has not been tried with fastgrad.

It stands in for that function, argument for argument, and costs what a ``parallel=True`` launch costs: half a second to
compile in each process, and the GIL for a moment at each launch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cfunc, njit, prange, types

from .simd.atomics import call_4, poke


@njit(parallel=True, error_model="numpy")
def _region(worker, args, dims, steps, data, threads):  # type: ignore[no-untyped-def]
    for _ in prange(threads):
        call_4(worker, args, dims, steps, data)


def _parallel_for(worker, args, dims, steps, data, inner_ndim, array_count, threads):  # type: ignore[no-untyped-def]
    poke(dims, 1)  # each turn of the loop is one turn of the worker
    _region(worker, args, dims, steps, data, threads)
    return 0


@cache
def parallel_for() -> Any:
    """The C function; its ``address`` is what a workspace takes."""
    return cfunc(types.int64(*[types.int64] * 8))(_parallel_for)
