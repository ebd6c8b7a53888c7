"""The rows of draws and of what they are made of. A key is an input as any other; the plain call is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from case import Case, label
from fastgrad import random
from fastgrad.core import counter
from fastgrad.nn import functional as F
from fastgrad.ops.random import iota, threefry_p
from fastgrad.ops.special import ndtri, plain_log_p

FLOATS = ("f4", "f8")


def _draw(name: str, fn: Callable[[Any], Any]) -> Case:
    return Case(name, fn, ((2,),), ("u4",), below=2**32, order=0)


def _draws() -> list[Case]:
    p = np.array([0.1, 0.6, 0.3])
    rows = [
        _draw("split", lambda k: random.split(k, 3)),
        _draw("split-shape", lambda k: random.split(k, (2, 1))),
        _draw("fold_in", lambda k: random.fold_in(k, 7)),
        _draw("randint", lambda k: random.randint(k, (5, 3), -3, 8)),
        _draw("randint-u1", lambda k: random.randint(k, (5,), 0, 256, np.uint8)),
        _draw("randint-wide", lambda k: random.randint(k, (5,), -(2**62), 2**62 + 5)),
        _draw("randint-whole", lambda k: random.randint(k, (5,), -(2**63), 2**63)),
        _draw("randint-bounds", lambda k: random.randint(k, (2, 3), np.zeros(3, np.int64), np.arange(1, 4))),
        _draw("bernoulli", lambda k: random.bernoulli(k, 0.3, (2, 3))),
        _draw("bernoulli-p", lambda k: random.bernoulli(k, p)),
        _draw("categorical", lambda k: random.categorical(k, np.log(p), shape=(7,))),
        _draw("categorical-axis", lambda k: random.categorical(k, np.zeros((3, 2)), axis=0, shape=(4, 2))),
        _draw("permutation", lambda k: random.permutation(k, 9)),
        _draw("permutation-none", lambda k: random.permutation(k, 0)),
        _draw("permutation-rows", lambda k: random.permutation(k, np.arange(6.0).reshape(3, 2))),
        _draw("permutation-columns", lambda k: random.permutation(k, np.arange(6.0).reshape(2, 3), axis=1)),
        _draw("choice", lambda k: random.choice(k, 5, (2, 3))),
        _draw("choice-p", lambda k: random.choice(k, p, (4,), p=p)),
        _draw("choice-once", lambda k: random.choice(k, 5, (3,), replace=False)),
        _draw("uniform-bounds", lambda k: random.uniform(k, (2, 3), minval=-1, maxval=3)),
        _draw("truncated_normal", lambda k: random.truncated_normal(k, -1.0, 2.0, (2, 3))),
        _draw("truncated_normal-tail", lambda k: random.truncated_normal(k, 5.0, np.inf, (2, 3))),
        _draw("iota-strided", lambda k: iota(k, (4, 3), np.dtype("i4"))[::-1, 1:] * k[:2].astype("i4")),
        _draw(
            "iota-matmul", lambda k: iota(k, (2, 3), np.dtype("i8")) @ iota(k, (3, 2), np.dtype("i8")) + k[0]
        ),
        _draw("iota-alone", lambda k: iota(k, (2, 3), np.dtype("u8"))),
    ]
    for dtype in ("u1", "u2", "u4", "u8"):
        rows.append(_draw(label("bits", dtype), lambda k, d=dtype: random.bits(k, (2, 3), d)))
    for draw in (random.uniform, random.normal, random.exponential, random.gumbel, random.laplace):
        for shape in ((), (2, 3), (0,)):
            for dtype in FLOATS:
                name = label(draw.__name__, shape, dtype)
                rows.append(_draw(name, lambda k, f=draw, s=shape, d=dtype: f(k, s, d)))
    return rows


def _parts() -> list[Case]:
    key = np.array([3, 4], np.uint32)
    words = ("u4",) * 4
    four = ((2, 3), (3,), (), (2, 1))
    rows = [
        Case("key", random.key, ((),), ("i8",), order=0),
        Case("fold_in-data", lambda k, n: random.fold_in(k, n), ((2,), ()), ("u4", "i2"), order=0),
        Case(
            "uniform-arrays",
            lambda a, b: random.uniform(key, (2, 3), minval=a, maxval=b),
            ((3,), (2, 1)),
        ),
        Case("normal-scaled", lambda m, s: m + s * random.normal(key, (2, 3)), ((3,), (2, 3))),
        Case("dropout", lambda x: F.dropout(x, 0.4, key=key), ((3, 4),), order=2),
        Case("dropout-f4", lambda x: F.dropout(x, 0.4, key=key), ((3, 4),), ("f4",), order=0),
        Case("ndtri", ndtri, ((2, 3),), domain=(0.02, 0.98)),
        Case("ndtri-f4", ndtri, ((2, 3),), ("f4",), domain=(0.02, 0.98), order=0),
        Case("plain_log", plain_log_p, ((2, 3),), domain=(0.3, 3), twin=np.log),
    ]
    for bits, twin in ((32, counter.mixed), (64, counter.both)):
        fn = lambda *w, b=bits: threefry_p(*w, bits=b)  # noqa: E731
        rows.append(Case(label("threefry", bits), fn, four, words, below=2**32, twin=twin, order=0))
    return rows


def _batch_norm_twin(x: Any, w: Any, b: Any) -> Any:
    return (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5) * w + b


def _batch_norm() -> list[Case]:
    return [
        Case(
            "batch_norm",
            lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True)[0],
            ((4, 3, 2), (2,), (2,)),
            twin=_batch_norm_twin,
            tolerance=1e-5,
        ),
        Case(
            "batch_norm-running",
            lambda x, m, v: F.batch_norm(x, m, v)[0],
            ((4, 2), (2,), (2,)),
            domain=(0.3, 2),
            twin=lambda x, m, v: (x - m) / np.sqrt(v + 1e-5),
        ),
        Case(
            "batch_norm-new-var",
            lambda x, v: F.batch_norm(x, v, v, training=True)[2],
            ((5, 2), (2,)),
            twin=lambda x, v: 0.9 * v + 0.1 * x.var(0, ddof=1),
            order=0,
        ),
    ]


RANDOM_ROWS: list[Case] = [*_draws(), *_parts(), *_batch_norm()]
"""Every row of draws."""
