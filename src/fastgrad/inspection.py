"""`explain`: any stage of the pipeline as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import autodiff, memory, passes
from .api import Jitted, jit
from .codegen.host import host_schedule
from .core.graph import Graph
from .errors import ArgumentError
from .executor import tape
from .executor.choices import choices
from .executor.executable import Executable
from .machine import available_threads
from .memory import Location, MemoryPlan
from .passes.precision import check_precision, lowered

STAGES = ("trace", "autodiff", "passes", "schedule", "memory", "codegen", "compile")


def explain(
    f: Callable, *args: Any, stage: str | None = None, precision: str | None = None, **kwargs: Any
) -> str:
    """What becomes of ``f`` on arguments like these, stage by stage, as text; nothing is run.

    Args: ``f`` a function or what `jit`, `grad`, `value_and_grad` made of one; ``stage`` one of "trace", "autodiff" (the
    joint graph of forward and backward by every float input), "passes", "schedule" (with the kernel of each product, what
    is shared among threads, and the machine that decides both), "memory", "codegen" (the kernels' text), "compile" (seconds
    a kernel), or None for all in order; ``precision`` as in `jit` (by default ``f``'s own).
    Returns: text; where a float32 became float64 it says at which line. Raises `ArgumentError` for another stage.

    >>> print(explain(lambda x: x * 2.0, np.ones(3), stage="trace"))  # doctest: +ELLIPSIS
    graph <lambda>(%0:f64[3])
      %1:f64[3] = mul %0 2.0:f64* ...
    """
    if stage is not None and stage not in STAGES:
        raise ArgumentError(f"explain: unknown stage {stage!r}", hint=f"one of {', '.join(STAGES)}")
    jitted = f if isinstance(f, Jitted) else jit(f)
    graph = jitted.lower(*args, **kwargs)
    chosen = jitted.precision if precision is None else check_precision(precision)
    texts = [
        f"== {name} ==\n{_stage(name, graph, chosen)}" if stage is None else _stage(name, graph, chosen)
        for name in STAGES
        if stage in (None, name)
    ]
    return "\n\n".join(texts)


def _stage(name: str, graph: Graph, precision: str | None) -> str:
    if name == "trace":
        return "\n".join([str(graph), *_widening(graph)])
    if name == "autodiff":
        wrt = [i for i, v in enumerate(graph.inputs) if autodiff.is_float(v)]
        return str(autodiff.vjp(graph, wrt)) if wrt else "no float input to differentiate by"
    simplified = lowered(passes.run(graph), precision)
    if name == "passes":
        return str(simplified)
    if name == "compile":
        return Executable(graph, threads=available_threads(), precision=precision).compile_report()
    planned = _plan(simplified)
    if name == "schedule":
        return f"{planned.schedule}\n{choices(planned, available_threads())}"
    if name == "memory":
        return str(planned)
    rows: dict[str, list[int]] = {}
    for i, source in enumerate(tape.build([tape.Segment(planned)], threads=1).sources):
        if source is not None:
            rows.setdefault(source.text, []).append(i)
    return "\n".join(f"# rows {', '.join(map(str, numbers))}\n{text}" for text, numbers in rows.items())


def _plan(graph: Graph) -> MemoryPlan:
    steps = host_schedule(graph)
    inputs = [Location("input", i) for i in range(len(steps.inputs))]
    return memory.plan(steps, inputs, [Location("output", i) for i in range(len(steps.outputs))])


def _widening(graph: Graph) -> list[str]:
    """A note naming the first line that made float64 out of float32."""
    for eqn in graph.eqns:
        kinds = {a.aval.dtype.name for a in eqn.inputs}
        if "float32" in kinds and any(v.aval.dtype.name == "float64" for v in eqn.outputs):
            return [f"note: float32 became float64 at {eqn.source} ({eqn.prim.name})"]
    return []
