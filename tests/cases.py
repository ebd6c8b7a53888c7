"""One row per op: what the generic contracts of `tests/ops/test_contracts.py` (and `bench/`) run over; see `case`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastgrad.numpy as fnp
from case import Case, label
from cases_numpy import ROWS as NUMPY_ROWS
from cases_random import RANDOM_ROWS
from cases_special import SPECIAL_ROWS
from fastgrad.nn import functional as F
from fastgrad.ops import comparison
from index_cases import index_cases

BROADCASTS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((2, 1), (1, 3)),
    ((), (2, 3)),
    ((2, 0), (1,)),
    ((), ()),
    ((1, 3), (2, 3)),
]
SHAPES = [(), (3,), (2, 3), (0,), (2, 0, 3)]
AXES = [None, *(a for n in range(4) for a in itertools.combinations(range(3), n)), -1, -2]
FLOATS, INTEGERS = ("f4", "f8"), ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def _binary() -> list[Case]:
    positive = (0.3, 2.0)
    rows: list[Case] = []
    table: list[tuple[Any, tuple[float, float], int]] = [
        (np.add, (-2, 2), 2), (np.subtract, (-2, 2), 2), (np.multiply, (-2, 2), 2), (np.divide, positive, 2),
        (np.remainder, positive, 1), (np.floor_divide, positive, 1), (np.power, positive, 2),
        (np.maximum, (-2, 2), 2), (np.minimum, (-2, 2), 2),
    ]  # fmt: skip
    for op, domain, order in table:
        for shapes in BROADCASTS:
            rows.append(Case(label(op.__name__, *shapes), op, shapes, domain=domain, order=order))
        rows.append(Case(label(op.__name__, "f4"), op, ((2, 3), (3,)), ("f4", "f4"), domain=domain, order=0))
    for op in (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal):
        for shapes in BROADCASTS:
            rows.append(Case(label(op.__name__, *shapes), op, shapes, order=0, ties=True))
        rows += [
            Case(label(op.__name__, d), op, ((2, 3), (3,)), (d, d), order=0) for d in ("?", "i4", "u8", "f4")
        ]
    for op in (np.left_shift, np.right_shift):
        rows += [Case(label(op.__name__, d), op, ((2, 3), (3,)), (d, d), below=12, order=0) for d in INTEGERS]
    for op in (np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.logical_and, np.logical_or, np.logical_xor):
        rows += [Case(label(op.__name__, d), op, ((2, 3), (3,)), (d, d), order=0) for d in ("?", "i4", "u1")]
    for op in (np.add, np.multiply, np.subtract, np.maximum, np.minimum, np.floor_divide, np.remainder):
        rows += [Case(label(op.__name__, d), op, ((2, 3), (3,)), (d, d), order=0) for d in INTEGERS]
    for op in (np.add, np.multiply, np.maximum, np.minimum):
        rows.append(Case(label(op.__name__, "?"), op, ((2, 3), (3,)), ("?", "?"), order=0))
    for op in (np.maximum, np.minimum):
        rows.append(Case(label(op.__name__, "ties"), op, ((4, 5), (5,)), ties=True))
    return rows


def _relu(x: Any) -> Any:
    return np.maximum(x, np.zeros((), x.dtype))


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _unary() -> list[Case]:
    table: list[tuple[Any, Any, tuple[float, float]]] = [
        (np.negative, None, (-2, 2)), (np.absolute, None, (-2, 2)), (np.sign, None, (-2, 2)), (np.exp, None, (-2, 2)),
        (np.log, None, (0.3, 3)), (np.sqrt, None, (0.3, 3)), (np.tanh, None, (-2, 2)), (np.expm1, None, (-2, 2)),
        (np.log1p, None, (-0.5, 2)), (np.sin, None, (-4, 4)), (np.cos, None, (-4, 4)), (np.floor, None, (-2, 2)),
        (np.ceil, None, (-2, 2)), (np.square, None, (-2, 2)), (np.reciprocal, None, (0.3, 2)),
        (F.rsqrt, lambda x: 1 / np.sqrt(x), (0.3, 3)), (F.relu, _relu, (-2, 2)), (F.sigmoid, _sigmoid, (-3, 3)),
    ]  # fmt: skip
    rows = []
    for op, twin, domain in table:
        name = op.__name__
        rows += [Case(label(name, s), op, (s,), twin=twin, domain=domain) for s in SHAPES]
        rows.append(Case(label(name, "f4"), op, ((2, 3),), ("f4",), twin=twin, domain=domain, order=0))
    for op in (
        np.negative,
        np.absolute,
        np.sign,
        np.invert,
        np.square,
        np.floor,
        np.isnan,
        np.isinf,
        np.isfinite,
    ):
        rows += [Case(label(op.__name__, d), op, ((2, 3),), (d,), order=0) for d in INTEGERS]
    for op in (np.logical_not, np.isnan, np.isinf, np.isfinite):
        rows += [Case(label(op.__name__, d), op, ((2, 3),), (d,), order=0) for d in FLOATS]
    for n in (-1, 0, 0.5, 1, 2, 3, 4, 2.5, -2):
        rows.append(Case(label("power", n), lambda x, n=n: x**n, ((2, 3),), domain=(0.3, 2)))
    rows += [
        Case(label("power-i8", n), lambda x, n=n: x**n, ((2, 3),), ("i8",), order=0) for n in (0, 1, 2, 3, 7)
    ]
    rows.append(Case("clip", lambda x: np.clip(x, -1, 0.5), ((2, 3),)))
    rows.append(Case("clip-arrays", lambda x, a, b: np.clip(x, a, b), ((2, 3), (3,), ())))
    rows.append(Case("clip-ties", lambda x: np.clip(x, -1, 1), ((4, 3),), ties=True))
    rows.append(Case("where", np.where, ((2, 3), (3,), (2, 1)), ("?", "f8", "f8")))
    rows.append(Case("where-scalars", lambda c: np.where(c, 1.0, 0.0), ((2, 3),), ("?",), order=0))
    rows.append(
        Case("where-f4", lambda c, x: np.where(c, x, 0.0), ((3,), (2, 3)), ("f8", "f4"), order=0, ties=True)
    )
    for source, target in itertools.product(("?", "i4", "u1", "f4", "f8"), repeat=2):
        name = label("astype", source, target)
        rows.append(Case(name, lambda x, t=target: x.astype(t), ((2, 3),), (source,), domain=(0, 3), order=0))
    rows.append(Case("astype-f8-f8", lambda x: (x * 2).astype("f8"), ((2, 3),)))
    return rows


def _reductions() -> list[Case]:
    rows = []
    for op, order in ((np.sum, 2), (np.mean, 2), (np.max, 2), (np.min, 2), (np.var, 2), (np.std, 2)):
        for axis in AXES:
            if op in (np.var, np.std) and axis == ():
                continue
            for keep in (False, True):
                name = label(op.__name__, "None" if axis is None else axis, "keep" if keep else None)
                fn = lambda x, op=op, a=axis, k=keep: op(x, axis=a, keepdims=k)  # noqa: E731
                rows.append(Case(name, fn, ((2, 3, 4),), order=order, tolerance=1e-5))
        rows.append(Case(label(op.__name__, "scalar"), op, ((),), order=0 if op in (np.std,) else 1))
        rows.append(Case(label(op.__name__, "ones"), lambda x, op=op: op(x, axis=1), ((3, 1, 1),), order=0))
        rows.append(
            Case(label(op.__name__, "f4"), lambda x, op=op: op(x, axis=0), ((3, 2),), ("f4",), order=0)
        )
        rows.append(
            Case(label(op.__name__, "i4"), lambda x, op=op: op(x, axis=0), ((3, 2),), ("i4",), order=0)
        )
        rows.append(Case(label(op.__name__, "?"), lambda x, op=op: op(x, axis=0), ((3, 2),), ("?",), order=0))
        rows.append(Case(label(op.__name__, "free"), lambda x, op=op: op(x, axis=1), ((0, 3),), order=1))
    rows += [Case(label("sum-all", d), lambda x: x.sum(), ((3, 2),), (d,), order=0) for d in INTEGERS]
    rows.append(Case("sum-dtype", lambda x: np.sum(x, 0, "f8"), ((3, 2),), ("f4",), order=0))
    rows.append(Case("sum-empty", lambda x: np.sum(x, axis=0), ((0, 3),)))
    rows += [
        Case(label(op.__name__, "ties"), lambda x, op=op: op(x, axis=1), ((4, 6),), ties=True)
        for op in (np.max, np.min)
    ]
    for op in (np.argmax, np.argmin):
        for axis in (None, 0, -1):
            fn = lambda x, op=op, a=axis: op(x, axis=a)  # noqa: E731
            rows.append(Case(label(op.__name__, axis, "axis"), fn, ((4, 5),), order=0, ties=True))
    for op in (np.all, np.any):
        rows += [
            Case(label(op.__name__, d), lambda x, op=op: op(x, axis=1), ((4, 2),), (d,), order=0)
            for d in ("?", "i8", "f8")
        ]
        rows.append(Case(label(op.__name__, "empty"), lambda x, op=op: op(x, axis=1), ((4, 0),), order=0))
    return rows


def _movement() -> list[Case]:
    rows = [
        Case("reshape", lambda x: np.reshape(x, (4, 3)), ((2, 6),), order=1),
        Case("reshape-minus", lambda x: x.reshape(3, -1), ((2, 6),), order=1),
        Case("reshape-scalar", lambda x: np.reshape(x, (1, 1)), ((),), order=1),
        Case("reshape-empty", lambda x: np.reshape(x, (3, 0)), ((0, 2),), order=1),
        Case("reshape-transposed", lambda x: x.T.reshape(-1), ((2, 3),), order=1),
        Case("ravel", np.ravel, ((2, 3),), order=1),
        Case("ravel-empty", np.ravel, ((2, 0),), order=1),
        Case("expand_dims", lambda x: np.expand_dims(x, (0, 2)), ((2, 3),), order=1),
        Case("squeeze", np.squeeze, ((1, 3, 1),), order=1),
        Case("squeeze-axis", lambda x: np.squeeze(x, 0), ((1, 3, 1),), order=1),
        Case("swapaxes", lambda x: np.swapaxes(x, 0, -1), ((2, 3, 4),), order=1),
        Case("moveaxis", lambda x: np.moveaxis(x, (0, 1), (2, 0)), ((2, 3, 4),), order=1),
        Case("broadcast_to", lambda x: np.broadcast_to(x, (2, 4, 3)), ((4, 1),), order=1),
        Case("broadcast_to-scalar", lambda x: np.broadcast_to(x, (2, 3)), ((),), order=1),
        Case("broadcast_to-empty", lambda x: np.broadcast_to(x, (0, 3)), ((1, 3),), order=1),
        Case("flip", np.flip, ((2, 3),), order=1),
        Case("flip-axis", lambda x: np.flip(x, 1), ((2, 3),), order=1),
        Case("pad", lambda x: np.pad(x, ((1, 2), (0, 1))), ((2, 3),), order=1),
        Case("pad-scalar-width", lambda x: np.pad(x, 1), ((2, 3),), order=1),
        Case("concatenate", lambda x, y: np.concatenate([x, y], 1), ((2, 3), (2, 1)), order=1),
        Case("concatenate-one", lambda x: np.concatenate([x]), ((2, 3),), order=1),
        Case("concatenate-same", lambda x: np.concatenate([x, x, x]), ((2, 3),), order=1),
        Case("concatenate-none", lambda x, y: np.concatenate([x, y], None), ((2, 3), (4,)), order=1),
        Case("concatenate-empty", lambda x, y: np.concatenate([x, y]), ((0, 3), (2, 3)), order=1),
        Case("concatenate-mixed", lambda x, y: np.concatenate([x, y]), ((2,), (3,)), ("i4", "f4"), order=0),
        Case("stack", lambda x, y: np.stack([x, y], -1), ((2, 3), (2, 3)), order=1),
        Case("vstack", lambda x, y: np.vstack([x, y]), ((3,), (2, 3)), order=1),
        Case("hstack", lambda x, y: np.hstack([x, y]), ((3,), (2,)), order=1),
        Case("split", lambda x: np.split(x, 3)[1], ((6, 2),), order=1),
        Case("split-at", lambda x: np.split(x, [1, 4], 1)[1], ((2, 5),), order=1),
    ]
    for perm in itertools.permutations(range(3)):
        rows.append(
            Case(label("transpose", perm), lambda x, p=perm: np.transpose(x, p), ((2, 3, 4),), order=1)
        )
    keys: Sequence[Any] = (
        0, -1, slice(None), slice(1, 3), slice(None, None, 2), slice(None, None, -1), slice(3, 0, -2), slice(-3, -1),
        slice(2, 1), (slice(None), 1), (1, 2), (..., 0), (None, 1), (slice(1, None), None, slice(None, None, -2)), ...,
        (1, slice(3, None), None), (-1, ..., None), (), (slice(0, 0), slice(1, 3)),
    )  # fmt: skip
    for key in keys:
        rows.append(Case(label("getitem", key), lambda x, k=key: x[k], ((4, 5),), order=1))
    return rows


def _matmul() -> list[Case]:
    shapes = [
        ((2, 3), (3, 4)), ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)),
        ((2, 3), (5, 3, 4)), ((6, 1, 2, 3), (5, 3, 4)), ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((1, 3), (3, 1)),
        ((0, 3), (3, 4)), ((2, 0), (0, 4)), ((2, 3), (3, 0)), ((0, 2, 3), (3, 4)), ((1, 2, 3), (1, 3, 2)),
    ]  # fmt: skip
    rows = [Case(label("matmul", *s), np.matmul, s) for s in shapes]
    rows += [Case(label("matmul-i8", *s), np.matmul, s, ("i8", "i8"), order=0) for s in shapes]
    rows += [
        Case(label("matmul", d), np.matmul, ((2, 3), (3, 4)), (d, d), order=0)
        for d in ("f4", "?", "i1", "u4")
    ]
    rows += [
        Case("matmul-xT-y", lambda x, y: x.T @ y, ((3, 2), (3, 4))),
        Case("matmul-x-yT", lambda x, y: x @ y.T, ((2, 3), (4, 3))),
        Case("matmul-xT-yT", lambda x, y: x.T @ y.T, ((3, 2), (4, 3))),
        Case("matmul-xT-x", lambda x: x.T @ x, ((3, 2),)),
        Case("dot", np.dot, ((2, 3), (3, 4))),
        Case("dot-scalar", np.dot, ((), (3, 4))),
        Case("dot-nd", np.dot, ((2, 3), (5, 3, 4))),
        Case("inner", np.inner, ((2, 3), (4, 3))),
        Case("outer", np.outer, ((2, 3), (4,))),
        Case("tensordot", lambda x, y: np.tensordot(x, y, ((1, 2), (1, 0))), ((2, 3, 4), (4, 3))),
        Case("tensordot-2", np.tensordot, ((2, 3, 4), (3, 4, 2))),
        Case("norm", np.linalg.norm, ((2, 3),)),
        Case("norm-axis", lambda x: np.linalg.norm(x, axis=1, keepdims=True), ((2, 3),)),
        Case("trace", np.trace, ((3, 4),), order=1),
    ]
    return rows


def _lse_twin(x: Any, axis: Any, keepdims: bool = False) -> Any:
    m = np.max(x, axis=axis, keepdims=True)
    out = np.log(np.sum(np.exp(x - m), axis=axis, keepdims=True)) + m
    return out if keepdims else np.squeeze(out, axis=axis)


def _cross_entropy_twin(x: Any, labels: Any) -> Any:
    picked = np.take_along_axis(x, labels[..., None].astype(np.int64), -1)[..., 0]
    return _lse_twin(x, -1) - picked


def _nn() -> list[Case]:
    rows = []
    for axis, keep in itertools.product((None, 0, -1, (0, 2)), (False, True)):
        fn = lambda x, a=axis, k=keep: F.logsumexp(x, a, keepdims=k)  # noqa: E731
        twin = lambda x, a=axis, k=keep: _lse_twin(x, a, k)  # noqa: E731
        rows.append(
            Case(label("logsumexp", "None" if axis is None else axis, keep), fn, ((2, 3, 4),), twin=twin)
        )
    for axis in (0, -1):
        soft = lambda x, a=axis: np.exp(x - _lse_twin(x, a, True))  # noqa: E731
        rows.append(Case(label("softmax", axis), lambda x, a=axis: F.softmax(x, a), ((3, 4),), twin=soft))
        log_soft = lambda x, a=axis: x - _lse_twin(x, a, True)  # noqa: E731
        rows.append(
            Case(label("log_softmax", axis), lambda x, a=axis: F.log_softmax(x, a), ((3, 4),), twin=log_soft)
        )
    for dtype in ("i1", "u1", "i8"):
        name = label("cross_entropy", dtype)
        rows.append(
            Case(
                name,
                F.cross_entropy,
                ((5, 3), (5,)),
                ("f8", dtype),
                twin=lambda x, y: np.mean(_cross_entropy_twin(x, y)),
            )
        )
    rows += [
        Case(
            "cross_entropy-none",
            lambda x, y: F.cross_entropy(x, y, reduction="none"),
            ((2, 5, 3), (2, 5)),
            ("f8", "i8"),
            twin=_cross_entropy_twin,
        ),
        Case(
            "cross_entropy-empty-sum",
            lambda x, y: F.cross_entropy(x, y, reduction="sum"),
            ((0, 3), (0,)),
            ("f8", "i8"),
            twin=lambda x, y: np.zeros(()),
        ),
        Case("one_hot", lambda y: F.one_hot(y, 3), ((4,),), ("i8",), twin=lambda y: np.eye(3)[y], order=0),
        Case("mse_loss", F.mse_loss, ((3, 2), (3, 2)), twin=lambda x, y: np.mean((x - y) ** 2)),
        Case("linear", F.linear, ((5, 3), (3, 4), (4,)), twin=lambda x, w, b: x @ w + b),
        Case("zeros_like", lambda x: np.zeros_like(x) + x, ((2, 3),), order=1),
        Case("full_like", lambda x: np.full_like(x, 2) * x, ((2, 3),), order=1),
        Case(
            "stop_gradient-free",
            lambda x: comparison.where(x > 0, x * x, x),
            ((2, 3),),
            twin=lambda x: np.where(x > 0, x * x, x),
        ),
        Case("asarray", lambda x: fnp.asarray([x[0], x[1]]), ((2, 3),), twin=lambda x: x, order=1),
    ]
    return rows


CASES: list[Case] = [
    *_binary(),
    *_unary(),
    *_reductions(),
    *_movement(),
    *_matmul(),
    *index_cases(),
    *_nn(),
    *RANDOM_ROWS,
    *SPECIAL_ROWS,
    *NUMPY_ROWS,
]
"""Every row."""
