"""The signatures of one function: a bounded memo of what was traced and compiled, and why each came to be."""

from __future__ import annotations

import reprlib
from collections import OrderedDict
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

from . import pytree
from .core.aval import Aval

T = TypeVar("T")
LIMIT = 256
"""Signatures kept for each function. One more drops the least recently used: its plan and its memory."""


class Key(NamedTuple):
    """What a signature is known by: how the arguments nest, their avals, and whatever else is part of the program."""

    structure: Any
    avals: tuple[Aval, ...]
    static: tuple = ()


class Signatures(Generic[T]):
    """At most `LIMIT` values by `Key`, the least recently looked up dropped first. Callers hold their own lock to add."""

    def __init__(self) -> None:
        self._values: OrderedDict[Key, T] = OrderedDict()
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> T | None:
        """The value of ``key``, now the most recently used; None where there is none (any more)."""
        value = self._values.get(key)
        if value is not None:
            with suppress(KeyError):  # another thread may have just dropped it
                self._values.move_to_end(key)
        return value

    def add(self, key: Key, value: T) -> T:
        """Keep ``value``; drop what was not used for longest where that makes too many."""
        self._values[key] = value
        while len(self._values) > LIMIT:
            self._values.popitem(last=False)
            self._dropped += 1
        return value

    def values(self) -> list[T]:
        """All that are kept, the most recently used last."""
        return list(self._values.values())

    def why(self, key: Key) -> str:
        """Why ``key`` has to be traced: the first call, or in what it differs from the nearest signature so far."""
        seen = list(self._values)  # a copy: other threads look up meanwhile, which moves entries
        types = ", ".join(map(str, key.avals))
        if not seen:
            return f"first call, ({types})"
        alike = [k for k in seen if k.structure == key.structure and len(k.avals) == len(key.avals)]
        if not alike:
            return f"first call with arguments nested so, ({types})"
        near = min(reversed(alike), key=lambda k: _distance(k, key))
        names = _names(key)
        changes = [
            f"{names[i]} is {new}, was {old}"
            for i, (new, old) in enumerate(zip(key.avals, near.avals, strict=True))
            if new != old
        ]
        if near.static != key.static:
            changes.append(f"static {_show(key.static)}, was {_show(near.static)}")
        return "; ".join(changes) + (f" ({self._dropped} signatures dropped so far)" if self._dropped else "")


def _distance(a: Key, b: Key) -> int:
    return sum(x != y for x, y in zip(a.avals, b.avals, strict=True)) + (a.static != b.static)


def _names(key: Key) -> list[str]:
    """``[0]['w']`` for each aval, where the structure holds nothing else."""
    try:
        paths = pytree.paths(pytree.unflatten(key.structure, range(len(key.avals))))
    except (AttributeError, TypeError, ValueError):  # static leaves among them, or no nesting at all
        paths = []
    names = paths if len(paths) == len(key.avals) else map(str, range(len(key.avals)))
    return [f"argument {name}" for name in names]


def _show(static: tuple) -> str:
    show = reprlib.repr  # short, and never raises
    return ", ".join(f"{p[0]}={show(p[2])}" if len(p) > 2 else show(p) for p in static) or "none"
