"""Models beside the bench's seven: a network that differentiates twice, inference of one row, and public autodiff problems.

The problems (`problems`, mostly float64) are values with gradients. ``burgers`` trains a 2-32-32-32-1 network on the
residual of Burgers' equation at 256 points, second derivatives and Adam included. ``one row`` calls a 64-128-64-10
perceptron on one row after another. Results must agree before anything is timed. First calls, which compile, have
columns of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import problems
from common import Report, chosen, parameters, race_options, race_parser
from problems import PROBLEMS, Library, Problem
from race import OURS, TITLES, Race, geometric_mean, jax_on, serving, torch_on

BURGERS, ONE_ROW = "burgers 2-32-32-32-1 n256", "one row 64-128-64-10"
CASES = (*PROBLEMS, BURGERS, ONE_ROW)
QUICK = ("rosenbrock 10,000", ONE_ROW)
SIZES = (64, 128, 64, 10)
RATE = 1e-8
WITHIN = {"float32": 2e-4, "float64": 1e-9}
UNCOMPILED = {
    BURGERS: "torch.compile has no second derivatives",
    "diagonal lstm l2 c256": "a loop of 256 steps is left to eager",
}


def dtype_of(case: str) -> str:
    """The dtype that a case is computed in."""
    return PROBLEMS[case].dtype if case in PROBLEMS else "float32"


# -- fastgrad ----------------------------------------------------------------------------------------------------------


def with_fastgrad(threads: int) -> Callable[[str], Callable[[], Any]]:
    import fastgrad as fg
    from fastgrad.nn import functional as F

    lib = Library(np, np.asarray, lambda x, axis: F.logsumexp(x, axis=axis), F.sigmoid, fg.scan)

    def setup(case: str) -> Callable[[], Any]:
        if case in PROBLEMS:
            params, data = PROBLEMS[case].make()
            value = PROBLEMS[case].value
            both = fg.value_and_grad(lambda p, data: value(lib, p, data), threads=threads)
            return partial(both, params, data)
        if case == BURGERS:
            loss = partial(problems.residual_loss, fg, np)
            step = fg.TrainStep(loss, parameters(problems.PINN), fg.optim.Adam(RATE), threads=threads)
            return partial(step, *problems.pinn_points())
        forward = fg.jit(partial(problems.tanh_network, np), threads=threads)
        return partial(forward, parameters(SIZES), one_row())

    return setup


def one_row() -> np.ndarray:
    """``[1, 64]``."""
    return np.random.default_rng(1).standard_normal((1, SIZES[0])).astype(np.float32)


# -- peers -------------------------------------------------------------------------------------------------------------


def with_jax(threads: int) -> Callable[[str], Callable[[], Any]]:
    jax = jax_on()
    xp = jax.numpy
    lib = Library(
        xp, xp.asarray, lambda x, axis: jax.nn.logsumexp(x, axis=axis), jax.nn.sigmoid, jax.lax.scan
    )

    def setup(case: str) -> Callable[[], Any]:
        if case in PROBLEMS:
            given = jax.device_put(PROBLEMS[case].make())
            value = PROBLEMS[case].value
            both = jax.jit(jax.value_and_grad(lambda p, data: value(lib, p, data)))
            return lambda: jax.block_until_ready(both(*given))
        if case == BURGERS:
            return _jax_burgers(jax)
        forward = jax.jit(partial(problems.tanh_network, xp))
        given = jax.device_put((parameters(SIZES), one_row()))
        return lambda: forward(*given).block_until_ready()

    return setup


def _jax_burgers(jax: Any) -> Callable[[], Any]:
    from fastgrad.bench.with_jax import adam

    loss = partial(problems.residual_loss, jax, jax.numpy)
    params = jax.device_put(parameters(problems.PINN))
    state = {name: jax.tree.map(jax.numpy.zeros_like, params) for name in "mv"}
    state["t"] = jax.device_put(np.zeros((), np.float32))
    points = jax.device_put(problems.pinn_points())

    def train(params: Any, state: Any, x: Any, t: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, x, t)
        return *adam(params, grads, state, np.float32(RATE)), value

    compiled = jax.jit(train, donate_argnums=(0, 1))

    def step() -> Any:
        nonlocal params, state
        params, state, value = compiled(params, state, *points)
        jax.block_until_ready((params, state, value))
        return value

    return step


def with_torch(threads: int, compiled: bool = False) -> Callable[[str], Callable[[], Any]]:
    torch = torch_on(threads)

    def scan(f: Any, state: Any, xs: Any) -> Any:
        ys = []
        for x in xs:
            state, y = f(state, x)
            ys.append(y)
        return state, torch.stack(ys)

    lib = Library(torch, torch.from_numpy, torch.logsumexp, torch.sigmoid, scan)
    compile_ = torch.compile if compiled else lambda f: f

    def setup(case: str) -> Callable[[], Any]:
        if compiled and case in UNCOMPILED:
            raise NotImplementedError(UNCOMPILED[case])
        if case in PROBLEMS:
            return _torch_gradient(torch, lib, PROBLEMS[case], compile_)
        if case == BURGERS:
            return _torch_burgers(torch)
        layers = [{k: torch.from_numpy(v) for k, v in layer.items()} for layer in parameters(SIZES)]
        forward, x = compile_(partial(problems.tanh_network, torch, layers)), torch.from_numpy(one_row())

        def call() -> Any:
            with torch.inference_mode():
                return forward(x)

        return call

    return setup


def _torch_gradient(torch: Any, lib: Library, problem: Problem, compile_: Any) -> Callable[[], Any]:
    given, data = problem.make()
    params = {k: torch.from_numpy(v).requires_grad_() for k, v in given.items()}
    data = {k: torch.from_numpy(v) for k, v in data.items()}
    value = compile_(lambda p: problem.value(lib, p, data))

    def call() -> Any:
        result = value(params)
        return result.detach(), dict(
            zip(params, torch.autograd.grad(result, list(params.values())), strict=True)
        )

    return call


def _torch_burgers(torch: Any) -> Callable[[], Any]:
    layers = [
        {k: torch.from_numpy(v).requires_grad_() for k, v in layer.items()}
        for layer in parameters(problems.PINN)
    ]
    x, t = (torch.from_numpy(a).requires_grad_() for a in problems.pinn_points())
    leaves = [leaf for layer in layers for leaf in layer.values()]
    optimizer = torch.optim.Adam(leaves, lr=RATE, fused=True)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        u = problems.tanh_network(torch, layers, torch.stack([x, t], 1))[:, 0]
        u_x, u_t = torch.autograd.grad(u.sum(), (x, t), create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        loss = torch.mean((u_t + u * u_x - problems.VISCOSITY * u_xx) ** 2)
        loss.backward(inputs=leaves)
        optimizer.step()
        return loss.detach()

    return step


CONTESTANTS = {
    OURS: with_fastgrad,
    "torch": with_torch,
    "torch-compile": partial(with_torch, compiled=True),
    "jax": with_jax,
}


def main() -> None:
    """Measure and print."""
    options = race_options(race_parser(__doc__, rounds=5, seconds=0.1))
    if options.quick:
        options.without = [*(options.without or ()), "torch-compile"]
    title = "other models"
    with Report(title, options, dtype="as the tables say", packages=("torch", "jax")) as report:
        for threads in sorted({1, options.threads}, reverse=True):
            with Race(__file__, tuple(CONTESTANTS), threads, options) as race:
                table(report, race, chosen(QUICK if options.quick else CASES, options))
                for place, why in race.failed.items():
                    print(f"  {place}: {why}")


def table(report: Report, race: Race, cases: list[str]) -> None:
    """Microseconds a call of everybody, and the best peer's time over fastgrad's."""
    rows, ratios = [], []
    for case in cases:
        start = time.perf_counter()
        times, setup = race.run(case, WITHIN[dtype_of(case)])
        row: dict[str, Any] = {"model": case, "dtype": dtype_of(case)}
        row |= {f"{TITLES[n]} us": times.get(n) for n in race.libraries}
        peers = {n: us for n, us in times.items() if n != OURS}
        if peers and OURS in times:
            best = min(peers, key=peers.__getitem__)
            row |= {"best peer": TITLES[best], "best/ours": peers[best] / times[OURS]}
            ratios.append(row["best/ours"])
        else:
            row |= {"best peer": "-", "best/ours": None}
        rows.append(row | {f"first {n} s": setup.get(n) for n in race.libraries})
        print(f"  ... {case}: {time.perf_counter() - start:.0f} s", flush=True)
    if rows:
        mean = geometric_mean(ratios)
        report.table(f"threads: {race.threads}", rows, f"geometric mean of best peer / fastgrad: {mean:.3g}")


if __name__ == "__main__" and not serving(CONTESTANTS):
    main()
