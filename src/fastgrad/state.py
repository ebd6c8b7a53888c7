"""The flat memory of a training step: parameters, gradients, optimizer and model state, one buffer each and dtype.

Leaves begin at multiples of 64 bytes; the gaps between them are zero and stay zero under every update, so that one
kernel may run over the whole buffer. Scalars (hyper-parameters, step count) follow, in float64, and a key with its count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .core.aval import check_dtype
from .memory import Location
from .placement import ALIGN

KEY, COUNT = "key", "count"


@dataclass(frozen=True)
class Leaf:
    """Where one array lies within the buffers of its dtype: offset in elements."""

    shape: tuple[int, ...]
    dtype: np.dtype
    start: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


class Leaves:
    """Arrays side by side in one flat buffer for each dtype; ``sizes`` are those buffers' elements."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self.leaves: list[Leaf] = []
        self.sizes: dict[np.dtype, int] = {}
        for array in arrays:
            dtype = check_dtype(array.dtype)
            step = ALIGN // dtype.itemsize
            start = self.sizes.get(dtype, 0)
            self.leaves.append(Leaf(array.shape, dtype, start))
            self.sizes[dtype] = start + max(step, -(-array.size // step) * step)


class State:
    """One aligned block. ``flat(name, dtype)`` is a buffer of it, `place` where that lies.

    Buffers shaped like the parameters: ``params``, ``grads``, the optimizer's ``slots``. Shaped like the model state:
    ``model``, and ``staged``, where a step puts the new one until it is sure to be done. Scalars in float64; with a ``key``
    also that, in uint32, and the count of steps, in int64.
    """

    def __init__(
        self,
        params: Sequence[np.ndarray],
        slots: Sequence[str],
        scalars: dict[str, float],
        model: Sequence[np.ndarray] = (),
        key: np.ndarray | None = None,
    ):
        trained, kept = Leaves(params), Leaves(model)
        self._shaped = dict.fromkeys(("params", "grads", *slots), trained) | dict.fromkeys(
            ("model", "staged"), kept
        )
        self._offsets: dict[tuple[str, np.dtype], int] = {}
        total = 0
        for name, leaves in self._shaped.items():
            for dtype, size in leaves.sizes.items():
                self._offsets[name, dtype] = total
                total += size * dtype.itemsize
        singles = [*scalars, *((KEY, COUNT) if key is not None else ())]
        self._scalar_offsets = {name: total + ALIGN * i for i, name in enumerate(singles)}
        total += ALIGN * len(singles)
        raw = np.zeros(total + ALIGN, np.uint8)
        start = -raw.ctypes.data % ALIGN
        self.memory = raw[start : start + total]
        for name, arrays in (("params", params), ("model", model)):
            for array, view in zip(arrays, self.views(name), strict=True):
                view[...] = array
        for name, value in scalars.items():
            self.scalar(name)[...] = value
        if key is not None:
            self.key[...] = key

    @property
    def address(self) -> int:
        """Address of the block."""
        return self.memory.ctypes.data

    def __contains__(self, name: str) -> bool:
        """Whether there is a scalar, a key or a count ``name``."""
        return name in self._scalar_offsets

    def leaves(self, name: str) -> list[Leaf]:
        """The arrays of the buffer ``name``."""
        return self._shaped[name].leaves

    def dtypes(self, name: str) -> list[np.dtype]:
        """The dtypes of which there is a buffer ``name``."""
        return list(self._shaped[name].sizes)

    def size(self, name: str, dtype: np.dtype) -> int:
        """Elements of the buffer ``name`` of one dtype."""
        return self._shaped[name].sizes[dtype]

    def flat(self, name: str, dtype: np.dtype) -> np.ndarray:
        """The whole buffer ``name`` of one dtype."""
        start = self._offsets[name, dtype]
        return self.memory[start : start + self.size(name, dtype) * dtype.itemsize].view(dtype)

    def views(self, name: str) -> list[np.ndarray]:
        """The buffer ``name`` as one array a leaf."""
        return [
            self.flat(name, x.dtype)[x.start : x.start + x.size].reshape(x.shape) for x in self.leaves(name)
        ]

    def scalar(self, name: str) -> np.ndarray:
        """A scalar as a 0-d array."""
        return self._single(name, np.dtype(np.float64)).reshape(())

    @property
    def key(self) -> np.ndarray:
        """The key that every step's key is made of."""
        return self._single(KEY, np.dtype(np.uint32))

    @property
    def count(self) -> np.ndarray:
        """How many steps took a key, as a 0-d array."""
        return self._single(COUNT, np.dtype(np.int64)).reshape(())

    def _single(self, name: str, dtype: np.dtype) -> np.ndarray:
        start = self._scalar_offsets[name]
        return self.memory[start : start + 8].view(dtype)

    def place(self, name: str, dtype: np.dtype) -> Location:
        """Where the buffer ``name`` lies."""
        return Location("state", 0, self._offsets[name, dtype])

    def leaf_places(self, name: str) -> list[Location]:
        """Where each leaf of the buffer ``name`` lies."""
        return [
            Location("state", 0, self._offsets[name, x.dtype] + x.start * x.dtype.itemsize)
            for x in self.leaves(name)
        ]

    def scalar_place(self, name: str) -> Location:
        """Where a scalar, the key or the count lies."""
        return Location("state", 0, self._scalar_offsets[name])
