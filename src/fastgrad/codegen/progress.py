"""One line on the terminal while compiling takes more than a second."""

from __future__ import annotations

import sys
import time
from typing import Any

AFTER_S = 1.0


class Progress:
    """``progress(done)``, now and then; shown on a terminal or in a notebook alone, and gone when all is done."""

    def __init__(self, total: int):
        self.total = total
        self._start = time.perf_counter()
        self._status: Any = None

    def __enter__(self) -> Progress:
        return self

    def __call__(self, done: int) -> None:
        text = f"fastgrad: compiling {self.total} kernels, {done} done"
        if self._status is not None:
            self._status.update(text)
        elif time.perf_counter() - self._start > AFTER_S and _somebody_looks():
            from rich.console import Console

            self._status = Console(stderr=True).status(text)
            self._status.start()

    def __exit__(self, *_: Any) -> None:
        if self._status is not None:
            self._status.stop()


def _somebody_looks() -> bool:
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
