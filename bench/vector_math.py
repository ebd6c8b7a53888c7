"""Vector mathematics: each function in cache and out, G elements a second, and gradients of chains of exp, tanh and log.

Beside NumPy, PyTorch and JAX, one thread each, float32 unless ``--dtypes`` says float64 as well. Arguments lie where the
function is finite and its result normal. The chains are float32 gradients in cache, against PyTorch (eager and compiled)
and JAX.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

from common import Report, chosen, race_options, race_parser
from expressions import Expression, contestants, drawn, tolerance
from race import OURS, Race, geometric_mean, row, serving, standing

DOMAINS = {
    "exp": (-20.0, 20.0), "exp2": (-20.0, 20.0), "log": (1e-3, 1e3), "log2": (1e-3, 1e3), "log1p": (-0.9, 10.0),
    "expm1": (-5.0, 5.0), "tanh": (-5.0, 5.0), "sigmoid": (-10.0, 10.0), "softplus": (-10.0, 10.0), "erf": (-3.0, 3.0),
    "gelu": (-5.0, 5.0), "sin": (-10.0, 10.0), "cos": (-10.0, 10.0), "pow": (1e-3, 10.0), "rsqrt": (1e-3, 1e3),
    "cbrt": (-1e3, 1e3),
}  # fmt: skip
PLACES = {"32 KB": 2**15, "256 KB": 2**18, "64 MB": 2**26}
CHAINS = {
    "exp(-x*x)": lambda lib, x: lib.exp(-x * x),
    "tanh(x*1.5+0.1)": lambda lib, x: lib.tanh(x * 1.5 + 0.1),
    "log(1+x*x)": lambda lib, x: lib.log(1.0 + x * x),
    "log(exp(x)+1)": lambda lib, x: lib.log(lib.exp(x) + 1.0),
    "tanh(exp(x)*log(2+x*x))": lambda lib, x: lib.tanh(lib.exp(x) * lib.log(2.0 + x * x)),
    "8 x (x + tanh(x) * 0.1)": lambda lib, x: _repeated(lib, x),
}
QUICK = ("exp float32 32 KB", "tanh float32 32 KB")
LIBRARIES = (OURS, "numpy", "torch", "jax")
PEERS = ("torch", "torch-compile", "jax")


def _repeated(lib: Any, x: Any) -> Any:
    for _ in range(8):
        x = x + lib.tanh(x) * 0.1
    return x


def _function(name: str, dtype: str, nbytes: int) -> Expression:
    low, high = DOMAINS[name]
    n = nbytes // (8 if dtype == "float64" else 4)

    def f(lib: Any, x: Any) -> Any:
        return x**1.7 if name == "pow" else getattr(lib, name)(x)

    return Expression(f, drawn((n,), dtype=dtype, low=low, high=high), n, tolerance(dtype))


FUNCTIONS = {
    f"{name} {dtype} {place}": _function(name, dtype, nbytes)
    for name, dtype, (place, nbytes) in product(DOMAINS, ("float32", "float64"), PLACES.items())
}
GRADIENTS = {
    f"grad {name} {place}": Expression(f, drawn((PLACES[place] // 4,)), PLACES[place] / 4, 1e-4, (0,))
    for (name, f), place in product(CHAINS.items(), ("32 KB", "256 KB"))
}
CONTESTANTS = contestants(FUNCTIONS | GRADIENTS)


def functions(report: Report, race: Race, options: Any) -> None:
    """A table for each dtype and place."""
    names = chosen(QUICK if options.quick else list(FUNCTIONS), options)
    found = {}
    for dtype, place in product(options.dtypes, PLACES):
        cases = [name for name in names if name.endswith(f"{dtype} {place}")]
        rows = {n: row(race, n, FUNCTIONS[n].within, FUNCTIONS[n].work / race.threads, "G/s") for n in cases}
        if rows:
            table = [{"function": name.split()[0]} | cells for name, cells in rows.items()]
            report.table(f"{dtype}, {place}: G elements a second and thread", table)
        found |= rows
    standing(report, found)


def gradients(report: Report, race: Race, options: Any) -> None:
    """Chains in cache; the bar is three times the speed of PyTorch and of JAX."""
    names = chosen(list(GRADIENTS)[:1] if options.quick else list(GRADIENTS), options)
    rows = {n: row(race, n, GRADIENTS[n].within, GRADIENTS[n].work / race.threads, "G/s") for n in names}
    if not rows:
        return
    report.table(
        "gradients in cache: G elements a second and thread", [{"chain": n} | r for n, r in rows.items()]
    )
    standing(report, rows)
    for name in PEERS:
        ratios = [r[f"{name}/ours"] for r in rows.values() if r.get(f"{name}/ours")]
        if ratios:
            report.verdict(f"geometric mean against {name}", geometric_mean(ratios), 3.0, "x", least=True)
            report.verdict(f"worst against {name}", min(ratios, default=math.nan), 3.0, "x", least=True)


def main() -> None:
    """Measure and print."""
    it = race_parser(__doc__)
    it.set_defaults(threads=1)
    options = race_options(it)
    with Report(
        "vector mathematics", options, dtype=", ".join(options.dtypes), packages=("torch", "jax")
    ) as report:
        with Race(__file__, LIBRARIES, options.threads, options) as race:
            functions(report, race, options)
            race.print_failures()
        if "float32" in options.dtypes:
            libraries = (OURS, "torch", "jax") if options.quick else (OURS, *PEERS)
            with Race(__file__, libraries, options.threads, options) as race:
                gradients(report, race, options)
                race.print_failures()


if __name__ == "__main__" and not serving(CONTESTANTS):
    main()
