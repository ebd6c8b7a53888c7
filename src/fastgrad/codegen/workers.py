"""Compilers as processes of their own: several kernels compile at once, and this process stays small.

Numba and LLVM never give back what a compilation took (some 600 KB a kernel), hold one lock while they compile, and take
0.4 s to import. So a compiler is ``python -c ... serve()`` on two pipes: it answers units with object code, ends when its
parent does, when nobody has asked for `IDLE_S` seconds, and after `RETIRE_AFTER` units, when a fresh one takes over.

    parent -> compiler   one JSON line a unit: {"kind": ..., "text": ...}
    compiler -> parent   first {"toolchain": ...}; then a JSON line {"symbol", "signature", "seconds", "size"} and that
                         many bytes, or {"error": ...}

Where no process can be started (no interpreter at hand, a sandbox), units are compiled here.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CompileError
from . import target

IDLE_S = 20.0
RETIRE_AFTER = 200
UNITS_EACH = 3
"""A further compiler is started for so many units: it needs 0.8 s before its first."""
MOST = 8
_TICK_S = 0.1


class Built(NamedTuple):
    """Object code of a unit, and how long it took."""

    symbol: str
    signature: str
    code: bytes
    seconds: float


class Died(Exception):
    """A compiler that took a unit and never answered: LLVM aborted, or the system ended it."""


class Compiler:
    """The parent's end of one compiler process."""

    def __init__(self) -> None:
        script = (
            "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
            "from fastgrad.codegen.workers import serve; serve()"
        )
        group: dict[str, Any] = (
            {} if sys.platform == "win32" else {"process_group": 0}
        )  # Ctrl-C is ours to handle
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **group,
        )
        self._answered = 0
        self._greeted = False

    def ask(self, kind: str, text: str) -> Built | None:
        """The unit's object code; None where Numba raised. Raises `Died`, and `OSError` where it never came up."""
        if not self._greeted:
            if self._line().get("toolchain") != target.digest():
                raise OSError("the compiler process is of another toolchain")
            self._greeted = True
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"kind": kind, "text": text}).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._line()
            code = self._process.stdout.read(answer.get("size", 0))
        except (OSError, ValueError) as error:
            raise Died(str(error)) from error
        if len(code) != answer.get("size", 0):
            raise Died("in the middle of an answer")
        self._answered += 1
        if "error" in answer:
            return None
        return Built(answer["symbol"], answer["signature"], code, answer["seconds"])

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise OSError("the compiler process died")
        return json.loads(line)

    @property
    def usable(self) -> bool:
        """Whether it lives and has units left to do."""
        return self._answered < RETIRE_AFTER and self._process.poll() is None

    def close(self, kill: bool = False) -> None:
        """End the process: at once, or as soon as it is done."""
        if kill:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError, ValueError):
                pipe.close()  # type: ignore[union-attr]
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """In a forked child: let go of the parent's pipes."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError, ValueError):
                os.close(pipe.fileno())  # type: ignore[union-attr]
        self._process.returncode = 0  # not ours to wait for


class Pool:
    """Idle compilers, and how to keep several busy. One build at a time (the caller's lock)."""

    def __init__(self) -> None:
        self._all: list[Compiler] = []
        self._idle: list[Compiler] = []
        self._lock = threading.Lock()

    def build(
        self, units: Sequence[tuple[str, str]], cores: int, progress: Callable[[int], None]
    ) -> list[Built | None]:
        """Object code for each unit, in order; None for what has to be compiled here. ``progress(units done)``.

        Raises `CompileError` for a unit on which two compilers died: compiled here, it would end this process.
        """
        results: list[Built | None] = [None] * len(units)
        left = queue.SimpleQueue[int]()
        for i in range(len(units)):
            left.put(i)
        done, stopped = [0], threading.Event()

        def work() -> None:
            compiler = None
            try:
                while not stopped.is_set():
                    i = left.get_nowait()
                    if compiler is None or not compiler.usable:
                        compiler = self._take()
                    try:
                        results[i] = compiler.ask(*units[i])
                    except Died:
                        self._drop(compiler)
                        if stopped.is_set():
                            return
                        compiler = self._take()
                        results[i] = compiler.ask(*units[i])
                    done[0] += 1
            except queue.Empty:
                if compiler is not None:
                    self._idle.append(compiler)
            except (OSError, ValueError, KeyError):  # what is left is compiled here
                if compiler is not None:
                    self._drop(compiler)

        n = max(1, min(cores, MOST, -(-len(units) // UNITS_EACH)))
        with ThreadPoolExecutor(n, "fastgrad-compile") as threads:
            futures = [threads.submit(work) for _ in range(n)]
            try:
                while wait(futures, _TICK_S).not_done:
                    progress(done[0])
            except (
                BaseException
            ):  # Ctrl-C: the threads wait on pipes that only the end of the processes frees
                stopped.set()
                self.close(kill=True)
                raise
        for future in futures:
            try:
                future.result()
            except Died as error:
                raise CompileError(
                    "compiling a kernel ended the compiler process, twice; what it said stands above",
                    hint="another release of Numba and llvmlite, or backend='numpy'",
                ) from error
        return results

    def _take(self) -> Compiler:
        with self._lock:
            while self._idle:
                compiler = self._idle.pop()
                if compiler.usable:
                    return compiler
                self._drop(compiler)
            compiler = Compiler()
            self._all.append(compiler)
            return compiler

    def _drop(self, compiler: Compiler) -> None:
        if compiler in self._all:
            self._all.remove(compiler)
        compiler.close()

    def close(self, kill: bool = False) -> None:
        """End all compilers."""
        compilers, self._all, self._idle = self._all, [], []
        for compiler in compilers:
            compiler.close(kill)

    def forget(self) -> None:
        """In a forked child: these compilers are the parent's."""
        compilers, self._all, self._idle = self._all, [], []
        self._lock = threading.Lock()
        for compiler in compilers:
            compiler.forget()


pool = Pool()
atexit.register(pool.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.forget)


def available() -> bool:
    """Whether an interpreter can be started: embedded and frozen ones cannot start themselves."""
    return (
        bool(sys.executable)
        and not getattr(sys, "frozen", False)
        and Path(sys.executable).stem.lower().startswith(("python", "pypy"))
    )


# -- the compiler process ----------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer units until the parent is gone, silent for too long, or enough was done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not reach the pipe
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()

    def say(head: dict[str, Any], body: bytes = b"") -> None:
        out.write(json.dumps(head).encode() + b"\n" + body)
        out.flush()

    try:
        say({"toolchain": target.digest()})
        from . import toolchain

        for _ in range(RETIRE_AFTER):
            unit = json.loads(lines.get(timeout=IDLE_S))
            start = time.perf_counter()
            try:
                built = toolchain.build(unit["kind"], unit["text"])
            except Exception as error:
                say({"error": f"{type(error).__name__}: {error}"})
                continue
            seconds = time.perf_counter() - start
            say(
                {
                    "symbol": built.symbol,
                    "signature": built.signature,
                    "seconds": seconds,
                    "size": len(built.code),
                },
                built.code,
            )
    except (queue.Empty, OSError):
        pass
    os._exit(0)  # nothing to clean up, and LLVM takes its time over it


def _listen(lines: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)  # the parent is gone
