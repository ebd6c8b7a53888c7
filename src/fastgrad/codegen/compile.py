"""Compile units -> addresses of machine code: from memory, from disk, or compiled now.

A unit is a kernel's text or a function of the run; nothing in it depends on sizes or addresses, so layers of equal
structure, other batch sizes, other models and other processes share it. What is missing goes to the compilers
(`workers`) in one batch; their object code is stored, then linked as it would be the next time.
"""

from __future__ import annotations

import hashlib
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..locks import Lock
from ..machine import cores
from . import target
from .store import Entry, Store, store

if TYPE_CHECKING:
    from .workers import Built

KEPT = 128
"""Kernels that stay loaded after the last program that uses them is gone; some 10 KB each."""
PATIENCE_S = 10.0
"""How long to wait for another process that is compiling too: it may be compiling the same. Where that was in vain (it is
stopped, or has much to do), this process does not wait again."""


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
    """A compiled unit, linked into this process. ``owner`` keeps the machine code alive."""

    name: str
    text: str
    address: int
    owner: Any


class Obtained(NamedTuple):
    """A kernel, and how a caller of `compile` came by it: in how many seconds, and from where."""

    kernel: Kernel
    seconds: float
    origin: str


counts: Counter[str] = Counter()
"""Units so far, by where they came from: "compiled", "disk", "memory"."""
_loaded: weakref.WeakValueDictionary[str, Kernel] = weakref.WeakValueDictionary()
_recent: OrderedDict[str, Kernel] = OrderedDict()
_lock = Lock()
_patience = [PATIENCE_S]
_building = [False]


def compile(units: Sequence[Unit]) -> list[Obtained]:
    """The compiled units, in order. Equal units are compiled once."""
    with _lock.current:
        keys = [unit.key for unit in units]
        found = {
            key: Obtained(kernel, 0.0, "in memory")
            for key in keys
            if (kernel := _loaded.get(key)) is not None
        }
        counts["memory"] += len(found)
        fresh = _obtain({k: u for k, u in zip(keys, units, strict=True) if k not in found})
        _loaded.update((key, it.kernel) for key, it in fresh.items())
        found |= fresh
        _remember(found)
        return [found[key] for key in keys]


def fetched() -> int:
    """How many units were not in memory when asked for: compiled, or read from disk."""
    return counts["compiled"] + counts["disk"]


def _name(unit: Unit, key: str) -> str:
    return f"kernel_{key[:16]}" if unit.kind == "kernel" else unit.text


def _remember(used: dict[str, Obtained]) -> None:
    for key, it in used.items():
        _recent[key] = it.kernel
        _recent.move_to_end(key)
    while len(_recent) > KEPT:
        _recent.popitem(last=False)


def _obtain(wanted: dict[str, Unit]) -> dict[str, Obtained]:
    """Units from disk; then, taking turns with other processes, those that are still missing from the compilers."""
    if not wanted:
        return {}
    disk = store()
    fresh: dict[str, Obtained] = {}
    reasons = _from_disk(disk, wanted, fresh)
    if not reasons:
        return fresh
    with _turn(disk) as waited:
        if waited and disk is not None:  # somebody else was compiling: perhaps the same
            still = _from_disk(disk, {k: wanted[k] for k in reasons}, fresh)
            reasons = {k: reasons[k] for k in still}
        if reasons:
            _build(disk, {k: wanted[k] for k in reasons}, reasons, fresh)
    return fresh


@contextmanager
def _turn(disk: Store | None) -> Iterator[bool]:
    """Compile while no other process of this folder does, within reason; whether one did.

    Within a turn of its own (a signal handler that calls a new function) a process does not wait for itself.
    """
    if disk is None or disk.refusal is not None or _building[0]:
        yield False
        return
    with ExitStack() as stack:
        taken, start = True, time.perf_counter()
        with suppress(OSError):  # a folder that cannot be written to: `put` will say so
            taken = stack.enter_context(disk.locked("build", _patience[0]))
        if not taken:
            _patience[0] = 0.0
        _building[0] = True
        try:
            yield time.perf_counter() - start > 0.01
        finally:
            _building[0] = False


def _from_disk(disk: Store | None, wanted: dict[str, Unit], fresh: dict[str, Obtained]) -> dict[str, str]:
    """Load what is on disk into ``fresh``; why each of the others is missing."""
    if disk is None:
        return dict.fromkeys(wanted, "the cache is off")
    reasons = {}
    for key, unit in wanted.items():
        start = time.perf_counter()
        found = disk.get(key, target.digest())
        if isinstance(found, Entry):
            kernel = _link(unit, key, found.meta.get("symbol", ""), found.code)
            if kernel is not None:
                counts["disk"] += 1
                fresh[key] = Obtained(kernel, time.perf_counter() - start, "from disk")
                continue
            disk.drop(key)
        reasons[key] = "cannot be linked" if isinstance(found, Entry) else found.reason
    return reasons


def _build(
    disk: Store | None, wanted: dict[str, Unit], reasons: dict[str, str], fresh: dict[str, Obtained]
) -> None:
    from . import workers  # with what starts processes, where something has to be compiled
    from .progress import Progress

    units = sorted(wanted.items(), key=lambda item: item[1].kind, reverse=True)  # the walker takes longest
    pairs = [(unit.kind, unit.text) for _, unit in units]
    built: Sequence[workers.Built | None] = [None] * len(units)
    with Progress(len(units)) as progress:
        if workers.available():
            built = workers.pool.build(pairs, cores(), progress)
        for i, ((key, unit), outside) in enumerate(zip(units, built, strict=True)):
            start = time.perf_counter()
            result = outside or _built_here(unit)
            kernel = _link(unit, key, result.symbol, result.code) if result is not None else None
            if kernel is None:  # Numba hides its object code, or it needs Numba beside it: the public way
                kernel = _numba_keeps(unit, key)
            elif result is not None and disk is not None and (outside or target.unchanged()):
                disk.put(key, _meta(unit, result), result.code)
            seconds = time.perf_counter() - start + (result.seconds if result is not None else 0.0)
            counts["compiled"] += 1
            fresh[key] = Obtained(kernel, seconds, f"compiled, {reasons[key]}")
            progress(i + 1)


def _built_here(unit: Unit) -> Built | None:
    """Object code compiled in this process, where no other could be started; None where Numba hides it."""
    from . import toolchain, workers

    start = time.perf_counter()
    try:
        symbol, signature, code = toolchain.build(unit.kind, unit.text)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None
    return workers.Built(symbol, signature, code, time.perf_counter() - start)


def _numba_keeps(unit: Unit, key: str) -> Kernel:
    """Compiled and linked by Numba's public API, for this process alone and for good."""
    from . import toolchain

    native = toolchain.compile_unit(unit.kind, unit.text)
    return Kernel(_name(unit, key), unit.text, native.address or 0, native)


def _link(unit: Unit, key: str, symbol: str, code: bytes) -> Kernel | None:
    from . import loader

    try:
        linked = loader.load(symbol, code)
    except loader.LoadError:
        return None
    return Kernel(_name(unit, key), unit.text, linked.address, linked)


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
