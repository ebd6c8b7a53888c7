"""Run a tape: workspaces, the fast Python entry, and what happens when an array is not as planned."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ..codegen import abi
from ..codegen import compile as compiler
from ..codegen.runtime import UNITS, runtime
from ..core.aval import Aval, aval_of, check_dtype
from ..core.graph import Tracer
from ..errors import DTypeError, OutOfBoundsError, ShapeError, TraceError
from ..placement import ALIGN
from .tape import Tape

ALLOWANCE_NS = 20_000_000
"""A run returns to Python this often, so that Ctrl-C and other signals are seen."""
RELEASE_GIL_NS = 50_000.0
"""Runs that are expected to take longer let other Python threads in."""


def aligned(nbytes: int) -> np.ndarray:
    """``nbytes`` of memory that begins on a cache line."""
    raw = np.empty(nbytes + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + nbytes]


def _function(name: str) -> int:
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


class Captured:
    """Arrays that a traced function closed over: held by reference, so that a change in place is seen at the next run.

    One that no kernel can read as it lies (strided, misaligned, byte-swapped) is copied again by `refresh`.
    """

    def __init__(self, values: Sequence[Any]):
        self._copies: list[tuple[np.ndarray, np.ndarray]] = []
        self.held: list[np.ndarray] = []
        for value in values:
            if isinstance(value, Tracer):
                raise TraceError(
                    f"a traced value {value.aval} reached a compiled function from another trace"
                )
            held = conform(value, aval_of(value), "captured array")
            if held is not value:
                self._copies.append((held, value))
            self.held.append(held)

    @property
    def copied(self) -> bool:
        """Whether there is anything to copy anew."""
        return bool(self._copies)

    def addresses(self) -> list[int]:
        """Where they lie."""
        return [array.ctypes.data for array in self.held]

    def overlaps(self, arrays: Sequence[np.ndarray]) -> bool:
        """Whether one of ``arrays`` may share memory with what the kernels read."""
        return any(np.may_share_memory(a, h) for a in arrays for h in self.held)

    def refresh(self) -> None:
        """Copy anew what had to be copied."""
        for held, value in self._copies:
            np.copyto(held, value)


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_FASTCALL = 0x0080
_new_function = ctypes.pythonapi.PyCFunction_NewEx
_new_function.restype = ctypes.py_object
_new_function.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)


class Native:
    """A linked tape: kernel addresses in place, ready for workspaces."""

    def __init__(self, tape: Tape, arrays: Sequence[Aval], n_inputs: int, fixed: Sequence[int], threads: int):
        """``arrays``: inputs then outputs that a call hands over; ``fixed``: further input pointers, known now."""
        self.tape, self.arrays, self.n_inputs, self.threads = tape, tuple(arrays), n_inputs, threads
        self.fixed = tuple(fixed)
        units = [compiler.Unit("kernel", text) for text in tape.texts]
        # The run in one batch with its first kernels: they compile side by side.
        self.obtained = compiler.compile([*units, *UNITS])[: len(units)]
        self.kernels = [it.kernel for it in self.obtained]
        self.runtime = runtime()
        self.run = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 6)(self.runtime.run)
        self._method = _MethodDef(b"run", self.runtime.entry, _FASTCALL, None)
        self.trusted = True if tape is _EMPTY else native_entry_works()

    def workspace(self, state: int = 0) -> Workspace:
        """A workspace of its own for one call in flight; ``state`` is the address of the state's memory."""
        return Workspace(self, state)


class Workspace:
    """Arena, descriptors, control words and pointer tables of one call in flight. ``entry(*arrays)`` runs."""

    def __init__(self, native: Native, state: int):
        tape, runtime = native.tape, native.runtime
        plan = tape.words
        n_kernels, n_words = int(plan[abi.N_KERNELS]), int(plan[abi.N_WORDS])
        self.native = native
        self.arena = aligned(tape.arena_bytes)
        self.words = aligned(8 * (abi.CONTROL + n_kernels + n_words)).view(np.int64)
        self.words[: abi.CONTROL] = 0
        base = self.words.ctypes.data
        self.words[abi.THREADS] = min(native.threads, runtime.pool_threads)
        self.words[abi.KERNELS_AT] = base + 8 * abi.CONTROL
        self.words[abi.DESCS_AT] = base + 8 * (abi.CONTROL + n_kernels)
        self.words[abi.PARALLEL_FOR], self.words[abi.WORKER] = runtime.parallel_for, runtime.worker
        self.words[abi.LOCK], self.words[abi.CLOCK] = runtime.lock.ctypes.data, runtime.clock
        self.words[abi.YIELD] = runtime.give_way
        self.words[abi.SELF : abi.SET_CORES + 1] = runtime.cores
        self.words[abi.CONTROL : abi.CONTROL + n_kernels] = [k.address for k in native.kernels]
        descs = self.words[abi.CONTROL + n_kernels :]
        start = int(plan[abi.WORDS_AT])
        descs[:] = plan[start : start + n_words]
        self._state = state
        self._place()
        n_outputs = len(native.arrays) - native.n_inputs
        self.inputs = np.zeros(native.n_inputs + len(native.fixed) + 1, np.int64)
        self.inputs[native.n_inputs : native.n_inputs + len(native.fixed)] = native.fixed
        self.outputs = np.zeros(n_outputs + 1, np.int64)
        self.pc = np.zeros(1, np.int64)
        self.arguments = (
            plan.ctypes.data,
            base,
            self.inputs.ctypes.data,
            self.outputs.ctypes.data,
            self.pc.ctypes.data,
        )
        self.spec = self._spec()
        # The entry finds its spec through the bytes object that stands as its ``self``.
        self._self = int(self.spec.ctypes.data).to_bytes(8, "little")
        self.native_entry = _new_function(ctypes.addressof(native._method), self._self, None)
        self.entry: Callable[..., bool | None] = self.native_entry if native.trusted else self.python_entry

    def _spec(self) -> np.ndarray:
        native = self.native
        head = [0] * abi.SPEC
        head[abi.S_COUNT] = len(native.arrays)
        head[abi.S_PLAN], head[abi.S_WS], head[abi.S_IN], head[abi.S_OUT], head[abi.S_PC] = self.arguments
        head[abi.S_ALLOWANCE], head[abi.S_RELEASE] = ALLOWANCE_NS, int(native.tape.cost_ns > RELEASE_GIL_NS)
        head[abi.S_SAVE], head[abi.S_RESTORE] = (
            _function("PyEval_SaveThread"),
            _function("PyEval_RestoreThread"),
        )
        head[abi.S_INCREF], head[abi.S_NDARRAY] = _function("Py_IncRef"), id(np.ndarray)
        head[abi.S_NONE], head[abi.S_FALSE], head[abi.S_TRUE] = id(None), id(False), id(True)
        head[abi.S_RUN], head[abi.S_INPUTS] = native.runtime.run, native.n_inputs
        words = head
        for i, aval in enumerate(native.arrays):
            table, k = (self.inputs, i) if i < native.n_inputs else (self.outputs, i - native.n_inputs)
            dtype = id(check_dtype(aval.dtype))
            words += [table.ctypes.data + 8 * k, dtype, aval.nbytes, aval.ndim, *aval.shape]
        return np.array(words, np.int64)

    def _place(self) -> None:
        """Addresses in the arena and the state into their descriptor words (a run writes those of its arrays itself)."""
        plan, native = self.native.tape.words, self.native
        descs = self.words[abi.CONTROL + len(native.kernels) :]
        bases = {abi.ARENA: self.arena.ctypes.data, abi.STATE: self._state}
        start = int(plan[abi.RELOCS_AT])
        relocs = plan[start : start + abi.RELOC * int(plan[abi.N_RELOCS])].reshape(-1, abi.RELOC)
        for word, space, _, offset in relocs:
            if space in bases:
                descs[word] = bases[int(space)] + offset

    def python_entry(self, *arrays: Any) -> bool | None:
        """What `codegen.walker._entry` does, through public API alone: its twin, and its stand-in."""
        native, n = self.native, self.native.n_inputs
        given = len(arrays) == len(native.arrays) + 1 and arrays[-1] is True
        arrays = arrays[:-1] if given else arrays
        if len(arrays) != len(native.arrays):
            return False
        for i, (array, aval) in enumerate(zip(arrays, native.arrays, strict=True)):
            if type(array) is not np.ndarray or array.dtype != aval.dtype or array.shape != aval.shape:
                return False
            if not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
                return False
            table, k = (self.inputs, i) if i < n else (self.outputs, i - n)
            table[k] = array.ctypes.data
            if given and i >= n and not array.flags.writeable:
                return False
            if given and i >= n and any(np.may_share_memory(array, other) for other in arrays[:i]):
                return False
        self.pc[0] = 0
        status = native.run(*self.arguments, ALLOWANCE_NS)
        self.spec[abi.S_STATUS] = status
        return None if status == abi.DONE else True

    def finish(self) -> None:
        """After the entry returned True: go on until the run is done, or raise for a kernel's status."""
        status = int(self.spec[abi.S_STATUS])
        try:
            while status == abi.PAUSED:
                status = self.native.run(*self.arguments, ALLOWANCE_NS)
            if status == abi.FAILED:
                raise self.failure()
        except BaseException:
            self._place()  # a loop that was left half-way has moved some
            raise

    def failure(self) -> OutOfBoundsError:
        """The error for the row at which the run stopped: which index, of which op, at the user's line."""
        row = int(self.pc[0]) - 1
        source = self.native.tape.sources[row]
        assert source is not None, "only kernels fail"
        step = source.step
        eqn = step.eqns[0]
        which = 0 if eqn.prim.name == "check_index" else 1  # where the indices stand among the operands
        plan, indices = self.native.tape.words, eqn.inputs[which].aval
        size = eqn.params["size"] if "size" in eqn.params else eqn.inputs[0].aval.shape[eqn.params["axis"]]
        desc = int(plan[plan[abi.ROWS_AT] + abi.ROW * row + abi.DESC])
        address = int(self.words[abi.CONTROL + len(self.native.kernels) + desc + which])
        memory: Any = (ctypes.c_char * indices.nbytes).from_address(address)
        values = np.frombuffer(memory, indices.dtype)
        low = 0 if which == 0 else -size
        bad = values[(values < low) | (values >= size)][0]
        return OutOfBoundsError(
            f"{eqn.prim.name}: index {bad} is out of bounds for an axis of size {size}", at=eqn.source
        )


_EMPTY = Tape(np.array([0] * abi.HEADER, np.int64), (), (), 0, 0.0)


@cache
def native_entry_works() -> bool:
    """Whether the native entry reads this interpreter's arrays rightly: it assumes CPython's and NumPy's object layout.

    Where it does not (a free-threaded build, say), calls go through `Workspace.python_entry`, some microseconds slower.
    """
    want, other = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int32)
    workspace = Native(_EMPTY, [Aval((2, 3), np.dtype(np.float32))], 1, (), 1).workspace()
    refused = all(workspace.native_entry(a) is False for a in (other, want.T, want[:, :2], want[0], 1.0))
    given = Native(_EMPTY, [Aval((2, 3), np.dtype(np.float32))], 0, (), 1).workspace()
    locked = want.copy()
    locked.flags.writeable = False
    refused = refused and given.native_entry(locked, True) is False
    refused = refused and given.native_entry(want, True) is None
    return refused and workspace.native_entry(want) is None and workspace.inputs[0] == want.ctypes.data


class Pool:
    """Workspaces that wait for the next call; one per concurrent call comes into being."""

    def __init__(self, native: Native, state: int = 0):
        self.native, self.state = native, state
        self.free: list[Workspace] = []
        """Those that wait; whoever takes the last one makes a new one."""

    def new(self) -> Workspace:
        """One more."""
        return self.native.workspace(self.state)

    def take(self) -> Workspace:
        """A free workspace, or a new one."""
        try:
            return self.free.pop()
        except IndexError:
            return self.new()

    def give(self, workspace: Workspace) -> None:
        """Back for the next call."""
        self.free.append(workspace)


def conform(array: Any, aval: Aval, what: str) -> np.ndarray:
    """``array`` as the entry takes it (contiguous, aligned, native); an error where shape or dtype differ."""
    array = np.asarray(array)
    if array.dtype.newbyteorder("=") != aval.dtype:
        raise DTypeError(
            f"{what}: expected {aval}, got dtype {array.dtype}", hint=f".astype(np.{aval.dtype.name})"
        )
    if array.shape != aval.shape:
        raise ShapeError(f"{what}: expected {aval}, got shape {list(array.shape)}")
    native = check_dtype(aval.dtype)  # the one object that the entry knows; equal ones are views away
    if not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
        fresh = np.empty(aval.shape, native)
        np.copyto(fresh, array)
        return fresh
    return array if array.dtype is native else array.view(native)
