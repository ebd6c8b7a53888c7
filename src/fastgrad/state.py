"""The flat memory of a training step: parameters, gradients and optimizer state, one buffer each and dtype.

Leaves begin at multiples of 64 bytes; the gaps between them are zero and stay zero under every update, so that one
kernel may run over the whole buffer. Scalars (hyper-parameters, step count) follow, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .core.aval import check_dtype
from .memory import ALIGN, Location


@dataclass(frozen=True)
class Leaf:
    """Where one parameter lies within the buffers of its dtype: offset in elements."""

    shape: tuple[int, ...]
    dtype: np.dtype
    start: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


class State:
    """One aligned block. ``region(name, dtype)`` gives a flat view and its `Location`."""

    def __init__(self, params: Sequence[np.ndarray], slots: Sequence[str], scalars: dict[str, float]):
        self.leaves: list[Leaf] = []
        self.sizes: dict[np.dtype, int] = {}
        for p in params:
            dtype = check_dtype(p.dtype)
            step = ALIGN // dtype.itemsize
            start = self.sizes.get(dtype, 0)
            self.leaves.append(Leaf(p.shape, dtype, start))
            self.sizes[dtype] = start + max(step, -(-p.size // step) * step)
        self._offsets: dict[tuple[str, np.dtype], int] = {}
        total = 0
        for name in ("params", "grads", *slots):
            for dtype, size in self.sizes.items():
                self._offsets[name, dtype] = total
                total += size * dtype.itemsize
        self._scalar_offsets = {name: total + ALIGN * i for i, name in enumerate(scalars)}
        total += ALIGN * len(scalars)
        raw = np.zeros(total + ALIGN, np.uint8)
        start = -raw.ctypes.data % ALIGN
        self.memory = raw[start : start + total]
        for p, view in zip(params, self.views("params"), strict=True):
            view[...] = p
        for name, value in scalars.items():
            self.scalar(name)[...] = value

    @property
    def address(self) -> int:
        """Address of the block."""
        return self.memory.ctypes.data

    def flat(self, name: str, dtype: np.dtype) -> np.ndarray:
        """The whole buffer ``name`` of one dtype."""
        start = self._offsets[name, dtype]
        return self.memory[start : start + self.sizes[dtype] * dtype.itemsize].view(dtype)

    def views(self, name: str) -> list[np.ndarray]:
        """The buffer ``name`` as one array a leaf."""
        return [self.flat(name, x.dtype)[x.start : x.start + x.size].reshape(x.shape) for x in self.leaves]

    def scalar(self, name: str) -> np.ndarray:
        """A scalar as a 0-d array."""
        start = self._scalar_offsets[name]
        return self.memory[start : start + 8].view(np.float64).reshape(())

    def place(self, name: str, dtype: np.dtype) -> Location:
        """Where the buffer ``name`` lies."""
        return Location("state", 0, self._offsets[name, dtype])

    def leaf_places(self, name: str) -> list[Location]:
        """Where each leaf of the buffer ``name`` lies."""
        return [
            Location("state", 0, self._offsets[name, x.dtype] + x.start * x.dtype.itemsize)
            for x in self.leaves
        ]

    def scalar_place(self, name: str) -> Location:
        """Where a scalar lies."""
        return Location("state", 0, self._scalar_offsets[name])
