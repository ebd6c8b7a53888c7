"""Threads of a region that the system has put on one core part at once.

A thread that wakes is put where the system finds it best, and where two cores have both been idle that may be the core of
the thread that woke it. It then waits there until that one is done, or takes its core, and the other core stays idle
until the system balances them at one of its next ticks: up to 4 ms, measured on two virtual cores after a pause of 20 ms.
So whoever opens a region notes its core, gives way once to a thread that is not there soon, and a thread that finds
itself on that core leaves it for the moment of two system calls. A thread that is awake on another core meets none of this.
"""

from __future__ import annotations

from numba import njit

from . import abi
from .simd.atomics import acquire, add_atomic, call_0, call_3, narrow, pause, peek, poke, release, room

_inner = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy", forceinline=True)
_SOON = 200
"""Turns of a wait, some 5 microseconds, in which a thread that is awake comes."""
_MASK_BYTES = 128
"""Of a set of cores, as the C library has them: 1,024 cores."""


@_inner
def note_core(ws):  # type: ignore[no-untyped-def]
    """Before a region: who opens it, and where."""
    release(ws + 8 * abi.ARRIVED, 0)
    if peek(ws + 8 * abi.SET_CORES) != 0:
        poke(ws + 8 * abi.CALLER, call_0(peek(ws + 8 * abi.SELF)))
        poke(ws + 8 * abi.CALLER_CORE, narrow(call_0(peek(ws + 8 * abi.CORE))))


@_inner
def step_aside(ws):  # type: ignore[no-untyped-def]
    """On entry to a region: its opener lets others go, the others leave its core."""
    if peek(ws + 8 * abi.SET_CORES) == 0:
        return
    if call_0(peek(ws + 8 * abi.SELF)) == peek(ws + 8 * abi.CALLER):
        others = peek(ws + 8 * abi.THREADS) - 1
        for _ in range(_SOON):
            if acquire(ws + 8 * abi.ARRIVED) >= others:
                return
            pause()
        call_0(peek(ws + 8 * abi.YIELD))
        return
    add_atomic(ws + 8 * abi.ARRIVED, 1)
    core = narrow(call_0(peek(ws + 8 * abi.CORE)))
    if core != peek(ws + 8 * abi.CALLER_CORE) or core < 0 or core >= 8 * _MASK_BYTES:
        return
    cores = room(_MASK_BYTES)
    if narrow(call_3(peek(ws + 8 * abi.GET_CORES), 0, _MASK_BYTES, cores)) != 0:
        return
    word = cores + 8 * (core >> 6)
    allowed = peek(word)
    poke(word, allowed & ~(1 << (core & 63)))
    if (
        narrow(call_3(peek(ws + 8 * abi.SET_CORES), 0, _MASK_BYTES, cores)) == 0
    ):  # else there is no other core
        poke(word, allowed)
        call_3(peek(ws + 8 * abi.SET_CORES), 0, _MASK_BYTES, cores)
