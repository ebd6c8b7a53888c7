"""Kernels as data, and the strided layouts that loop nests walk.

A `Layout` is more than numbers: for each axis it also knows *by construction* whether its stride is 1, 0 or only known
at run time, and whether it is contiguous with the next inner axis. Kernels are keyed by that knowledge alone, never
by sizes, so a batch of 1 runs the kernel of a batch of 1,000.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal as OneOf
from typing import NamedTuple

import numpy as np

StrideKind = OneOf["unit", "zero", "run"]


class Axis(NamedTuple):
    """One axis of a layout: its stride in elements, what is known of it, and whether it is ``joined`` to the next axis.

    Joined means ``stride == next.stride * next_size`` by construction, so that both merge into one loop.
    """

    stride: int
    kind: StrideKind
    joined: bool


@dataclass(frozen=True)
class Layout:
    """Where the elements of a value lie in its buffer: a shape, an axis record each, an offset in elements."""

    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    offset: int = 0

    @staticmethod
    def contiguous(shape: Sequence[int]) -> Layout:
        """C order, no gaps."""
        return _contiguous(tuple(shape))

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps, by construction."""
        return all(a.joined for a in self.axes[:-1]) and (not self.axes or self.axes[-1].kind == "unit")

    def transpose(self, perm: Sequence[int]) -> Layout:
        """Axes in the order of ``perm``."""
        follows = [i + 1 < len(perm) and perm[i + 1] == perm[i] + 1 for i in range(len(perm))]
        axes = tuple(
            self.axes[p]._replace(joined=self.axes[p].joined and f)
            for p, f in zip(perm, follows, strict=True)
        )
        return Layout(tuple(self.shape[p] for p in perm), axes, self.offset)

    def broadcast(self, shape: Sequence[int]) -> Layout:
        """NumPy broadcasting: new leading axes and stretched axes get stride 0."""
        if shape == self.shape:
            return self
        extra = len(shape) - len(self.shape)
        old: list[Axis | None] = [None for _ in range(extra)]
        old += [a if n == m else None for a, n, m in zip(self.axes, self.shape, shape[extra:], strict=True)]
        axes = []
        for i, axis in enumerate(old):
            nxt = old[i + 1] if i + 1 < len(old) else None
            inner = i + 1 < len(old)
            if axis is None:
                joined = inner and (nxt is None or (nxt.kind == "zero"))
                axes.append(Axis(0, "zero", joined))
            else:
                joined = inner and (axis.joined if nxt is not None else axis.kind == "zero")
                axes.append(axis._replace(joined=joined))
        return Layout(tuple(shape), tuple(axes), self.offset)

    def slice(self, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]) -> Layout:
        """``x[start:stop:step]`` on every axis; steps may be negative, ``stop`` -1 then means past the front."""
        axes, shape, offset = list(self.axes), [], self.offset
        for i, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
            size = max(0, math.ceil((stop - start) / step))
            axis, whole = self.axes[i], (start, stop, step) == (0, self.shape[i], 1)
            shape.append(size)
            offset += start * axis.stride if size else 0
            if whole or axis.kind == "zero":
                continue
            axes[i] = axes[i]._replace(stride=axis.stride * step)
            if step != 1:
                axes[i] = axes[i]._replace(kind="run", joined=False)
            if i:
                axes[i - 1] = axes[i - 1]._replace(joined=False)
        return Layout(tuple(shape), tuple(axes), offset)

    def reshape(self, shape: Sequence[int]) -> Layout | None:
        """The same elements under another shape, or None where that takes a copy."""
        if math.prod(shape) == 0 or not self.axes:
            return Layout(tuple(shape), Layout.contiguous(shape).axes, self.offset)
        new: list[Axis] = []
        todo = list(shape)
        for group in self._groups():
            size = math.prod(self.shape[i] for i in group)
            mine: list[int] = []
            while todo and (math.prod(mine) < size or todo[0] == 1):
                mine.append(todo.pop(0))
            if math.prod(mine) != size:
                return None
            new += _split(self.axes[group[-1]], mine)
        return None if todo else Layout(tuple(shape), tuple(new), self.offset)

    def _groups(self) -> list[list[int]]:
        groups: list[list[int]] = [[]]
        for i, axis in enumerate(self.axes):
            groups[-1].append(i)
            if not axis.joined and i + 1 < len(self.axes):
                groups.append([])
        return groups


@lru_cache(maxsize=4096)  # one record for the many values of a shape, not one each
def _contiguous(shape: tuple[int, ...]) -> Layout:
    axes, stride = [], 1
    for i in reversed(range(len(shape))):
        last = i == len(shape) - 1
        axes.append(Axis(stride, "unit" if last else "run", not last))
        stride *= max(shape[i], 1)
    return Layout(shape, tuple(reversed(axes)))


def _split(inner: Axis, sizes: Sequence[int]) -> list[Axis]:
    """The axes of ``sizes`` laid over one merged axis whose innermost stride is ``inner``."""
    axes, stride = [], inner.stride
    for i in reversed(range(len(sizes))):
        last = i == len(sizes) - 1
        kind: StrideKind = "zero" if inner.kind == "zero" else inner.kind if last else "run"
        axes.append(Axis(stride, kind, not last))
        stride *= sizes[i]
    return axes[::-1]


def merge(
    shape: Sequence[int], layouts: Sequence[Layout], cuts: Sequence[int] = ()
) -> tuple[tuple[int, ...], list[tuple[Axis, ...]]]:
    """Merge the axes that are joined in every layout, but never across a position in ``cuts``.

    Returns the merged sizes and, a layout each, its merged axes:
    ``(32, 10)``, all contiguous -> ``(320,)``; with a row vector beside it (stride 0, 1) it stays ``(32, 10)``.
    """
    sizes: list[int] = []
    kept: list[int] = []
    for i, n in enumerate(shape):
        if i and i not in cuts and all(layout.axes[i - 1].joined for layout in layouts):
            sizes[-1] *= n
            kept[-1] = i
        else:
            sizes.append(n)
            kept.append(i)
    return tuple(sizes), [tuple(layout.axes[i] for i in kept) for layout in layouts]


@dataclass(frozen=True)
class Pointwise:
    """One element from one element each: ``lines(k, dtype, *values, **params)`` writes them into a MapBuilder ``k``."""

    lines: Callable[..., int]


@dataclass(frozen=True)
class Reduce:
    """Fold over ``params["axes"]``: ``combine`` is ``add``, ``max`` or ``min``; ``init(dtype)`` its neutral element."""

    combine: OneOf["add", "max", "min"]

    def init(self, dtype: np.dtype) -> np.generic:
        """The neutral element in ``dtype``."""
        if self.combine == "add":
            return dtype.type(0)
        sign = -1 if self.combine == "max" else 1
        if dtype.kind == "f":
            return dtype.type(sign * np.inf)
        if dtype.kind == "b":
            return dtype.type(sign > 0)
        info = np.iinfo(dtype)
        return dtype.type(info.min if sign < 0 else info.max)


@dataclass(frozen=True)
class View:
    """No work: ``layout(layout, shape, **params)`` says where the elements already lie; None asks for a copy first."""

    layout: Callable[..., Layout | None]


@dataclass(frozen=True)
class Library:
    """One named implementation per target, for what is no loop nest (matmul, take, scatter_add) or is several (pad)."""

    name: str


@dataclass(frozen=True)
class Region:
    """Graphs among the parameters, run on the tape between its other rows: ``scan``, ``while`` or ``switch``."""

    name: str


@dataclass(frozen=True)
class Call:
    """The graph ``params["graph"]``, wrapped to carry rules of its own; a pass writes it out before scheduling."""


Kernel = Pointwise | Reduce | View | Library | Region | Call
