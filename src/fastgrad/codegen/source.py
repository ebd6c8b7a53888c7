"""A step's kernel before it is compiled."""

from __future__ import annotations

from dataclasses import dataclass

from ..schedule import Computed
from .writer import Word


@dataclass(frozen=True, eq=False)
class Source:
    """A step's kernel: its text (the key of the compiled code), descriptor words, number of tiles."""

    step: Computed
    text: str
    words: tuple[Word, ...]
    tiles: int
