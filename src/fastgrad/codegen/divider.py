"""Which divisions and roots of a step the divider does, and which the ports that multiply and add (`simd.division`).

The divider works beside those ports, so a step takes the longer of both times: a loop with one division and much other
arithmetic keeps the divider's, of a lone quotient every other register goes by multiply-adds, of three most do. Counted
are slots of the two ports and cycles of the divider, for vectors of 64 bytes on Intel's cores since Ice Lake (A. Abel, J.
Reineke, "uops.info", 2019, and our own measurements); other processors differ in degree.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..core.expr import Map

SLOTS = {"const": 0.0, "exp": 13.0, "exp2": 11.0, "expm1": 16.0, "tanh": 17.0, "sigmoid": 20.0, "rsqrt": 8.0}
SLOTS |= {"log": 16.0, "log2": 16.0, "log10": 17.0, "log1p": 22.0, "sin": 30.0, "cos": 30.0, "pow": 60.0}
SLOTS |= {"cbrt": 22.0, "erf": 18.0, "ndtr": 36.0, "gelu": 38.0, "gelu_tanh": 45.0}
"""Of the functions of mathematics in float32; every other line takes one."""
CYCLES = {("div", 4): 10.0, ("sqrt", 4): 13.0, ("div", 8): 16.0}
"""Of the divider, by the bytes of an element; float64's roots are always its own."""
ROOT_OF_DOUBLES, DIVISION_INSIDE = 22.0, frozenset({"sigmoid"})
INVERSE = {4: 9.0, 8: 11.0}
"""Slots for the inverse of a divisor, which all quotients by it share."""
QUOTIENT, ROOT = 8.0, 15.5
"""Slots for a quotient when the inverse is there, and for a root."""
VECTOR_BYTES, MEMORY_BYTES = 64, 9.0
"""Bytes of a vector; bytes that a core gets from memory or brings there in a cycle."""
WORTH = 0.9
"""Below this part of the time with the divider alone it is worth it."""


class _Work(NamedTuple):
    """A division or root: its line, the value whose inverse it needs, cycles of the divider or slots instead of it."""

    line: int
    divisor: int | None
    cycles: float
    slots: float


def by_multiply_adds(
    lines: Map, itemsize: int, vectors: int, uniform: Collection[int] = (), past: int = 0
) -> dict[int, int]:
    """Of which divisions and roots, by the number of the line, how many of the ``vectors`` go by multiply-adds.

    ``uniform``: the inputs that are the same in all turns of the loop; what depends on them alone costs nothing.
    ``past``: bytes an element that come from memory or go there, which takes its time anyway.

    >>> f32 = np.dtype("f4")
    >>> by_multiply_adds(Map((f32, f32), (Line("div", (0, 1), f32),), (2,)), 4, 2)
    {0: 1}
    """
    fixed = _uniform(lines, uniform)
    n, works = len(lines.inputs), []
    slots = cycles = 0.0
    for k, (op, args, _) in enumerate(lines.lines):
        if n + k in fixed:
            continue
        if (op, itemsize) in CYCLES:
            divisor = args[1] if op == "div" else None
            works.append(_Work(k, divisor, CYCLES[op, itemsize], ROOT if divisor is None else QUOTIENT))
            continue
        slots += SLOTS.get(op, 1.0)
        cycles += ROOT_OF_DOUBLES if op == "sqrt" else CYCLES["div", itemsize] * (op in DIVISION_INSIDE)

    memory = vectors * VECTOR_BYTES / itemsize * past / MEMORY_BYTES

    def time(shares: dict[int, int]) -> float:
        inverses: dict[int, int] = {}
        port, divider = vectors * slots, vectors * cycles
        for it in works:
            port += shares[it.line] * it.slots
            divider += (vectors - shares[it.line]) * it.cycles
            if it.divisor is not None and it.divisor not in fixed:
                inverses[it.divisor] = max(inverses.get(it.divisor, 0), shares[it.line])
        return max(memory, divider, (port + INVERSE[itemsize] * sum(inverses.values())) / 2)

    best = {it.line: 0 for it in works}
    alone = fastest = time(best)
    while True:
        moves = [best | {line: share + 1} for line, share in best.items() if share < vectors]
        chosen = min(moves, key=time, default=best)
        if time(chosen) >= fastest:
            break
        best, fastest = chosen, time(chosen)
    return {line: share for line, share in best.items() if share} if fastest <= WORTH * alone else {}


def _uniform(lines: Map, inputs: Collection[int]) -> set[int]:
    """The values that are the same in all turns."""
    fixed, n = set(inputs), len(lines.inputs)
    for k, line in enumerate(lines.lines):
        if line.op == "const" or fixed.issuperset(line.args):
            fixed.add(n + k)
    return fixed
