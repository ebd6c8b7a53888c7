"""This machine's measured rates, kept with the compiled code: a file beside it, found and checked in the same way.

Who only wants to know asks `rates`: it reads one small file at most, and guesses where nothing was measured. Nothing here
measures (`executor.calibration` does).
"""

from __future__ import annotations

import hashlib
import json

from .. import machine
from ..machine import Rates, shipped
from . import target
from .store import Entry, store

FORMAT = 1
_known: dict[str, Rates | None] = {}


def vector_bytes() -> int:
    """Bytes of the vectors that kernels are compiled for here."""
    features = target.cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


def rates() -> Rates:
    """What this machine can do: as measured, or where it has not been, as guessed from its vector width."""
    return measured() or shipped(vector_bytes())


def reliable() -> Rates:
    """What to choose by: as measured if nobody else had the machine's cores then, or as shipped."""
    found = measured()
    return found if found is not None and found.steady else shipped(vector_bytes())


def measured() -> Rates | None:
    """The measured rates from memory or disk; None where there are none, or none that can be believed."""
    key = _key()
    if key not in _known:
        _known[key] = _from_disk(key)
    return _known[key]


def keep(found: Rates) -> None:
    """Keep measured rates for this process and, where they are steady and the cache can be written to, the next ones."""
    key, disk = _key(), store() if found.steady else None
    _known[key] = found
    if disk is not None:
        facts = target.facts()
        meta = {
            "toolchain": target.digest(), "kind": "rates",
            **{name: facts[name] for name in ("fastgrad", "numba", "llvmlite", "cpu")},
        }  # fmt: skip
        disk.put(key, meta, json.dumps(found.to_json()).encode())


def _from_disk(key: str) -> Rates | None:
    disk = store()
    found = disk.get(key, target.digest()) if disk is not None else None
    if disk is None or not isinstance(found, Entry):
        return None
    try:
        return machine.from_json(json.loads(found.code))
    except (KeyError, TypeError, ValueError):
        disk.drop(key)
        return None


def _key() -> str:
    """All that the figures depend on: the processor, its caches, how many threads may run, the tools."""
    cpu = machine.cpu()
    facts = ("rates", FORMAT, target.digest(), cpu, machine.cores(), machine.available_threads())
    return hashlib.sha256(repr(facts).encode()).hexdigest()
