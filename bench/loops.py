"""Loops: an LSTM layer and a small recurrent cell by `fg.scan` against PyTorch and JAX; memory and compile time of a scan.

LSTM: 64 steps, batch 32, 32 -> 128, float32, forward + backward + Adam; PyTorch's own layer and a cell in a Python loop
(compiled as one graph) are both among the contestants. Cell: ``h = tanh(h @ w + x)``, 14 wide, 10,000 steps, its gradient.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from common import Report, parser

from fastgrad.bench.process import Failed, Remote, compete
from fastgrad.bench.timing import Contestant, serve

STEPS, BATCH, INPUTS, HIDDEN = 64, 32, 32, 128
LONG, WIDTH = 10_000, 14
RATE = 1e-8


def lstm_data() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parameters (gates i, f, g, o side by side) and a batch ``[steps, batch, inputs]``."""
    rng = np.random.default_rng(0)
    bound = HIDDEN**-0.5
    shapes = {"wx": (INPUTS, 4 * HIDDEN), "wh": (HIDDEN, 4 * HIDDEN), "b": (4 * HIDDEN,)}
    params = {k: rng.uniform(-bound, bound, s).astype(np.float32) for k, s in shapes.items()}
    return params, rng.standard_normal((STEPS, BATCH, INPUTS)).astype(np.float32)


def cell_data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``w``, ``h`` and ``xs``."""
    rng = np.random.default_rng(0)
    w = (rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)
    return w, np.zeros(WIDTH, np.float32), rng.standard_normal((LONG, WIDTH)).astype(np.float32)


# -- fastgrad ----------------------------------------------------------------------------------------------------------


def lstm_loss(params: Any, xs: Any) -> Any:
    """Mean square of the hidden states."""
    import fastgrad as fg
    from fastgrad.nn import functional as F

    def cell(carry: Any, x: Any) -> Any:
        h, c = carry
        gates = x @ params["wx"] + h @ params["wh"] + params["b"]
        i, f, g, o = (gates[:, k * HIDDEN : (k + 1) * HIDDEN] for k in range(4))
        c = F.sigmoid(f) * c + F.sigmoid(i) * np.tanh(g)
        h = F.sigmoid(o) * np.tanh(c)
        return (h, c), h

    zeros = np.zeros((BATCH, HIDDEN), np.float32)
    return np.mean(fg.scan(cell, (zeros, zeros), xs)[1] ** 2)


def lstm_fastgrad(threads: int) -> Callable[[], Any]:
    import fastgrad as fg

    params, xs = lstm_data()
    step = fg.TrainStep(lstm_loss, params, fg.optim.Adam(RATE), threads=threads)
    return lambda: step(xs)


def cell_fastgrad(threads: int) -> Callable[[], Any]:
    import fastgrad as fg

    both = fg.value_and_grad(cell_loss(), threads=threads)
    data = cell_data()
    return lambda: both(*data)


def cell_loss(checkpoint_every: int | None = None) -> Callable[..., Any]:
    """The sum of the last state."""
    import fastgrad as fg

    def loss(w: Any, h: Any, xs: Any) -> Any:
        def cell(h: Any, x: Any) -> Any:
            return np.tanh(h @ w + x), None

        return np.sum(fg.scan(cell, h, xs, checkpoint_every=checkpoint_every)[0])

    return loss


# -- peers -------------------------------------------------------------------------------------------------------------


def _torch_lstm(threads: int, own: bool, compiled: bool) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(threads)
    arrays, xs = lstm_data()
    data = torch.from_numpy(xs)
    if own:
        layer = torch.nn.LSTM(INPUTS, HIDDEN)
        with torch.no_grad():
            layer.weight_ih_l0.copy_(torch.from_numpy(arrays["wx"].T))
            layer.weight_hh_l0.copy_(torch.from_numpy(arrays["wh"].T))
            layer.bias_ih_l0.copy_(torch.from_numpy(arrays["b"]))
            layer.bias_hh_l0.zero_()
        params = list(layer.parameters())

        def loss() -> Any:
            return (layer(data)[0] ** 2).mean()
    else:
        wx, wh, b = params = [torch.from_numpy(arrays[k]).requires_grad_() for k in ("wx", "wh", "b")]

        def loss() -> Any:
            h = c = torch.zeros(BATCH, HIDDEN)
            out = []
            given = data @ wx + b
            for t in range(STEPS):
                i, f, g, o = (given[t] + h @ wh).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
                out.append(h)
            return (torch.stack(out) ** 2).mean()

    if compiled:
        loss = torch.compile(loss)
    optimizer = torch.optim.Adam(params, lr=RATE, fused=True)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def lstm_jax(threads: int) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    arrays, xs = lstm_data()
    params, data = jax.device_put(arrays), jax.device_put(xs)

    def loss(p: Any, xs: Any) -> Any:
        def cell(carry: Any, x: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(x + h @ p["wh"], 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((BATCH, HIDDEN))
        return jnp.mean(jax.lax.scan(cell, (zeros, zeros), xs @ p["wx"] + p["b"])[1] ** 2)

    def train(p: Any, m: Any, v: Any, t: Any, xs: Any) -> Any:
        value, g = jax.value_and_grad(loss)(p, xs)
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        size, root = RATE / (1 - 0.9**t), 1 / jnp.sqrt(1 - 0.999**t)
        p = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) * root + 1e-8), p, m, v)
        return p, m, v, t, value

    compiled = jax.jit(train, donate_argnums=(0, 1, 2, 3))
    state = (
        params,
        jax.tree.map(jnp.zeros_like, params),
        jax.tree.map(jnp.zeros_like, params),
        jnp.zeros(()),
    )

    def step() -> Any:
        nonlocal state
        *state, value = compiled(*state, data)
        jax.block_until_ready(state)
        return value

    return step


def cell_torch(threads: int) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(threads)
    w, h0, xs = map(torch.from_numpy, cell_data())
    w.requires_grad_()

    def step() -> Any:
        w.grad = None
        h = h0
        for x in xs:
            h = torch.tanh(h @ w + x)
        value = h.sum()
        value.backward()
        return value.detach(), w.grad

    return step


def cell_jax(threads: int) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    data = jax.device_put(cell_data())

    def loss(w: Any, h: Any, xs: Any) -> Any:
        return jnp.sum(jax.lax.scan(lambda h, x: (jnp.tanh(h @ w + x), None), h, xs)[0])

    both = jax.jit(jax.value_and_grad(loss))
    return lambda: jax.block_until_ready(both(*data))


CONTESTANTS: dict[str, dict[str, Callable[[int], Callable[[], Any]]]] = {
    "lstm": {
        "fastgrad": lstm_fastgrad,
        "torch nn.LSTM": lambda n: _torch_lstm(n, True, False),
        "torch.compile, nn.LSTM": lambda n: _torch_lstm(n, True, True),
        "torch.compile, cell": lambda n: _torch_lstm(n, False, True),
        "jax": lstm_jax,
    },
    "cell": {"fastgrad": cell_fastgrad, "torch eager": cell_torch, "jax": cell_jax},
}


# -- what is measured --------------------------------------------------------------------------------------------------


def race(report: Report, options: Any, what: str) -> dict[str, float]:
    """Medians of all contestants that are installed, whose numbers agree."""
    found: dict[str, Remote] = {}
    failed: dict[str, str] = {}
    for name in CONTESTANTS[what]:
        try:
            found[name] = Remote(
                [__file__, "--contestant", what, name, str(options.threads)],
                threads=options.threads,
                limit_s=900,
            )
        except Failed as error:
            failed[name] = str(error)
    first = [c.numbers for c in found.values()]
    assert all(np.allclose(n, first[0], rtol=2e-3) for n in first), dict(zip(found, first, strict=True))
    times = compete(found, options.rounds, max(options.seconds, 0.5))
    rows = [
        {
            "contestant": n,
            "us": t["median"],
            "min us": t["min"],
            "to fastgrad": t["median"] / times["fastgrad"]["median"],
        }
        for n, t in times.items()
    ]
    for c in found.values():
        c.close()
    report.table(f"{what}, medians", rows, "; ".join(f"{n}: {why}" for n, why in failed.items()))
    return {n: t["median"] for n, t in times.items()}


def memory(report: Report) -> None:
    """Bytes of the arena of the small cell's gradient, whole and with a checkpoint every 100 steps."""
    import fastgrad as fg

    data = cell_data()
    rows = []
    for every in (None, 100):
        both = fg.value_and_grad(cell_loss(every), argnums=0)
        start = perf_counter()
        plan = both.compile(*data).memory_plan()
        rows.append(
            {
                "checkpoint_every": str(every),
                "arena bytes": plan.arena_bytes,
                "compile s": perf_counter() - start,
            }
        )
    report.table("memory of 10,000 steps", rows)
    report.verdict("memory with checkpoints", rows[1]["arena bytes"] / rows[0]["arena bytes"], 0.15)


def compiling(report: Report) -> None:
    """Seconds of all stages, against the length of the scan (kernels from the cache after the first)."""
    import fastgrad as fg

    w, h, xs = cell_data()
    rows = []
    for length in (10, 10, 1_000, 10_000):
        both = fg.value_and_grad(cell_loss())
        start = perf_counter()
        executable = both.compile(w, h, xs[:length])
        words = executable.program.native.tape.words.size
        rows.append({"length": length, "s": perf_counter() - start, "words of the tape": words})
    report.table("compile time (the first line with what the caches lack)", rows)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__, threads=2, rounds=9).parse_args()
    with Report("loops", options, dtype="float32", packages=("torch", "jax")) as report:
        lstm = race(report, options, "lstm")
        compiled = [t for n, t in lstm.items() if n.startswith("torch.compile")]
        if compiled:
            report.verdict(
                "LSTM: fastgrad to the better torch.compile", lstm["fastgrad"] / min(compiled), 1.0
            )
        cell = race(report, options, "cell")
        if "torch eager" in cell:
            report.verdict(
                "small cell: fastgrad to PyTorch eager", cell["fastgrad"] / cell["torch eager"], 0.05
            )
        memory(report)
        compiling(report)


if __name__ == "__main__":
    if "--contestant" in sys.argv:
        what, name, threads = sys.argv[2:]
        serve(lambda: Contestant(CONTESTANTS[what][name](int(threads))))
    else:
        main()
