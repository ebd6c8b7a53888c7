"""Text with indentation, and the descriptor that grows beside it: what a kernel reads, in the order in which it reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..schedule import Ref


@dataclass(frozen=True)
class Word:
    """One int64 of a descriptor: the address of ``ref``'s first element, or ``bits``."""

    ref: Ref | None = None
    bits: int = 0

    @staticmethod
    def scalar(value: np.generic) -> Word:
        """The bit pattern of a scalar in the low bytes."""
        return Word(bits=int.from_bytes(value.tobytes(), "little", signed=len(value.tobytes()) == 8))


class Writer:
    """Kernel text, line by line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.words: list[Word] = []
        self._depth = 0

    def __call__(self, line: str) -> None:
        self.lines.append("    " * self._depth + line)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """``head`` (a ``for`` or ``def`` line), with what follows indented under it."""
        self(head)
        self._depth += 1
        yield
        self._depth -= 1

    def word(self, word: Word) -> int:
        """Append a descriptor word; returns its index."""
        self.words.append(word)
        return len(self.words) - 1

    def read(self, name: str, word: Word) -> str:
        """Emit ``name = word(desc, i)`` for a new descriptor word."""
        self(f"{name} = word(desc, {self.word(word)})")
        return name

    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines) + "\n"
