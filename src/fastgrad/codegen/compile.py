"""Compile units -> addresses of machine code: from memory, from disk, or compiled now.

A unit is a kernel's text or a function of the run; nothing in it depends on sizes or addresses, so layers of equal
structure, other batch sizes, other models and other processes share it. What is missing goes to the compilers
(`workers`) in one batch; their object code is stored, then linked as it would be the next time.
"""

from __future__ import annotations

import hashlib
import threading
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from ..machine import cores
from . import target
from .progress import Progress
from .store import Entry, Store, store
from .workers import Built, available, pool

KEPT = 512
"""Kernels that stay loaded after the last program that uses them is gone; some 10 KB each."""
_BUILD_LOCK_S = 60.0
"""How long to wait for another process that is compiling too: it may be compiling the same."""


@dataclass(frozen=True)
class Unit:
    """What is compiled: ``kind`` "kernel" and its text, or "walker" and the name of one of its functions."""

    kind: str
    text: str

    @property
    def key(self) -> str:
        """The unit's place in the cache: a hash of all that shapes its code."""
        return hashlib.sha256(f"{target.digest()}\n{self.kind}\n{self.text}".encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Kernel:
    """A compiled unit. ``owner`` keeps the machine code alive; ``seconds`` and ``origin`` tell how it came."""

    name: str
    text: str
    address: int
    seconds: float
    origin: str
    owner: Any


counts: Counter[str] = Counter()
"""Units so far, by where they came from: "compiled", "disk", "memory"."""
_loaded: weakref.WeakValueDictionary[str, Kernel] = weakref.WeakValueDictionary()
_recent: OrderedDict[str, Kernel] = OrderedDict()
_known: set[str] = set()
_lock = threading.RLock()


def compile(units: Sequence[Unit]) -> list[Kernel]:
    """The compiled units, in order. Equal units are compiled once."""
    with _lock:
        keys = [unit.key for unit in units]
        found = {key: kernel for key in keys if (kernel := _loaded.get(key)) is not None}
        counts["memory"] += len(found)
        fresh = _obtain({k: u for k, u in zip(keys, units, strict=True) if k not in found})
        _loaded.update(fresh)
        found |= fresh
        _known.update(found)
        _remember(found)
        return [found[key] for key in keys]


def known() -> frozenset[str]:
    """Keys of the units that this process has asked for so far."""
    return frozenset(_known)


def _name(unit: Unit, key: str) -> str:
    return f"kernel_{key[:16]}" if unit.kind == "kernel" else unit.text


def _remember(kernels: dict[str, Kernel]) -> None:
    for key, kernel in kernels.items():
        _recent[key] = kernel
        _recent.move_to_end(key)
    while len(_recent) > KEPT:
        _recent.popitem(last=False)


def _obtain(wanted: dict[str, Unit]) -> dict[str, Kernel]:
    """Units from disk; then, taking turns with other processes, those that are still missing from the compilers."""
    if not wanted:
        return {}
    disk = store()
    fresh: dict[str, Kernel] = {}
    reasons = _from_disk(disk, wanted, fresh)
    if not reasons:
        return fresh
    with ExitStack() as stack:
        if disk is not None and disk.refusal is None:
            waited = time.perf_counter()
            with suppress(OSError):  # a folder that cannot be written to: `put` will say so
                stack.enter_context(disk.locked("build", _BUILD_LOCK_S))
            if time.perf_counter() - waited > 0.01:  # somebody else was compiling: perhaps the same
                reasons = _from_disk(disk, {k: wanted[k] for k in reasons}, fresh) or {}
        if reasons:
            _build(disk, {k: wanted[k] for k in reasons}, reasons, fresh)
    return fresh


def _from_disk(disk: Store | None, wanted: dict[str, Unit], fresh: dict[str, Kernel]) -> dict[str, str]:
    """Load what is on disk into ``fresh``; why each of the others is missing."""
    if disk is None:
        return dict.fromkeys(wanted, "the cache is off")
    reasons = {}
    for key, unit in wanted.items():
        start = time.perf_counter()
        found = disk.get(key, target.digest())
        if isinstance(found, Entry):
            kernel = _link(unit, key, found.meta.get("symbol", ""), found.code, start, "from disk")
            if kernel is not None:
                counts["disk"] += 1
                fresh[key] = kernel
                continue
            disk.drop(key)
        reasons[key] = "cannot be linked" if isinstance(found, Entry) else found.reason
    return reasons


def _build(
    disk: Store | None, wanted: dict[str, Unit], reasons: dict[str, str], fresh: dict[str, Kernel]
) -> None:
    units = sorted(wanted.items(), key=lambda item: item[1].kind, reverse=True)  # the walker takes longest
    pairs = [(unit.kind, unit.text) for _, unit in units]
    built: Sequence[Built | None] = [None] * len(units)
    with Progress(len(units)) as progress:
        if available():
            built = pool.build(pairs, cores(), progress)
        for i, ((key, unit), result) in enumerate(zip(units, built, strict=True)):
            start = time.perf_counter()
            result = result or _built_here(unit)
            kernel, origin = None, f"compiled, {reasons[key]}"
            if result is not None:
                kernel = _link(unit, key, result.symbol, result.code, start - result.seconds, origin)
            if kernel is None:  # Numba hides its object code, or it needs Numba beside it: the public way
                kernel = _numba_keeps(unit, key, origin)
            elif result is not None and disk is not None:
                disk.put(key, _meta(unit, result), result.code)
            counts["compiled"] += 1
            fresh[key] = kernel
            progress(i + 1)


def _built_here(unit: Unit) -> Built | None:
    """Object code compiled in this process, where no other could be started; None where Numba hides it."""
    from . import toolchain

    start = time.perf_counter()
    try:
        symbol, signature, code = toolchain.build(unit.kind, unit.text)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None
    return Built(symbol, signature, code, time.perf_counter() - start)


def _numba_keeps(unit: Unit, key: str, origin: str) -> Kernel:
    """Compiled and linked by Numba's public API, for this process alone and for good."""
    from . import toolchain

    start = time.perf_counter()
    native = toolchain.compile_unit(unit.kind, unit.text)
    seconds = time.perf_counter() - start
    return Kernel(_name(unit, key), unit.text, native.address or 0, seconds, origin, native)


def _link(unit: Unit, key: str, symbol: str, code: bytes, start: float, origin: str) -> Kernel | None:
    from . import loader

    try:
        linked = loader.load(symbol, code)
    except loader.LoadError:
        return None
    return Kernel(_name(unit, key), unit.text, linked.address, time.perf_counter() - start, origin, linked)


def _meta(unit: Unit, built: Built) -> dict[str, Any]:
    facts = target.facts()
    return {
        "toolchain": target.digest(),
        "kind": unit.kind,
        "symbol": built.symbol,
        "signature": built.signature,
        "seconds": round(built.seconds, 4),
        **{name: facts[name] for name in ("fastgrad", "numba", "llvmlite", "cpu")},
    }
