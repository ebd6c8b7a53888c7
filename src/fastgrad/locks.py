"""Locks that a forked child finds open.

A child of ``os.fork`` has none of its parent's threads, so a lock that one of them holds would stay shut in the child for
good. What ours guard is changed by single assignments, and so is whole at any moment.
"""

from __future__ import annotations

import os
import threading
import weakref


class Lock:
    """``with lock.current:`` one thread at a time, and the same thread again. A child gets a new `current`."""

    __slots__ = ("__weakref__", "current")

    def __init__(self) -> None:
        self.current = threading.RLock()
        _all.add(self)


_all: weakref.WeakSet[Lock] = weakref.WeakSet()


def _open_all() -> None:
    for lock in list(_all):
        lock.current = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_all)
