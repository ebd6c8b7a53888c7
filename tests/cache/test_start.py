"""Starting: a light import, a warm process without Numba, and nothing compiled twice."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from cache.processes import GRADIENT, environment, gradient, outcome, start
from fastgrad.codegen import target

HEAVY = {
    "numba",
    "llvmlite",
    "optree",
    "rich",
    "filelock",
    "platformdirs",
    "matplotlib",
    "torch",
    "jax",
    "scipy",
}


def modules_after(statement: str) -> set[str]:
    """The modules of a fresh process that ran ``statement``."""
    program = f"import sys, json\n{statement}\nprint(json.dumps(list(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(out.stdout))


def test_import_is_light():
    assert not HEAVY & modules_after("import fastgrad")


def test_public_modules_import_neither_numba_nor_llvmlite():
    loaded = modules_after("import fastgrad as fg\n[getattr(fg, name) for name in fg.__all__]")
    assert not {"numba", "llvmlite"} & loaded


def test_every_public_name_is_there_and_listed():
    import fastgrad as fg

    assert all(getattr(fg, name) is not None for name in fg.__all__)
    assert set(fg.__all__) <= set(dir(fg))
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = fg.nothing_of_this_name


def test_warm_process_loads_everything_without_numba(pristine: Path):
    found = gradient(pristine)
    assert found["compiled"] == 0 and found["disk"] > 3  # kernels, walker, run, entry
    assert "numba" not in found["imported"]


def test_cold_process_compiles_outside(tmp_path: Path):
    found = gradient(tmp_path / "cache")
    assert found["compiled"] > 3 and found["disk"] == 0
    assert "numba" not in found["imported"]


TRAINING = """
import json, sys
import numpy as np
import fastgrad as fg
from fastgrad.codegen.compile import counts

def loss(params, x, y):
    for layer in params[:-1]:
        x = fg.nn.functional.relu(x @ layer["w"] + layer["b"])
    return fg.nn.functional.cross_entropy(x @ params[-1]["w"] + params[-1]["b"], y)

rng = np.random.default_rng(0)

def compiled_by(sizes, rows):
    before = counts["compiled"]
    params = [
        {"w": rng.standard_normal(pair).astype("f4") * 0.1, "b": np.zeros(pair[1], "f4")}
        for pair in zip(sizes, sizes[1:])
    ]
    step = fg.TrainStep(loss, params, fg.optim.Adam(1e-3), threads=THREADS)
    step(rng.standard_normal((rows, sizes[0])).astype("f4"), rng.integers(0, sizes[-1], rows))
    return counts["compiled"] - before

compiled = [compiled_by([64, 32, 16, 10], 32), compiled_by([20, 8, 8, 8, 3], 32), compiled_by([64, 32, 16, 10], 7)]
print(json.dumps({"compiled": compiled, "numba": "numba" in sys.modules}))
"""


def test_a_further_layer_another_batch_another_process_compile_nothing(tmp_path: Path):
    program = TRAINING.replace("THREADS", "2")
    first, layer, batch = outcome(start(tmp_path / "cache", program))["compiled"]
    assert first > 0 and layer == batch == 0
    again = outcome(start(tmp_path / "cache", program))
    assert again["compiled"] == [0, 0, 0] and not again["numba"]


THREAD_AT_THE_END = """
import threading, time, json
import numpy as np
import fastgrad as fg

def train():
    time.sleep(0.3)  # the main thread has come to its end
    value = fg.jit(lambda x: np.tanh(x).sum())(np.ones(3))
    print(json.dumps(float(value)))

threading.Thread(target=train).start()
"""
AT_EXIT = """
import atexit, json
import numpy as np
import fastgrad as fg
atexit.register(lambda: print(json.dumps(float(fg.jit(lambda x: np.tanh(x).sum())(np.ones(3))))))
"""
ODD_PATH = "import sys, pathlib; sys.path.insert(0, pathlib.Path('/tmp')); sys.path.append('')" + AT_EXIT


@pytest.mark.parametrize("program", [THREAD_AT_THE_END, AT_EXIT, ODD_PATH], ids=["thread", "atexit", "path"])
def test_cold_at_the_end_of_a_program(tmp_path: Path, program: str):
    assert outcome(start(tmp_path / "cache", program)) == pytest.approx(3 * math.tanh(1))


def test_compilers_import_nothing_from_the_current_folder(tmp_path: Path):
    """A file there that is called like one of Python's own must not run."""
    for name in ("json", "queue", "numba", "signal"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit('ran')")
    done = subprocess.run(
        [sys.executable, "-P", "-c", GRADIENT],
        env=environment(tmp_path / "cache"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["right"] and not (tmp_path / "ran").exists()


def test_an_unusable_numba_says_so_itself(tmp_path: Path):
    program = """
import sys, warnings
import numpy as np, fastgrad as fg
try:
    fg.jit(lambda x: np.tanh(x))(np.ones(3))
except Exception as error:
    import json
    print(json.dumps([type(error).__name__, str(error)]))
"""
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text("raise ImportError('Numba needs NumPy 1.0 or less')")
    kind, text = outcome(start(tmp_path / "cache", program, PYTHONPATH=str(tmp_path)))
    assert kind == "ImportError" and "Numba needs NumPy 1.0 or less" in text


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
@pytest.mark.parametrize("first", ["fastgrad", "numba"])
def test_one_thread_pool_beside_numba(tmp_path: Path, layer: str, first: str):
    """Threads come from Numba's layer, whoever loads it first, and both may use it in turn."""
    numba = """
import numpy as np, numba
@numba.njit(parallel=True)
def total(x):
    s = 0.0
    for i in numba.prange(len(x)):
        s += x[i]
    return s
assert total(np.ones(1000)) == 1000
"""
    fastgrad = """
import numpy as np, fastgrad as fg
x = np.linspace(0, 1, 200_000)
f = fg.jit(lambda x: np.tanh(x) * 2, threads=2)
assert np.allclose(f(x), np.tanh(x) * 2)
assert next(iter(f._signatures.values())).executable.program.native.tape.words[7] == 1  # a parallel row
from fastgrad.codegen.threads import launched
"""
    parts = [fastgrad, numba] if first == "fastgrad" else [numba, fastgrad]
    program = "\n".join([*parts, *parts, "import json\nprint(json.dumps(launched()._asdict()))"])
    found = outcome(start(tmp_path / "cache", program, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2"))
    assert found["layer"] == layer and found["threads"] == 2


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_a_release_of_numba_not_tried_yet_goes_the_public_way(tmp_path: Path, layer: str):
    program = """
import json
import numpy as np, fastgrad as fg
from fastgrad.codegen import threads
threads.TRIED = ()
x = np.linspace(0, 1, 300_000)
f, g = (fg.jit(lambda x: (np.tanh(x) * 2).sum(), threads=n) for n in (2, 1))
two, one = f(x), g(x)
np.testing.assert_array_equal(two, one)  # the same bits at any number of threads
for _ in range(200):
    np.testing.assert_array_equal(f(x), one)
print(json.dumps(threads.launched()._asdict()))
"""
    found = outcome(start(tmp_path / "cache", program, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2"))
    assert found["layer"] == f"{layer} by prange" and found["threads"] == 2


@pytest.mark.skipif(importlib.util.find_spec("tbb") is not None, reason="TBB is installed: there is a layer")
def test_no_layer_at_all_means_one_thread(tmp_path: Path):
    program = GRADIENT + "\nfrom fastgrad.codegen.threads import launched\nassert launched().threads == 1"
    process = start(tmp_path / "cache", program, NUMBA_THREADING_LAYER="tbb")
    assert "runs on one thread" in outcome(process)["warnings"][0]


def test_generators_name_every_file_that_shapes_code():
    """What the compiler process imports of ours beyond what any process has is part of every key."""
    used = modules_after("from fastgrad.codegen import toolchain") - modules_after("import fastgrad")
    ours = {name for name in used if name.startswith("fastgrad.")}
    named = {
        ".".join(("fastgrad", *path.relative_to(target.PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        for pattern in target.GENERATORS
        for path in target.PACKAGE.glob(pattern)
    }
    assert "fastgrad.codegen.walker" in ours
    assert ours - named == {"fastgrad.codegen", "fastgrad.core", "fastgrad.errors"}


def test_environment_reaches_the_key():
    program = "from fastgrad.codegen import target; import json; print(json.dumps(target.digest()))"
    keys = {
        outcome(start("off", program, **env))
        for env in ({}, {"NUMBA_OPT": "1"}, {"NUMBA_CPU_NAME": "x86-64-v3"}, {"NUMBA_NUM_THREADS": "1"})
    }
    assert len(keys) == 3  # the number of threads shapes no code
    assert environment("off")["FASTGRAD_CACHE_DIR"] == "off"
