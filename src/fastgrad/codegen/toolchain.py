"""Compile unit -> object code, by Numba. The one file that a process with a full cache never imports.

A unit is either a kernel's text, compiled as the C function ``int64 kernel(int64 desc, int64 lo, int64 hi)``, or the name of
a function of `walker`. Nothing in either depends on sizes or addresses.
"""

from __future__ import annotations

import builtins
import hashlib
import linecache
from collections.abc import Callable
from typing import Any, NamedTuple

from numba import cfunc, types

from . import walker
from .simd import intrinsics, twins

SIGNATURE = types.int64(types.int64, types.int64, types.int64)


class Object(NamedTuple):
    """Relocatable machine code, the symbol to look up in it, its C signature."""

    symbol: str
    signature: str
    code: bytes


def compile_unit(kind: str, text: str) -> Any:
    """Numba's C function of a unit: linked into this process for good, at ``.address``."""
    function, signature = (define(text, jit=True), SIGNATURE) if kind == "kernel" else walker.FUNCTIONS[text]
    return cfunc(signature, error_model="numpy")(function)


def build(kind: str, text: str) -> Object:
    """The object code of a unit. It is Numba's private knowledge: `AttributeError` and kin where a release hides it."""
    native = compile_unit(kind, text)
    code = bytes(native._library._get_compiled_object())
    return Object(native.native_name, str(native._sig), code)


def define(text: str, *, jit: bool) -> Callable[[int, int, int], int]:
    """The Python function of a kernel's text; with ``jit=False`` it runs as it is, on the twins of the intrinsics."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    filename = f"<fastgrad kernel {digest}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    names = dict(twins.namespace(jit)) | (
        intrinsics.jit_namespace() if jit else intrinsics.python_namespace()
    )
    names |= intrinsics.accesses(text, jit)
    names["__name__"] = __name__
    exec(builtins.compile(text, filename, "exec"), names)
    function = names["kernel"]
    function.__name__ = function.__qualname__ = f"kernel_{digest}"
    return function
