"""The command line's one error, and the argument types that argparse reports by themselves."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError


class BadInput(Exception):
    """What the user gave cannot be used; the message is one line that says why."""


def positive_int(text: str) -> int:
    """An integer of at least 1, for argparse's `type=`."""
    return _int_from(text, 1)


def non_negative_int(text: str) -> int:
    """An integer of at least 0, for argparse's `type=`."""
    return _int_from(text, 0)


def positive_float(text: str) -> float:
    """A finite number above 0, for argparse's `type=`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ArgumentTypeError(f"must be a finite number above 0, got {text!r}")
    return value


def positive_ints(text: str) -> tuple[int, ...]:
    """Integers of at least 1 with commas between them, such as `128,64`, for argparse's `type=`."""
    try:
        return tuple(_int_from(part, 1) for part in text.split(","))
    except ArgumentTypeError:
        raise ArgumentTypeError(f"must be positive integers such as 128,64, got {text!r}") from None


def _int_from(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise ArgumentTypeError(f"must be an integer of at least {least}, got {text!r}")
    return value
