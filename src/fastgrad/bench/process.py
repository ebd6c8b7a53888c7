"""The parent's side: a contestant in a process of its own, and rounds in which contestants take turns.

A contestant is anything with ``round(seconds) -> microseconds a call``. `Local` calls a function here; `Remote` asks a
process, which sleeps on a pipe between its rounds, so that no two libraries' threads ever fight.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from threading import Timer
from time import perf_counter
from typing import Any, TypeVar

from .quiet import cores, cpu_of
from .timing import timed

PAUSE = 0.1
"""Seconds between two rounds: idle threads stop spinning, so that one contestant's do not slow the next. OpenBLAS's spin for
2^26 ticks of the time stamp counter (its ``THREAD_TIMEOUT``): 26 ms at 2.6 GHz, 45 at 1.5."""
LIMIT_S = 180.0
"""Seconds that a contestant may take for one answer."""
DROPPED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "FASTGRAD_BACKEND")
"""Variables that contestants do not see: the first two pin NumPy's BLAS to another processor's kernels."""
CACHES = {
    "FASTGRAD_CACHE_DIR": "fastgrad",
    "JAX_COMPILATION_CACHE_DIR": "jax",
    "NUMBA_CACHE_DIR": "numba",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
}
"""Where each library keeps what it compiled, below one directory."""
T = TypeVar("T")


class Failed(Exception):
    """A contestant died, raised an error or took too long; the message is one line."""


def environment(threads: int, caches: Path | None = None) -> dict[str, str]:
    """The environment of a contestant of ``threads`` threads on the CPU, its compiled code kept below ``caches``."""
    names = ("FASTGRAD", "MKL", "NUMBA", "OMP", "OPENBLAS")
    fixed = {f"{name}_NUM_THREADS": str(threads) for name in names}
    # JAX: its pools follow the cores that a process may use; one thread also needs Eigen's switch.
    eigen = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    fixed |= {"XLA_FLAGS": eigen, "NPROC": str(threads), "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if caches is not None:
        fixed |= {name: str(caches / folder) for name, folder in CACHES.items()}
        # JAX keeps only what took a second to compile, unless told otherwise.
        fixed |= {
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    return {name: value for name, value in os.environ.items() if name not in DROPPED} | fixed


class Local:
    """A contestant in this process."""

    def __init__(self, call: Callable[[], Any]):
        self._call = call

    def round(self, seconds: float) -> float:
        """One round: microseconds a call."""
        return timed(self._call, seconds)


class Remote:
    """A contestant in a process of its own: ``python ARGUMENTS``, which must call `timing.serve`.

    ``threads`` bounds it from outside as well: it may run on so many cores only. Attributes: ``first_s``, seconds from
    before the process began to the end of its first step, imports included; ``numbers`` of that step. Raises `Failed`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        threads: int,
        caches: Path | None = None,
        limit_s: float = LIMIT_S,
    ):
        self._limit_s, self._late = limit_s, False
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        start = perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            env=environment(threads, caches),
            start_new_session=True,  # so that compilers' workers end with it, and Ctrl-C reaches the parent alone
        )
        if hasattr(os, "sched_setaffinity") and threads < cores():
            # From here rather than between fork and exec, which is not safe beside threads; Python is still starting.
            os.sched_setaffinity(self._process.pid, sorted(os.sched_getaffinity(0))[:threads])
        try:
            self.numbers: list[float] = self._answer()["numbers"]
        except BaseException:
            self.close()
            raise
        self.first_s = perf_counter() - start

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = Timer(self._limit_s, self._give_up)
        timer.daemon = True
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        answer = json.loads(line) if line else {"failed": self._end()}
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def _give_up(self) -> None:
        self._late = True
        self._kill()

    def _end(self) -> str:
        """How the process ended, in one line."""
        status = self._process.wait()
        if self._late:
            return f"timed out after {self._limit_s:g} s"
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return f"died with {how}" + (f": {lines[-1].strip()[:200]}" if lines else "")

    def ask(self, question: str) -> dict[str, Any]:
        """Send one line, wait for the answer to it. Raises `Failed`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{question}\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Failed(self._end()) from error
        return self._answer()

    def more(self) -> list[float]:
        """The numbers of a few further steps."""
        return self.ask("more")["numbers"]

    def rest(self) -> str | None:
        """Set the learning rate for rounds; what the contestant chose, if anything."""
        return self.ask("rest")["note"]

    def round(self, seconds: float) -> float:
        """One round: microseconds a call."""
        return self.ask(f"round {seconds}")["us"]

    def peak_mib(self) -> float | None:
        """The largest resident size so far; None where the system does not tell."""
        return self.ask("peak")["mib"]

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        return cpu_of(self._process.pid)

    def close(self) -> None:
        """End the process and whatever it started."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):  # it may have died with words unread
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._kill()
        self._process.wait()
        self._process.stdout.close()
        self._complaints.close()

    def _kill(self) -> None:
        if not hasattr(os, "killpg"):
            self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing of the session is left
            os.killpg(self._process.pid, signal.SIGKILL)


def in_turns(names: Iterable[T], rounds: int) -> Iterable[T]:
    """All names again and again, each round beginning with another.

    >>> "".join(in_turns("abc", 3))
    'abcbcacab'
    """
    names = list(names)
    for i in range(rounds):
        at = i % max(1, len(names))
        yield from names[at:] + names[:at]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, min and max."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def compete(
    contestants: Mapping[str, Any], rounds: int, seconds: float, failed: dict[str, str] | None = None
) -> dict[str, dict[str, float]]:
    """``rounds`` of each contestant, alternating, each round beginning with another: the `spread` of each.

    One that raises `Failed` is left out from then on and its reason put into ``failed``, where that is given.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for name in in_turns(contestants, rounds):
        if name not in times:
            continue
        time.sleep(PAUSE)
        try:
            times[name].append(contestants[name].round(seconds))
        except Failed as error:
            if failed is None:
                raise
            failed[name] = str(error)
            del times[name]
    return {name: spread(t) for name, t in times.items()}
