"""`fastgrad bench`: fastgrad beside its interpreter and beside whichever peers are installed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table

import fastgrad as fg

from ..bench import charts, report
from ..bench.behind import MEASURES, OURS, number
from ..bench.campaign import Disagreement, Measurement, Plan, touch
from ..bench.contestant import CONTESTANTS
from ..bench.models import MODELS
from ..bench.process import LIMIT_S
from ..bench.quiet import QUIET_OTHERS, busy_reason, cores
from ..bench.store import FOLDER, Row, Store, Unusable, cell_of, header
from ..bench.with_fastgrad import profiled
from .bad_input import BadInput, positive_float, positive_int

DTYPES = ("float32", "float64")
PROFILES = "profiles"
"""The folder below ``--out`` that timelines go to."""
DEFAULT = {
    "models": ("mlp-64-32-10", "mlp-784-512-512-10"),
    "dtypes": ("float32",),
    "rounds": 5,
    "seconds": 0.15,
}
QUICK = {"models": ("mlp-64-32-10",), "dtypes": ("float32",), "rounds": 3, "seconds": 0.05, "warms": 1}
FULL = {"models": tuple(MODELS), "dtypes": DTYPES, "rounds": 5, "seconds": 0.25, "warms": 3}


def add_parser(commands: Any) -> None:
    """Add `bench` to argparse's subcommands."""
    parser = commands.add_parser(
        "bench", help="measure training steps beside the peers that are installed", allow_abbrev=False
    )
    add = parser.add_argument
    add("--models", nargs="+", choices=list(MODELS), metavar="NAME", help=f"of {', '.join(MODELS)}")
    add(
        "--contestants",
        nargs="+",
        choices=list(CONTESTANTS),
        metavar="NAME",
        help=f"of {', '.join(CONTESTANTS)}",
    )
    add("--dtypes", nargs="+", choices=DTYPES, metavar="DTYPE", help="float32, float64 or both")
    add("--threads", nargs="+", type=positive_int, metavar="N", help="thread counts (default: all cores)")
    add("--rounds", type=positive_int, metavar="N", help="rounds of each contestant")
    add("--seconds", type=positive_float, metavar="X", help="length of a round")
    add(
        "--limit",
        type=positive_float,
        default=LIMIT_S,
        metavar="X",
        help="seconds until one counts as timed out",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one small model, short rounds")
    size.add_argument("--full", action="store_true", help="every model, both dtypes, 1 and 2 threads")
    add("--out", metavar="DIR", help="write RESULTS.md, charts and raw figures there")
    add("--resume", action="store_true", help="continue the run in --out that was interrupted")
    add(
        "--profile",
        action="store_true",
        help="show where the time of fastgrad's step goes, kernel by kernel; with --out write timelines too",
    )
    add("--json", action="store_true", help="end stdout with one JSON object; all else goes to stderr")
    add("--force", action="store_true", help="measure on a busy machine too, and say so in the results")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Measure and report as `args` say; returns the exit code. BadInput: a plan that cannot be carried out."""
    contestants, missing = _contestants(args.contestants)
    plan = _plan(args, contestants)
    out = None if args.out is None else _writable(Path(args.out))
    if args.resume and out is None:
        raise BadInput("--resume continues a run in --out DIR, which is missing")
    busy = busy_reason()
    if busy and not args.force:
        raise BadInput(f"the machine is busy: {busy}; wait, or measure all the same with --force")
    store = Store(None if out is None else out / FOLDER, header(plan, _command(args), busy, missing))
    try:
        store.resume() if args.resume else store.begin()
    except Unusable as error:
        raise BadInput(str(error)) from error
    console = Console(stderr=args.json, highlight=False)
    _announce(console, store, plan)
    try:
        _measure(console, plan, store)
    except Disagreement as error:
        print(f"fastgrad bench: {error}", file=sys.stderr)
        return 1
    _finish(console, store, out)
    if args.profile:
        _profile(console, plan, out)
    if args.json:
        print(json.dumps(store.header | {"rows": store.rows}), flush=True)
    return 0


def _contestants(names: list[str] | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """Who takes part, and why others do not. BadInput: one that was asked for is missing."""
    missing = {}
    for name, entry in CONTESTANTS.items():
        if entry.package != "fastgrad" and importlib.util.find_spec(entry.package) is None:
            missing[name] = f"{entry.package} is not installed"
    if not hasattr(fg, "Tensor"):
        missing["tensor"] = "this fastgrad has no fg.Tensor"
    wanted = list(dict.fromkeys(names or CONTESTANTS))
    if names is not None:
        for name in wanted:
            if name in missing:
                raise BadInput(f"{name} cannot take part: {missing[name]}")
        missing = {}
    return tuple(name for name in CONTESTANTS if name in wanted and name not in missing), missing


def _plan(args: argparse.Namespace, contestants: tuple[str, ...]) -> Plan:
    chosen: dict[str, Any] = dict(QUICK if args.quick else FULL if args.full else DEFAULT)
    chosen["threads"] = tuple(sorted({1, min(2, cores())})) if args.full else (cores(),)
    for name in ("models", "dtypes", "threads"):
        if getattr(args, name) is not None:
            chosen[name] = tuple(dict.fromkeys(getattr(args, name)))
    for name in ("rounds", "seconds"):
        if getattr(args, name) is not None:
            chosen[name] = getattr(args, name)
    if max(chosen["threads"]) > cores():
        raise BadInput(f"--threads {max(chosen['threads'])}: this process may use {cores()} cores")
    return Plan(contestants=contestants, limit_s=args.limit, **chosen)


def _writable(out: Path) -> Path:
    """The directory, made with its folder of results if need be. BadInput: it cannot be written to."""
    try:
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {out}: {error.strerror}") from error
    for path in (out, out / FOLDER):
        if not os.access(path, os.W_OK):
            raise BadInput(f"--out {out}: {path} is not writable")
    return out


def _command(args: argparse.Namespace) -> str:
    """The command line that the plan came from, as a reader would type it."""
    parts = ["fastgrad bench"]
    for name, value in vars(args).items():
        if (
            name in ("name", "command", "resume", "json")
            or value in (None, False)
            or (name, value) == ("limit", LIMIT_S)
        ):
            continue
        words = value if isinstance(value, list) else [] if value is True else [value]
        parts.append(" ".join([f"--{name}", *map(str, words)]))
    return " ".join(parts)


# -- progress and the table at the end ---------------------------------------------------------------------------------


def _announce(console: Console, store: Store, plan: Plan) -> None:
    head = store.header
    console.print(head["machine"], soft_wrap=True)
    console.print(", ".join(f"{n} {v}" for n, v in head["versions"].items() if v), soft_wrap=True)
    for name, why in head["missing"].items():
        console.print(f"{CONTESTANTS[name].title} does not take part: {why}", soft_wrap=True)
    if head["busy"]:
        console.print(f"[bold]not quiet: {head['busy']}; figures are only indicative[/bold]", soft_wrap=True)
    done = {cell_of(row) for row in store.rows}
    cells = plan.cells()
    left = plan.estimate_s() * sum(cell not in done for cell in cells) / len(cells)
    duration = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} minutes"
    already = f", {len(done)} of them measured already" if done else ""
    console.print(f"{len(cells)} places{already}, {len(plan.contestants)} contestants: about {duration}\n")


def _measure(console: Console, plan: Plan, store: Store) -> None:
    done = {cell_of(row) for row in store.rows}
    left = [cell for cell in plan.cells() if cell not in done]
    with console.status("") as status:
        if left:
            touch(plan, status.update)
        for i, cell in enumerate(left, len(done) + 1):
            place = f"{i}/{len(done) + len(left)} {cell.model} {cell.dtype} threads: {cell.threads}"
            row = Measurement(cell, plan, lambda what, place=place: _say(status, place, what)).row()  # type: ignore[misc]
            store.add(row)
            console.print(table(row))


def _profile(console: Console, plan: Plan, out: Path | None) -> None:
    """fastgrad's step of each place, kernel by kernel; below ``out`` a page with the timeline, and the table as text."""
    for cell in plan.cells():
        with console.status(f"profiling {cell.model} {cell.dtype} threads: {cell.threads}"):
            profile = profiled(MODELS[cell.model], np.dtype(cell.dtype).type, cell.threads)
        console.print(f"\n{MODELS[cell.model].title}, {cell.dtype}, threads: {cell.threads}", style="bold")
        console.print(str(profile), soft_wrap=True, markup=False)
        if out is not None:
            folder = out / PROFILES
            folder.mkdir(exist_ok=True)
            for suffix in (".html", ".txt"):
                path = profile.save(folder / f"{cell.model}-{cell.dtype}-{cell.threads}{suffix}")
                console.print(f"wrote {path}", soft_wrap=True)


def _say(status: Status, place: str, what: str) -> None:
    status.update(f"{place}: {what}")


def table(row: Row) -> Table:
    """One place's figures, a line a contestant."""
    noisy = (row["others_cores"] or 0.0) > QUIET_OTHERS
    title = f"{MODELS[row['model']].title}, {row['dtype']}, threads: {row['threads']}"
    made = Table(
        title=title + (f"  (NOT QUIET: others used {row['others_cores']:.2f} cores)" if noisy else ""),
        title_justify="left",
        box=box.SIMPLE_HEAD,  # narrow enough for 80 columns
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    made.add_column("contestant", no_wrap=True)
    for head in ("µs/step", "min", "max", "ratio", "cold s", "warm s", "MiB"):
        made.add_column(head, justify="right")
    ours = MEASURES["step"].read(row["results"].get(OURS, {}))
    for name, result in row["results"].items():
        step = MEASURES["step"].read(result)
        cells = ["–"] * 4
        if "failed" in result:
            cells[0] = "timed out" if result["failed"].startswith("timed out") else "failed"
        elif step is not None:
            cells = [*map(number, step), f"{step[0] / ours[0]:.2f}" if ours else "–"]
        for key in ("cold", "warm", "memory"):
            figures = MEASURES[key].read(result)
            cells.append(number(figures[0]) if figures else "–")
        made.add_row(CONTESTANTS[name].title, *cells)
    return made


def _finish(console: Console, store: Store, out: Path | None) -> None:
    for row in store.rows:
        for name, result in row["results"].items():
            if "failed" in result:
                place = " ".join(map(str, cell_of(row)))
                console.print(
                    f"{CONTESTANTS[name].title}, {place}: {result['failed']}", soft_wrap=True, markup=False
                )
    if out is None:
        return
    for path in report.write(out, store):
        console.print(f"wrote {path}", soft_wrap=True)
    if not charts.available():
        console.print("charts need matplotlib (pip install matplotlib)", soft_wrap=True)
