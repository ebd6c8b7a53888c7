"""Training step (forward, backward, Adam) of three perceptrons: fastgrad against its interpreter, define-by-run and JAX.

Every contestant runs in a process of its own and waits on a pipe while it is not its turn. All start from the same
parameters and batch; their first losses must agree. The learning rate is tiny on purpose: however many steps a contestant
takes, the network stays what it was, with no dead units and no subnormal numbers, which would slow some of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from common import NETWORKS, Remote, Report, batch, compete, loss, parameters, parser, serve, skip

LEARNING_RATE = 1e-8
Step = Callable[[], Any]


def fastgrad_step(sizes: Sequence[int], rows: int, threads: int, backend: str = "numba") -> Step:
    """`fg.TrainStep`."""
    import fastgrad as fg

    x, labels = batch(sizes, rows)

    def make() -> Step:
        step = fg.TrainStep(
            loss, parameters(sizes), fg.optim.Adam(LEARNING_RATE), backend=backend, threads=threads
        )
        return lambda: step(x, labels)

    return make


def interpreter_step(sizes: Sequence[int], rows: int, threads: int) -> Step:
    """`fg.TrainStep`, op by op in NumPy."""
    return fastgrad_step(sizes, rows, threads, "numpy")


def tensor_step(sizes: Sequence[int], rows: int, threads: int) -> Step:
    """`fg.Tensor`: define-by-run, interpreted."""
    import fastgrad as fg

    x, labels = map(fg.Tensor, batch(sizes, rows))

    def make() -> Step:
        layers = [{k: fg.Tensor(v, requires_grad=True) for k, v in p.items()} for p in parameters(sizes)]
        optimizer = fg.optim.Adam(layers, lr=LEARNING_RATE)

        def step() -> Any:
            optimizer.zero_grad()
            value = loss(layers, x, labels)
            value.backward()
            optimizer.step()
            return value

        return step

    return make


def autograd_step(sizes: Sequence[int], rows: int, threads: int) -> Step:
    """HIPS autograd, with Adam by hand in NumPy, in place."""
    import autograd.numpy as np
    from autograd import value_and_grad

    x, labels = batch(sizes, rows)
    row = np.arange(rows)

    def cross_entropy(params: Any) -> Any:
        h = x
        for layer in params[:-1]:
            h = np.maximum(h @ layer["w"] + layer["b"], 0)
        logits = h @ params[-1]["w"] + params[-1]["b"]
        top = np.max(logits, axis=1, keepdims=True)
        total = np.log(np.sum(np.exp(logits - top), axis=1)) + top[:, 0]
        return np.mean(total - logits[row, labels])

    def make() -> Step:
        params, differentiate, t = parameters(sizes), value_and_grad(cross_entropy), 0
        moments = [{k: (np.zeros_like(v), np.zeros_like(v)) for k, v in p.items()} for p in params]

        def step() -> Any:
            nonlocal t
            value, grads = differentiate(params)
            t += 1
            size, root = LEARNING_RATE / (1 - 0.9**t), float(np.sqrt(1 - 0.999**t))
            for layer, given, held in zip(params, grads, moments, strict=True):
                for k, p in layer.items():
                    g, (m, v) = given[k], held[k]
                    m *= 0.9
                    m += 0.1 * g
                    v *= 0.999
                    v += 0.001 * (g * g)
                    p -= size * m / (np.sqrt(v) / root + 1e-8)
            return value

        return step

    return make


def torch_step(sizes: Sequence[int], rows: int, threads: int, **options: bool) -> Step:
    """PyTorch eager: `nn.Sequential`, `F.cross_entropy`, `torch.optim.Adam`."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    x, labels = map(torch.from_numpy, batch(sizes, rows))

    def make() -> Step:
        layers: list[nn.Module] = []
        for layer in parameters(sizes):
            linear = nn.Linear(*layer["w"].shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(layer["w"].T))
                linear.bias.copy_(torch.from_numpy(layer["b"]))
            layers += [linear, nn.ReLU()]
        model = nn.Sequential(*layers[:-1])
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, **options)

        def step() -> Any:
            optimizer.zero_grad()
            value = nn.functional.cross_entropy(model(x), labels)
            value.backward()
            optimizer.step()
            return value.detach()

        return step

    return make


def torch_foreach_step(sizes: Sequence[int], rows: int, threads: int) -> Step:
    """The same with Adam over lists of tensors."""
    return torch_step(sizes, rows, threads, foreach=True)


def torch_fused_step(sizes: Sequence[int], rows: int, threads: int) -> Step:
    """The same with Adam as one kernel a tensor."""
    return torch_step(sizes, rows, threads, fused=True)


def jax_step(sizes: Sequence[int], rows: int, threads: int) -> Step:
    """JAX: one jitted function with parameters and optimizer state donated, Adam by hand."""
    import jax
    import jax.numpy as jnp

    x, labels = map(jnp.asarray, batch(sizes, rows))

    def cross_entropy(params: Any, x: Any, labels: Any) -> Any:
        for layer in params[:-1]:
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
        logits = x @ params[-1]["w"] + params[-1]["b"]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -chosen.mean()

    def train(params: Any, state: Any, x: Any, labels: Any, b1: float = 0.9, b2: float = 0.999) -> Any:
        value, grads = jax.value_and_grad(cross_entropy)(params, x, labels)
        t = state["t"] + 1
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state["m"], grads)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state["v"], grads)
        size, root = LEARNING_RATE / (1 - b1**t), 1 / jnp.sqrt(1 - b2**t)
        params = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) * root + 1e-8), params, m, v)
        return params, {"m": m, "v": v, "t": t}, value

    def make() -> Step:
        compiled = jax.jit(train, donate_argnums=(0, 1))
        params = jax.tree.map(jnp.asarray, parameters(sizes))
        held = (
            params,
            {
                "m": jax.tree.map(jnp.zeros_like, params),
                "v": jax.tree.map(jnp.zeros_like, params),
                "t": jnp.zeros((), jnp.float32),
            },
        )

        def step() -> Any:
            nonlocal held
            *held, value = compiled(*held, x, labels)
            jax.block_until_ready((held, value))
            return value

        return step

    return make


CONTESTANTS: dict[str, Callable[..., Any]] = {
    "fastgrad": fastgrad_step,
    "fastgrad interpreter": interpreter_step,
    "fg.Tensor": tensor_step,
    "HIPS autograd": autograd_step,
    "PyTorch eager": torch_step,
    "PyTorch eager, foreach Adam": torch_foreach_step,
    "PyTorch eager, fused Adam": torch_fused_step,
    "JAX jit": jax_step,
}


def contestant(name: str, network: str, threads: str) -> None:
    """What runs in a contestant's process; imports stand outside the measured first step."""
    try:
        make = CONTESTANTS[name](*NETWORKS[network], int(threads))
    except ImportError as error:
        return skip(str(error))
    return serve(make)


def main() -> None:
    """Measure and print."""
    it = parser(__doc__, threads=2, rounds=7)
    it.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    options = it.parse_args()
    eigen = f"--xla_cpu_multi_thread_eigen={'true' if options.threads > 1 else 'false'}"
    with Report(
        "training step with Adam", options, dtype="float32", packages=("torch", "jax", "autograd")
    ) as report:
        for network in options.networks:
            found = {
                name: Remote(
                    __file__,
                    name,
                    network,
                    str(options.threads),
                    threads=options.threads,
                    env={"XLA_FLAGS": eigen},
                )
                for name in CONTESTANTS
            }
            for name in [name for name, c in found.items() if c.skipped]:
                print(f"  {name} does not take part: {found.pop(name).skipped}")
            times = compete(found, options.rounds, options.seconds)
            for c in found.values():
                c.close()
            ours = times["fastgrad"]["median"]
            rows = [
                {
                    "contestant": name,
                    "median us": t["median"],
                    "min us": t["min"],
                    "max us": t["max"],
                    "of fastgrad": t["median"] / ours,
                    "first step s": found[name].said["first_s"],
                    "first loss": found[name].said["value"],
                }
                for name, t in times.items()
            ]
            report.table(network, rows)
            values = [row["first loss"] for row in rows]
            if max(values) - min(values) > 1e-4 * abs(values[0]):
                sys.exit(f"{network}: the contestants disagree about the first loss: {values}")


if __name__ == "__main__":
    if "--contestant" in sys.argv:
        contestant(*sys.argv[2:])
    else:
        main()
