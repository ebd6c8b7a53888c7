"""Errors that name the op, what it got, the user's line, and what to try.

Rules raise them without a place; the builder that was asked to emit the equation adds the user's ``file:line``,
so a rule never looks at frames itself.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_PROGRAMS = tuple(_PACKAGE + name + os.sep for name in ("bench", "cli"))
"""Of the package, but users of it."""


class FastgradError(Exception):
    """Base of every error that fastgrad raises on purpose.

    ``message`` is one line; ``at`` the user's ``file:line`` (added while tracing); ``hint`` what to try instead.
    """

    def __init__(self, message: str, *, hint: str | None = None, at: str | None = None):
        super().__init__(message)
        self.message, self.hint, self.at = message, hint, at

    def __str__(self) -> str:
        place = "  ".join(
            part for part in (self.at and f"at {self.at}", self.hint and f"try: {self.hint}") if part
        )
        return f"{self.message}\n  {place}" if place else self.message


class ShapeError(FastgradError, ValueError):
    """Shapes that do not fit an op."""


class DTypeError(FastgradError, TypeError):
    """A dtype that an op, or fastgrad, does not take."""


class TraceError(FastgradError, TypeError):
    """Python code that cannot be traced: a branch on a traced value, ``float()`` of one, a leaked tracer."""


class UnsupportedError(FastgradError, NotImplementedError, TypeError):
    """A NumPy function or argument that fastgrad has no op for."""


class ArgumentError(FastgradError, ValueError):
    """An argument of a fastgrad function that has no meaning: a negative learning rate, an unknown backend."""


class OutOfBoundsError(FastgradError, IndexError):
    """An index or a label outside its axis, found before anything is updated."""


class CheckError(FastgradError, AssertionError):
    """A derivative or a batched function that `fastgrad.testing` found wrong."""


class CompileError(FastgradError, RuntimeError):
    """A kernel on which the compiler itself died, and died again in a fresh process."""


class GraphError(FastgradError, AssertionError):
    """A stage broke an invariant of the graph: a bug in fastgrad, never in the user's code."""


@lru_cache(maxsize=1024)
def _users(filename: str) -> str | None:
    """The name of a file that belongs to the user; None for ours and NumPy's."""
    if filename.startswith(_PROGRAMS):
        return os.path.basename(filename)
    internal = filename.startswith((_PACKAGE, "<__array", "<frozen")) or f"{os.sep}numpy{os.sep}" in filename
    return None if internal else os.path.basename(filename)


def user_line() -> str:
    """``file:line`` of the innermost frame outside fastgrad (and outside NumPy's dispatch), or ``"<unknown>"``."""
    frame = sys._getframe(1)
    while frame is not None:
        name = _users(frame.f_code.co_filename)
        if name is not None:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "<unknown>"
