"""What this machine offers a run: cores, caches, and how fast each of them is at best.

Two kinds of knowledge, kept apart because of what may depend on them:

- `Cuts`, which order sums, come from a table that ships with fastgrad: a pure function of the CPU's model, so that a program
  gives the same bits today and tomorrow. (The register tile follows the vector width: `codegen.simd.tile`.)
- `Rates` say how long things take. Shipped guesses stand in until this machine has been measured (`fastgrad calibrate`);
  they choose only among ways of the same bits (serial or shared among threads, computed again or stored), and tell a
  profile what the limit is.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .errors import ArgumentError

Pair = tuple[float, float]
"""A figure of one core, and of all threads together."""


def cores() -> int:
    """Processor cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_threads() -> int:
    """Threads that a run may use: the cores, capped by ``FASTGRAD_NUM_THREADS``."""
    text = os.environ.get("FASTGRAD_NUM_THREADS")
    if text is None:
        return cores()
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentError(f"FASTGRAD_NUM_THREADS must be a positive integer, got {text!r}")
    return min(int(text), cores())


# -- the processor -----------------------------------------------------------------------------------------------------


class Cpu(NamedTuple):
    """A processor: its maker and model (``GenuineIntel-6-167``), its name, bytes of its caches (first level first) and of
    its vectors."""

    model: str
    name: str
    caches: tuple[int, ...]
    vector_bytes: int


@cache
def cpu(root: str = "/") -> Cpu:
    """The processor of this machine; what the system does not tell is "unknown", and caches of common sizes."""
    seen = _first_processor(Path(root, "proc/cpuinfo"))
    parts = [
        seen.get("vendor_id") or seen.get("CPU implementer"),
        seen.get("cpu family") or seen.get("CPU architecture"),
        seen.get("model") or seen.get("CPU part"),
    ]
    model = "-".join(part for part in parts if part) or "unknown"
    flags = seen.get("flags", "").split()
    width = 64 if "avx512f" in flags else 32 if "avx2" in flags else 16
    caches = _caches(Path(root, "sys/devices/system/cpu/cpu0/cache"))
    return Cpu(model, seen.get("model name", model), caches, width)


def _first_processor(path: Path) -> dict[str, str]:
    """What Linux says of the first processor; the file's end, which may be long, is not read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 14)
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


_COMMON_CACHES = (32 << 10, 1 << 20, 8 << 20)


def _caches(folder: Path) -> tuple[int, ...]:
    """Bytes of the data caches, first level first, as Linux tells them."""
    found: dict[int, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size")
            )
        except (OSError, UnicodeDecodeError):
            continue
        match = re.fullmatch(r"(\d+)([KM]?)", size)
        if match and level.isdigit() and kind in ("Data", "Unified"):
            found[int(level)] = int(match[1]) << {"": 0, "K": 10, "M": 20}[match[2]]
    return tuple(found[level] for level in sorted(found)) or _COMMON_CACHES


# -- what orders sums --------------------------------------------------------------------------------------------------


class Cuts(NamedTuple):
    """How work is cut into tiles. A fold to one number sums each tile by itself, then the tiles; a product's sums over rows
    come a row block at a time.

    ``map_block``: elements of the inner axis that one tile of a loop covers, small enough for the first cache, large enough
    to hide the tile's own cost; at most 4096, as a kernel's frame holds a tile of the widest dtype. ``column_block``: the
    same where rows are folded into columns, whose results stay in that cache while all rows pass by. ``near_bytes``: of an
    operand of a product that a tile keeps in the second cache while panels of the other pass by.
    """

    map_block: int = 4096
    column_block: int = 128
    near_bytes: int = 512 << 10


class Processors(NamedTuple):
    """A row of the table: a maker's family (``GenuineIntel-6``), its models, all if there are none, and their cuts."""

    name: str
    family: str
    models: frozenset[int]
    cuts: Cuts

    def has(self, model: str) -> bool:
        """Whether ``model``, as `Cpu.model` has it, is one of them."""
        family, _, number = model.rpartition("-")
        return family == self.family and (
            not self.models or (number.isdecimal() and int(number) in self.models)
        )


_ANY = Processors("any other", "", frozenset(), Cuts())
PROCESSORS = (
    Processors(
        "Intel Xeon, second cache of 2 MB",
        "GenuineIntel-6",
        frozenset({143, 167, 173, 174, 207}),
        Cuts(4096, 128, 512 << 10),
    ),
    Processors(
        "Intel, second cache of 256 KB",
        "GenuineIntel-6",
        frozenset({42, 45, 58, 60, 61, 62, 63, 69, 70, 71, 78, 79, 86, 94, 142, 158, 165, 166}),
        Cuts(4096, 128, 128 << 10),
    ),
    Processors(
        "Intel, second cache of 512 KB", "GenuineIntel-6", frozenset({125, 126}), Cuts(4096, 128, 256 << 10)
    ),
    Processors("AMD Zen to Zen 2", "AuthenticAMD-23", frozenset(), Cuts(4096, 128, 256 << 10)),
    Processors(
        "AMD Zen 3",
        "AuthenticAMD-25",
        frozenset({*range(16), *range(32, 96)}),
        Cuts(4096, 128, 256 << 10),
    ),
)
"""The first row is measured: blocks of 1024 to 4096 elements differ by less than 3% on sums and maps of 16 thousand to 4
million elements; with 128 KB of an operand products are 7 to 30% slower on one thread than with 512 KB, with 256 KB up to
20. (167 is Rocket Lake's number, which virtual machines on newer Xeons show.) The others keep half of the second cache that
their makers document, at most as much as the first."""


def cuts(model: str | None = None) -> Cuts:
    """The sizes for a CPU, by default this one: from the shipped table alone, never from a measurement.

    >>> cuts("AuthenticAMD-23-113").near_bytes >> 10, cuts("a CPU that nobody has measured").near_bytes >> 10
    (256, 512)
    """
    return processors(model).cuts


def processors(model: str | None = None) -> Processors:
    """The table's row for a CPU, by default this one."""
    model = cpu().model if model is None else model
    return next((row for row in PROCESSORS if row.has(model)), _ANY)


# -- what it can do ----------------------------------------------------------------------------------------------------


class Level(NamedTuple):
    """A level of memory: its name, how many bytes it holds, and GB/s that loops read from it, and read and write in it."""

    name: str
    nbytes: int
    read: Pair
    copy: Pair


@dataclass(frozen=True)
class Rates:
    """What a machine can do at best.

    Attributes: ``float32`` and ``float64``: GFLOP/s of fused multiply-adds that never leave the registers. ``levels``:
    first-level cache to memory. ``row_ns``: what it costs to share a row of the tape out among threads that are awake.
    ``region_ns``: what it costs to wake them, and to meet them at the end. ``measured``: whether on this very machine;
    ``steady``: whether nobody else had its cores meanwhile.

    >>> rates = shipped(64)
    >>> rates.peak("float32", 1) > rates.peak("float64", 1)
    True
    """

    threads: int
    float32: Pair
    float64: Pair
    levels: tuple[Level, ...]
    row_ns: float
    region_ns: float
    measured: bool = False
    steady: bool = True

    def peak(self, dtype: str, threads: int) -> float:
        """GFLOP/s in ``dtype`` (others than float32 count as float64) on so many threads."""
        return _on(self.float32 if dtype == "float32" else self.float64, threads)

    def level(self, nbytes: int, threads: int) -> Level:
        """The first level that holds so many bytes: private caches count once a thread, a shared one and memory once."""
        for i, level in enumerate(self.levels[:-1]):
            if nbytes <= level.nbytes * (threads if i < 2 else 1):
                return level
        return self.levels[-1]

    def move_ns(self, read: int, written: int, threads: int) -> float:
        """How long it takes at least to read and write so many bytes, where they lie in the first level that holds them."""
        level = self.level(read + written, threads)
        both = min(read, written)
        alone = level.read if read > written else level.copy
        return 2 * both / _on(level.copy, threads) + (read + written - 2 * both) / _on(alone, threads)

    @property
    def lines_worth_storing(self) -> int:
        """How many lines an element (additions, products, choices) take as long as to store their result and load it again.

        In the second-level cache, where most values of a program lie when they are read again: a store and a load of any
        dtype, against additions at half the rate of multiply-adds. In steps of four, within bounds, so that another
        measurement of the same machine asks for the same kernels.

        >>> shipped(64).lines_worth_storing
        8
        """
        second = self.levels[min(1, len(self.levels) - 1)]
        lines = 8 / second.copy[0] * self.float32[0] / 2
        return min(max(int(lines) // 4 * 4, 4), 12)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists, for a file."""
        return {
            "threads": self.threads, "float32": self.float32, "float64": self.float64,
            "levels": self.levels, "row_ns": self.row_ns, "region_ns": self.region_ns,
        }  # fmt: skip

    def __str__(self) -> str:
        """The machine as a few lines of text."""
        many = f"{self.threads} threads"
        how = "measured" if self.measured else "a guess by its vectors; `fastgrad calibrate` measures it"
        how += "" if self.steady else " while others had some of its cores: not kept"
        lines = [
            f"machine {cpu().name} ({cpu().model}), {how}",
            f"  {'':22}{'1 thread':>10}{many:>12}",
        ]
        for dtype in ("float32", "float64"):
            one, all_ = getattr(self, dtype)
            lines.append(f"  {dtype + ' GFLOP/s':22}{one:10.0f}{all_:12.0f}")
        for level in self.levels:
            for what, (one, all_) in (("read", level.read), ("copy", level.copy)):
                lines.append(f"  {level.name + ' ' + what + ' GB/s':22}{one:10.1f}{all_:12.1f}")
        lines.append(
            f"  a shared row costs {self.row_ns / 1e3:.2f} us, a parallel region {self.region_ns / 1e3:.1f} us"
        )
        return "\n".join(lines)


def _on(pair: Pair, threads: int) -> float:
    """A rate on so many threads, between that of one and that of all."""
    one, many = pair
    return min(threads * one, many) if threads > 1 else one


def from_json(found: Mapping[str, Any]) -> Rates:
    """The measured rates that `Rates.to_json` wrote. Raises `ValueError` or kin for anything else."""
    levels = tuple(
        Level(str(name), int(nbytes), _pair(read), _pair(copy))
        for name, nbytes, read, copy in found["levels"]
    )
    rates = Rates(
        int(found["threads"]), _pair(found["float32"]), _pair(found["float64"]), levels,
        float(found["row_ns"]), float(found["region_ns"]), True,
    )  # fmt: skip
    if not levels or not min(rates.row_ns, rates.region_ns, rates.threads) > 0:
        raise ValueError("rates must be positive")
    return rates


def _pair(values: Any) -> Pair:
    one, many = values
    if not (0 < one < math.inf and 0 < many < math.inf):
        raise ValueError("rates must be positive")
    return float(one), float(many)


_GUESSED_GFLOPS = {64: 180.0, 32: 90.0, 16: 40.0}
"""float32 on one core by bytes of a vector: two multiply-adds a cycle at some 2.8 GHz (one where vectors are narrow)."""
_GUESSED_GBS = {"L1": (150.0, 150.0), "L2": (80.0, 45.0), "L3": (20.0, 15.0), "memory": (12.0, 10.0)}
"""Reading, and reading and writing, on one core with vectors of 32 bytes; the private caches follow their width."""


def shipped(vector_bytes: int, threads: int | None = None) -> Rates:
    """What to expect of a CPU with vectors of so many bytes, before it has been measured; caches are this machine's.

    Private caches and cores count once a thread; what is shared serves two threads' worth at most.
    """
    n = available_threads() if threads is None else threads
    one = _GUESSED_GFLOPS.get(vector_bytes, _GUESSED_GFLOPS[16])
    sizes = cpu().caches[:3]
    levels = []
    for i, name in enumerate([*(f"L{i + 1}" for i in range(len(sizes))), "memory"]):
        private = name in ("L1", "L2")
        read, copy = (x * vector_bytes / 32 if private else x for x in _GUESSED_GBS[name])
        factor = n if private else min(n, 2)
        levels.append(
            Level(name, sizes[i] if i < len(sizes) else 1 << 62, (read, read * factor), (copy, copy * factor))
        )
    return Rates(n, (one, one * n), (one / 2, one * n / 2), tuple(levels), ROW_NS, REGION_NS)


ROW_NS = 300.0
"""What sharing a row out takes where nothing was measured."""
REGION_NS = 50_000.0
"""What waking a sleeping thread, and meeting it at the end, takes where nothing was measured."""
