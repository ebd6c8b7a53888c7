"""`fastgrad calibrate`: measure this machine, keep the figures with the compiled code, print them."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..errors import FastgradError
from ..executor.calibration import calibrate
from .bad_input import BadInput


def add_parser(commands: Any) -> None:
    """Add `calibrate` to argparse's subcommands."""
    parser = commands.add_parser(
        "calibrate",
        help="measure peak rates, bandwidths and thread costs of this machine (under a second), and keep them",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--kept", action="store_true", help="print what was kept before, if anything, instead"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Measure (or with args.kept read) and print the rates; returns the exit code. BadInput: no clock to measure by."""
    try:
        rates = calibrate(again=not args.kept)
    except FastgradError as error:
        raise BadInput(error.message) from error
    print(json.dumps(rates.to_json()) if args.json else rates)
    return 0
