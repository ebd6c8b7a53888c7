"""Kernels that measure the machine: multiply-adds that never leave the registers, and streams through a level of memory.

They are made as the microkernels are (vectors by intrinsic, many in flight), so that what they reach is what a kernel of
ours could. Descriptor, int64 words:

    x, y, n, times    tile t reads n bytes at x + t n, and writes n bytes at y + t n, ``times`` times over

`multiply_adds` computes ``n`` rounds of `CHAINS` x 2 x lanes operations on what lies at x and leaves a sum at y + 64 t;
`stream_read` reads and leaves a sum at y + 64 t; `stream_copy` writes y = x + 1, `stream_past` the same past the
cache, in pieces of `PAGES` pages in turn; `idle` does nothing. ``n`` is a multiple of `STRIDE` bytes, y of the last begins
a line.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

CHAINS = 10
"""Independent sums: enough to hide four or five cycles of latency at two a cycle, few enough for 16 registers."""
AHEAD = 8
"""Vectors that a stream has in flight."""
STRIDE = 64 * AHEAD
"""Bytes that one turn of a stream's loop moves, at the widest vectors."""
PAGE, PAGES = 4096, 4
"""Bytes that a prefetcher follows by itself, and how many such are copied in turn past the cache."""
PROBES = ("multiply_adds", "stream_read", "stream_copy", "stream_past", "idle")


def probe_source(probe: str, dtype: str, vector_bytes: int, fused: bool) -> str:
    """The kernel's text; ``dtype`` is "f32" or "f64"."""
    return (
        f"tiles = probe({probe!r}, {dtype}, {vector_bytes}, {fused})\n\n\n"
        "def kernel(desc, lo, hi):\n    return tiles(desc, lo, hi)\n"
    )


def probe_twin(probe: str, dtype: np.dtype, vector_bytes: int, fused: bool) -> Callable[[int, int, int], int]:
    """`probe` in plain Python: the same words, the same results."""

    def tiles(desc: int, lo: int, hi: int) -> int:
        x, y, n, times = np.frombuffer(_at(desc, 32), np.int64).tolist()
        for t in range(lo, hi):
            if probe == "multiply_adds":
                start, step = np.frombuffer(_at(x, 2 * dtype.itemsize), dtype)
                total = dtype.type(0)
                for _ in range(n):
                    total = total * step + start
                np.frombuffer(_at(y + 64 * t, dtype.itemsize), dtype)[:] = total * CHAINS
            elif probe == "stream_read" and times:
                read = np.frombuffer(_at(x + n * t, n), np.int64)
                np.frombuffer(_at(y + 64 * t, 8), np.int64)[:] = np.bitwise_or.reduce(read)
            elif probe in ("stream_copy", "stream_past") and times:
                np.frombuffer(_at(y + n * t, n), dtype)[:] = np.frombuffer(_at(x + n * t, n), dtype) + 1
        return 0

    return tiles


def _at(address: int, nbytes: int) -> Any:
    return (ctypes.c_char * nbytes).from_address(address)


def probe(name: str, dtype: np.dtype, vector_bytes: int, fused: bool) -> Any:
    """The intrinsic ``tiles(desc, lo, hi)`` of one of `PROBES`; 0."""

    from .blocks import I64, define, loop, tiles_of

    lanes = vector_bytes // dtype.itemsize
    body = {
        "multiply_adds": _multiply_adds,
        "stream_read": _read,
        "stream_copy": _copy,
        "stream_past": _past,
    }.get(name)

    def build(b: Any) -> None:
        desc, lo, hi = b.function.args
        pointer = b.inttoptr(desc, I64.as_pointer())
        words = [b.load(b.gep(pointer, [I64(i)])) for i in range(4)]
        if body is not None:
            with loop(b, hi, start=lo) as t:
                body(b, words, t, dtype, lanes, fused)

    function = define(f"probe {name} {dtype.name} {lanes} {fused}", 3, build)

    return tiles_of(function)


def _slots(b: Any, vector: Any, count: int) -> list[Any]:
    """Vectors of zeros that live over a loop; LLVM keeps them in registers."""
    from llvmlite import ir

    slots = [b.alloca(vector) for _ in range(count)]
    for slot in slots:
        b.store(ir.Constant(vector, None), slot)
    return slots


def _multiply_adds(b: Any, words: list, t: Any, dtype: np.dtype, lanes: int, fused: bool) -> None:
    from . import lines, vec
    from .blocks import I64, loop, read, write

    scalar, vector = lines.ir_type(dtype), lines.ir_type(dtype, lanes)
    x, y, n, _ = words
    start, step = (
        vec.splat(b, read(b, scalar, b.add(x, I64(i * dtype.itemsize)), dtype.itemsize), lanes)
        for i in (0, 1)
    )
    sums = _slots(b, vector, CHAINS)
    with loop(b, n):
        for slot in sums:
            old = b.load(slot)
            new = vec.fma(b, old, step, start) if fused else vec.add(b, vec.mul(b, old, step), start)
            b.store(new, slot)
    total = b.load(sums[0])
    for slot in sums[1:]:
        total = vec.add(b, total, b.load(slot))
    write(b, b.extract_element(total, I64(0)), b.add(y, b.mul(t, I64(64))), dtype.itemsize)


def _read(b: Any, words: list, t: Any, dtype: np.dtype, lanes: int, fused: bool) -> None:
    from llvmlite import ir

    from .blocks import I64, loop, read, write

    x, y, n, times = words
    count = lanes * dtype.itemsize // 8
    vector = ir.VectorType(I64, count)
    seen = _slots(b, vector, AHEAD)
    base, turn = b.add(x, b.mul(t, n)), AHEAD * count * 8
    with loop(b, times), loop(b, n, turn) as i:
        for v, slot in enumerate(seen):
            there = b.add(b.add(base, i), I64(v * count * 8))
            b.store(b.or_(b.load(slot), read(b, vector, there, 8)), slot)
    total = b.load(seen[0])
    for slot in seen[1:]:
        total = b.or_(total, b.load(slot))
    word = b.extract_element(total, I64(0))
    for lane in range(1, count):
        word = b.or_(word, b.extract_element(total, I64(lane)))
    write(b, word, b.add(y, b.mul(t, I64(64))), 8)


def _copy(b: Any, words: list, t: Any, dtype: np.dtype, lanes: int, fused: bool) -> None:
    from .blocks import loop

    n, times = words[2:]
    turn = _copying(b, words, t, dtype, lanes)
    with loop(b, times), loop(b, n, AHEAD * lanes * dtype.itemsize) as i:
        turn(i)


def _past(b: Any, words: list, t: Any, dtype: np.dtype, lanes: int, fused: bool) -> None:
    """A prefetcher follows each page by itself, so pieces of several pages in turn have more lines under way."""
    from .blocks import I64, loop

    n, times = words[2:]
    turn = _copying(b, words, t, dtype, lanes, past=True)
    size, group = AHEAD * lanes * dtype.itemsize, PAGES * PAGE
    whole = b.and_(n, I64(-group))
    with loop(b, times):
        with (
            loop(b, whole, group) as first,
            loop(b, I64(PAGE), size) as line,
            loop(b, I64(group), PAGE) as page,
        ):
            turn(b.add(b.add(first, line), page))
        with loop(b, n, size, whole) as i:
            turn(i)
    b.fence("seq_cst")


def _copying(
    b: Any, words: list, t: Any, dtype: np.dtype, lanes: int, past: bool = False
) -> Callable[[Any], None]:
    """What prints one turn of a copy, of `AHEAD` vectors from an offset on."""
    from . import lines, vec
    from .blocks import I64, fetch, read, write, write_past

    x, y, n, _ = words
    vector, size = lines.ir_type(dtype, lanes), lanes * dtype.itemsize
    part = b.mul(t, n)
    source, target = b.add(x, part), b.add(y, part)
    one = vec.const(vector, 1.0)

    def turn(i: Any) -> None:
        for v in range(AHEAD):
            there = b.add(i, I64(v * size))
            value = vec.add(b, read(b, vector, b.add(source, there), dtype.itemsize), one)
            if past:
                fetch(b, b.add(source, b.add(there, I64(PAGES * PAGE))))
                write_past(b, value, b.add(target, there), size)
            else:
                write(b, value, b.add(target, there), dtype.itemsize)

    return turn
