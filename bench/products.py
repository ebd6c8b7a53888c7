"""Matrix products over a grid: sizes, shapes and all four transposes, against OpenBLAS (NumPy), PyTorch and JAX.

A case is ``[batch*]m x n x k LAYOUT``: C[m, n] = A[m, k] @ B[k, n], where T in the layout says that A (first letter) or B
(second) lies transposed in memory. NumPy and PyTorch write into a given array, fastgrad into a block that serves again; JAX
has no such argument, and handing it an array to keep (`donate_argnums`) changed nothing. The peak is measured by `peaks`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import peaks
from common import Report, chosen, race_options, race_parser
from race import OURS, TITLES, Race, jax_on, row, serving, standing, torch_on

LAYOUTS = ("NN", "NT", "TN", "TT")
SHAPES = {
    "square": [f"{n}x{n}x{n}" for n in (8, 16, 32, 64, 128, 256, 512, 1024, 2048)],
    "tall": ["4096x64x64", "8192x32x128", "2048x10x256"],
    "wide": ["64x4096x64", "32x2048x512"],
    "long": ["64x64x4096", "10x784x128", "128x512x784"],
    "tiny": ["2x3x4", "5x7x3", "1x512x512", "512x1x512"],
    "odd": ["63x65x67", "127x129x131", "255x257x259", "511x513x515"],
    "batched": ["64*32x32x32", "1000*8x8x8", "12*128x64x128"],
}
QUICK = ("8x8x8", "63x65x67", "64*32x32x32")
BARS = {512: 90.0, 1024: 85.0, 2048: 85.0}
WITHIN = {"float32": 1e-4, "float64": 1e-11, "bfloat16": 3e-2}


class Case(NamedTuple):
    """One place of the grid."""

    dtype: str
    shape: str
    layout: str

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """batch (0: none), m, n, k."""
        batch, _, shape = self.shape.rpartition("*")
        m, n, k = map(int, shape.split("x"))
        return int(batch or 0), m, n, k

    @property
    def flops(self) -> float:
        batch, m, n, k = self.sizes
        return 2.0 * max(batch, 1) * m * n * k

    def operands(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A and B as they lie in memory, and room for C; bfloat16 begins as float32."""
        batch, m, n, k = self.sizes
        head = (batch,) if batch else ()
        rng = np.random.default_rng(0)
        dtype = np.dtype("float32" if self.dtype == "bfloat16" else self.dtype)

        def drawn(rows: int, columns: int, transposed: bool) -> np.ndarray:
            shape = (columns, rows) if transposed else (rows, columns)
            return rng.standard_normal((*head, *shape), np.float32).astype(dtype)

        a, b = (drawn(m, k, self.layout[0] == "T"), drawn(k, n, self.layout[1] == "T"))
        return a, b, np.zeros((*head, m, n), dtype)

    def multiply(self, transpose: Callable[[Any], Any]) -> Callable[[Any, Any], tuple[Any, Any]]:
        """The operands as the product takes them."""
        first, second = (letter == "T" for letter in self.layout)
        return lambda a, b: (transpose(a) if first else a, transpose(b) if second else b)


# -- contestants -------------------------------------------------------------------------------------------------------


def with_fastgrad(threads: int) -> Callable[[str], Callable[[], Any]]:
    import fastgrad as fg

    def setup(name: str) -> Callable[[], Any]:
        case = Case(*name.split())
        a, b, _ = case.operands()
        turned = case.multiply(lambda x: np.swapaxes(x, -1, -2))
        options = {"precision": "bfloat16"} if case.dtype == "bfloat16" else {}
        return partial(fg.jit(lambda a, b: np.matmul(*turned(a, b)), threads=threads, **options), a, b)

    return setup


def with_numpy(threads: int) -> Callable[[str], Callable[[], Any]]:
    def setup(name: str) -> Callable[[], Any]:
        case = Case(*name.split())
        if case.dtype == "bfloat16":
            raise TypeError("NumPy has no bfloat16")
        a, b, c = case.operands()
        a, b = case.multiply(lambda x: np.swapaxes(x, -1, -2))(a, b)
        return partial(np.matmul, a, b, out=c)

    return setup


def with_torch(threads: int) -> Callable[[str], Callable[[], Any]]:
    torch = torch_on(threads)

    def setup(name: str) -> Callable[[], Any]:
        case = Case(*name.split())
        a, b, c = (torch.from_numpy(x).to(getattr(torch, case.dtype)) for x in case.operands())
        a, b = case.multiply(lambda x: x.mT)(a, b)
        return partial(torch.matmul, a, b, out=c)

    return setup


def with_jax(threads: int) -> Callable[[str], Callable[[], Any]]:
    jax = jax_on()

    def setup(name: str) -> Callable[[], Any]:
        case = Case(*name.split())
        a, b, _ = (jax.device_put(x).astype(case.dtype) for x in case.operands())
        turned = case.multiply(lambda x: jax.numpy.swapaxes(x, -1, -2))
        compiled = jax.jit(lambda a, b: jax.numpy.matmul(*turned(a, b)))
        return lambda: compiled(a, b).block_until_ready()

    return setup


CONTESTANTS = {OURS: with_fastgrad, "numpy": with_numpy, "torch": with_torch, "jax": with_jax}


# -- what is measured --------------------------------------------------------------------------------------------------


def measure(race: Race, case: Case, peak: float) -> dict[str, Any]:
    """One row of a table."""
    head = {"dtype": case.dtype, "m x n x k": case.shape, "layout": case.layout}
    return head | row(race, " ".join(case), WITHIN[case.dtype], case.flops, "GF/s", peak)


def grid(race: Race, report: Report, options: Any, peak: dict[str, float]) -> dict[Case, dict[str, Any]]:
    """All cases, kind by kind, and where fastgrad stands; the rows."""
    measured: dict[Case, dict[str, Any]] = {}
    for dtype in options.dtypes:
        for kind, shapes in SHAPES.items():
            cases = [
                Case(dtype, s, l) for s, l in product(shapes, LAYOUTS) if s in QUICK or not options.quick
            ]
            cases = [c for c in cases if chosen([" ".join(c)], options)]
            rows = {case: measure(race, case, peak[dtype]) for case in cases}
            if rows:
                report.table(f"{kind}, {dtype}, threads: {race.threads}", list(rows.values()))
            measured |= rows
    ahead = standing(report, {" ".join(case): found for case, found in measured.items()})
    for name in ("numpy", "jax"):
        if name in ahead:
            report.verdict(f"of the grid ahead of {TITLES[name]}", ahead[name], 90.0, "%", least=True)
    return measured


def bars(
    report: Report, options: Any, race: Race, peak: dict[str, float], measured: dict[Case, dict[str, Any]]
) -> None:
    """Large squares as parts of the peak; the bar is for row-major operands."""
    for dtype in options.dtypes:
        cases = [Case(dtype, f"{n}x{n}x{n}", l) for n, l in product(BARS, LAYOUTS)]
        cases = [c for c in cases if chosen([" ".join(c)], options)]
        rows = {c: measured.get(c) or measure(race, c, peak[dtype]) for c in cases}
        new = [found for case, found in rows.items() if case not in measured]
        if new:
            report.table(f"large squares, {dtype}, threads: {race.threads}", new)
        for n, least in BARS.items():
            parts = {
                c.layout: row["% of bound"]
                for c, row in rows.items()
                if c.sizes[1] == n and row["% of bound"]
            }
            what = f"{dtype} {n}^3, threads: {race.threads}, of {peak[dtype]:.0f} GF/s"
            if "NN" in parts and dtype in np.sctypeDict:  # the bars are not for bfloat16
                report.verdict(f"{what}, row-major", parts["NN"], least, "%", least=True)
                report.verdict(f"{what}, worst layout", min(parts.values()), least, "%", least=True)


def main() -> None:
    """Measure and print."""
    options = race_options(race_parser(__doc__))
    title = "matrix products"
    with Report(title, options, dtype=", ".join(options.dtypes), packages=("torch", "jax")) as report:
        for threads in sorted({1, options.threads}):
            kinds = {d: "float32" if d == "bfloat16" else d for d in options.dtypes}
            faster = peaks.bfloat16_ratio()
            peak = {
                d: peaks.flops(threads, kind) * (faster if d == "bfloat16" else 1)
                for d, kind in kinds.items()
            }
            print(f"peak on {threads} threads: " + ", ".join(f"{d} {v:.0f} GF/s" for d, v in peak.items()))
            with Race(__file__, tuple(CONTESTANTS), threads, options) as race:
                here = threads == options.threads
                measured = grid(race, report, options, peak) if here else {}
                if not options.quick:
                    bars(report, options, race, peak, measured)
                race.print_failures()


if __name__ == "__main__" and not serving(CONTESTANTS):
    main()
