"""Library routines that are no loop nest: rows picked, added, written by index, indices checked, shuffles, running sums.

Each is one kernel text over ``word``, ``load`` and ``store``, with its number of tiles and a guess of its time.
A status of 1 means an index out of bounds; the run then stops before anything is updated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

BLOCK = 1024
"""Elements of a row that one tile covers."""


@dataclass(frozen=True)
class LibraryRoutine:
    """``text(*short dtypes of reads and writes)``; ``tiles`` and ``cost`` (ns) are functions of the step's sizes."""

    text: Callable[..., str]
    tiles: Callable[..., int]
    cost: Callable[..., float]


def _take(x: str, index: str, out: str) -> str:
    return f"""\
def kernel(desc, lo, hi):
    x = word(desc, 0)
    indices = word(desc, 1)
    out = word(desc, 2)
    length = word(desc, 4)
    count = word(desc, 5)
    inner = word(desc, 6)
    for t in range(lo, hi):
        outer = quotient(t, count)
        j = t - outer * count
        row = cast_i64(load_{index}(indices, j))
        if row < 0:
            row += length
        if row < 0 or row >= length:
            return 1
        source = (outer * length + row) * inner
        target = t * inner
        for i in range(inner):
            store0_{out}(out, target + i, load_{x}(x, source + i))
    return 0
"""


_BLANK = """
        for row in range(length):
            target = (outer * length + row) * inner
            for i in range(first, last):
                store0_{out}(out, target + i, const_{out}(0))"""


def _scatter(combined: str, blank: bool = False) -> Callable[[str, str, str], str]:
    """The text for one mode; ``combined`` is what goes to a place that holds ``old`` when ``new`` comes.

    With ``blank`` all places hold 0 at first, else what is there.
    """

    def text(updates: str, index: str, out: str) -> str:
        read = f"old = reload0_{out}(out, target + i)"
        return f"""\
def kernel(desc, lo, hi):
    updates = word(desc, 0)
    indices = word(desc, 1)
    out = word(desc, 2)
    length = word(desc, 4)
    count = word(desc, 5)
    inner = word(desc, 6)
    blocks = quotient(inner + {BLOCK - 1}, {BLOCK})
    for t in range(lo, hi):
        outer = quotient(t, blocks)
        first = (t - outer * blocks) * {BLOCK}
        last = smaller(first + {BLOCK}, inner){_BLANK.format(out=out) if blank else ""}
        for j in range(count):
            row = cast_i64(load_{index}(indices, j))
            if row < 0:
                row += length
            if row < 0 or row >= length:
                return 1
            source = (outer * count + j) * inner
            target = (outer * length + row) * inner
            for i in range(first, last):
                new = load_{updates}(updates, source + i)
                {read if "old" in combined else ""}
                store0_{out}(out, target + i, {combined})
    return 0
""".replace("                \n", "")

    return text


def _cumsum(x: str, out: str) -> str:
    return f"""\
def kernel(desc, lo, hi):
    x = word(desc, 0)
    out = word(desc, 1)
    length = word(desc, 3)
    inner = word(desc, 4)
    start = word(desc, 5)
    step = word(desc, 6)
    blocks = quotient(inner + {BLOCK - 1}, {BLOCK})
    for t in range(lo, hi):
        outer = quotient(t, blocks)
        first = (t - outer * blocks) * {BLOCK}
        last = smaller(first + {BLOCK}, inner)
        at = outer * length * inner + start
        if inner == 1:
            total = const_{out}(0)
            for j in range(length):
                total = add(total, load_{x}(x, at))
                store0_{out}(out, at, total)
                at += step
        else:
            for i in range(first, last):
                store0_{out}(out, at + i, load_{x}(x, at + i))
            for j in range(1, length):
                before = at
                at += step
                for i in range(first, last):
                    store0_{out}(out, at + i, add(reload0_{out}(out, before + i), load_{x}(x, at + i)))
    return 0
"""


def _check_index(index: str, out: str) -> str:
    return f"""\
def kernel(desc, lo, hi):
    indices = word(desc, 0)
    out = word(desc, 1)
    count = word(desc, 2)
    length = word(desc, 3)
    for i in range(count):
        index = load_{index}(indices, i)
        row = cast_i64(index)
        if row < 0 or row >= length:
            return 1
        store0_{out}(out, i, index)
    return 0
"""


def _permutation(keys: str, out: str) -> str:
    return f"""\
def kernel(desc, lo, hi):
    keys = word(desc, 0)
    out = word(desc, 1)
    count = word(desc, 3)
    half = const_u64(32)
    for t in range(lo, hi):
        k0 = load_{keys}(keys, 2 * t)
        k1 = load_{keys}(keys, 2 * t + 1)
        first = t * count
        for i in range(count):
            bits = threefry64(k0, k1, const_u32(0), const_u32(i))
            n = const_u64(i + 1)
            low = mul(and_(bits, const_u64(4294967295)), n)
            j = cast_i64(shr(add(mul(shr(bits, half), n), shr(low, half)), half))
            store0_{out}(out, first + i, reload0_{out}(out, first + j))
            store0_{out}(out, first + j, const_{out}(i))
    return 0
"""


ROUTINES = {
    "take": LibraryRoutine(
        _take,
        tiles=lambda outer, length, count, inner: outer * count,
        cost=lambda outer, length, count, inner: outer * count * (4.0 + 0.1 * inner),
    ),
    "scatter_add": LibraryRoutine(
        _scatter("add(old, new)", blank=True),
        tiles=lambda outer, length, count, inner: outer * -(-inner // BLOCK),
        cost=lambda outer, length, count, inner: (
            outer * inner * (0.1 * length + 0.2 * count) + 4.0 * outer * count
        ),
    ),
    **{
        f"write_{mode}": LibraryRoutine(
            _scatter(combined),
            tiles=lambda outer, length, count, inner: outer * -(-inner // BLOCK),
            cost=lambda outer, length, count, inner: outer * count * (4.0 + 0.2 * inner),
        )
        for mode, combined in {
            "set": "new",
            "add": "add(old, new)",
            "mul": "mul(old, new)",
            "max": "max_(old, new)",
            "min": "min_(old, new)",
        }.items()
    },
    "cumsum": LibraryRoutine(
        _cumsum,
        tiles=lambda outer, length, inner, start, step: outer * -(-inner // BLOCK) if length else 0,
        cost=lambda outer, length, inner, start, step: outer * length * inner * (1.0 if inner == 1 else 0.2),
    ),
    "check_index": LibraryRoutine(
        _check_index, tiles=lambda count, length: 1, cost=lambda count, length: 0.5 * count
    ),
    "permutation": LibraryRoutine(
        _permutation, tiles=lambda keys, count: keys, cost=lambda keys, count: 25.0 * keys * count
    ),
}
