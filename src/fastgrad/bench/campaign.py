"""One run of the bench: which cells it has, how long that takes, and how a cell is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

from .contestant import CONTESTANTS
from .models import MODELS
from .process import LIMIT_S, PAUSE, Failed, Remote, compete, in_turns
from .quiet import Watch, own_cpu

T = TypeVar("T")
PROGRAM = str(Path(__file__).with_name("contestant.py"))
SAFE_PATH = "-P"
"""Python's switch that keeps this folder, whose names are common words, off the contestants' path."""
FIRST_WITHIN = {"float32": 1e-4, "float64": 1e-9}
LATER_WITHIN = {"float32": 2e-3, "float64": 1e-7}
"""Relative distance allowed between contestants' first losses, and a few steps later: Adam's first steps are about as
long for a gradient of 1e-9 as for one of 1, so that rounding grows."""


class Disagreement(Exception):
    """Contestants compute different losses: nothing that was timed means anything."""


class Cell(NamedTuple):
    """One place in the results: a model in one dtype at one number of threads."""

    model: str
    dtype: str
    threads: int


@dataclass(frozen=True)
class Plan:
    """What to measure. ``colds`` and ``warms`` are starts of each contestant with empty and with filled caches; only the
    largest thread count gets all the warm ones, the others one, because starts take most of a run's time."""

    models: tuple[str, ...]
    contestants: tuple[str, ...]
    dtypes: tuple[str, ...] = ("float32",)
    threads: tuple[int, ...] = (1,)
    rounds: int = 5
    seconds: float = 0.25
    colds: int = 1
    warms: int = 2
    limit_s: float = LIMIT_S

    def cells(self) -> list[Cell]:
        """All cells, model by model."""
        return [Cell(*c) for c in product(self.models, self.dtypes, self.threads)]

    def warm_starts(self, cell: Cell) -> int:
        """Starts with filled caches; the process that is timed afterwards is the last of them."""
        return self.warms if cell.threads == max(self.threads) else 1

    def estimate_s(self) -> float:
        """About how long the run takes, in seconds."""
        return sum(self._estimate_s(cell) for cell in self.cells())

    def _estimate_s(self, cell: Cell) -> float:
        entries = [CONTESTANTS[name] for name in self.contestants]
        starts = sum(self.colds * e.cold_s + self.warm_starts(cell) * e.warm_s for e in entries)
        slow_step = MODELS[cell.model].flops / (30e9 * cell.threads)
        a_round = max(1.1 * self.seconds, 2 * slow_step) + PAUSE
        return starts + len(entries) * (self.rounds * a_round + 6 * slow_step)


class Measurement:
    """One cell being measured. ``say`` hears what is going on; ``program`` is the file that contestants run."""

    def __init__(
        self, cell: Cell, plan: Plan, say: Callable[[str], None] = lambda _: None, program: str = PROGRAM
    ):
        self._cell, self._plan, self._say, self._program = cell, plan, say, program
        self._results: dict[str, dict[str, Any]] = {
            name: {"cold_s": [], "warm_s": []} for name in plan.contestants
        }

    def row(self) -> dict[str, Any]:
        """For each contestant what it took, or why there is nothing (``failed``). Raises `Disagreement`."""
        with ExitStack() as stack:
            root = Path(stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True)))
            remotes = self._start_all(root, stack)
            later = {name: self._attempt(name, remote.more) for name, remote in remotes.items()}
            self._check_agreement({name: found for name, found in later.items() if found})
            others = self._rounds(remotes)
        return {**self._cell._asdict(), "others_cores": others, "results": self._results}

    def _alive(self) -> list[str]:
        return [name for name, result in self._results.items() if "failed" not in result]

    def _attempt(self, name: str, action: Callable[[], T]) -> T | None:
        """What ``action`` returns; None, with the reason kept, where the contestant fails."""
        if "failed" in self._results[name]:
            return None
        try:
            return action()
        except Failed as error:
            self._results[name]["failed"] = str(error)
            return None

    def _start_all(self, root: Path, stack: ExitStack) -> dict[str, Remote]:
        """All starts; the last ones stay alive until ``stack`` ends."""
        caches: dict[str, Path] = {}

        def start(name: str, kind: str) -> Remote | None:
            self._say(f"{kind} start of {CONTESTANTS[name].title}")
            arguments = (SAFE_PATH, self._program, name, *map(str, self._cell))
            options: dict[str, Any] = {"threads": self._cell.threads, "limit_s": self._plan.limit_s}
            remote = self._attempt(name, lambda: Remote(arguments, caches=caches[name], **options))
            if remote is not None:
                self._results[name][f"{kind}_s"].append(remote.first_s)
                self._results[name]["first"] = remote.numbers
            return remote

        for i, name in enumerate(in_turns(self._alive(), self._plan.colds)):
            caches[name] = root / str(i)
            if remote := start(name, "cold"):
                remote.close()
        for name in in_turns(self._alive(), self._plan.warm_starts(self._cell) - 1):
            if remote := start(name, "warm"):
                remote.close()
        remotes: dict[str, Remote] = {}
        for name in self._alive():
            if remote := start(name, "warm"):
                stack.callback(remote.close)
                remotes[name] = remote
        return remotes

    def _check_agreement(self, later: dict[str, list[float]]) -> None:
        firsts = {name: self._results[name]["first"] for name in self._alive()}
        for numbers, within in (
            (firsts, FIRST_WITHIN[self._cell.dtype]),
            (later, LATER_WITHIN[self._cell.dtype]),
        ):
            for values in zip(*numbers.values(), strict=True):
                if not max(values) - min(values) <= within * abs(values[0]):  # a NaN disagrees as well
                    said = ", ".join(f"{name} {value!r}" for name, value in zip(numbers, values, strict=True))
                    raise Disagreement(f"{' '.join(map(str, self._cell))}: contestants disagree: {said}")

    def _rounds(self, remotes: dict[str, Remote]) -> float | None:
        """Time those that are left; the cores that others used meanwhile."""
        for name, remote in remotes.items():
            self._say(f"preparing {CONTESTANTS[name].title}")
            self._results[name]["note"] = self._attempt(name, remote.rest)
        self._say(f"{self._plan.rounds} rounds")
        watch = Watch(lambda: own_cpu() + sum(remote.cpu_s() for remote in remotes.values()))
        failed: dict[str, str] = {}
        alive = {name: remotes[name] for name in self._alive()}
        times = compete(alive, self._plan.rounds, self._plan.seconds, failed)
        others = watch.others()
        for name, reason in failed.items():
            self._results[name]["failed"] = reason
        for name, us in times.items():
            self._results[name] |= {"us": us, "mib": self._attempt(name, alive[name].peak_mib)}
        return others


def touch(plan: Plan, say: Callable[[str], None] = lambda _: None) -> None:
    """Start everybody once, unmeasured, so that the first measured start does not read libraries from a cold disk."""
    cell = Cell("softmax", plan.dtypes[0], max(plan.threads))
    for name in plan.contestants:
        if name != "torch-compile":  # what it reads is nearly all PyTorch's, and it takes long
            say(f"reading {CONTESTANTS[name].title} from disk")
            with contextlib.suppress(Failed):  # will be said in each of its cells
                arguments = (SAFE_PATH, PROGRAM, name, *map(str, cell))
                Remote(arguments, threads=cell.threads, limit_s=plan.limit_s).close()
