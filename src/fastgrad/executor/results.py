"""Fresh arrays for results. Large ones lie in blocks that serve again once nobody holds the array, or a view of it.

The system hands out large memory page by page, and takes it back at once: a result of 4 MB that is dropped before the next
one is made costs a thousand page faults a call, several times what writing it does.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.aval import Aval
from .cpu import aligned

LARGE = 1 << 17
"""Bytes from which on a result lies in a block: malloc takes such from the system rather than from its own heap."""
SPARE = 2
"""Blocks of one output that are kept while nobody uses them."""


class Results:
    """Makes the output arrays of a program. Each is the caller's alone, for as long as it or any view of it lives."""

    def __init__(self, outputs: Sequence[Aval]):
        self._small = [None if a.nbytes >= LARGE else (a.shape, a.dtype) for a in outputs]
        self._blocks = {i: _Blocks(a) for i, a in enumerate(outputs) if a.nbytes >= LARGE}

    def maker(self) -> Callable[[], list[np.ndarray]]:
        """`arrays`, or the quickest way to the same: for one small output a third of the time."""
        if self._blocks or len(self._small) != 1 or self._small[0] is None:
            return self.arrays
        empty, (shape, dtype) = np.empty, self._small[0]
        return lambda: [empty(shape, dtype)]

    def arrays(self) -> list[np.ndarray]:
        """One array an output, contents undefined."""
        return [
            self._blocks[i].array() if kind is None else np.empty(*kind) for i, kind in enumerate(self._small)
        ]


class _Blocks:
    """The blocks of one output: those that wait, and those that arrays lie in."""

    def __init__(self, aval: Aval):
        self._aval = aval
        self._free: list[np.ndarray] = []
        self._held: dict[int, tuple[Any, np.ndarray]] = {}

    def array(self) -> np.ndarray:
        try:
            block = self._free.pop()
        except IndexError:
            block = aligned(self._aval.nbytes)
        # Views of views have as their base the first array that is no view of an array: this one, which lives as long.
        flat = np.frombuffer(memoryview(block), self._aval.dtype)  # type: ignore[arg-type]
        ref = weakref.ref(flat, self._dropped)
        self._held[id(ref)] = ref, block
        return flat.reshape(self._aval.shape)

    def _dropped(self, ref: Any) -> None:
        _, block = self._held.pop(id(ref))
        if len(self._free) < SPARE:
            self._free.append(block)
