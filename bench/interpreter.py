"""The interpreter as an opponent: the interpreted training step against the same step written by hand in NumPy.

Two hands. "same operations" writes out forward, backward and Adam as the graph has them (labels compared with the class
numbers, rows of infinite logits guarded), one NumPy call an operation. "terse" is what a good NumPy user would write:
indexing by label, in-place arithmetic where it is at hand. Both keep parameters, gradients and moments in flat buffers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from common import NETWORKS, Report, batch, loss, parameters, parser

from fastgrad.bench.process import Remote, compete
from fastgrad.bench.timing import Contestant, serve

LIMIT = 1.5
LEARNING_RATE, BETA1, BETA2, EPS = 1e-8, 0.9, 0.999, 1e-8
Pairs = list[tuple[np.ndarray, np.ndarray]]


def flat_buffers(sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray, Pairs, Pairs]:
    """Parameters and gradients, each flat and as views ``(w, b)`` a layer."""
    layers = [(layer["w"], layer["b"]) for layer in parameters(sizes)]
    flat = np.concatenate([array.ravel() for pair in layers for array in pair])
    grad = np.zeros_like(flat)

    def views(buffer: np.ndarray) -> Pairs:
        at, pairs = 0, []
        for w, b in layers:
            end = at + w.size
            pairs.append((buffer[at:end].reshape(w.shape), buffer[end : end + b.size]))
            at = end + b.size
        return pairs

    return flat, grad, views(flat), views(grad)


def same_operations(sizes: Sequence[int], rows: int) -> Callable[[], Any]:
    """The operations of the graph, by hand."""
    x, labels = batch(sizes, rows)
    flat, grad, params, grads = flat_buffers(sizes)
    m, v, t = np.zeros_like(flat), np.zeros_like(flat), 0
    classes, zero, one = np.arange(sizes[-1]), np.float32(0), np.float32(1)
    scale = one / np.float32(rows)

    def step() -> Any:
        nonlocal flat, m, v, t
        if labels.min() < 0 or labels.max() >= len(classes):
            raise IndexError("a label is outside the classes")
        hit = labels[:, None] == classes
        inputs, h = [], x
        for w, b in params[:-1]:
            inputs.append(h)
            h = np.maximum(h @ w + b, zero)
        inputs.append(h)
        logits = h @ params[-1][0] + params[-1][1]

        top = logits.max(axis=1, keepdims=True)
        top = np.where(np.isfinite(top), top, zero)
        e = np.exp(logits - top)
        total = e.sum(axis=1, keepdims=True)
        chosen = np.where(hit, logits, zero).sum(axis=1)
        value = ((np.log(total) + top)[:, 0] - chosen).sum() / np.float32(rows)

        ct = (scale / total) * e + np.where(hit, -scale, zero)
        for i in reversed(range(len(params))):
            grads[i][0][...] = inputs[i].T @ ct
            grads[i][1][...] = ct.sum(axis=0)
            if i:
                ct = np.where(inputs[i] > zero, ct @ params[i][0].T, zero)

        t += 1
        size = np.float32(LEARNING_RATE / (1 - BETA1**t))
        root = np.float32(1 / np.sqrt(1 - BETA2**t))
        m[...] = np.float32(BETA1) * m + np.float32(1 - BETA1) * grad
        v[...] = np.float32(BETA2) * v + np.float32(1 - BETA2) * (grad * grad)
        flat[...] = flat - size * m / (np.sqrt(v) * root + np.float32(EPS))
        return value

    return step


def terse(sizes: Sequence[int], rows: int) -> Callable[[], Any]:
    """The same step with fewer operations and fewer temporaries."""
    x, labels = batch(sizes, rows)
    flat, grad, params, grads = flat_buffers(sizes)
    m, v, t = np.zeros_like(flat), np.zeros_like(flat), 0
    row = np.arange(rows)

    def step() -> Any:
        nonlocal flat, m, v, t
        inputs, h = [], x
        for w, b in params[:-1]:
            inputs.append(h)
            h = h @ w
            h += b
            np.maximum(h, 0, out=h)
        inputs.append(h)
        logits = h @ params[-1][0]
        logits += params[-1][1]

        logits -= logits.max(axis=1, keepdims=True)
        e = np.exp(logits)
        total = e.sum(axis=1, keepdims=True)
        value = (np.log(total[:, 0]) - logits[row, labels]).mean()

        ct = e / total
        ct[row, labels] -= 1
        ct /= rows
        for i in reversed(range(len(params))):
            np.matmul(inputs[i].T, ct, out=grads[i][0])
            ct.sum(axis=0, out=grads[i][1])
            if i:
                ct = ct @ params[i][0].T
                ct *= inputs[i] > 0

        t += 1
        m *= BETA1
        m += (1 - BETA1) * grad
        v *= BETA2
        v += (1 - BETA2) * (grad * grad)
        flat -= (LEARNING_RATE / (1 - BETA1**t)) * m / (np.sqrt(v) * float(1 / np.sqrt(1 - BETA2**t)) + EPS)
        return value

    return step


def interpreted(sizes: Sequence[int], rows: int) -> Callable[[], Any]:
    """`fg.TrainStep` with ``backend="numpy"``."""
    import fastgrad as fg

    x, labels = batch(sizes, rows)
    optimizer = fg.optim.Adam(LEARNING_RATE, (BETA1, BETA2), EPS)
    step = fg.TrainStep(loss, parameters(sizes), optimizer, backend="numpy")
    return lambda: step(x, labels)


CONTESTANTS = {
    "interpreter": interpreted,
    "by hand, same operations": same_operations,
    "by hand, terse": terse,
}


def main() -> None:
    """Measure and print."""
    options = parser(__doc__, threads=2, rounds=9).parse_args()
    with Report("the interpreter against NumPy by hand", options, dtype="float32") as report:
        rows = []
        for network in NETWORKS:
            found = {
                n: Remote([__file__, "--contestant", n, network], threads=options.threads)
                for n in CONTESTANTS
            }
            times = compete(found, options.rounds, options.seconds)
            values = [c.numbers[0] for c in found.values()]
            assert np.allclose(values, values[0], rtol=1e-4), values
            for c in found.values():
                c.close()
            ours, *hands = (times[name]["median"] for name in CONTESTANTS)
            row: dict[str, Any] = {"network": network}
            row |= {f"{name} us": times[name]["median"] for name in CONTESTANTS}
            row |= {
                f"to {n.split(', ')[1]}": ours / h for n, h in zip(list(CONTESTANTS)[1:], hands, strict=True)
            }
            rows.append(row)
        report.table("training step with Adam, medians", rows)
        for column in ("to same operations", "to terse"):
            report.verdict(f"worst ratio {column}", max(row[column] for row in rows), LIMIT)


if __name__ == "__main__":
    if "--contestant" in sys.argv:
        name, network = sys.argv[2:]
        serve(lambda: Contestant(CONTESTANTS[name](*NETWORKS[network])))
    else:
        main()
