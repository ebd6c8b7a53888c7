"""What a run found, on disk: a file of JSON lines, the first of which says where and how; then one row a cell."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .campaign import Cell, Plan
from .contestant import CONTESTANTS
from .quiet import machine, version

FOLDER, FILE = "results", "rows.jsonl"
Row = dict[str, Any]


class Unusable(Exception):
    """A file of results that cannot be continued; the message is one line."""


def header(plan: Plan, command: str, busy: str | None, missing: dict[str, str]) -> dict[str, Any]:
    """Machine, versions and plan. ``busy``: why the machine was not quiet; ``missing``: who does not take part, and why."""
    packages = dict.fromkeys(
        ["numpy", "numba", "llvmlite", *(CONTESTANTS[n].package for n in plan.contestants)]
    )
    return {
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": command,
        "machine": machine(),
        "versions": {"Python": platform.python_version()} | {name: version(name) for name in packages},
        "busy": busy,
        "missing": missing,
        "plan": json.loads(json.dumps(asdict(plan))),  # tuples as they will be read back
    }


def cell_of(row: Row) -> Cell:
    """Where a row belongs."""
    return Cell(row["model"], row["dtype"], row["threads"])


class Store:
    """The lines of one run, kept in memory and, where ``folder`` is given, on disk after each row."""

    def __init__(self, folder: Path | None, head: dict[str, Any]):
        self.header, self.rows = head, list[Row]()
        self._path = None if folder is None else folder / FILE

    def begin(self) -> None:
        """Start the file anew, with the header alone."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(_line(self.header), encoding="utf-8")

    def resume(self) -> None:
        """Read rows of an earlier run of the same plan on the same machine and versions; begin where there is no file.

        A last line that was cut off is dropped. Raises `Unusable`.
        """
        if self._path is None or not self._path.exists():
            return self.begin()
        found = read(self._path)
        for key in ("machine", "versions", "plan"):
            if found.header[key] != self.header[key]:
                raise Unusable(f"{self._path} was made with another {key}: start without --resume")
        self.header = found.header | {"busy": found.header["busy"] or self.header["busy"]}
        self.rows = found.rows
        text = "".join(map(_line, [self.header, *self.rows]))
        self._path.write_text(text, encoding="utf-8")
        return None

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.rows.append(row)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(row))


def read(path: Path) -> Store:
    """The store in a file. Raises `Unusable`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    parsed = [_parsed(line, last=line is lines[-1]) for line in lines]
    head, *rows = [line for line in parsed if line is not None] or [None]
    if not isinstance(head, dict) or "plan" not in head or not all("results" in row for row in rows):
        raise Unusable(f"{path} holds no results of fastgrad bench: start without --resume")
    store = Store(None, head)
    store.rows = rows
    return store


def _parsed(line: str, last: bool) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None if last else {}  # the last one may have been cut off


def _line(value: Any) -> str:
    return json.dumps(value) + "\n"


def in_order(rows: Sequence[Row], plan: dict[str, Any]) -> list[Row]:
    """Rows in the plan's order of models, dtypes and threads."""
    return sorted(
        rows,
        key=lambda row: (
            plan["models"].index(row["model"]),
            plan["dtypes"].index(row["dtype"]),
            plan["threads"].index(row["threads"]),
        ),
    )
