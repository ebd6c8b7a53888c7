"""Object code -> addresses, through llvmlite alone (LLVM's ORC linker, which unloads what nobody needs any more).

A linked object takes about 10 KB beside its code that only goes when the whole JIT goes, and a JIT about 170 KB: so some
objects share one, and it is closed with the last of them. Symbols that cannot be resolved are an error here, not an
abort as in MCJIT (docs/decisions.md, 19).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from llvmlite import binding

SHARED_BY = 64
"""Objects that one JIT links."""


class LoadError(Exception):
    """An object that cannot be linked into this process."""


class Code:
    """A linked function. Its memory is freed with this object: whoever calls ``address`` keeps it alive."""

    __slots__ = ("_jit", "_tracker", "address")

    def __init__(self, address: int, tracker: Any, jit: Any):
        self.address, self._tracker, self._jit = address, tracker, jit

    def __del__(self, _exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        if not _exiting():  # then all goes anyway, and in any order
            self._tracker.close()  # before the JIT that it belongs to


class _Linker:
    """The JIT that takes the next objects."""

    def __init__(self) -> None:
        self.jit: Any = None
        self.links = SHARED_BY

    def link(self, symbol: str, code: bytes) -> Code:
        try:
            if self.links >= SHARED_BY:
                self.jit, self.links = _new_jit(), 0
            self.links += 1
            library = binding.JITLibraryBuilder().add_object_img(code).add_current_process()
            tracker = library.export_symbol(symbol).link(self.jit, f"fastgrad{self.links}")
        except (AttributeError, RuntimeError, TypeError) as error:
            raise LoadError(str(error)) from None
        return Code(tracker[symbol], tracker, self.jit)


def _new_jit() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    return binding.create_lljit_compiler(machine, suppress_errors=True)


_linker = _Linker()


def load(symbol: str, code: bytes) -> Code:
    """Link one object; the address of its function ``symbol``. Callers take turns. Raises `LoadError`."""
    return _linker.link(symbol, code)
