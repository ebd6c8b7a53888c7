"""What was chosen for this machine, and by what: the text that `explain` adds to a schedule."""

from __future__ import annotations

from collections.abc import Iterator

from .. import machine
from ..codegen import abi
from ..codegen.packing import moves_panels
from ..codegen.rates import reliable
from ..codegen.target import cpu_features
from ..memory import MemoryPlan
from ..schedule import Computed, Gemm, Ref, Region, Schedule
from .estimate import estimate
from .row import show_ns
from .tape import Segment, Tape, build, thresholds

TOLD = ("avx512f", "avx2", "fma", "avx512bf16", "amx-bf16", "neon")
"""Features that decide which kernels there are."""


def choices(plan: MemoryPlan, threads: int) -> str:
    """A line for each product of a plan, how rows are shared among ``threads``, then the machine.

    >>> print(choices(plan, 2))                                                     # doctest: +SKIP
    products
      0 registers 14x32; A in place, 392 KB; B packed in passing, 1568 KB; 16 tiles, 489 us alone, 246 us shared
    rows: 2 of 5 shared by 2 threads (614 us alone; sharing must save 1.55 us a row, 60.8 us in all)
    machine Intel(R) Xeon(R) Processor (GenuineIntel-6-143): avx512f avx2 fma
      ...
    """
    tape = build([Segment(plan)], threads)
    lines = list(_products(plan.schedule, tape, threads))
    return "\n".join([*(["products", *lines] if lines else []), _rows(tape, threads), machine_text()])


def machine_text() -> str:
    """The processor, its row of the shipped table, and the rates that choose, in three lines."""
    cpu, row, rates = machine.cpu(), machine.processors(), reliable()
    features = cpu_features()
    told = " ".join(name for name in TOLD if features.get(name)) or "no vector features known"
    cuts = (
        f"tiles of {row.cuts.map_block} elements or {row.cuts.column_block} columns and up, "
        f"{row.cuts.near_bytes >> 10} KB of an operand near a product"
    )
    levels = ", ".join(f"{level.name} {level.copy[0]:.0f}" for level in rates.levels)
    how = "measured here" if rates.measured else "shipped; `fastgrad calibrate` measures them"
    return "\n".join(
        [
            f"machine {cpu.name} ({cpu.model}): {told}",
            f"  table: {row.name}: {cuts}",
            f"  rates ({how}): {rates.float32[0]:.0f} GFLOP/s float32 a core, copies in GB/s: {levels}; "
            f"row {show_ns(rates.row_ns)}, region {show_ns(rates.region_ns)}; {rates.lines_worth_storing} lines a store",
        ]
    )


def _products(schedule: Schedule, tape: Tape, threads: int, before: str = "") -> Iterator[str]:
    """The products of a schedule, numbered as it numbers its steps."""
    rows = {id(source.step): i for i, source in enumerate(tape.sources) if source is not None}
    for i, step in enumerate(schedule.steps):
        name = f"{before}{i}"
        if isinstance(step, Region):
            for k, part in enumerate(step.parts):
                yield from _products(part, tape, threads, f"{name}.{k}.")
        elif isinstance(step, Gemm) and id(step) in rows:
            yield f"  {name:>3} {_product(step)}; {_shared(step, tape, rows[id(step)], threads)}"


def _product(step: Gemm) -> str:
    """Kernel and operands, and what was done to them."""
    _, m, n, _ = step.sizes
    alone = 1 in (m, n) and step.packed_a is step.packed_b is None
    kernel = "empty" if 0 in step.sizes else "matvec" if alone else step.kernel
    a = _operand("A", step, step.a, step.packed_a, f"{n} columns")
    b = _operand("B", step, step.b, step.packed_b, f"{m} rows")
    return f"{kernel}; {a}; {b}"


def _operand(name: str, step: Gemm, ref: Ref, packed: Ref | None, serves: str) -> str:
    """Whether an operand is read where it lies, or why it is packed first; over how many bytes it is spread."""
    size = ref.buffer.dtype.itemsize
    _, *axes = ref.layout.axes
    spread = max(n * abs(axis.stride) * size for n, axis in zip(ref.layout.shape[1:], axes, strict=True))
    extent = f"{spread} bytes" if spread < 1 << 10 else f"{spread >> 10} KB"
    if packed is None:
        passing = name == "B" and moves_panels(step)
        return f"{name} {'packed in passing' if passing else 'in place'}, {extent}"
    if step.precision is not None:
        return f"{name} packed to be rounded, {extent}"
    return f"{name} packed for {serves}, being spread over {extent}"


def _shared(step: Computed, tape: Tape, row: int, threads: int) -> str:
    source = tape.sources[row]
    assert source is not None
    guess, rates = estimate(step, source.tiles), reliable()
    alone, tiles = show_ns(guess.ns(rates)), f"{source.tiles} tile{'s' if source.tiles != 1 else ''}"
    kind = tape.words[int(tape.words[abi.ROWS_AT]) + abi.ROW * row + abi.KIND]
    if kind == abi.PARALLEL:
        return f"{tiles}, {alone} alone, {show_ns(guess.ns(rates, threads))} shared by {threads} threads"
    return f"{tiles}, {alone}, serial"


def _rows(tape: Tape, threads: int) -> str:
    shared, kernels = int(tape.words[abi.N_PARALLEL]), sum(s is not None for s in tape.sources)
    row, region = thresholds(reliable())
    return (
        f"rows: {shared} of {kernels} shared by {threads} threads; {show_ns(tape.cost_ns)} alone; sharing must save "
        f"{show_ns(row)} a row, {show_ns(region)} in all"
    )
