"""From the start of a process to its first gradient and first training step: warm and cold, beside JAX; and imports.

Every figure is the wall time of a whole process, from just before it is started until it has ended, in rounds in which
the contestants take turns. "cold" has an empty cache folder, "warm" one that the same program has filled. JAX keeps its
compiled code too here (its persistent cache, asked to keep everything).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from common import Report, parser

TANH = """
import numpy as np, fastgrad as fg
def loss(w, b, x):
    return np.tanh(x @ w + b).sum()
r = np.random.default_rng(0)
w, b, x = (r.standard_normal(s).astype("f4") for s in ((64, 32), (32,), (16, 64)))
assert np.isfinite(fg.grad(loss, argnums=(0, 1))(w, b, x)[0]).all()
"""
TANH_JAX = """
import numpy as np, jax, jax.numpy as jnp
def loss(w, b, x):
    return jnp.tanh(x @ w + b).sum()
r = np.random.default_rng(0)
w, b, x = (r.standard_normal(s).astype("f4") for s in ((64, 32), (32,), (16, 64)))
assert np.isfinite(np.asarray(jax.jit(jax.grad(loss, argnums=(0, 1)))(w, b, x)[0])).all()
"""
MLP = """
import numpy as np, fastgrad as fg
def loss(params, x, y):
    for layer in params[:-1]:
        x = fg.nn.functional.relu(x @ layer["w"] + layer["b"])
    return fg.nn.functional.cross_entropy(x @ params[-1]["w"] + params[-1]["b"], y)
r = np.random.default_rng(0)
params = [{"w": r.standard_normal(s).astype("f4") / 8, "b": np.zeros(s[1], "f4")} for s in ((64, 32), (32, 10))]
step = fg.TrainStep(loss, params, fg.optim.Adam(1e-3))
assert np.isfinite(step(r.standard_normal((32, 64)).astype("f4"), r.integers(0, 10, 32)))
"""
AFTER = """
import sys
from fastgrad.codegen.compile import counts
print([m for m in ("numba", "llvmlite") if m in sys.modules], dict(counts))
"""
JAX_KEEPS_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


class Program:
    """A program to start: its code, and which environment variable names its cache folder."""

    def __init__(self, code: str, variable: str | None = None, cold: bool = False):
        self.code, self.variable, self.cold = code, variable, cold
        self.folder = Path(tempfile.mkdtemp()) / "cache"
        self.seconds: list[float] = []
        self.said = ""

    def start(self) -> float:
        """Seconds of one process."""
        if self.cold:
            shutil.rmtree(self.folder, ignore_errors=True)
        env = {**os.environ, **JAX_KEEPS_ALL} | ({self.variable: str(self.folder)} if self.variable else {})
        begin = perf_counter()
        done = subprocess.run([sys.executable, "-c", self.code], env=env, capture_output=True, text=True)
        seconds = perf_counter() - begin
        if done.returncode:
            raise RuntimeError(done.stderr)
        self.said = done.stdout.strip()
        return seconds


def main() -> None:
    """Measure and print."""
    it = parser(__doc__, rounds=11)
    it.add_argument(
        "--cold", type=int, default=3, metavar="N", help="cold starts of each; default: %(default)s"
    )
    options = it.parse_args()
    cache = "FASTGRAD_CACHE_DIR"
    warm = {
        "python alone": Program("pass"),
        "import numpy": Program("import numpy"),
        "import fastgrad": Program("import fastgrad"),
        "import fastgrad, all public names": Program(
            "import fastgrad as fg; [getattr(fg, n) for n in fg.__all__]"
        ),
        "gradient, fastgrad warm": Program(TANH + AFTER, cache),
        "gradient, JAX warm": Program(TANH_JAX, "JAX_COMPILATION_CACHE_DIR"),
        "gradient, JAX without its cache": Program(TANH_JAX),
        "training step, fastgrad warm": Program(MLP + AFTER, cache),
    }
    cold = {
        "gradient, fastgrad cold": Program(TANH + AFTER, cache, cold=True),
        "training step, fastgrad cold": Program(MLP + AFTER, cache, cold=True),
    }
    try:
        import jax  # noqa: F401
    except ImportError:
        warm = {name: p for name, p in warm.items() if "JAX" not in name}
    with Report(
        "process start to first result", options, dtype="float32", packages=("jax", "jaxlib")
    ) as report:
        for program in warm.values():
            program.start()  # fills caches
        for programs, rounds in ((warm, options.rounds), (cold, options.cold)):
            for _ in range(rounds):
                for program in programs.values():
                    program.seconds.append(program.start())
        rows: list[dict[str, Any]] = [
            {
                "process": name,
                "median s": median(p.seconds),
                "min s": min(p.seconds),
                "max s": max(p.seconds),
                "imported, units": p.said,
            }
            for name, p in (warm | cold).items()
        ]
        report.table("seconds, whole processes", rows)
        time = {row["process"]: row["median s"] for row in rows}
        report.verdict("import fastgrad / import numpy", time["import fastgrad"] / time["import numpy"], 2.5)
        if "gradient, JAX warm" in time:
            peers = [time["gradient, JAX warm"], time["gradient, JAX without its cache"]]
            report.verdict(
                "gradient, warm, of JAX's better", time["gradient, fastgrad warm"] / min(peers), 0.6
            )
        report.verdict("gradient, cold", time["gradient, fastgrad cold"], 4.0, " s")
        report.verdict("training step, warm", time["training step, fastgrad warm"], 0.6, " s")
        report.verdict("training step, cold", time["training step, fastgrad cold"], 6.0, " s")


if __name__ == "__main__":
    main()
