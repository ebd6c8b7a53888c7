"""Whatever befalls the folder of compiled code: the answer is right, or the error clear; never a crash or a wrong number."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache.processes import GRADIENT, environment, gradient, outcome, start
from fastgrad.codegen.store import SUFFIX, Entry, Store, encode, parse

KILLS = int(os.environ.get("FASTGRAD_KILLS", "20"))
"""How often a process is killed while it writes; a full campaign sets 200."""
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*" + SUFFIX))


def sound(folder: Path) -> bool:
    """Whether every entry is whole, and nothing else but locks lies about."""
    strays = [p for p in folder.iterdir() if p.suffix not in (SUFFIX, ".lock")]
    return not Store(folder).verify() and not strays


# -- damaged files -----------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_in_the_code(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 200] ^= 0x10
    path.write_bytes(data)


def flip_in_the_header(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b"cfunc.", b"cfund.", 1))


def overwrite_with_noise(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(5000))


def another_kernel(path: Path) -> None:
    others = files(path.parent)
    shutil.copy(others[others.index(path) - 1], path)


def rewritten(path: Path, **changes: object) -> None:
    """The same code with another header, its hash made right again."""
    key = path.name.removesuffix(SUFFIX)
    entry = parse(path.read_bytes(), key, None)
    assert isinstance(entry, Entry)
    meta = {k: v for k, v in entry.meta.items() if k not in ("key", "size", "format")}
    data = encode(key, meta | changes, entry.code)
    path.write_bytes(data)


def another_processor(path: Path) -> None:
    rewritten(path, toolchain="0" * 64, cpu="i486")


def another_version(path: Path) -> None:
    rewritten(path, toolchain="1" * 64, fastgrad="0.0.1", numba="0.1.0")


def deeply_nested(path: Path) -> None:
    path.write_bytes(b"[" * 200_000 + b"\n")


def another_format(path: Path) -> None:
    line, _, code = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps(json.loads(line) | {"format": 99}).encode() + b"\n" + code)


def not_an_object(path: Path) -> None:
    """Everything fits, but the code is none."""
    key = path.name.removesuffix(SUFFIX)
    entry = parse(path.read_bytes(), key, None)
    assert isinstance(entry, Entry)
    meta = {k: v for k, v in entry.meta.items() if k not in ("key", "size", "format")}
    path.write_bytes(encode(key, meta, b"\x7fELF nonsense"))


def no_such_symbol(path: Path) -> None:
    rewritten(path, symbol="nothing_of_this_name")


FAULTS: dict[Callable[[Path], None], str] = {
    truncate: "truncated",
    cut_in_the_header: "no header",
    empty: "empty",
    flip_in_the_code: "sha256",
    flip_in_the_header: "sha256",
    overwrite_with_noise: "no header",
    another_kernel: "another kernel",
    another_processor: "another toolchain or processor",
    another_version: "another toolchain or processor",
    deeply_nested: "no header",
    another_format: "format 99",
    not_an_object: "cannot be linked",
    no_such_symbol: "cannot be linked",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_damaged_files_are_compiled_again(filled: Path, fault: Callable[[Path], None]):
    count = len(files(filled))
    for path in files(filled) if fault is not another_kernel else files(filled)[1:]:
        fault(path)
    found = gradient(filled)
    assert found["compiled"] >= count - 1
    assert FAULTS[fault] in found["report"]
    assert sound(filled)
    assert gradient(filled)["compiled"] == 0


NEWER = {
    "fastgrad": "from fastgrad.codegen import target; target.__version__ = '99.0'",
    "numba": "from fastgrad.codegen import target; target.numba_version = lambda: '99.0'",
    "llvmlite": "import llvmlite; llvmlite.__version__ = '99.0'",
    "numpy": "from fastgrad.codegen import target; target.np = type('numpy', (), {'__version__': '99.0'})",
    "cpu": "from fastgrad.codegen import target; target.cpu = lambda: ('i486', '')",
    "generators": "from fastgrad.codegen import target; target._generators = lambda: 'changed'",
}


@pytest.mark.parametrize("what", NEWER)
def test_another_version_never_looks_at_old_code(filled: Path, what: str):
    before = {p: p.read_bytes() for p in files(filled)}
    found = outcome(start(filled, NEWER[what] + GRADIENT))
    assert found["right"] and found["disk"] == 0 and found["compiled"] > 0
    assert {p: p.read_bytes() for p in before} == before
    assert gradient(filled)["compiled"] == 0  # the old entries are still there for who needs them


def test_another_option_of_numba_is_another_toolchain(filled: Path):
    found = gradient(filled, NUMBA_LOOP_VECTORIZE="0")
    assert found["disk"] == 0 and found["compiled"] > 0
    assert gradient(filled)["compiled"] == 0


# -- the folder --------------------------------------------------------------------------------------------------------


def test_missing_folder_is_made_for_the_user_alone(tmp_path: Path):
    folder = tmp_path / "some" / "where"
    assert gradient(folder)["warnings"] == []
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in files(folder)} == {0o600}


def test_folder_deleted_between_runs_and_while_running(tmp_path: Path):
    program = GRADIENT.replace(
        "t = 1 -", "import shutil, os; shutil.rmtree(os.environ['FASTGRAD_CACHE_DIR'])\nt = 1 -"
    )
    again = "\nassert np.isfinite(fg.grad(lambda x: np.exp(x * x).sum())(x)).all()\n"
    found = outcome(start(tmp_path / "gone", program + again))
    assert found["right"]


def test_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    found = gradient(tmp_path / "file" / "below")
    assert found["compiled"] > 0
    assert len(found["warnings"]) == 1 and "below" in found["warnings"][0]


def test_no_home_and_no_such_user(tmp_path: Path):
    for given in ("~no_such_user_anywhere/x",):
        found = gradient(given)
        assert found["compiled"] > 0
        assert len(found["warnings"]) == 1 and "FASTGRAD_CACHE_DIR" in found["warnings"][0]


def test_a_folder_replaced_while_running_is_looked_at_anew(filled: Path, tmp_path: Path):
    """Swapped for one that others may write to: nothing is read from it, though its entries are sound."""
    later = """
import os, shutil
from pathlib import Path
folder = Path(os.environ["FASTGRAD_CACHE_DIR"])
folder.rename(folder.with_name("old"))
shutil.copytree(folder.with_name("old"), folder)
folder.chmod(0o777)
from fastgrad.codegen import compile as compiler
compiler._loaded.clear()
before = compiler.counts["disk"]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    fg.grad(lambda w: np.tanh(w).sum())(w)
    again = fg.grad(loss, argnums=(1, 0))(w, b, x)
assert compiler.counts["disk"] == before and any("chmod" in str(c.message) for c in caught)
"""
    assert outcome(start(filled, GRADIENT + later))["right"]


def test_a_file_in_place_of_the_folder(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    found = gradient(tmp_path / "file")
    assert len(found["warnings"]) == 1 and "not a folder" in found["warnings"][0]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def read_only(filled: Path) -> Iterator[Path]:
    """The filled folder with all but one entry, nothing in it to be changed; root needs a mount for that."""
    files(filled)[0].unlink()
    if not IS_ROOT:
        filled.chmod(0o500)
        yield filled
        filled.chmod(0o700)
        return
    for options in (["--bind"], ["-o", "remount,bind,ro"]):
        source = [str(filled)] if options == ["--bind"] else []
        if subprocess.run(["mount", *options, *source, str(filled)], capture_output=True).returncode:
            subprocess.run(["umount", str(filled)], capture_output=True)
            pytest.skip("root writes everywhere, and may not mount here")
    yield filled
    subprocess.run(["umount", str(filled)], check=True)


def test_read_only_folder_is_read_and_not_written(read_only: Path):
    count = len(files(read_only))
    for _ in range(2):
        found = gradient(read_only)
        assert found["disk"] == count and found["compiled"] == 1
        assert len(found["warnings"]) == 1 and str(read_only) in found["warnings"][0]
    assert len(files(read_only)) == count


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 8 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k,mode=0700", "tmpfs", str(folder)]
    if not IS_ROOT or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk; the file size limit below stands in for it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(full_disk: Path):
    found = gradient(full_disk)
    assert found["compiled"] > 0
    assert len(found["warnings"]) == 1 and "No space left" in found["warnings"][0]
    assert sound(full_disk)


def test_files_that_may_not_grow(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", GRADIENT],
        env=environment(tmp_path / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    found = outcome(process)
    assert found["right"] and len(found["warnings"]) == 1 and "File too large" in found["warnings"][0]
    assert sound(tmp_path / "cache")


@pytest.mark.skipif(
    not IS_ROOT, reason="only root can give a folder away; the next test changes who is asked"
)
def test_folder_of_another_user_is_refused(filled: Path):
    os.chown(filled, 65534, 65534)
    before = {p: p.read_bytes() for p in files(filled)}
    found = gradient(filled)
    assert found["disk"] == 0 and found["compiled"] > 0
    assert len(found["warnings"]) == 1 and "another user" in found["warnings"][0]
    assert {p: p.read_bytes() for p in files(filled)} == before


def test_folder_of_another_user_is_refused_by_uid(filled: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.warns(UserWarning, match="another user"):
        assert "another user" in str(Store(filled).refusal)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_folder_that_others_may_write_to_is_refused(filled: Path, mode: int):
    filled.chmod(mode)
    found = gradient(filled)
    assert found["disk"] == 0
    assert len(found["warnings"]) == 1 and "chmod go-w" in found["warnings"][0]


def test_cache_off(tmp_path: Path):
    found = gradient("off")
    assert found["compiled"] > 0 and found["warnings"] == [] and "the cache is off" in found["report"]


# -- many processes, and the end of one ----------------------------------------------------------------------------------


def test_sixteen_processes_start_cold_at_once(tmp_path: Path):
    folder = tmp_path / "cache"
    found = [outcome(p) for p in [start(folder) for _ in range(16)]]
    assert all(f["right"] for f in found)
    assert not any(f["warnings"] for f in found)
    assert sound(folder)
    assert gradient(folder)["compiled"] == 0


WRITER = """
import os, sys
from pathlib import Path
from fastgrad.codegen.store import Store
store = Store(Path(os.environ["FASTGRAD_CACHE_DIR"]))
print("ready", flush=True)
i = 0
while True:
    key = f"{i % 7:064x}"
    store.put(key, {"toolchain": "t", "symbol": "s", "count": i}, os.urandom(1 << 18))
    i += 1
"""


def test_killed_while_writing(tmp_path: Path):
    """The writer does nothing but write, so a kill at random lands in the middle of it."""
    folder, rng = tmp_path / "cache", random.Random(1)
    for _ in range(KILLS):
        process = start(folder, WRITER)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert Store(folder).verify() == {}
    strays = list(folder.glob(".*.tmp"))
    with Store(folder).locked() as free:
        assert free, "the lock outlived its process"
    for stray in strays:
        os.utime(stray, (0, 0))
    Store(folder).evict(1 << 40)
    assert not list(folder.glob(".*.tmp"))


def test_killed_while_compiling(tmp_path: Path):
    """A cold start that is killed at a random moment leaves a folder that the next one starts from."""
    folder, rng = tmp_path / "cache", random.Random(2)
    for _ in range(max(3, KILLS // 5)):
        process = start(folder)
        time.sleep(rng.uniform(0.3, 2.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not folder.exists() or Store(folder).verify() == {}
    gradient(folder)
    assert gradient(folder)["compiled"] == 0


@pytest.mark.parametrize("after", [0.6, 1.0, 1.6])
def test_ctrl_c_while_compiling(tmp_path: Path, after: float):
    """It ends soon, as Ctrl-C does, leaves no compiler behind, and the next start is right."""
    folder = tmp_path / "cache"
    process = start(folder, TALL)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - begin < 15  # by itself it would go on for longer
    assert process.returncode in (1, -signal.SIGINT) and "KeyboardInterrupt" in err
    assert not [env for env in compilers_alive() if str(folder) in env]
    assert not folder.exists() or Store(folder).verify() == {}
    gradient(folder)


TALL = """
import numpy as np
import fastgrad as fg
ops = [np.tanh, np.exp, np.sqrt, np.sin, np.cos, np.log1p]
for i in range(400):  # as many structures
    digits = np.base_repr(i + 6**4, 6)
    def f(x):
        for d in digits:
            x = ops[int(d)](x)
        return x.sum()
    fg.grad(f)(np.ones(3))
"""


def compilers_alive() -> list[str]:
    """The environments of all compiler processes of this machine."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"fastgrad.codegen.workers" in (folder / "cmdline").read_bytes():
                found.append((folder / "environ").read_text(errors="replace"))
        except OSError:
            continue
    return found


COMPILERS = (
    GRADIENT
    + """
from fastgrad.codegen.workers import pool
print(json.dumps([c._process.pid for c in pool._all]), flush=True)
sys.stdin.read()
"""
)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None], ids=["SIGKILL", "SIGTERM", "exit"])
def test_compilers_end_with_their_parent(tmp_path: Path, end: int | None):
    with subprocess.Popen(
        [sys.executable, "-c", COMPILERS],
        env=environment(tmp_path / "cache"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        pids = json.loads(process.stdout.readline())
        assert pids
        if end is None:
            process.stdin.close()
        else:
            process.send_signal(end)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a compiler outlived its parent"
        time.sleep(0.05)
