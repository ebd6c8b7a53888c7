"""What compiled code depends on beside its own text: the processor, the tools' versions, our code generators.

`digest` hashes all of it. It is part of every key in the cache, so code from another machine, another Numba or another
fastgrad is never even looked at. Numba itself is not imported: its version is read from its files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..version import __version__

PACKAGE = Path(__file__).resolve().parents[1]
GENERATORS = (
    "codegen/abi.py",
    "codegen/aside.py",
    "codegen/toolchain.py",
    "codegen/walker.py",
    "codegen/simd/*.py",
    "codegen/target.py",
    "core/aval.py",
    "core/bfloat16.py",
    "core/counter.py",
    "core/error_function.py",
    "core/expr.py",
    "core/quantile.py",
    "version.py",
)
"""Our files whose text shapes machine code (globs below the package); a test finds what is missing here."""
_HARMLESS = ("NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_CACHE_DIR")
"""Numba's environment variables that compiled code does not depend on, by their beginning."""
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18
"""On x86-64: the system call, ARCH_REQ_XCOMP_PERM, the number of AMX's tile data among the processor's extended states."""
_CONFIG = Path(".numba_config.yaml")
"""What Numba reads of the folder that it is imported in."""


@cache
def cpu() -> tuple[str, str]:
    """Name and feature flags, as LLVM writes them, of the processor that Numba compiles for here."""
    from llvmlite import binding

    name, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        try:
            features = "" if name else binding.get_host_cpu_features().flatten()
        except RuntimeError:  # LLVM does not know this host's features: the portable width serves
            features = ""
    return name or binding.get_host_cpu_name(), features


@cache
def cpu_features() -> dict[str, bool]:
    """The feature flags one by one, e.g. ``{"avx2": True, ...}``."""
    return {flag[1:]: flag[0] == "+" for flag in cpu()[1].split(",") if flag}


@cache
def amx() -> bool:
    """Whether this process may use the tile registers of Intel's AMX for bfloat16; the first call asks Linux for them.

    Linux gives them to processes that ask (``arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)``: Linux's documentation, "Using
    XSTATE features in user space applications"): a thread's state grows by 8 KB when it first touches one. Threads and
    forked children inherit the answer.
    """
    features = cpu_features()
    if not (features.get("amx-bf16") and features.get("amx-tile") and sys.platform == "linux"):
        return False
    import ctypes

    try:
        return ctypes.CDLL(None, use_errno=True).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA) == 0
    except (AttributeError, OSError):
        return False


@cache
def facts() -> dict[str, Any]:
    """Everything that `digest` hashes, readable: it stands in reports and beside the cached code."""
    from llvmlite import __version__ as llvmlite_version

    name, features = cpu()
    if _text(_CONFIG):
        _started_in()
    return {
        "fastgrad": __version__,
        "numba": numba_version(),
        "llvmlite": llvmlite_version,
        "python": [sys.implementation.cache_tag, getattr(sys, "abiflags", ""), bytes.__basicsize__],
        "numpy": np.__version__.partition(".")[0],  # the entry knows how its arrays are laid out
        "platform": sys.platform,
        "cpu": name,
        "features": features,
        "generators": _generators(),
        "options": _options(),
        "config": _text(_CONFIG),
    }


@cache
def digest() -> str:
    """One hash over `facts`."""
    return hashlib.sha256(json.dumps(facts(), sort_keys=True).encode()).hexdigest()


def numba_version() -> str:
    """Numba's version without an import of it; `ModuleNotFoundError` where there is no Numba."""
    spec = importlib.util.find_spec("numba")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("fastgrad needs Numba to compile: pip install numba")
    text = _text(Path(spec.origin).with_name("_version.py"))  # importlib.metadata takes ten times as long
    found = text.partition('"version": "')[2].partition('"')[0]
    if not found:
        from importlib.metadata import version

        found = version("numba")
    return found


def unchanged() -> bool:
    """Whether what Numba would read of its surroundings now is what the digest saw."""
    seen = facts()
    return seen["options"] == _options() and seen["config"] == _text(_CONFIG)


def environment() -> dict[str, str]:
    """The environment for a compiler process: today's, with Numba's variables as the digest saw them."""
    return {k: v for k, v in os.environ.items() if not _shapes_code(k)} | facts()["options"]


def folder() -> str:
    """Where a compiler process starts: where the digest saw Numba's configuration file, or where there is none."""
    return _started_in() if facts()["config"] else str(PACKAGE)


@cache
def _started_in() -> str:
    return os.getcwd()


def _options() -> dict[str, str]:
    return {k: v for k, v in sorted(os.environ.items()) if _shapes_code(k)}


def _shapes_code(variable: str) -> bool:
    return variable.startswith("NUMBA_") and not variable.startswith(_HARMLESS)


def _generators() -> str:
    it = hashlib.sha256()
    for path in sorted(path for pattern in GENERATORS for path in PACKAGE.glob(pattern)):
        it.update(path.name.encode() + path.read_bytes())
    return it.hexdigest()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
