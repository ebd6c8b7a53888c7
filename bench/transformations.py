"""Transformations: what a Hessian-vector product, a Hessian by `vmap`, per-example gradients and a diagonal cost.

hvp against grad on several functions; a full Hessian at n = 100 as one `vmap` of `hvp` against n calls; gradients of each
of 64 examples of a 64-128-64-10 perceptron against a Python loop and against JAX; the Hessian's diagonal of k-means
(1,000 points, 10 centres, 8 dimensions) forward over reverse, without an n x n array.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from common import Report, batch, loss, parameters, parser

from fastgrad.bench.process import Failed, Local, Remote, compete
from fastgrad.bench.timing import Contestant, serve

SIZES, ROWS = (64, 128, 64, 10), 64
N = 100


def rosenbrock(x: Any) -> Any:
    """Rosenbrock 1960, in n dimensions."""
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def logistic(x: Any, data: Any, labels: Any) -> Any:
    """Logistic regression with a ridge."""
    z = data @ x
    return np.mean(np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0.0) - labels * z) + 0.01 * np.sum(x * x)


def kmeans(centres: Any, points: Any) -> Any:
    """Sum over points of the squared distance to the nearest centre."""
    distance = np.sum((points[:, None, :] - centres[None, :, :]) ** 2, axis=2)
    return np.sum(np.min(distance, axis=1))


def problems() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Functions of their first argument."""
    rng = np.random.default_rng(0)
    data, labels = rng.standard_normal((500, N)), rng.integers(0, 2, 500).astype(float)
    return {
        f"rosenbrock {N}": (rosenbrock, (rng.standard_normal(N),)),
        f"logistic 500x{N}": (partial(logistic, data=data, labels=labels), (rng.standard_normal(N),)),
        "kmeans 1000x10x8": (
            partial(kmeans, points=rng.standard_normal((1000, 8))),
            (rng.standard_normal((10, 8)),),
        ),
        "mlp 64-128-64-10 b64": (lambda p: loss(p, *batch(SIZES, ROWS)), (parameters(SIZES),)),
    }


def products(report: Report, options: Any) -> None:
    """hvp to grad."""
    import fastgrad as fg
    from fastgrad import pytree

    rows = []
    for name, (f, (x,)) in problems().items():
        v = pytree.map(lambda a: np.random.default_rng(1).standard_normal(a.shape).astype(a.dtype), x)
        value = fg.value_and_grad(f, threads=options.threads)
        product = fg.jit(lambda x, v, f=f: fg.hvp(f, (x,), (v,)), threads=options.threads)
        contestants = {"grad": Local(partial(value, x)), "hvp": Local(partial(product, x, v))}
        times = compete(contestants, options.rounds, options.seconds)
        us = {n: t["median"] for n, t in times.items()}
        rows.append(
            {
                "function": name,
                "value_and_grad us": us["grad"],
                "hvp us": us["hvp"],
                "ratio": us["hvp"] / us["grad"],
            }
        )
    report.table("Hessian-vector products", rows)
    report.verdict("worst hvp / value_and_grad", max(r["ratio"] for r in rows), 4.0)


def hessians(report: Report, options: Any) -> None:
    """All columns at once, and one by one."""
    import fastgrad as fg

    rows = []
    for name, (f, (x,)) in list(problems().items())[:2]:
        product = fg.jit(lambda x, v, f=f: fg.hvp(f, (x,), (v,)), threads=options.threads)
        eye = np.eye(N)
        whole = fg.jit(
            fg.vmap(lambda x, v, f=f: fg.hvp(f, (x,), (v,)), in_axes=(None, 0)), threads=options.threads
        )
        hessian = fg.jit(fg.hessian(f), threads=options.threads)

        def columns(x: Any = x, product: Any = product, eye: Any = eye) -> Any:
            return np.stack([product(x, v) for v in eye])

        np.testing.assert_allclose(whole(x, eye), columns(), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(hessian(x), columns(), rtol=1e-9, atol=1e-9)
        times = compete(
            {"vmap": Local(partial(whole, x, eye)), "hessian": Local(partial(hessian, x)), "calls": Local(columns)},
            options.rounds, options.seconds,
        )  # fmt: skip
        us = {n: t["median"] for n, t in times.items()}
        rows.append({"function": name, "vmap us": us["vmap"], "fg.hessian us": us["hessian"], f"{N} calls us": us["calls"],
                     "calls / vmap": us["calls"] / us["vmap"]})  # fmt: skip
    report.table("full Hessians", rows)
    report.verdict("slowest vmap of hvp to calls", max(1 / r["calls / vmap"] for r in rows), 0.1)


def diagonal(report: Report) -> None:
    """The Hessian of k-means is diagonal: its product with ones is the diagonal."""
    import fastgrad as fg

    f, (centres,) = problems()["kmeans 1000x10x8"]
    found = fg.jit(lambda c: fg.hvp(f, (c,), (np.ones_like(c),)))
    value = found(centres)
    ex = found.compile(centres)
    near = np.argmin(((f.keywords["points"][:, None] - centres) ** 2).sum(2), axis=1)
    expected = np.repeat(2.0 * np.bincount(near, minlength=10)[:, None], 8, axis=1)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    n = centres.size
    square = [v for eqn in ex.graph.eqns for v in eqn.outputs if v.aval.size == n * n]
    row = {
        "ops": len(ex.graph.eqns),
        "arena, bytes": ex.memory_plan().arena_bytes,
        "values of n x n": len(square),
    }
    report.table("k-means: the Hessian's diagonal (10 centres x 8, so n = 80), as np.bincount has it", [row])
    report.verdict("n x n arrays", len(square), 0)


def one_loss(params: Any, x: Any, label: Any) -> Any:
    """The loss of one example."""
    from fastgrad.nn import functional as F

    for layer in params[:-1]:
        x = F.relu(x @ layer["w"] + layer["b"])
    logits = x @ params[-1]["w"] + params[-1]["b"]
    return F.cross_entropy(logits[None], label[None])


def examples_fastgrad(threads: int) -> Callable[[], Any]:
    import fastgrad as fg

    params, (x, labels) = parameters(SIZES), batch(SIZES, ROWS)
    each = fg.jit(fg.vmap(fg.grad(one_loss), in_axes=(None, 0, 0)), threads=threads)

    def step() -> Any:
        grads = each(params, x, labels)
        return grads[0]["b"][0, 0] + grads[-1]["b"][-1, -1]

    return step


def examples_loop(threads: int) -> Callable[[], Any]:
    import fastgrad as fg

    params, (x, labels) = parameters(SIZES), batch(SIZES, ROWS)
    one = fg.grad(one_loss, threads=threads)

    def step() -> Any:
        grads = [one(params, x[i], labels[i]) for i in range(ROWS)]
        return grads[0][0]["b"][0] + grads[-1][-1]["b"][-1]

    return step


def examples_jax(threads: int) -> Callable[[], Any]:
    import jax

    params, (x, labels) = jax.device_put(parameters(SIZES)), jax.device_put(batch(SIZES, ROWS))

    def one(params: Any, x: Any, label: Any) -> Any:
        for layer in params[:-1]:
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
        return -jax.nn.log_softmax(x @ params[-1]["w"] + params[-1]["b"])[label]

    each = jax.jit(jax.vmap(jax.grad(one), in_axes=(None, 0, 0)))

    def step() -> Any:
        grads = jax.block_until_ready(each(params, x, labels))
        return np.asarray(grads[0]["b"])[0, 0] + np.asarray(grads[-1]["b"])[-1, -1]

    return step


CONTESTANTS = {"fastgrad vmap": examples_fastgrad, "fastgrad loop": examples_loop, "jax vmap": examples_jax}


def examples(report: Report, options: Any) -> None:
    """Gradients of each example of a batch."""
    found, failed = {}, {}
    for name in CONTESTANTS:
        try:
            found[name] = Remote(
                [__file__, "--contestant", name, str(options.threads)], threads=options.threads
            )
        except Failed as error:
            failed[name] = str(error)
    numbers = [c.numbers for c in found.values()]
    assert all(np.allclose(n, numbers[0], rtol=1e-3) for n in numbers), numbers
    times = compete(found, options.rounds, options.seconds)
    us = {n: t["median"] for n, t in times.items()}
    for c in found.values():
        c.close()
    report.table(
        "per-example gradients", [{"contestant": n, "us": t} for n, t in us.items()], "; ".join(failed)
    )
    report.verdict("vmap to a Python loop", us["fastgrad vmap"] / us["fastgrad loop"], 0.1)
    if "jax vmap" in us:
        report.verdict("vmap to JAX's", us["fastgrad vmap"] / us["jax vmap"], 1.0)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__, threads=2, rounds=9).parse_args()
    with Report(
        "transformations", options, dtype="float64, the perceptron float32", packages=("jax",)
    ) as report:
        products(report, options)
        hessians(report, options)
        diagonal(report)
        examples(report, options)


if __name__ == "__main__":
    if "--contestant" in sys.argv:
        name, threads = sys.argv[2:]
        serve(lambda: Contestant(CONTESTANTS[name](int(threads))))
    else:
        main()
