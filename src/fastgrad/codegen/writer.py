"""Text with indentation, and the words of a descriptor: what a kernel reads, in the order in which it reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..schedule import Ref

Word = Ref | int
"""One int64 of a descriptor: the address of a window's first element, or the number itself."""


def scalar_word(value: np.generic) -> int:
    """The bit pattern of a scalar in the low bytes."""
    return int.from_bytes(value.tobytes(), "little", signed=value.itemsize == 8)


class Writer:
    """Kernel text, line by line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._depth = self._words = 0

    def __call__(self, line: str) -> None:
        self.lines.append("    " * self._depth + line)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """``head`` (a ``for`` or ``def`` line), with what follows indented under it."""
        self(head)
        self._depth += 1
        yield
        self._depth -= 1

    def word(self) -> int:
        """The index of the next descriptor word."""
        self._words += 1
        return self._words - 1

    def read(self, name: str) -> None:
        """Emit ``name = word(desc, i)`` for the next descriptor word."""
        self(f"{name} = word(desc, {self.word()})")

    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines) + "\n"
