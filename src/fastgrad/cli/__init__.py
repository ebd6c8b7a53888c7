"""The command line: `fastgrad train`, `fastgrad explain`, `fastgrad bench`, `fastgrad calibrate` and `fastgrad cache`.

Every bad argument, file or shape is one line on stderr and exit code 2, before anything runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import bench, cache, calibrate, explain, train
from .bad_input import BadInput

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: `sys.argv[1:]`) and return its exit code.

    0: done; 2: bad input, told in one line on stderr; 130: stopped by Ctrl-C; 141: whoever read the output, as in
    ``fastgrad explain ... | head``, has read enough.

    >>> main(["train", "--epochs", "2", "--json"])                       # doctest: +SKIP
    0
    """
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # What is left in the buffer has nowhere to go; Python would try once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse: --help, or an error already printed
        return stop.code if isinstance(stop.code, int) else 2
    try:
        return args.command(args)
    except BadInput as error:
        print(f"fastgrad {args.name}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fastgrad {args.name}: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """Errors on one line, without the usage in front of them."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastgrad", description="Autodiff compiler for CPUs.", allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="name")
    train.add_parser(commands)
    explain.add_parser(commands)
    bench.add_parser(commands)
    calibrate.add_parser(commands)
    cache.add_parser(commands)
    return parser
