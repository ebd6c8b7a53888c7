"""Units to machine code: memory, disk, compilers; and what stands in where one of them is missing."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from fastgrad.codegen import compile as compiler
from fastgrad.codegen import target, toolchain, workers
from fastgrad.codegen.compile import Obtained, Unit
from fastgrad.codegen.store import LIMIT_MIB, Entry, Miss, Store, limit_bytes
from fastgrad.errors import CompileError

TEXT = """\
def kernel(desc, lo, hi):
    x = word(desc, 0)
    y = word(desc, 1)
    for i in range(lo, hi):
        store0_f64(y, i, mul(load_f64(x, i), const_f64({bits})))
    return 0
"""
_numbers = iter(range(3, 10_000))


def new_unit() -> tuple[Unit, float]:
    """A unit that multiplies by a number of its own, and the number."""
    factor = float(next(_numbers))
    return Unit("kernel", TEXT.format(bits=int(np.float64(factor).view(np.int64)))), factor


def check(it: Obtained, factor: float) -> None:
    x, y = np.arange(5.0), np.zeros(5)
    desc = np.array([x.ctypes.data, y.ctypes.data], np.int64)
    run = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)(it.kernel.address)
    assert run(desc.ctypes.data, 0, 5) == 0
    np.testing.assert_array_equal(y, factor * x)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of one's own."""
    monkeypatch.setenv("FASTGRAD_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_memory_then_disk_then_compilers(folder: Path):
    unit, factor = new_unit()
    (first,) = compiler.compile([unit])
    assert first.origin == "compiled, not in the cache" and first.seconds > 0
    check(first, factor)
    (again,) = compiler.compile([unit])
    assert again.origin == "in memory" and again.kernel is first.kernel
    compiler._loaded.pop(unit.key)
    (disk,) = compiler.compile([unit])
    assert disk.origin == "from disk" and disk.kernel is not first.kernel
    check(disk, factor)


def test_equal_units_of_one_batch_are_compiled_once(folder: Path):
    (a, factor), (b, other) = new_unit(), new_unit()
    before = compiler.counts["compiled"]
    results = compiler.compile([a, b, Unit(a.kind, a.text), a])
    assert compiler.counts["compiled"] == before + 2
    assert [r.kernel for r in results] == [results[i].kernel for i in (0, 1, 0, 0)]
    check(results[2], factor)
    check(results[1], other)


def test_threads_that_ask_for_the_same_get_the_same(folder: Path):
    units = [new_unit()[0] for _ in range(4)]
    before = compiler.counts["compiled"]
    results: list[list[Obtained]] = []
    threads = [threading.Thread(target=lambda: results.append(compiler.compile(units))) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert compiler.counts["compiled"] == before + 4
    assert len({tuple(id(it.kernel) for it in r) for r in results}) == 1


def hidden_object_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(kind: str, text: str) -> None:
        raise AttributeError("_get_compiled_object")

    monkeypatch.setattr(toolchain, "build", build)
    monkeypatch.setattr(workers, "available", lambda: False)


def no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    workers.pool.close()


def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/some-host-program")
    assert not workers.available()


def another_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that is compiled here under options that its key does not know is used, and never kept."""
    monkeypatch.setenv("NUMBA_OPT", "2")
    monkeypatch.setattr(workers, "available", lambda: False)


def options_set_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilers work under the options that the key knows, whatever the program sets meanwhile: their code is kept."""
    monkeypatch.setenv("NUMBA_OPT", "2")
    monkeypatch.setattr(compiler, "_built_here", None)  # never asked
    workers.pool.close()


def another_toolchain_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    workers.pool.close()
    monkeypatch.setattr(target, "digest", lambda digest=target.digest: digest()[::-1])


def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


def no_more_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def popen(*args: object, **kwargs: object) -> None:
        raise RuntimeError("an audit hook said no")

    workers.pool.close()
    monkeypatch.setattr(subprocess, "Popen", popen)


def stopped_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is stopped as by Ctrl-Z: it is given up at the deadline, and a fresh one does its work."""
    take, stopped = workers.Pool.take, []

    def take_and_stop(self: workers.Pool) -> workers.Compiler:
        it = take(self)
        if not stopped:
            stopped.append(it)
            os.kill(it._process.pid, signal.SIGSTOP)
        return it

    workers.pool.close()
    monkeypatch.setattr(workers, "DEADLINE_S", 5.0)
    monkeypatch.setattr(workers.Pool, "take", take_and_stop)


def compilers_that_die(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = workers.Compiler.ask

    def ask_and_die(self: workers.Compiler, kind: str, text: str) -> workers.Built | None:
        self._process.kill()
        self._process.wait()
        return ask(self, kind, text)

    monkeypatch.setattr(workers.Compiler, "ask", ask_and_die)


def compilers_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.Compiler, "ask", lambda self, kind, text: None)


@pytest.mark.parametrize(
    "trouble",
    [
        hidden_object_code,
        no_interpreter,
        embedded,
        another_environment,
        options_set_later,
        another_toolchain_outside,
        compilers_that_die,
        compilers_that_cannot,
        no_more_threads,
        no_more_processes,
        stopped_compilers,
    ],
    ids=lambda f: f.__name__,
)
def test_something_stands_in(folder: Path, monkeypatch: pytest.MonkeyPatch, trouble):
    trouble(monkeypatch)
    pairs = [new_unit() for _ in range(2)]
    for it, (_, factor) in zip(compiler.compile([u for u, _ in pairs]), pairs, strict=True):
        assert it.origin == "compiled, not in the cache"
        check(it, factor)
    stored = Store(folder).files()
    keeps_nothing = trouble in (hidden_object_code, another_environment)
    assert len(stored) == (0 if keeps_nothing else 2)


def test_a_unit_that_ends_its_compiler_ends_no_more_than_that(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """As LLVM does where it cannot select an instruction: the compiler aborts, and so does the next."""
    line = workers.Compiler._line
    asked = []

    def abort_after_the_greeting(self: workers.Compiler) -> dict:
        if self._greeted:
            asked.append(self._process.pid)
            self._process.kill()
            self._process.wait()
            while self._process.stdout.read(1):  # whatever was on its way
                pass
        return line(self)

    monkeypatch.setattr(workers.Compiler, "_line", abort_after_the_greeting)
    with pytest.raises(CompileError, match="ended the compiler process, twice"):
        compiler.compile([new_unit()[0]])
    assert len(set(asked)) == 2
    monkeypatch.undo()
    monkeypatch.setenv("FASTGRAD_CACHE_DIR", str(folder))
    unit, factor = new_unit()
    check(compiler.compile([unit])[0], factor)


def test_an_error_in_a_kernel_is_numbas_own(folder: Path):
    with pytest.raises(Exception, match="no_such_name"):
        compiler.compile([Unit("kernel", "def kernel(desc, lo, hi):\n    return no_such_name(lo)\n")])


def test_code_nobody_needs_is_unloaded(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiler, "KEPT", 4)
    refs = []
    for _ in range(8):
        unit, _ = new_unit()
        refs.append(weakref.ref(compiler.compile([unit])[0].kernel))
    gc.collect()
    alive = [r() for r in refs]
    assert all(k is None for k in alive[:4]) and all(k is not None for k in alive[4:])


def test_fork_leaves_the_compilers_to_the_parent(folder: Path):
    compiler.compile([new_unit()[0]])
    unit, _ = new_unit()
    pid = os.fork()
    if pid == 0:
        try:
            compiler.compile([unit])
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    later, factor = new_unit()
    check(compiler.compile([later])[0], factor)
    check(compiler.compile([unit])[0], factor - 1)


def test_fork_while_another_thread_compiles(folder: Path):
    """The child finds every lock open, whoever held it."""
    units = [new_unit()[0] for _ in range(6)]
    thread = threading.Thread(target=lambda: compiler.compile(units))
    thread.start()
    time.sleep(0.1)
    unit, factor = new_unit()
    pid = os.fork()
    if pid == 0:
        try:
            check(compiler.compile([unit])[0], factor)
            os._exit(0)
        except BaseException:
            os._exit(1)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < deadline, "the child hangs"
        time.sleep(0.05)
    assert ended[1] == 0
    thread.join()


def test_a_process_that_holds_the_turn_costs_patience_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiler, "_patience", [0.5])
    with Store(folder).locked("build") as held:
        assert held
        waits = []
        for _ in range(2):
            start = time.monotonic()
            compiler.compile([new_unit()[0]])
            waits.append(time.monotonic() - start)
    assert compiler._patience == [0.0]
    assert waits[0] > 0.5


def test_a_compile_within_a_compile_does_not_wait_for_itself(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """As in a signal handler that calls a new function."""
    inner, factor = new_unit()
    done = []

    def progress_that_compiles(self: object, n: int) -> None:
        if not done:
            done.append(None)
            done.extend(compiler.compile([inner]))

    monkeypatch.setattr("fastgrad.codegen.progress.Progress.__call__", progress_that_compiles)
    start = time.monotonic()
    compiler.compile([new_unit()[0]])
    assert time.monotonic() - start < compiler.PATIENCE_S
    check(done[1], factor)


# -- the store by itself -------------------------------------------------------------------------------------------------


def test_entries_come_back(tmp_path: Path):
    store = Store(tmp_path / "s")
    store.put("k", {"toolchain": "t", "symbol": "f"}, b"\n\x00code\n")
    found = store.get("k", "t")
    assert isinstance(found, Entry) and found.code == b"\n\x00code\n" and found.meta["symbol"] == "f"
    assert isinstance(store.get("other", "t"), Miss)


def test_least_recently_used_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FASTGRAD_CACHE_MIB", "1")
    store, keys = Store(tmp_path / "s"), [f"{i:064x}" for i in range(12)]
    for i, key in enumerate(keys[:8]):
        store.put(key, {"toolchain": "t"}, bytes(100_000))
        os.utime(store.path(key), (i, i))
    assert isinstance(store.get(keys[0], "t"), Entry)  # a hit renews an old file's time
    for key in keys[8:]:
        store.put(key, {"toolchain": "t"}, bytes(100_000))
    kept = {path.name.partition(".")[0] for path, _ in store.files()}
    assert {keys[0], keys[11]} <= kept and keys[1] not in kept
    assert sum(stat.st_size for _, stat in store.files()) <= 1 << 20


@pytest.mark.parametrize("text", ["", "many", "-3", "1.5", "²"])
def test_a_bound_that_is_none_is_the_default(monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setenv("FASTGRAD_CACHE_MIB", text)
    assert limit_bytes() == LIMIT_MIB << 20
