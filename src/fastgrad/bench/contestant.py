"""Who can take part; and, run as a program, one of them: ``python contestant.py NAME MODEL DTYPE THREADS``.

As a program this file loads the bench's package alone, under a name of its own. Run as a module of fastgrad it would
import fastgrad first, and every peer's time to its first step would contain that.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Entry:
    """A contestant before it runs: its ``title``, the package that it needs, and where it is written.

    ``cold_s`` and ``warm_s`` are typical seconds to a first step, to estimate how long a run will take.
    """

    title: str
    package: str
    file: str
    function: str
    cold_s: float
    warm_s: float


CONTESTANTS = {
    "fastgrad": Entry("fastgrad", "fastgrad", "with_fastgrad", "compiled", 4, 3.5),
    "interpreter": Entry("fastgrad interpreter", "fastgrad", "with_fastgrad", "interpreter", 0.6, 0.6),
    "tensor": Entry("fg.Tensor", "fastgrad", "with_fastgrad", "tensor", 0.6, 0.6),
    "torch": Entry("PyTorch eager", "torch", "with_torch", "eager", 2, 2),
    "torch-compile": Entry("torch.compile", "torch", "with_torch", "compiled", 24, 4.5),
    "jax": Entry("JAX jit", "jax", "with_jax", "jitted", 1.5, 1.2),
    "autograd": Entry("HIPS autograd", "autograd", "with_autograd", "interpreted", 0.4, 0.4),
}


def _bench_alone() -> str:
    """Load the package of this file under a name without fastgrad in front; returns the name."""
    name = "fastgrad_bench_alone"
    spec = importlib.util.spec_from_file_location(
        name, HERE / "__init__.py", submodule_search_locations=[str(HERE)]
    )
    assert spec is not None and spec.loader is not None  # a path that ends in .py always has a loader
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return name


def _own_fastgrad_first() -> None:
    """`import fastgrad` must find the one that this file belongs to, also where another is installed."""
    found = importlib.util.find_spec("fastgrad")
    if found is None or found.origin is None or Path(found.origin).resolve().parent != HERE.parent:
        sys.path.insert(0, str(HERE.parent.parent))


def main(name: str, model: str, dtype: str, threads: str) -> None:
    """Serve contestant ``name`` on stdin and stdout until stdin ends."""
    entry, package = CONTESTANTS[name], _bench_alone()
    if entry.package == "fastgrad":
        _own_fastgrad_first()
    models: ModuleType = importlib.import_module(f"{package}.models")
    timing: ModuleType = importlib.import_module(f"{package}.timing")

    def make():  # type: ignore[no-untyped-def]
        library = importlib.import_module(f"{package}.{entry.file}")
        number = models.np.dtype(dtype).type
        return getattr(library, entry.function)(models.MODELS[model], number, int(threads))

    timing.serve(make)


if __name__ == "__main__":
    main(*sys.argv[1:])
