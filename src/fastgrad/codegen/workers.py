"""Compilers as processes of their own: several kernels compile at once, and this process stays small.

Numba and LLVM never give back what a compilation took (some 600 KB a kernel), hold one lock while they compile, and take
0.4 s to import. So a compiler is ``python -c ... serve()`` on two pipes: it answers units with object code, ends when its
parent does, when nobody has asked for `IDLE_S` seconds, and after `RETIRE_AFTER` units, when a fresh one takes over.

    parent -> compiler   one JSON line a unit: {"kind": ..., "text": ...}
    compiler -> parent   first {"toolchain": ...}; then a JSON line {"symbol", "signature", "seconds", "size"} and that
                         many bytes, or {"error": ...}

Where no process or thread can be started (no interpreter at hand, a sandbox, the end of the program), units are compiled
here. Nothing waits without a limit: a compiler that is silent for `DEADLINE_S` is killed, and ends itself.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from ..errors import CompileError
from ..locks import Lock
from . import target

IDLE_S = 20.0
DEADLINE_S = 120.0
"""For one unit; the slowest ever seen, a 16 x 16 shuffle network in LLVM 22, took 115 s and was given up."""
RETIRE_AFTER = 200
UNITS_EACH = 3
"""A further compiler is started for so many units: it needs 0.8 s before its first."""
MOST = 8
_TICK_S = 0.05


class Built(NamedTuple):
    """Object code of a unit, and how long it took."""

    symbol: str
    signature: str
    code: bytes
    seconds: float


class Died(Exception):
    """A compiler that took a unit and never answered: LLVM aborted, it hung, or the system ended it."""


class Compiler:
    """The parent's end of one compiler process."""

    def __init__(self) -> None:
        script = "import sys; sys.path[:] = sys.argv[1:]; from fastgrad.codegen.workers import serve; serve()"
        flags = {"-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site, "-S": sys.flags.no_site}
        path = [os.path.abspath(p) for p in sys.path if isinstance(p, str)]
        group: dict[str, Any] = (
            {} if sys.platform == "win32" else {"process_group": 0}
        )  # Ctrl-C is ours to handle
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-W",
                "ignore",
                *(f for f, on in flags.items() if on),
                "-c",
                script,
                *path,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=target.environment(),
            cwd=target.folder(),
            **group,
        )
        self._answered = 0
        self._greeted = False
        self._since: float | None = None

    def ask(self, kind: str, text: str) -> Built | None:
        """The unit's object code; None where Numba raised. Raises `Died`, and `OSError` where it never came up."""
        self._since = time.monotonic()
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
        finally:
            self._since = None
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

    def hurry(self) -> None:
        """Kill it where it has been silent past its deadline; who waits for its answer hears that it died."""
        since = self._since
        if since is not None and time.monotonic() - since > DEADLINE_S:
            self._process.kill()

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
        self._lock = Lock()

    def build(
        self, units: Sequence[tuple[str, str]], cores: int, progress: Callable[[int], None]
    ) -> list[Built | None]:
        """Object code for each unit, in order; None for what has to be compiled here. ``progress(units done)``.

        Raises `CompileError` for a unit on which two compilers died: compiled here, it would end this process.
        """
        job = _Job(self, units)
        threads = []
        for _ in range(max(1, min(cores, MOST, -(-len(units) // UNITS_EACH)))):
            thread = threading.Thread(target=job.work, name="fastgrad-compile", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads: the end of the program, or of a quota
                thread.start()
                threads.append(thread)
        try:
            while any(thread.is_alive() for thread in threads):
                threads[-1].join(_TICK_S)
                progress(job.done)
                for compiler in list(self._all):
                    compiler.hurry()
        except BaseException:  # Ctrl-C: the threads wait on pipes that only the end of the processes frees
            job.stopped = True
            self.close(kill=True)
            raise
        if job.death is not None:
            raise CompileError(
                "compiling a kernel ended the compiler process, twice; what it said stands above",
                hint="another release of Numba and llvmlite, or backend='numpy'",
            ) from job.death
        return job.results

    def take(self) -> Compiler:
        """An idle compiler, or a new one."""
        with self._lock.current:
            while self._idle:
                compiler = self._idle.pop()
                if compiler.usable:
                    return compiler
                self.drop(compiler)
            compiler = Compiler()
            self._all.append(compiler)
            return compiler

    def give(self, compiler: Compiler) -> None:
        """Back for the next build."""
        self._idle.append(compiler)

    def drop(self, compiler: Compiler) -> None:
        """End one that is of no use any more."""
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
        for compiler in compilers:
            compiler.forget()


class _Job:
    """One build: the units left, and what became of each."""

    def __init__(self, pool: Pool, units: Sequence[tuple[str, str]]):
        self.pool, self.units = pool, units
        self.results: list[Built | None] = [None] * len(units)
        self.done = 0
        self.stopped = False
        self.death: Died | None = None
        self._left: queue.SimpleQueue[int] = queue.SimpleQueue()
        for i in range(len(units)):
            self._left.put(i)

    def work(self) -> None:
        """What each thread does: one compiler, unit after unit."""
        compiler = None
        try:
            while not self.stopped:
                i = self._left.get_nowait()
                if compiler is None or not compiler.usable:
                    compiler = self.pool.take()
                try:
                    self.results[i] = compiler.ask(*self.units[i])
                except Died:
                    self.pool.drop(compiler)
                    if self.stopped:
                        return
                    compiler = self.pool.take()
                    self.results[i] = compiler.ask(*self.units[i])
                self.done += 1
        except queue.Empty:
            if compiler is not None:
                self.pool.give(compiler)
        except Died as death:
            self.death, self.stopped = death, True
        except Exception:  # it cannot be started, or is none of ours: what is left is compiled here
            if compiler is not None:
                self.pool.drop(compiler)


pool = Pool()
with contextlib.suppress(RuntimeError):  # imported at the end of the program: they end with it all the same
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
    nowhere = open(os.devnull, "w")  # noqa: SIM115 (open to the end)
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()

    def say(head: dict[str, Any], body: bytes = b"") -> None:
        out.write(json.dumps(head).encode() + b"\n" + body)
        out.flush()

    with contextlib.suppress(OSError, queue.Empty):
        say({"toolchain": target.digest()})
        with _deadline(nowhere):
            build = _builder()
        for _ in range(RETIRE_AFTER):
            unit = json.loads(lines.get(timeout=IDLE_S))
            try:
                with _deadline(nowhere):
                    start = time.perf_counter()
                    built = build(unit["kind"], unit["text"])
                    seconds = time.perf_counter() - start
            except Exception as error:
                say({"error": f"{type(error).__name__}: {error}"})
                continue
            head = {"symbol": built.symbol, "signature": built.signature, "seconds": seconds}
            say(head | {"size": len(built.code)}, built.code)
    os._exit(0)  # nothing to clean up, and LLVM takes its time over it


def _builder() -> Callable[[str, str], Any]:
    """`toolchain.build`; where Numba cannot be imported, a function that raises why."""
    try:
        from . import toolchain
    except Exception as error:
        reason = error

        def fail(kind: str, text: str) -> Any:
            raise reason

        return fail
    return toolchain.build


@contextlib.contextmanager
def _deadline(nowhere: TextIO) -> Iterator[None]:
    """End this process at the deadline, even while C code holds the interpreter and nobody hears that the parent is gone."""
    faulthandler.dump_traceback_later(DEADLINE_S, exit=True, file=nowhere)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _listen(lines: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)  # the parent is gone
