"""Kernel text -> address of machine code. The same text is compiled once a process.

Numba compiles the text as a C function ``int64 kernel(int64 desc, int64 lo, int64 hi)``; nothing in it depends on sizes
or addresses, so layers of equal structure, other batch sizes and other models share it.
"""

from __future__ import annotations

import builtins
import hashlib
import linecache
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numba import cfunc, types

from .simd import gemm, intrinsics

SIGNATURE = types.int64(types.int64, types.int64, types.int64)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A compiled text. ``owner`` keeps the machine code alive."""

    name: str
    text: str
    address: int
    seconds: float
    owner: Any


_kernels: dict[str, Kernel] = {}
_lock = threading.RLock()


def compile(text: str) -> Kernel:
    """The compiled kernel of ``text``, from this process's cache where it was compiled before."""
    with _lock:
        if text not in _kernels:
            start = time.perf_counter()
            function = define(text, jit=True)
            native = cfunc(SIGNATURE, error_model="numpy")(function)
            _kernels[text] = Kernel(
                function.__name__, text, native.address or 0, time.perf_counter() - start, native
            )
        return _kernels[text]


def known() -> set[str]:
    """The texts that this process has compiled so far."""
    return set(_kernels)


def define(text: str, *, jit: bool) -> Callable[[int, int, int], int]:
    """The Python function of a kernel's text; with ``jit=False`` it runs as it is, on the twins of the intrinsics."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    filename = f"<fastgrad kernel {digest}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    names = dict(gemm.namespace(jit)) | (intrinsics.jit_namespace() if jit else intrinsics.python_namespace())
    names["__name__"] = __name__
    exec(builtins.compile(text, filename, "exec"), names)
    function = names["kernel"]
    function.__name__ = function.__qualname__ = f"kernel_{digest}"
    return function
