"""`TrainStep`: forward, backward and update as one native call on state that stays inside.

The tape has two parts. The first is the joint graph of the loss: its parameters are read from the flat parameter
buffer, its gradients written straight into the flat gradient buffer. The second is the optimizer's update, a graph over
the flat buffers that writes them in place. Only the first can fail (a label out of bounds), so a step is done whole or
not at all. A new model state is put aside by the first and copied over the old one by the second. ``run`` puts a loop
around both and picks each minibatch by index inside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import memory, passes, pytree
from .api import _threads, default_backend
from .codegen.host import host_schedule
from .core.aval import Aval, aval_of
from .core.graph import Graph, Tracer
from .errors import ArgumentError, DTypeError, ShapeError, TraceError
from .executor import tape
from .executor.cpu import Captured, Native
from .executor.executable import Host, Program, check_backend
from .interpreter import interpret
from .locks import Lock
from .memory import Location
from .minibatches import (
    IndexCheck,
    batch_array,
    batch_item,
    batch_leaves,
    check_options,
    common_length,
    index_check,
)
from .ops.index import take
from .optimizer import Optimizer
from .passes.precision import check_precision, lowered
from .random.keys import words
from .signatures import Key, Signatures
from .state import COUNT, KEY, State
from .step_loss import ModelState, StepLoss
from .step_signature import StepSignature
from .step_update import trace_update, update_places
from .trace import trace


class TrainStep:
    """A compiled training step: ``step(*batch) -> loss``.

    Args:
        loss: ``loss(params, [model_state], [key], *batch)`` returns a float scalar, or ``(scalar, aux)`` with ``has_aux``.
            With ``model_state`` it returns ``(scalar, new model_state)``, or ``(scalar, (new model_state, aux))``.
        params: nesting of float arrays (or `fg.Tensor`, taken as arrays); copied into the step's flat buffer.
        optimizer: `fg.optim.SGD`, `fg.optim.Adam` or another `fg.optim.Optimizer`.
        model_state: nesting of arrays of any dtype that the loss reads and gives anew (running statistics, counters), of the
            same nesting, shapes and dtypes; copied. No gradient is taken by it.
        key: from `fg.random.key`. Step number i (from 0) hands the loss ``fg.random.fold_in(key, i)``, in `run` as by hand.
        backend: "numba" (compiled) or "numpy" (interpreted, op by op). ``threads``: at most so many.
        precision: "bfloat16" rounds the operands of float32 products, forward and backward, and adds up in float32 (as in
            `jit`, which says what becomes of subnormal numbers); parameters, gradients and optimizer state stay float32.
    Attributes:
        params: live zero-copy views of the parameters, nested as given; ``grads`` those of the last step's gradients
            (after Ctrl-C in the middle of one they hold parts of its work; parameters and state are as they were).
        state: live views: ``["optimizer"]`` its arrays and scalars (learning rate, step count, ...), ``["model"]`` the model
            state, ``["random"]`` the ``key`` and the ``count`` of steps. To resume, write into them.
        executable: the compiled program of the newest signature (plans, kernels, report).
    Raises: `ArgumentError`, `DTypeError`, `ShapeError`, `OutOfBoundsError` for input that does not fit, before anything
    is updated.

    >>> step = TrainStep(lambda p, x: ((p["w"] * x - 1.0) ** 2).sum(), {"w": np.ones(3)}, fg.optim.SGD(0.1))
    >>> step(np.array([1.0, 2.0, 3.0]))
    array(5.)
    """

    def __init__(
        self,
        loss: Callable,
        params: Any,
        optimizer: Optimizer,
        *,
        has_aux: bool = False,
        model_state: Any = None,
        key: Any = None,
        backend: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
    ):
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(
                f"TrainStep: optimizer must be one of fg.optim, got {type(optimizer).__name__}"
            )
        if optimizer._bound is not None:
            raise ArgumentError(
                "TrainStep: the optimizer is bound to tensors, which the step would not update",
                hint=f"fg.optim.{type(optimizer).__name__}(lr=...), without tensors",
            )
        if not callable(loss):
            raise ArgumentError(f"TrainStep: loss must be a function, got {type(loss).__name__}")
        self.backend, self.threads = check_backend(backend or default_backend()), _threads(threads)
        self.optimizer, self._has_aux, self.precision = optimizer, has_aux, check_precision(precision)
        leaves, self._structure = pytree.flatten(params)
        arrays = [_parameter(leaf, name) for leaf, name in zip(leaves, pytree.paths(params), strict=True)]
        if not arrays:
            raise ArgumentError("TrainStep: params holds no arrays")
        kept, model = _model(model_state)
        if key is not None:
            words("TrainStep", key)
        self._state = State(arrays, optimizer.slots, optimizer.scalars, kept, key)
        trained = (self._structure, [aval_of(a) for a in self._state.views("params")])
        self._loss = StepLoss(loss, trained, model, key is not None, has_aux)
        self.params = pytree.unflatten(self._structure, self._state.views("params"))
        self.grads = pytree.unflatten(self._structure, self._state.views("grads"))
        slots = {name: pytree.unflatten(self._structure, self._state.views(name)) for name in optimizer.slots}
        self.state: dict[str, Any] = {
            "optimizer": slots | {name: self._state.scalar(name) for name in optimizer.scalars}
        }
        if model is not None:
            self.state["model"] = pytree.unflatten(model.structure, self._state.views("model"))
        if key is not None:
            self.state["random"] = {KEY: self._state.key, COUNT: self._state.count}
        self._update = passes.run(trace_update(self.optimizer, self._state))
        self._signatures: Signatures[StepSignature] = Signatures()
        self._checks: Signatures[IndexCheck | bool] = Signatures()
        self._hot: StepSignature | None = None
        self._newest: StepSignature | None = None
        self._lock = Lock()

    # -- one step ----------------------------------------------------------------------------------------------------

    def __call__(self, *batch: Any) -> Any:
        """One step on a batch; the loss before the update (and aux). Fresh arrays."""
        with self._lock.current:
            hot = self._hot
            if hot is not None:
                results = hot.try_step(batch)
                if results is not None:
                    return hot.pack(results)
            leaves, structure = pytree.flatten(tuple(batch_item(b) for b in batch))
            arrays = [self._apart(batch_array(leaf)) for leaf in leaves]
            signature = self._signature(structure, arrays)
            results = signature.step(arrays)
            if all(type(a) is np.ndarray for a in batch):
                self._hot = signature
            return signature.pack(results)

    def _apart(self, array: np.ndarray) -> np.ndarray:
        """``array``, copied if a step would write over it."""
        return array.copy() if np.may_share_memory(array, self._state.memory) else array

    def _signature(self, structure: Any, arrays: Sequence[np.ndarray]) -> StepSignature:
        avals = tuple(aval_of(a) for a in arrays)
        key = Key(structure, avals)
        found = self._signatures.get(key)
        if found is None:
            if any(a.shape and a.shape[0] == 0 for a in avals):
                raise ShapeError(f"TrainStep: empty batch, got {', '.join(map(str, avals))}")
            tree: list[Any] = []

            def joint(*values: Any) -> list[Any]:
                n = len(self._loss.avals)
                result = self._loss.step(values[:n], pytree.unflatten(structure, values[n:]))
                outputs, out_structure = pytree.flatten(result.value)
                tree.append(out_structure)
                return [*outputs, *result.grads, *result.staged]

            graph = self._lowered(trace(joint, [*self._loss.avals, *avals], name="step"))
            why = self._signatures.why(key)
            found = self._signatures.add(key, self._build(graph, avals, None, tree[0], why))
        self._newest = found
        return found

    # -- many steps --------------------------------------------------------------------------------------------------

    def run(
        self,
        *arrays: Any,
        batch_size: int,
        epochs: int = 1,
        shuffle: int | None = None,
        drop_last: bool = False,
    ) -> np.ndarray:
        """Train on minibatches of ``arrays`` (equal first axes) without returning to Python within an epoch.

        Args: ``shuffle`` a seed for ``np.random.default_rng`` (a new order each epoch), or None for the given order.
        ``drop_last`` leaves out the last, smaller batch. Returns: the loss of every step, in order.
        Raises: as a step; labels and indices that depend on the data alone are checked for all rows before the first
        update.
        """
        data = [self._apart(batch_array(a)) for a in arrays]
        count = common_length(data)
        check_options(count, batch_size, epochs, shuffle, drop_last)
        whole, rest = divmod(count, int(batch_size))
        rng = None if shuffle is None else np.random.default_rng(shuffle)
        parts = [(0, whole, int(batch_size))] * (whole > 0) + [(whole * int(batch_size), 1, rest)] * (
            rest > 0 and not drop_last
        )
        losses = []
        with self._lock.current:
            loops = [self._loop(data, trips, size) for _, trips, size in parts]
            self._check_indices(data, parts, loops)
            for _ in range(int(epochs)):
                order = np.arange(count) if rng is None else rng.permutation(count)
                for (start, trips, size), loop in zip(parts, loops, strict=True):
                    losses.append(loop.repeat(data, order[start : start + trips * size], trips, size))
        return np.concatenate(losses)

    def _check_indices(
        self, data: Sequence[np.ndarray], parts: Sequence[tuple], loops: Sequence[StepSignature]
    ) -> None:
        """Refuse data with an index out of bounds before anything is updated."""
        avals = tuple(aval_of(a) for a in data)
        n = len(self._loss.avals)
        key = Key("check", avals)
        whole = self._checks.get(key)
        if whole is None:

            def forward(*values: Any) -> list[Any]:
                return [self._loss.value(values[:n], values[n:])]

            try:
                whole = index_check(trace(forward, [*self._loss.avals, *avals], name="check"), n)
            except Exception:  # a loss that does not take all rows as one batch: look at it batch by batch
                whole = False
            self._checks.add(key, whole)
        if not isinstance(whole, bool):
            whole(*data)
            return
        for (start, trips, size), loop in zip(parts, loops, strict=True):
            check = index_check(loop.graph, n)
            for row in range(start, start + trips * size, size):
                check(*data, np.arange(row, row + size), first_row=row)

    def _loop(self, data: Sequence[np.ndarray], trips: int, size: int) -> StepSignature:
        """The signature of ``trips`` steps on batches of ``size`` rows, picked by index."""
        avals = tuple(aval_of(a) for a in data)
        key = Key("run", avals, (("steps", int, trips), ("batch_size", int, size)))
        found = self._signatures.get(key)
        if found is None:

            def joint(*values: Any) -> list[Any]:
                n = len(self._loss.avals)
                batch = [take(a, values[-1], axis=0) for a in values[n:-1]]
                result = self._loss.step(values[:n], batch)
                return [result.value[0] if self._has_aux else result.value, *result.grads, *result.staged]

            index = Aval((size,), np.dtype(np.int64))
            graph = self._lowered(trace(joint, [*self._loss.avals, *avals, index], name="run"))
            why = self._signatures.why(key)
            found = self._signatures.add(key, self._build(graph, (*avals, index), (trips, size), None, why))
        self._newest = found
        return found

    # -- compiling ---------------------------------------------------------------------------------------------------

    def _lowered(self, graph: Graph) -> Graph:
        return lowered(passes.run(graph), self.precision)

    def _build(
        self, graph: Graph, avals: Sequence[Aval], loop: tuple[int, int] | None, tree: Any, why: str
    ) -> StepSignature:
        """Compile (or prepare to interpret) a joint graph together with the update."""
        for _, value in graph.captured:
            if isinstance(value, Tracer):
                raise TraceError(
                    f"TrainStep: the loss closes over {value!r}, which is no array",
                    hint="pass it among params or the batch, or close over t.numpy()",
                )
        if self.backend == "numpy":
            return StepSignature(graph, avals, tree, self._interpreted(graph), None, None)
        start = time.perf_counter()
        state, n_batch = self._state, len(avals)
        n_results = len(graph.outputs) - len(state.leaves("grads")) - len(state.leaves("staged"))
        captured = Captured([value for _, value in graph.captured])
        pointers = [Location("input", i) for i in range(n_batch + len(captured.held))]
        results = [Location("output", i) for i in range(n_results)]
        head = [*state.leaf_places("params"), *state.leaf_places("model")]
        head += [state.scalar_place(name) for name in (KEY, COUNT) if name in state]
        tail = [*state.leaf_places("grads"), *state.leaf_places("staged")]
        borrow = not captured.overlaps([state.memory])
        first = memory.plan(host_schedule(graph), head + pointers, results + tail, borrow=borrow)
        second = memory.plan(host_schedule(self._update), *update_places(self.optimizer, self._state))
        handed = [*avals, *(a.aval for a in graph.outputs[:n_results])]
        repeat: tape.Repeat | None = None
        if loop is not None:
            trips, size = loop
            moving = {Location("input", n_batch - 1): 8 * size, results[0]: handed[-1].dtype.itemsize}
            repeat = tape.Repeat(trips, moving)
            handed[n_batch - 1 :] = [
                Aval((trips * size,), np.dtype(np.int64)),
                Aval((trips,), handed[-1].dtype),
            ]
        built = tape.build([tape.Segment(first), tape.Segment(second, may_pause=False)], self.threads, repeat)
        native = Native(built, handed, n_batch, captured.addresses(), self.threads)
        host = Host(batch_leaves, state.memory, self._lock, captured.refresh)
        program = Program([first, second], native, time.perf_counter() - start, why, host)
        workspace = native.workspace(state.address)
        return StepSignature(graph, handed, tree, None, program, workspace, captured, state.memory.base)

    def _interpreted(self, graph: Graph) -> Callable[..., list[np.ndarray]]:
        """The same step in NumPy: the joint graph, then the update, written back into the state."""
        forward_backward, update, state = interpret(graph), interpret(self._update), self._state
        opt, dtypes, kept = self.optimizer, state.dtypes("params"), state.dtypes("model")
        count = [state.count] if COUNT in state else []
        head = [*state.views("params"), *state.views("model"), *([state.key] if count else []), *count]
        given = [*state.views("grads"), *state.views("staged")]
        buffers = [state.flat(name, d) for d in dtypes for name in ("params", "grads", *opt.slots)]
        buffers += [state.scalar(name) for name in opt.scalars]
        buffers += [*(state.flat("staged", d) for d in kept), *count]
        targets = [state.flat(name, d) for d in dtypes for name in ("params", *opt.slots)]
        targets += [state.scalar(name) for name in opt.advances]
        targets += [*(state.flat("model", d) for d in kept), *count]
        n_results = len(graph.outputs) - len(given)

        def step(*batch: np.ndarray) -> list[np.ndarray]:
            outputs = forward_backward(*head, *batch)
            for view, value in zip(given, outputs[n_results:], strict=True):
                view[...] = value
            for target, value in zip(targets, update(*buffers), strict=True):
                target[...] = value
            return outputs[:n_results]

        return step

    # -- looking inside ----------------------------------------------------------------------------------------------

    @property
    def executable(self) -> Program:
        """The compiled program of the newest signature; `ArgumentError` before the first step and when interpreted."""
        if self.backend == "numpy":
            raise ArgumentError(
                "TrainStep: this step is interpreted: backend='numpy' compiles nothing",
                hint="TrainStep(..., backend='numba'); the interpreted graph: fg.explain(loss, params, *batch)",
            )
        if self._newest is None or self._newest.program is None:
            raise ArgumentError("TrainStep: nothing is compiled yet", hint="call the step once: step(*batch)")
        return self._newest.program

    def snapshot(self) -> dict[str, Any]:
        """Copies of the parameters and of `state`, to keep while training goes on."""
        with self._lock.current:
            return pytree.map(np.array, {"params": self.params, **self.state})


def _model(model_state: Any) -> tuple[list[np.ndarray], ModelState | None]:
    """The arrays of the model state, and what is known of them; none, and None, where there is no such state."""
    if model_state is None:
        return [], None
    leaves, structure = pytree.flatten(model_state)
    names = pytree.paths(model_state)
    arrays = []
    for leaf, name in zip(leaves, names, strict=True):
        array = np.asarray(leaf)
        try:
            aval_of(array)
        except DTypeError as error:
            raise DTypeError(f"TrainStep: model_state{name}: {error.message}", hint=error.hint) from None
        arrays.append(array)
    return arrays, ModelState(structure, [aval_of(a) for a in arrays], names)


def _parameter(leaf: Any, name: str) -> np.ndarray:
    array = np.asarray(leaf)
    aval = aval_of(array)
    if aval.dtype.kind != "f":
        raise DTypeError(
            f"TrainStep: parameter {name} is {aval}, parameters are floats", hint=".astype(np.float32)"
        )
    return array
