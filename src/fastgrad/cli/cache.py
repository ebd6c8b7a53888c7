"""`fastgrad cache`: look at, check and empty the folder of compiled code."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..codegen.store import Entry, Store, default_folder, limit_bytes
from .bad_input import BadInput


def add_parser(commands: Any) -> None:
    """Add `cache` to argparse's subcommands."""
    parser = commands.add_parser(
        "cache", help="look at, check or empty the folder of compiled code", allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "action",
        choices=("info", "verify", "clear"),
        help="info: what is there; verify: read and check every file; clear: delete it all",
    )
    add("--dir", type=Path, metavar="DIR", help="default: FASTGRAD_CACHE_DIR, or the user's cache folder")
    add("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Do args.action; exit code 1 where `verify` finds a damaged file. BadInput: a folder that cannot be used."""
    folder = args.dir or default_folder()
    if folder is None:
        raise BadInput("the cache is off (FASTGRAD_CACHE_DIR=off)")
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"not a folder: {folder}")
    store = Store(folder.absolute())
    try:
        report = {"info": _info, "verify": _verify, "clear": _clear}[args.action](store)
    except OSError as error:
        raise BadInput(f"{folder}: {error.strerror or error}") from error
    if args.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name.replace('_', ' '):12} {_show(value)}")
    return 1 if report.get("damaged") else 0


def _info(store: Store) -> dict[str, Any]:
    files, refusal = store.files(), store.refusal
    kinds: Counter[str] = Counter()
    for path, _ in files:
        found = store.look(path)
        if found is not None:
            kinds[_origin(found) if isinstance(found, Entry) else "damaged"] += 1
    return {
        "folder": str(store.folder),
        "used": "yes" if refusal is None else "no: " + refusal,
        "entries": len(files),
        "bytes": sum(stat.st_size for _, stat in files),
        "bound": limit_bytes(),
        "toolchains": dict(kinds.most_common()),
    }


def _origin(entry: Entry) -> str:
    names = ("fastgrad", "numba", "llvmlite")
    return ", ".join([*(f"{n} {entry.meta.get(n)}" for n in names), str(entry.meta.get("cpu"))])


def _verify(store: Store) -> dict[str, Any]:
    faults = store.verify()
    return {"folder": str(store.folder), "entries": len(store.files()), "damaged": faults}


def _clear(store: Store) -> dict[str, Any]:
    entries, size = store.clear()
    return {"folder": str(store.folder), "deleted": entries, "bytes": size}


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "none" if not value else "".join(f"\n  {k}: {v}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
