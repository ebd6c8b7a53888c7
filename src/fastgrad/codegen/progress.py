"""One line on the terminal while compiling takes more than a second."""

from __future__ import annotations

import contextlib
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
        """So many are done. Nothing that is wrong with the terminal may stop the work."""
        with contextlib.suppress(Exception):
            self._show(done)

    def _show(self, done: int) -> None:
        text = f"fastgrad: compiling {self.total} kernels, {done} done"
        if self._status is not None:
            self._status.update(text)
        elif time.perf_counter() - self._start > AFTER_S and _somebody_looks():
            self._status = _NotebookLine() if _in_notebook() else _terminal_line()
            self._status.start()
            self._status.update(text)

    def __exit__(self, *_: Any) -> None:
        if self._status is not None:
            with contextlib.suppress(Exception):
                self._status.stop()


class _NotebookLine:
    """One output that is overwritten, as plain text: rich wants widgets for that, and complains where there are none."""

    def start(self) -> None:
        from IPython.display import display

        self._handle = display({"text/plain": ""}, raw=True, display_id=True)

    def update(self, text: str) -> None:
        self._handle.update({"text/plain": text}, raw=True)

    def stop(self) -> None:
        self.update("")


def _terminal_line() -> Any:
    from rich.console import Console

    return Console(stderr=True).status("")


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules


def _somebody_looks() -> bool:
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())
