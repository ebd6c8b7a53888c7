"""The rows of `tests/cases.py` for ops that read and write by index."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

import fastgrad.numpy as fnp
from case import Case, label
from fastgrad.ops import index
from fastgrad.ops.scatter import MODES, scatter_p
from fastgrad.ops.window import update_slice_p


def _scatter_twin(updates: Any, indices: Any, size: int, axis: int) -> np.ndarray:
    out = np.zeros((*updates.shape[:axis], size, *updates.shape[axis + indices.ndim :]), updates.dtype)
    for at in np.ndindex(indices.shape):
        lead = (slice(None),) * axis
        out[(*lead, indices[at])] += updates[(*lead, *at)]
    return out


def _read_and_add() -> list[Case]:
    rows = []
    for axis, shape in itertools.product((0, 1, 2), ((), (2,), (2, 2), (0,))):
        fn = lambda x, i, a=axis: np.take(x, i, a)  # noqa: E731
        rows.append(Case(label("take", axis, shape), fn, ((3, 4, 5), shape), ("f8", "i8"), order=1))
    for axis, inner in itertools.product((0, 1), ((2,), (2, 3))):
        shape = (*(4,) * axis, *inner, 2)
        fn = lambda u, i, a=axis: index.scatter_add(u, i, 3, a)  # noqa: E731
        twin = lambda u, i, a=axis: _scatter_twin(u, i, 3, a)  # noqa: E731
        rows.append(
            Case(label("scatter_add", axis, inner), fn, (shape, inner), ("f8", "i8"), twin=twin, order=1)
        )
    rows += [
        Case("take-negative", lambda x, i: np.take(x, i - 3, 0), ((3, 4), (5,)), ("f8", "i8"), order=1),
        Case("take-ravel", np.take, ((3, 4), (5,)), ("f8", "u1"), order=1),
        Case("take-int", np.take, ((3,), (5,)), ("i4", "i2"), order=0),
        Case("getitem-array", lambda x, i: x[i], ((3, 4), (2, 2)), ("f8", "i4"), order=1),
        Case("getitem-array-axis", lambda x, i: x[:, i, 1:], ((2, 3, 4), (5,)), ("f8", "i4"), order=1),
        Case("check_index", lambda i: index.check_index(i, 3), ((4,),), ("i8",), twin=lambda i: i, order=0),
    ]
    return rows


_UFUNCS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _assign_twin(x: Any, key: Any, v: Any, mode: str = "set") -> np.ndarray:
    out = np.array(x)
    if mode == "set":
        out[key] = v
    else:
        _UFUNCS[mode].at(out, key, v)
    return out


def _scatter() -> list[Case]:
    """At each axis, with indices that repeat (3 places for up to 6 updates), each mode."""
    rows = []
    for mode, (axis, inner) in itertools.product(MODES, ((0, (5,)), (1, (2, 3)), (0, ()), (1, (0,)))):
        x, u = (*(4,) * axis, 3, 2), (*(4,) * axis, *inner, 2)
        fn = lambda x, i, u, a=axis, m=mode: scatter_p(x, i, u, axis=a, mode=m, unique=False)  # noqa: E731
        twin = lambda x, i, u, a=axis, m=mode: _assign_twin(x, (*(slice(None),) * a, i), u, m)  # noqa: E731
        name = label("scatter", mode, axis, inner)
        rows.append(Case(name, fn, (x, inner, u), ("f8", "i8", "f8"), twin=twin))
        if axis == 0:
            rows.append(Case(name + "-i4", fn, (x, inner, u), ("i4", "u1", "i4"), twin=twin, order=0))
            rows.append(Case(name + "-f4", fn, (x, inner, u), ("f4", "i4", "f4"), twin=twin, order=0))
    for mode in ("set", "max"):
        fn = lambda x, i, u, m=mode: scatter_p(x, i, u, axis=0, mode=m, unique=False)  # noqa: E731
        twin = lambda x, i, u, m=mode: _assign_twin(x, i, u, m)  # noqa: E731
        name, dtypes = label("scatter", mode, "bool"), ("?", "i8", "?")
        rows.append(Case(name, fn, ((3, 2), (4,), (4, 2)), dtypes, twin=twin, order=0))
        rows.append(
            Case(name + "-ties", fn, ((3, 2), (6,), (6, 2)), ("f8", "i8", "f8"), twin=twin, ties=True)
        )
    unique = lambda x, u: scatter_p(x, np.array([2, 0]), u, axis=0, mode="set", unique=True)  # noqa: E731
    rows.append(
        Case(
            "scatter-unique", unique, ((3, 2), (2, 2)), twin=lambda x, u: _assign_twin(x, np.array([2, 0]), u)
        )
    )
    return rows


def _windows() -> list[Case]:
    rows = []
    table = [
        ((4, 5), (2, 2), (1, 0), (1, 3)), ((4, 5), (4, 5), (0, 0), (1, 1)), ((4, 5), (0, 5), (2, 0), (1, 1)),
        ((4,), (1,), (3,), (1,)), ((), (), (), ()), ((0, 3), (0, 2), (0, 1), (1, 1)),
        ((3, 1, 5), (1, 1, 3), (2, 0, 0), (1, 1, 2)),
    ]  # fmt: skip
    for mode, (x, u, starts, steps) in itertools.product(("set", "add"), table):
        params = {"starts": starts, "steps": steps, "mode": mode}
        fn = lambda x, u, p=params: update_slice_p(x, u, **p)  # noqa: E731
        key = tuple(slice(a, a + n * s, s) for a, n, s in zip(starts, u, steps, strict=True))
        twin = lambda x, u, k=key, m=mode: _assign_twin(x, k, u, m)  # noqa: E731
        rows.append(Case(label("update_slice", mode, x, u, starts), fn, (x, u), twin=twin))
    for dtype in ("f4", "i4", "u1", "?"):
        key = (slice(1, 3), slice(None))
        fn = lambda x, u: update_slice_p(x, u, starts=(1, 0), steps=(1, 1), mode="set")  # noqa: E731
        twin = lambda x, u, k=key: _assign_twin(x, k, u)  # noqa: E731
        rows.append(
            Case(label("update_slice", dtype), fn, ((4, 3), (2, 3)), (dtype, dtype), twin=twin, order=0)
        )
    return rows


def _assigned() -> list[Case]:
    """``x[key] = v`` as a whole, with ``v`` of the window's shape or broadcast to it."""
    i, j = np.array([[3, 0], [-1, 2]]), np.array([1, 4])
    table: list[tuple[Any, tuple[int, ...]]] = [
        (1, (5,)), ((slice(None), -1), (4,)), (slice(None, None, -2), (2, 5)), ((..., None, slice(1, 3)), (4, 1, 2)),
        ((2, 3), ()), (..., (5,)), (i, (2, 2, 5)), ((i, j), (2, 2)), ((slice(1, 3), j), (2, 2)),
        ((j - 1, slice(0, 2)), (2, 1)),
        ((0, ..., j), (2,)), (np.array([True, False, False, True]), (5,)), (slice(2, 2), ()), (np.zeros((0,), int), (0, 5)),
    ]  # fmt: skip
    rows = []
    for n, (key, shape) in enumerate(table):
        for method, mode in (("set", "set"), ("add", "add"), ("multiply", "mul"), ("min", "min")):
            fn = lambda x, v, k=key, m=method: getattr(fnp.at(x)[k], m)(v)  # noqa: E731
            twin = lambda x, v, k=key, m=mode: _assign_twin(x, k, v, m)  # noqa: E731
            order = 2 if mode == "set" else 1
            rows.append(Case(f"at_{method}-{n}", fn, ((4, 5), shape), twin=twin, order=order))
    reads: list[Any] = [
        (i, j), (i, slice(None), None), (slice(None), j), (None, i, 0), (0, ..., j), (slice(3, None, -1), j[:, None]),
        (np.array([True, False, True, True]), slice(1, None)), [1, 1], (j % 4, ..., None), (slice(0, 0), j),
    ]  # fmt: skip
    rows += [
        Case(f"getitem_arrays-{n}", lambda x, k=k: x[k], ((4, 5),), order=1) for n, k in enumerate(reads)
    ]
    rows += [
        Case(
            "getitem_apart",
            lambda x, i, j: x[i, :, j],
            ((3, 2, 3), (4,), (2, 1)),
            ("f8", "i8", "i4"),
            order=1,
        ),
        Case("getitem_traced", lambda x, i: x[i, 1:], ((3, 2), ()), ("f8", "i8"), order=1),
        Case(
            "getitem_traced_pair", lambda x, i, j: x[i, -j], ((3, 3, 2), (), ()), ("f8", "u1", "i8"), order=1
        ),
    ]
    return rows


def index_cases() -> list[Case]:
    """All of them."""
    return [*_read_and_add(), *_scatter(), *_windows(), *_assigned()]
