"""The machine: what it is called, how busy it was before a run, and what others used of it during one."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from time import perf_counter, sleep

QUIET_LOAD = 0.5
"""A load average above this, or above a tenth of the cores, means that somebody else has been using them."""
QUIET_OTHERS = 0.1
"""Cores that other processes may use during a run before its figures are called out."""
LOOK_S = 0.5


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """Processor, cores and the widest vector instructions, in one line."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    said = {key.strip(): value.strip() for key, value in fields.items()}
    name = said.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in said:
        name += f" (family {said['cpu family']}, model {said.get('model')})"
    flags = said.get("flags", "").split()
    vectors = [f for f in ("avx2", "avx512f", "avx512_bf16") if f in flags]
    return ", ".join([name, f"{cores()} cores", *vectors, platform.platform(terse=True)])


def version(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return getattr(sys.modules.get(package), "__version__", None)


def load() -> float:
    """The load average of the last minute; 0 where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def busy_reason() -> str | None:
    """Why the machine is too busy to measure on, looking at it for half a second; None where it is quiet."""
    average = load()
    if average > max(QUIET_LOAD, 0.1 * cores()):
        return f"the load average of the last minute is {average:.2f}"
    watch = Watch(own_cpu)
    sleep(LOOK_S)
    others = watch.others()
    if others is not None and others > 2 * QUIET_OTHERS:
        return f"other processes are using {others:.2f} cores"
    return None


def own_cpu() -> float:
    """Processor seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def cpu_of(pid: int) -> float:
    """Processor seconds of a process and its children that have ended; 0 where that cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class Watch:
    """Cores that others use from now on: what the machine spends, less what ``own()`` says that we spend."""

    def __init__(self, own: Callable[[], float]):
        self._own = own
        self._start = perf_counter(), _busy(), own()

    def others(self) -> float | None:
        """Cores on average since the start; None where the system does not tell."""
        wall, busy, own = self._start
        now = _busy()
        if busy is None or now is None:
            return None
        return max(0.0, (now - busy) - (self._own() - own)) / (perf_counter() - wall)


def _busy() -> float | None:
    """Processor seconds that the machine has spent on anything at all, stolen ones included; None where unknown."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _iowait, *rest = map(int, stat.read_text().split(maxsplit=9)[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
