"""The run behind `abi`: the walker of the tape, its parallel region, and the entry that Python calls.

A plan with parallel rows opens one region: the threads enter together, the first to arrive walks the tape, the others
join its rows. Chunks are claimed by compare-exchange on (epoch, chunks left), so that a thread that comes late can never
take a chunk of a later row by mistake, and a row is over when its chunks are, whoever ran them. The walker takes them from
the front, the others from the back: in a loop each core meets the same part of a matrix again, in its own cache. What
a chunk computes does not depend on who runs it: one thread and N threads give the same bits.

Nothing here may raise: an exception path would call back into Numba, which a process that loads this code from disk
never imports (hence `quotient` and `smaller` where Python would write ``//`` and ``min``).
"""

from __future__ import annotations

from numba import njit, types

from . import abi
from .aside import note_core, step_aside
from .simd.atomics import (
    acquire,
    add_atomic,
    call_0,
    call_1,
    call_2,
    call_3,
    call_4,
    call_6,
    call_8,
    exchange_if,
    pause,
    peek,
    peek32,
    poke,
    release,
    ticks,
)
from .simd.intrinsics import quotient, smaller

_inner = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy", forceinline=True)
"""Called from compiled code alone: no wrappers for Python to compile."""
_CLOCK_EVERY_NS = 200_000
_SPINS = 1_000


@_inner
def _now(ws, clock):  # type: ignore[no-untyped-def]
    """Monotonic nanoseconds, by the libc function at ``clock`` (CLOCK_MONOTONIC is 1 on Linux)."""
    call_2(clock, 1, ws + 8 * abi.SCRATCH)
    return peek(ws + 8 * abi.SCRATCH) * 1_000_000_000 + peek(ws + 8 * abi.SCRATCH + 8)


@_inner
def _wait(ws, spins):  # type: ignore[no-untyped-def]
    """One turn of a wait: spin for some 20 microseconds, then let whoever else wants this core have it each time."""
    pause()
    if spins > _SPINS:
        give_way = peek(ws + 8 * abi.YIELD)
        if give_way != 0:
            call_0(give_way)


@_inner
def _claim(ws, row, epoch, back):  # type: ignore[no-untyped-def]
    """Run chunks of the published row until none is left, from the front or from the ``back``."""
    chunks, tiles = peek(row + 8 * abi.CHUNKS), peek(row + 8 * abi.TILES)
    kernel = peek(peek(ws + 8 * abi.KERNELS_AT) + 8 * peek(row + 8 * abi.KERNEL))
    desc = peek(ws + 8 * abi.DESCS_AT) + 8 * peek(row + 8 * abi.DESC)
    while True:
        ticket = acquire(ws + 8 * abi.TICKET)
        first = (ticket >> abi.CHUNK_BITS) & abi.MAX_CHUNKS
        end = ticket & abi.MAX_CHUNKS
        if (ticket >> (2 * abi.CHUNK_BITS)) != epoch or first >= end:
            return
        chunk = end - 1 if back else first
        rest = ticket - 1 if back else ticket + (1 << abi.CHUNK_BITS)
        if exchange_if(ws + 8 * abi.TICKET, ticket, rest):
            lo = quotient(chunk * tiles + chunks - 1, chunks)
            hi = quotient((chunk + 1) * tiles + chunks - 1, chunks)
            status = call_3(kernel, desc, lo, hi)
            if status != 0:
                release(ws + 8 * abi.STATUS, status)
            add_atomic(ws + 8 * abi.FINISHED, 1)


@_inner
def _together(ws, row, index):  # type: ignore[no-untyped-def]
    """One parallel row: publish it, work on it, wait until its chunks are done."""
    chunks = peek(row + 8 * abi.CHUNKS)
    epoch = peek(ws + 8 * abi.EPOCH) + 1
    poke(ws + 8 * abi.EPOCH, epoch)
    release(ws + 8 * abi.FINISHED, 0)
    release(ws + 8 * abi.TICKET, (epoch << (2 * abi.CHUNK_BITS)) | chunks)
    release(ws + 8 * abi.PUBLISHED, (epoch << abi.ROW_BITS) | index)
    _claim(ws, row, epoch, False)
    spins = 0
    while acquire(ws + 8 * abi.FINISHED) < chunks:
        spins += 1
        _wait(ws, spins)
    return acquire(ws + 8 * abi.STATUS)


@_inner
def _move(plan, ws, row, count, trips):  # type: ignore[no-untyped-def]
    """Words that move with a loop: on to iteration ``count``, or back to where they began when ``trips`` are done."""
    descs = peek(ws + 8 * abi.DESCS_AT)
    block = plan + 8 * (peek(plan + 8 * abi.BLOCKS_AT) + peek(row + 8 * abi.BLOCK))
    move = block + 8
    for _ in range(peek(block)):
        by = peek(move + 8 * abi.BY)
        if peek(move + 8 * abi.IN_TURN) != 0:
            if count < trips:
                if count & 1 == 0:
                    by = -by
            else:
                by *= -((trips - 1) & 1)
        elif count == trips:
            by *= 1 - trips
        at = descs + 8 * peek(move + 8 * abi.MOVED)
        poke(at, peek(at) + by)
        move += 8 * abi.MOVE


@_inner
def _control(plan, ws, row, kind, i):  # type: ignore[no-untyped-def]
    """The row after row ``i``, which is no kernel."""
    descs = peek(ws + 8 * abi.DESCS_AT)
    target = peek(row + 8 * abi.TARGET)
    if kind == abi.LOOP:
        poke(descs + 8 * peek(row + 8 * abi.COUNTER), 0)
        return i + 1 if peek(row + 8 * abi.TRIPS) > 0 else target
    if kind == abi.NEXT:
        counter = descs + 8 * peek(row + 8 * abi.COUNTER)
        trips = peek(row + 8 * abi.TRIPS)
        count = peek(counter) + 1
        poke(counter, count)
        _move(plan, ws, row, count, trips)
        return target if count < trips else i + 1
    if kind == abi.BRANCH:
        chosen = peek(peek(descs + 8 * peek(row + 8 * abi.DESC)))
        if peek(row + 8 * abi.TILES) == 1:
            chosen &= 255
        block = plan + 8 * (peek(plan + 8 * abi.BLOCKS_AT) + peek(row + 8 * abi.BLOCK))
        chosen = smaller(chosen, peek(block) - 1)
        if chosen < 0:
            chosen = 0
        return peek(block + 8 + 8 * chosen)
    return target


@_inner
def _note(ws, i, before):  # type: ignore[no-untyped-def]
    """Write down that row ``i`` has run since ``before``."""
    after = ticks()
    times = peek(ws + 8 * abi.TIMES)
    total = times + 8 * (peek(times + 8 * abi.TOTALS_AT) + abi.ROW_TIME * i)
    poke(total + 8 * abi.TICKS, peek(total + 8 * abi.TICKS) + after - before)
    poke(total + 8 * abi.CALLS, peek(total + 8 * abi.CALLS) + 1)
    came = peek(times + 8 * abi.CAME)
    if came < peek(times + 8 * abi.FITS):
        event = times + 8 * (abi.EVENTS + abi.EVENT * came)
        poke(event, i)
        poke(event + 8, before)
        poke(event + 16, after)
    poke(times + 8 * abi.CAME, came + 1)


def _walker(measured):  # type: ignore[no-untyped-def]
    """The function that walks a tape; one that is ``measured`` notes the time of every row, and is else the same code."""

    @_inner
    def walk(plan, ws):  # type: ignore[no-untyped-def]
        """The tape, row by row, from ``*pc``."""
        rows = plan + 8 * peek(plan + 8 * abi.ROWS_AT)
        n = peek(plan + 8 * abi.N_ROWS)
        kernels = peek(ws + 8 * abi.KERNELS_AT)
        descs = peek(ws + 8 * abi.DESCS_AT)
        pc = peek(ws + 8 * abi.PC_AT)
        clock = peek(ws + 8 * abi.CLOCK)
        together = peek(ws + 8 * abi.TOGETHER) != 0
        timed = clock != 0 and peek(plan + 8 * abi.COST) > _CLOCK_EVERY_NS
        end = _now(ws, clock) + peek(ws + 8 * abi.ALLOWANCE) if timed else 0
        spent = 0
        i = peek(pc)
        if i > 0:
            i -= 1
        while i < n:
            row = rows + 8 * abi.ROW * i
            kind = peek(row + 8 * abi.KIND)
            if timed and spent > _CLOCK_EVERY_NS and peek(row + 8 * abi.MAY_PAUSE) != 0:
                spent = 0
                if _now(ws, clock) > end:
                    poke(pc, i + 1)
                    return abi.PAUSED
            spent += peek(row + 8 * abi.ROW_COST)
            before = ticks() if measured else 0
            if kind >= abi.LOOP:
                following = _control(plan, ws, row, kind, i)
                if measured:
                    _note(ws, i, before)
                i = following
                continue
            if kind == abi.PARALLEL and together:
                status = _together(ws, row, i)
            else:
                kernel = peek(kernels + 8 * peek(row + 8 * abi.KERNEL))
                status = call_3(kernel, descs + 8 * peek(row + 8 * abi.DESC), 0, peek(row + 8 * abi.TILES))
            if measured:
                _note(ws, i, before)
            if status != 0:
                poke(pc, i + 1)
                return abi.FAILED
            i += 1
        poke(pc, n + 1)
        return abi.DONE

    return walk


_walk, _walk_measured = _walker(False), _walker(True)


@_inner
def _help(plan, ws):  # type: ignore[no-untyped-def]
    """A thread that does not walk: join each published row until the walker quits."""
    rows = plan + 8 * peek(plan + 8 * abi.ROWS_AT)
    seen = 0
    spins = 0
    while True:
        published = acquire(ws + 8 * abi.PUBLISHED)
        if published < 0:
            return
        if published != seen:
            seen = published
            spins = 0
            row = rows + 8 * abi.ROW * (published & ((1 << abi.ROW_BITS) - 1))
            _claim(ws, row, published >> abi.ROW_BITS, True)
        else:
            spins += 1
            _wait(ws, spins)


def _worker(walk):  # type: ignore[no-untyped-def]
    """What each thread of the region runs; one of them ``walk``s: measured, in a program that is profiled."""

    def worker(args, dims, steps, ws):  # type: ignore[no-untyped-def]
        """Walk or help, ``dims[0]`` times (the threading layer's way to say once a thread).

        A run without a region calls it too: the walker then stands in one piece of code.
        """
        if peek(ws + 8 * abi.TOGETHER) != 0:
            step_aside(ws)
        for _ in range(peek(dims)):
            if exchange_if(ws + 8 * abi.CLAIMED, 0, 1):
                status = walk(peek(ws + 8 * abi.PLAN_IN), ws)
                poke(ws + 8 * abi.CLAIMED, 2 + status)
                release(ws + 8 * abi.PUBLISHED, -1)
            else:
                _help(peek(ws + 8 * abi.PLAN_IN), ws)

    return worker


def _run(plan, ws, inputs, outputs, pc, allowance):  # type: ignore[no-untyped-def]
    """See the module's docstring."""
    if peek(pc) == 0:
        descs = peek(ws + 8 * abi.DESCS_AT)
        reloc = plan + 8 * peek(plan + 8 * abi.RELOCS_AT)
        for _ in range(peek(plan + 8 * abi.N_RELOCS)):
            space = peek(reloc + 8 * abi.SPACE)
            if space >= abi.INPUT:
                table = inputs if space == abi.INPUT else outputs
                address = peek(table + 8 * peek(reloc + 8 * abi.INDEX)) + peek(reloc + 8 * abi.OFFSET)
                poke(descs + 8 * peek(reloc + 8 * abi.WORD), address)
            reloc += 8 * abi.RELOC
    poke(ws + 8 * abi.PLAN_IN, plan)
    poke(ws + 8 * abi.PC_AT, pc)
    poke(ws + 8 * abi.ALLOWANCE, allowance)
    poke(ws + 8 * abi.STATUS, 0)
    threads = peek(ws + 8 * abi.THREADS)
    lock = peek(ws + 8 * abi.LOCK)
    worker = peek(ws + 8 * abi.WORKER)
    dims = ws + 8 * (abi.SCRATCH + 2)  # then one step and one (null) array: the layer's gufunc convention
    poke(dims + 8, 0)
    poke(dims + 16, 0)
    release(ws + 8 * abi.CLAIMED, 0)
    if peek(plan + 8 * abi.N_PARALLEL) == 0 or threads < 2 or not exchange_if(lock, 0, 1):
        poke(ws + 8 * abi.TOGETHER, 0)
        poke(dims, 1)
        call_4(worker, dims + 16, dims, dims + 8, ws)
    else:
        poke(ws + 8 * abi.TOGETHER, 1)
        poke(ws + 8 * abi.PUBLISHED, 0)
        poke(ws + 8 * abi.TICKET, 0)
        poke(ws + 8 * abi.EPOCH, 0)
        poke(dims, threads)
        note_core(ws)
        call_8(peek(ws + 8 * abi.PARALLEL_FOR), worker, dims + 16, dims, dims + 8, ws, 0, 1, threads)
        release(lock, 0)
    return peek(ws + 8 * abi.CLAIMED) - 2


# -- the Python entry --------------------------------------------------------------------------------------------------

_BYTES_DATA = bytes.__basicsize__ - 1
_A_DATA, _A_NDIM, _A_DIMS, _A_DESCR, _A_FLAGS = 16, 24, 32, 56, 64
_CONTIGUOUS_ALIGNED, _WRITEABLE = 0x0001 | 0x0100, 0x0400


@_inner
def _apart(spec, args):  # type: ignore[no-untyped-def]
    """Whether each output may be written to, and shares no memory with an input or with another output."""
    inputs = peek(spec + 8 * abi.S_INPUTS)
    out = spec + 8 * abi.SPEC
    for i in range(peek(spec + 8 * abi.S_COUNT)):
        if i >= inputs:
            if peek32(peek(args + 8 * i) + _A_FLAGS) & _WRITEABLE == 0:
                return False
            start = peek(peek(out))
            end = start + peek(out + 8 * abi.A_BYTES)
            other = spec + 8 * abi.SPEC
            for _ in range(i):
                at = peek(peek(other))
                if at < end and start < at + peek(other + 8 * abi.A_BYTES):
                    return False
                other += 8 * (abi.A + peek(other + 8 * abi.A_RANK))
        out += 8 * (abi.A + peek(out + 8 * abi.A_RANK))
    return True


def _entry(self, args, count):  # type: ignore[no-untyped-def]
    """``entry(*arrays)``: None after a run; False when an array is not what the plan expects; True for a status.

    ``True`` as one argument more says that the outputs are somebody's: they must then be writeable and lie apart.
    """
    spec = peek(self + _BYTES_DATA)
    answer = peek(spec + 8 * abi.S_FALSE)
    n = peek(spec + 8 * abi.S_COUNT)
    given = count == n + 1 and peek(args + 8 * n) == peek(spec + 8 * abi.S_TRUE)
    good = given or count == n
    want = spec + 8 * abi.SPEC
    if good:
        for i in range(n):
            array = peek(args + 8 * i)
            if peek(array + 8) != peek(spec + 8 * abi.S_NDARRAY):
                good = False
                break
            ndim = peek(want + 8 * abi.A_RANK)
            flags = peek32(array + _A_FLAGS) & _CONTIGUOUS_ALIGNED
            if (
                peek(array + _A_DESCR) != peek(want + 8 * abi.A_DTYPE)
                or peek32(array + _A_NDIM) != ndim
                or flags != _CONTIGUOUS_ALIGNED
            ):
                good = False
                break
            dims = peek(array + _A_DIMS)
            for a in range(ndim):
                if peek(dims + 8 * a) != peek(want + 8 * (abi.A + a)):
                    good = False
            poke(peek(want), peek(array + _A_DATA))
            want += 8 * (abi.A + ndim)
    if good and given:
        good = _apart(spec, args)
    if good:
        poke(peek(spec + 8 * abi.S_PC), 0)
        state = 0
        if peek(spec + 8 * abi.S_RELEASE) != 0:
            state = call_0(peek(spec + 8 * abi.S_SAVE))
        status = call_6(
            peek(spec + 8 * abi.S_RUN), peek(spec + 8 * abi.S_PLAN), peek(spec + 8 * abi.S_WS), peek(spec + 8 * abi.S_IN),
            peek(spec + 8 * abi.S_OUT), peek(spec + 8 * abi.S_PC), peek(spec + 8 * abi.S_ALLOWANCE),
        )  # fmt: skip
        if state != 0:
            call_1(peek(spec + 8 * abi.S_RESTORE), state)
        poke(spec + 8 * abi.S_STATUS, status)
        answer = peek(spec + 8 * (abi.S_NONE if status == abi.DONE else abi.S_TRUE))
    call_1(peek(spec + 8 * abi.S_INCREF), answer)
    return answer


_i64 = types.int64
FUNCTIONS = {
    "run": (_run, _i64(*[_i64] * 6)),
    "worker": (_worker(_walk), types.void(*[_i64] * 4)),
    "measured": (_worker(_walk_measured), types.void(*[_i64] * 4)),
    "entry": (_entry, _i64(_i64, _i64, _i64)),
}
"""What is compiled of this file, by name, with its C signature."""
