"""`fastgrad explain`: print any stage of a function of the user's, for arguments given as short types."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import fastgrad as fg

from ..errors import FastgradError
from ..inspection import STAGES
from .bad_input import BadInput

_DTYPES = {"bool": "bool", "f32": "float32", "f64": "float64"} | {
    f"{kind}{bits}": f"{'u' * (kind == 'u')}int{bits}" for kind in "iu" for bits in (8, 16, 32, 64)
}
_AVAL = re.compile(r"(\w+)(?:\[(.*)\])?")


def add_parser(commands: Any) -> None:
    """Add `explain` to argparse's subcommands."""
    parser = commands.add_parser(
        "explain", help="print a stage of the pipeline for a function", allow_abbrev=False
    )
    add = parser.add_argument
    add("target", metavar="TARGET", help="module:function or path/to/file.py:function")
    add("--stage", choices=STAGES, default="trace", help="default: %(default)s")
    add(
        "--shape",
        nargs="+",
        default=[],
        metavar="TYPE",
        help="one short type an argument: 'f32[32,64] f32[64,10]'",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Explain args.target for zeros of args.shape; returns the exit code. BadInput: a target or type that is none."""
    arrays = [zeros(short) for text in args.shape for short in text.split()]
    function = find_function(args.target)
    _check_arguments(args.target, function, arrays)
    try:
        print(fg.explain(function, *arrays, stage=args.stage))
    except FastgradError as error:
        raise BadInput(f"{type(error).__name__}: {error}".replace("\n ", "")) from error
    return 0


def zeros(short: str) -> np.ndarray:
    """A zero array of a short type; `f32` alone is 0-d. BadInput: an unknown dtype or a size that is none.

    >>> zeros("f32[2,3]").shape
    (2, 3)
    """
    match = _AVAL.fullmatch(short)
    if match is None or match[1] not in _DTYPES:
        raise BadInput(f"{short!r} is no type such as f32[32,64]; dtypes: {', '.join(_DTYPES)}")
    sizes = match[2].split(",") if match[2] else []
    if not all(re.fullmatch(r"[0-9]+", size) for size in sizes):
        raise BadInput(f"{short!r}: sizes must be integers of at least 0 with commas between them")
    try:
        return np.zeros([int(size) for size in sizes], _DTYPES[match[1]])
    except (ValueError, MemoryError) as error:
        raise BadInput(f"{short!r}: {error}") from error


def find_function(target: str) -> Callable[..., Any]:
    """Import the function that `module:function` or `file.py:function` names. BadInput: there is none."""
    place, colon, name = target.rpartition(":")
    if not (place and colon and name):
        raise BadInput(f"target must be module:function or file.py:function, got {target!r}")
    module = _load_file(Path(place)) if place.endswith(".py") else _import(place)
    function = getattr(module, name, None)
    if not callable(function):
        reason = "is not callable" if hasattr(module, name) else "not found"
        raise BadInput(f"{name!r} {reason} in {place}")
    return function


def _import(name: str) -> ModuleType:
    here = os.getcwd()
    sys.path.insert(0, here)  # as `python -m` does; a console script does not
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise BadInput(f"cannot import {name}: {_one_line(error)}") from error
    finally:
        sys.path.remove(here)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadInput(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # a path that ends in .py always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # as `python file.py` does
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise BadInput(f"cannot run {path}: {_one_line(error)}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _check_arguments(target: str, function: Callable[..., Any], arrays: Sequence[np.ndarray]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a callable written in C
        return
    try:
        signature.bind(*arrays)
    except TypeError as error:
        raise BadInput(
            f"{target}{signature} does not fit {len(arrays)} arguments from --shape: {error}"
        ) from error


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
