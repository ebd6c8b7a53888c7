"""A step's kernel before it is compiled."""

from __future__ import annotations

from dataclasses import dataclass

from ..schedule import Computed
from .writer import Word


@dataclass(frozen=True, eq=False)
class Source:
    """A step's kernel: its text (the key of the compiled code), descriptor words, number of tiles.

    ``chunks``: in how many pieces at most each thread's share of the tiles is claimed. Many, and a thread that comes late,
    or is interrupted, holds nobody up; few, where beginning a piece costs something.
    """

    step: Computed
    text: str
    words: tuple[Word, ...]
    tiles: int
    chunks: int = 24
