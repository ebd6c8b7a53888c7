"""A compiled graph: what `fg.jit` keeps for each signature, and what `fg.Graph().compile()` returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import memory, passes
from ..codegen.host import host_schedule
from ..core.graph import Graph
from ..errors import ArgumentError
from ..interpreter import interpret
from ..locks import Lock
from ..memory import Location, MemoryPlan
from ..passes.precision import lowered
from . import tape
from .calibration import calibrate
from .cpu import Captured, Native, Pool, conform
from .results import Results

if TYPE_CHECKING:
    from .profile import Profile

BACKENDS = ("numba", "numpy")


def check_backend(backend: str) -> str:
    """``backend`` if there is one of that name."""
    if backend == "cuda":
        raise ArgumentError("backend 'cuda' is not built yet", hint="backend='numba'")
    if backend not in BACKENDS:
        raise ArgumentError(f"unknown backend {backend!r}", hint=f"one of {', '.join(map(repr, BACKENDS))}")
    return backend


@dataclass(frozen=True, eq=False)
class Host:
    """What a program needs of its owner beside its arrays: how to flatten a call's arguments, the state and its lock, and
    to renew copies of arrays that it closes over."""

    flatten: Callable[[tuple], Sequence[Any]] = list
    state: np.ndarray | None = None
    lock: Lock = field(default_factory=Lock)
    refresh: Callable[[], None] = lambda: None


class Program:
    """A linked tape that can be looked into: plans, kernels, what was compiled. `Executable` and `TrainStep` run one."""

    def __init__(
        self, plans: Sequence[MemoryPlan], native: Native, seconds: float, why: str = "",
        host: Host | None = None,
    ):  # fmt: skip
        """``seconds``: how long all stages took, compiling included; ``why``: what made it necessary."""
        self.plans, self.native, self.seconds, self.why = tuple(plans), native, seconds, why
        self._host = host or Host()

    def memory_plan(self) -> MemoryPlan:
        """The place of every value, the peak and the naive sum in bytes; prints as a table."""
        return max(self.plans, key=lambda p: p.arena_bytes)

    def schedule(self) -> str:
        """The steps, as text."""
        return "\n".join(str(p.schedule) for p in self.plans)

    def source(self) -> str:
        """The text of every kernel, in the order of its first use."""
        return "\n".join(f"# rows {self._rows_of(text)}\n{text}" for text in self.native.tape.texts)

    def _rows_of(self, text: str) -> str:
        return ", ".join(str(i) for i, s in enumerate(self.native.tape.sources) if s and s.text == text)

    def compile_report(self) -> str:
        """Why this was traced; for each kernel seconds, where it came from and why, and which rows it serves."""
        obtained = self.native.obtained
        compiled = [it for it in obtained if it.origin.startswith("compiled")]
        disk = sum(it.origin == "from disk" for it in obtained)
        seconds = sum(it.seconds for it in compiled)
        head = (
            f"{len(compiled)} kernels compiled in {seconds:.3f} s, {disk} from disk, "
            f"{len(obtained) - len(compiled) - disk} in memory; all stages {self.seconds:.3f} s"
        )
        width = max((len(it.origin) for it in obtained), default=0)
        rows = [
            f"{it.seconds:8.3f} s  {it.origin:{width}}  {it.kernel.name}  rows {self._rows_of(it.kernel.text)}"
            for it in obtained
        ]
        return "\n".join([*([f"traced: {self.why}"] if self.why else []), head, *rows])

    def profile(self, *arrays: Any, runs: int | None = None) -> Profile:
        """Time per kernel on these arrays, beside what the machine can do. Nothing is changed, the state included.

        Args: ``arrays`` as a call takes them (of a `TrainStep`: a batch); ``runs`` how many are measured, by default
        as many as half a second takes. Returns: a `Profile`, which prints as a table and saves a timeline.
        Raises: as a call does, for arrays that do not fit; `ArgumentError` for ``runs`` below 1.

        >>> step = fg.TrainStep(lambda p, x: ((p * x) ** 2).sum(), np.ones(3), fg.optim.SGD(0.1))
        >>> step(np.ones(3)), step.executable.profile(np.ones(3)).rows[0].calls
        (array(3.), 1)
        """
        from .measure import Subject, check_runs, profile_native

        count, native = check_runs(runs), self.native
        name = self.plans[0].schedule.name
        leaves, expected = self._host.flatten(arrays), native.arrays[: native.n_inputs]
        if len(leaves) != len(expected):
            raise ArgumentError(f"{name}: profile takes {len(expected)} arrays, got {len(leaves)}")
        held = [
            conform(a, v, f"{name}: argument {i}")
            for i, (a, v) in enumerate(zip(leaves, expected, strict=True))
        ]
        results = Results(native.arrays[native.n_inputs :])
        with self._host.lock.current:
            state = None if self._host.state is None else self._host.state.copy()
        subject = Subject(name, native, held, results.arrays, state, self._host.refresh)
        return profile_native(subject, count, calibrate())

    @property
    def address(self) -> int:
        """Address of ``run`` (its C signature: `codegen.abi`). What it calls stays loaded while this object lives."""
        return self.native.runtime.run


class Executable:
    """Flat arrays in, a list of fresh arrays out: ``executable(*arrays, out=None)``.

    Each array must have the shape and dtype of the graph's input; strides, alignment and byte order are free. With
    ``out`` (one array an output, contiguous and writable; a lone output's may stand alone) nothing is allocated, and the
    list holds those. They may overlap inputs, which are copied first then, but not each other.

    Attributes: ``graph`` (after the passes), ``address`` (the C entry, see `codegen.abi`).
    """

    def __init__(
        self,
        graph: Graph,
        *,
        backend: str = "numba",
        threads: int = 1,
        precision: str | None = None,
        why: str = "",
    ):
        self.why = why
        self.backend, self.threads = check_backend(backend), threads
        self.graph = lowered(passes.run(graph), precision)
        self.inputs = [v.aval for v in graph.inputs]
        self.outputs = [a.aval for a in graph.outputs]
        self._captured = Captured([value for _, value in self.graph.captured])
        self._results = Results(self.outputs)
        self.call: Callable[..., list[np.ndarray]]
        self.try_call: Callable[[Sequence[Any]], list[np.ndarray] | None]
        if self.backend == "numpy":
            run = interpret(self.graph)
            self.call = lambda *arrays: run(*self._conform(arrays))
        else:
            self._link()
            self.call = self._native_call

    def _link(self) -> None:
        start = time.perf_counter()
        n = len(self.inputs)
        pointers = [Location("input", i) for i in range(n + len(self._captured.held))]
        plan = memory.plan(
            host_schedule(self.graph), pointers, [Location("output", i) for i in range(len(self.outputs))]
        )
        built = tape.build([tape.Segment(plan)], self.threads)
        native = Native(built, [*self.inputs, *self.outputs], n, self._captured.addresses(), self.threads)
        self._pool = Pool(native)
        self.try_call = self._hot_path()
        host = Host(refresh=self._captured.refresh)
        self._program = Program([plan], native, time.perf_counter() - start, self.why, host)

    def __call__(
        self, *arrays: Any, out: np.ndarray | Sequence[np.ndarray] | None = None
    ) -> list[np.ndarray]:
        if len(arrays) != len(self.inputs):
            raise ArgumentError(f"{self.graph.name}: takes {len(self.inputs)} arrays, got {len(arrays)}")
        if out is None:
            return self.call(*arrays)
        if isinstance(out, np.ndarray):
            out = self._lone(out)
        results = self._try_into(arrays, out)
        return self._into(arrays, out) if results is None else results

    def _lone(self, out: np.ndarray) -> list[np.ndarray]:
        if len(self.outputs) != 1:
            raise ArgumentError(
                f"{self.graph.name}: out takes {len(self.outputs)} arrays, got one of shape {list(out.shape)}",
                hint="out=[a, b, ...], one array an output",
            )
        return [out]

    def _native_call(self, *arrays: Any) -> list[np.ndarray]:
        outputs = self.try_call(arrays)
        if outputs is None:
            outputs = self.try_call(self._conform(arrays))
            assert outputs is not None, "the entry takes conforming arrays"
        return outputs

    def _hot_path(self) -> Callable[[Sequence[Any]], list[np.ndarray] | None]:
        """``try_call(arrays)``: one pooled workspace, fresh outputs, one native call.

        None, and nothing run, when an array is not exactly what the plan takes. A closure: of a call of half a microsecond
        a third would be the lookup of attributes.
        """
        pool, make = self._pool, self._results.maker()
        pop, give, new = pool.free.pop, pool.free.append, pool.new
        refresh = self._captured.refresh if self._captured.copied else None

        def try_call(arrays: Sequence[Any]) -> list[np.ndarray] | None:
            if refresh is not None:
                refresh()
            try:
                workspace = pop()
            except IndexError:
                workspace = new()
            outputs = make()
            answer = workspace.entry(*arrays, *outputs)
            if answer is not None:
                if answer is False:
                    give(workspace)
                    return None
                workspace.finish()
            give(workspace)
            return outputs

        return try_call

    def _conform(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """The arguments as the plan takes them; an error names the first that cannot be."""
        name = self.graph.name
        return [
            conform(a, v, f"{name}: argument {i}")
            for i, (a, v) in enumerate(zip(arrays, self.inputs, strict=True))
        ]

    def _try_into(self, arrays: Sequence[Any], out: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """The hot path into given arrays: the entry itself sees whether they are as planned, writable and apart.

        None, and nothing run, where they are not, or may overlap captured arrays.
        """
        if self.backend == "numpy" or len(out) != len(self.outputs):
            return None
        if self._captured.held and (set(map(type, out)) != {np.ndarray} or self._captured.overlaps(out)):
            return None
        self._captured.refresh()
        pool = self._pool
        workspace = pool.take()
        answer = workspace.entry(*arrays, *out, True)
        if answer:
            workspace.finish()
        pool.give(workspace)
        return None if answer is False else list(out)

    def _into(self, arrays: Sequence[Any], out: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The same for whatever arrays: an error names the first that cannot serve; inputs that overlap are copied."""
        if len(out) != len(self.outputs):
            raise ArgumentError(f"{self.graph.name}: out takes {len(self.outputs)} arrays, got {len(out)}")
        for i, (target, aval) in enumerate(zip(out, self.outputs, strict=True)):
            if (
                not isinstance(target, np.ndarray)
                or conform(target, aval, f"out[{i}]") is not target
                or not target.flags.writeable
            ):
                raise ArgumentError(f"out[{i}]: takes a writable C-contiguous array {aval}")
            if any(np.may_share_memory(target, other) for other in out[:i]):
                raise ArgumentError(f"out[{i}]: shares memory with another output")
        held = self._conform(arrays)
        held = [a.copy() if any(np.may_share_memory(a, o) for o in out) else a for a in held]
        if self.backend == "numpy":
            for target, value in zip(out, self.call(*held), strict=True):
                np.copyto(target, value)
            return list(out)
        if self._captured.overlaps(out):
            for target, value in zip(out, self.call(*held), strict=True):
                np.copyto(target, value)
            return list(out)
        self._captured.refresh()
        workspace = self._pool.take()
        if workspace.entry(*held, *out) is not None:
            workspace.finish()
        self._pool.give(workspace)
        return list(out)

    @property
    def program(self) -> Program:
        """What was compiled; an interpreted executable has none."""
        if self.backend == "numpy":
            raise ArgumentError(
                "an interpreted executable has no plan and no kernels", hint="backend='numba'"
            )
        return self._program

    def memory_plan(self) -> MemoryPlan:
        """The place of every value, the peak and the naive sum in bytes; prints as a table."""
        return self.program.memory_plan()

    def source(self) -> str:
        """The text of every kernel, in the order of its first use."""
        return self.program.source()

    def compile_report(self) -> str:
        """Why this was traced; for each kernel seconds, where it came from and why, and which rows it serves."""
        return self.program.compile_report()

    def profile(self, *arrays: Any, runs: int | None = None) -> Profile:
        """Time per kernel on these arrays (interpreted: per equation), beside what the machine can do.

        Args: ``arrays`` as a call takes them; ``runs`` how many are measured, by default as many as half a second takes.
        Returns: a `Profile`: rows as data, prints as a table, ``profile.save("p.html")`` writes a timeline.
        Raises: as a call does, for arrays that do not fit; `ArgumentError` for ``runs`` below 1.

        >>> x = np.ones((64, 64), np.float32)
        >>> profile = fg.jit(lambda x: x @ x).compile(x).profile(x)
        >>> profile.rows[0].ops, profile.rows[0].flops
        ('matmul', 524288)
        """
        if len(arrays) != len(self.inputs):
            raise ArgumentError(
                f"{self.graph.name}: profile takes {len(self.inputs)} arrays, got {len(arrays)}"
            )
        held = self._conform(arrays)
        if self.backend == "numba":
            return self.program.profile(*held, runs=runs)
        from .measure import check_runs, profile_interpreted

        return profile_interpreted(self.graph, held, self.call, check_runs(runs), calibrate())

    @property
    def address(self) -> int:
        """Address of ``run`` (`codegen.abi` has its C signature)."""
        return self.program.address
