"""The run: a tape of kernel calls with a C ABI, its parallel region, and the entry that Python calls.

    int64 run(Plan*, Workspace*, void** in, void** out, int64* pc, int64 allowance_ns)

`Plan` is plain memory without addresses (it may be copied, pickled, mapped); `Workspace` holds all that one call in
flight needs: control words, kernel addresses, descriptor copies, and the arena's address. Both are int64 words:

    Plan        header (HEADER names), rows (ROW words each), relocations (RELOC words each), descriptor template
    Workspace   control words (CONTROL names; those that threads fight over on cache lines of their own),
                kernel addresses, descriptors

``*pc`` is 0 for a new run, else 1 + the row to go on with. ``run`` returns DONE, PAUSED (past its allowance: call
again), or FAILED (``*pc`` - 1 is the row whose kernel returned a status). A plan with parallel rows opens one region: the
threads enter together, the first to arrive walks the tape, the others join its rows. Chunks are claimed by
compare-exchange on (epoch, chunk), so that a thread that comes late can never take a chunk of a later row by mistake, and
a row is over when its chunks are, whoever ran them. What a chunk computes does not depend on who runs it: one thread and
N threads give the same bits.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import threading
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import cfunc, config, njit, types

from .simd.atomics import (
    acquire,
    add_atomic,
    call_0,
    call_1,
    call_2,
    call_3,
    call_6,
    call_8,
    exchange_if,
    pause,
    peek,
    peek32,
    poke,
    release,
)

# Plan header, word numbers.
N_ROWS, ROWS_AT, N_RELOCS, RELOCS_AT, N_WORDS, WORDS_AT, N_KERNELS, N_PARALLEL, COST, HEADER = range(10)
# A row: what it is, which kernel, where its descriptor begins, tiles, tiles a chunk, whether the run may pause before it.
KIND, KERNEL, DESC, TILES, GRAIN, MAY_PAUSE, ROW_COST, ROW = range(8)
SERIAL, PARALLEL, REPEAT = range(3)
"""Row kinds. REPEAT goes back to row KERNEL until the workspace's trip count is reached, moving what moves."""
# A relocation: descriptor word, space, index, byte offset, bytes to move by at each iteration of a REPEAT.
WORD, SPACE, INDEX, OFFSET, STEP, RELOC = range(6)
ARENA, STATE, INPUT, OUTPUT = range(4)
# Workspace control words. The first four are written by several threads: a cache line each.
PUBLISHED, TICKET, FINISHED, CLAIMED = 0, 8, 16, 24
STATUS, TRIPS, ITERATION, THREADS, KERNELS_AT, DESCS_AT, PLAN_IN, PC_AT, ALLOWANCE, EPOCH = range(32, 42)
PARALLEL_FOR, WORKER, LOCK, CLOCK, YIELD, SCRATCH, CONTROL = 44, 45, 46, 47, 48, 49, 56
DONE, PAUSED, FAILED = range(3)

_inner = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
"""Called from compiled code alone: no wrappers for Python to compile."""
_CHUNK_BITS = 20
MAX_CHUNKS = 1 << _CHUNK_BITS
_CLOCK_EVERY_NS = 200_000
_SPINS = 1_000
_POOL_SPINS = "10000"
"""Turns that GNU OpenMP's own threads spin between regions (its default is up to 300,000: milliseconds of a core that
another process may want; measured under load, a step of 70 microseconds then takes 280 to 8,000)."""


@_inner
def _now(ws, clock):  # type: ignore[no-untyped-def]
    """Monotonic nanoseconds, by the libc function at ``clock`` (CLOCK_MONOTONIC is 1 on Linux)."""
    call_2(clock, 1, ws + 8 * SCRATCH)
    return peek(ws + 8 * SCRATCH) * 1_000_000_000 + peek(ws + 8 * SCRATCH + 8)


@_inner
def _wait(ws, spins):  # type: ignore[no-untyped-def]
    """One turn of a wait: spin for some 20 microseconds, then let whoever else wants this core have it each time."""
    pause()
    if spins > _SPINS:
        give_way = peek(ws + 8 * YIELD)
        if give_way != 0:
            call_0(give_way)


@_inner
def _claim(ws, row, epoch, chunks):  # type: ignore[no-untyped-def]
    """Run chunks of the published row until none is left."""
    grain = peek(row + 8 * GRAIN)
    tiles = peek(row + 8 * TILES)
    kernel = peek(peek(ws + 8 * KERNELS_AT) + 8 * peek(row + 8 * KERNEL))
    desc = peek(ws + 8 * DESCS_AT) + 8 * peek(row + 8 * DESC)
    while True:
        ticket = acquire(ws + 8 * TICKET)
        chunk = ticket & (MAX_CHUNKS - 1)
        if (ticket >> _CHUNK_BITS) != epoch or chunk >= chunks:
            return
        if exchange_if(ws + 8 * TICKET, ticket, ticket + 1):
            status = call_3(kernel, desc, chunk * grain, min(tiles, (chunk + 1) * grain))
            if status != 0:
                release(ws + 8 * STATUS, status)
            add_atomic(ws + 8 * FINISHED, 1)


@_inner
def _together(ws, row, index):  # type: ignore[no-untyped-def]
    """One parallel row: publish it, work on it, wait until its chunks are done."""
    grain = peek(row + 8 * GRAIN)
    chunks = (peek(row + 8 * TILES) + grain - 1) // grain
    epoch = peek(ws + 8 * EPOCH) + 1
    poke(ws + 8 * EPOCH, epoch)
    release(ws + 8 * FINISHED, 0)
    release(ws + 8 * TICKET, epoch << _CHUNK_BITS)
    release(ws + 8 * PUBLISHED, (epoch << _CHUNK_BITS) | index)
    _claim(ws, row, epoch, chunks)
    spins = 0
    while acquire(ws + 8 * FINISHED) < chunks:
        spins += 1
        _wait(ws, spins)
    return acquire(ws + 8 * STATUS)


@_inner
def _advance(plan, ws):  # type: ignore[no-untyped-def]
    """Move every descriptor word that moves with the iteration."""
    descs = peek(ws + 8 * DESCS_AT)
    reloc = plan + 8 * peek(plan + 8 * RELOCS_AT)
    for _ in range(peek(plan + 8 * N_RELOCS)):
        step = peek(reloc + 8 * STEP)
        if step != 0:
            at = descs + 8 * peek(reloc + 8 * WORD)
            poke(at, peek(at) + step)
        reloc += 8 * RELOC


@_inner
def _walk(plan, ws, together):  # type: ignore[no-untyped-def]
    """The tape, row by row, from ``*pc``."""
    rows = plan + 8 * peek(plan + 8 * ROWS_AT)
    n = peek(plan + 8 * N_ROWS)
    kernels = peek(ws + 8 * KERNELS_AT)
    descs = peek(ws + 8 * DESCS_AT)
    pc = peek(ws + 8 * PC_AT)
    clock = peek(ws + 8 * CLOCK)
    timed = clock != 0 and peek(plan + 8 * COST) * max(1, peek(ws + 8 * TRIPS)) > _CLOCK_EVERY_NS
    end = _now(ws, clock) + peek(ws + 8 * ALLOWANCE) if timed else 0
    spent = 0
    i = max(0, peek(pc) - 1)
    while i < n:
        row = rows + 8 * ROW * i
        kind = peek(row + 8 * KIND)
        if timed and spent > _CLOCK_EVERY_NS and peek(row + 8 * MAY_PAUSE) != 0:
            spent = 0
            if _now(ws, clock) > end:
                poke(pc, i + 1)
                return PAUSED
        if kind == REPEAT:
            iteration = peek(ws + 8 * ITERATION) + 1
            poke(ws + 8 * ITERATION, iteration)
            if iteration < peek(ws + 8 * TRIPS):
                _advance(plan, ws)
                i = peek(row + 8 * KERNEL)
            else:
                i += 1
            continue
        if kind == PARALLEL and together:
            status = _together(ws, row, i)
        else:
            kernel = peek(kernels + 8 * peek(row + 8 * KERNEL))
            status = call_3(kernel, descs + 8 * peek(row + 8 * DESC), 0, peek(row + 8 * TILES))
        if status != 0:
            poke(pc, i + 1)
            return FAILED
        spent += peek(row + 8 * ROW_COST)
        i += 1
    poke(pc, n + 1)
    return DONE


@_inner
def _help(plan, ws):  # type: ignore[no-untyped-def]
    """A thread that does not walk: join each published row until the walker quits."""
    rows = plan + 8 * peek(plan + 8 * ROWS_AT)
    seen = 0
    spins = 0
    while True:
        published = acquire(ws + 8 * PUBLISHED)
        if published < 0:
            return
        if published != seen:
            seen = published
            spins = 0
            row = rows + 8 * ROW * (published & (MAX_CHUNKS - 1))
            grain = peek(row + 8 * GRAIN)
            _claim(ws, row, published >> _CHUNK_BITS, (peek(row + 8 * TILES) + grain - 1) // grain)
        else:
            spins += 1
            _wait(ws, spins)


def _worker(args, dims, steps, ws):  # type: ignore[no-untyped-def]
    """What each thread of the region runs, ``dims[0]`` times (the threading layer's way to say once a thread)."""
    for _ in range(peek(dims)):
        if exchange_if(ws + 8 * CLAIMED, 0, 1):
            status = _walk(peek(ws + 8 * PLAN_IN), ws, True)
            poke(ws + 8 * CLAIMED, 2 + status)
            release(ws + 8 * PUBLISHED, -1)
        else:
            _help(peek(ws + 8 * PLAN_IN), ws)


def _run(plan, ws, inputs, outputs, pc, allowance):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    if peek(pc) == 0:
        descs = peek(ws + 8 * DESCS_AT)
        reloc = plan + 8 * peek(plan + 8 * RELOCS_AT)
        for _ in range(peek(plan + 8 * N_RELOCS)):
            space = peek(reloc + 8 * SPACE)
            if space >= INPUT:
                table = inputs if space == INPUT else outputs
                address = peek(table + 8 * peek(reloc + 8 * INDEX)) + peek(reloc + 8 * OFFSET)
                poke(descs + 8 * peek(reloc + 8 * WORD), address)
            reloc += 8 * RELOC
        poke(ws + 8 * ITERATION, 0)
    poke(ws + 8 * PLAN_IN, plan)
    poke(ws + 8 * PC_AT, pc)
    poke(ws + 8 * ALLOWANCE, allowance)
    poke(ws + 8 * STATUS, 0)
    threads = peek(ws + 8 * THREADS)
    lock = peek(ws + 8 * LOCK)
    if peek(plan + 8 * N_PARALLEL) == 0 or threads < 2 or not exchange_if(lock, 0, 1):
        return _walk(plan, ws, False)
    poke(ws + 8 * PUBLISHED, 0)
    poke(ws + 8 * TICKET, 0)
    poke(ws + 8 * EPOCH, 0)
    release(ws + 8 * CLAIMED, 0)
    dims = ws + 8 * (SCRATCH + 2)  # then one step and one (null) array: the layer's gufunc convention
    poke(dims, threads)
    poke(dims + 8, 0)
    poke(dims + 16, 0)
    call_8(peek(ws + 8 * PARALLEL_FOR), peek(ws + 8 * WORKER), dims + 16, dims, dims + 8, ws, 0, 1, threads)
    release(lock, 0)
    return peek(ws + 8 * CLAIMED) - 2


# -- the Python entry --------------------------------------------------------------------------------------------------

# The spec that an entry reads: addresses of Python's own objects and functions, the run's arguments, then for each array
# where its pointer goes, its dtype object, its rank and its extents.
(S_COUNT, S_PLAN, S_WS, S_IN, S_OUT, S_PC, S_ALLOWANCE, S_RELEASE, S_SAVE, S_RESTORE, S_INCREF, S_NDARRAY, S_NONE, S_FALSE,
 S_TRUE, S_RUN, S_STATUS, SPEC) = range(18)  # fmt: skip
_BYTES_DATA = bytes.__basicsize__ - 1
_A_DATA, _A_NDIM, _A_DIMS, _A_DESCR, _A_FLAGS = 16, 24, 32, 56, 64
_CONTIGUOUS_ALIGNED = 0x0001 | 0x0100


def _entry(self, args, count):  # type: ignore[no-untyped-def]
    """``entry(*arrays)``: None after a run; False when an array is not what the plan expects; True for a status."""
    spec = peek(self + _BYTES_DATA)
    answer = peek(spec + 8 * S_FALSE)
    good = count == peek(spec + 8 * S_COUNT)
    want = spec + 8 * SPEC
    if good:
        for i in range(count):
            array = peek(args + 8 * i)
            if peek(array + 8) != peek(spec + 8 * S_NDARRAY):
                good = False
                break
            ndim = peek(want + 16)
            flags = peek32(array + _A_FLAGS) & _CONTIGUOUS_ALIGNED
            if (
                peek(array + _A_DESCR) != peek(want + 8)
                or peek32(array + _A_NDIM) != ndim
                or flags != _CONTIGUOUS_ALIGNED
            ):
                good = False
                break
            dims = peek(array + _A_DIMS)
            for a in range(ndim):
                if peek(dims + 8 * a) != peek(want + 24 + 8 * a):
                    good = False
            poke(peek(want), peek(array + _A_DATA))
            want += 24 + 8 * ndim
    if good:
        poke(peek(spec + 8 * S_PC), 0)
        state = 0
        if peek(spec + 8 * S_RELEASE) != 0:
            state = call_0(peek(spec + 8 * S_SAVE))
        status = call_6(
            peek(spec + 8 * S_RUN), peek(spec + 8 * S_PLAN), peek(spec + 8 * S_WS), peek(spec + 8 * S_IN),
            peek(spec + 8 * S_OUT), peek(spec + 8 * S_PC), peek(spec + 8 * S_ALLOWANCE),
        )  # fmt: skip
        if state != 0:
            call_1(peek(spec + 8 * S_RESTORE), state)
        poke(spec + 8 * S_STATUS, status)
        answer = peek(spec + 8 * (S_NONE if status == DONE else S_TRUE))
    call_1(peek(spec + 8 * S_INCREF), answer)
    return answer


# -- assembling --------------------------------------------------------------------------------------------------------


class Runtime(NamedTuple):
    """Addresses of the compiled run, and of what it calls."""

    run: int
    worker: int
    entry: int
    parallel_for: int
    clock: int
    give_way: int
    lock: np.ndarray
    pool_threads: int
    owners: tuple[Any, ...]


# A word that whoever opens a region holds. A forked child has none of its parent's threads: it holds the word for good,
# and so runs its rows serially (GNU OpenMP kills a child that launches).
_region_lock = np.zeros(8, np.int64)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _region_lock.__setitem__(0, 1))
_i64 = types.int64
_build_lock = threading.Lock()


@cache
def _compiled() -> tuple[Any, Any, Any]:
    options: dict[str, Any] = {"error_model": "numpy"}
    worker = cfunc(types.void(_i64, _i64, _i64, _i64), **options)(_worker)
    run = cfunc(_i64(*[_i64] * 6), **options)(_run)
    entry = cfunc(_i64(_i64, _i64, _i64), **options)(_entry)
    return worker, run, entry


@cache
def runtime() -> Runtime:
    """The run, compiled once a process."""
    with _build_lock:
        worker, run, entry = _compiled()
    return Runtime(
        run.address,
        worker.address,
        entry.address,
        _parallel_for(),
        _libc("clock_gettime"),
        _libc("sched_yield"),
        _region_lock,
        config.NUMBA_NUM_THREADS,
        (worker, run, entry),
    )


def _parallel_for() -> int:
    """Address of the ``parallel_for`` of Numba's threading layer (its threads, ours: never two pools)."""
    from numba.np.ufunc import parallel

    ours = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()
    if ours:  # libgomp reads it once, when the layer loads it
        os.environ["GOMP_SPINCOUNT"] = _POOL_SPINS
    try:
        parallel._launch_threads()
    finally:
        if ours:
            del os.environ["GOMP_SPINCOUNT"]
    from numba import threading_layer

    module = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}[threading_layer()]
    return int(importlib.import_module(f"numba.np.ufunc.{module}").parallel_for)


def _libc(name: str) -> int:
    """Address of a function of Linux's C library, or 0 elsewhere (the run then never pauses, and spins without yielding)."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0
    except (AttributeError, OSError):
        return 0
