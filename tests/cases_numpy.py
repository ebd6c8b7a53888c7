"""The rows of NumPy's further functions: more of mathematics, running sums, arrangement, index notation, sampled curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from case import Case, label

INTEGERS = ("i4", "u1")


def _mathematics() -> list[Case]:
    table: list[tuple[Any, tuple[float, float]]] = [
        (np.tan, (-1.2, 1.2)), (np.arcsin, (-0.9, 0.9)), (np.arccos, (-0.9, 0.9)), (np.arctan, (-3, 3)), (np.sinh, (-2, 2)),
        (np.cosh, (-2, 2)), (np.arcsinh, (-3, 3)), (np.arccosh, (1.3, 4)), (np.arctanh, (-0.8, 0.8)), (np.log2, (0.3, 3)),
        (np.log10, (0.3, 3)), (np.exp2, (-2, 2)), (np.cbrt, (0.3, 3)), (np.deg2rad, (-90, 90)), (np.rad2deg, (-2, 2)),
    ]  # fmt: skip
    rows = []
    for op, domain in table:
        name = op.__name__
        rows += [Case(label(name, s), op, (s,), domain=domain) for s in ((), (2, 3), (2, 0, 3))]
        rows.append(Case(label(name, "f4"), op, ((2, 3),), ("f4",), domain=domain, order=0))
    for op in (np.arctan2, np.hypot, np.logaddexp):
        for shapes in (((3,), (3,)), ((2, 1), (1, 3)), ((), (2, 3)), ((2, 0), (1,))):
            rows.append(Case(label(op.__name__, *shapes), op, shapes, domain=(0.3, 2)))
        rows.append(Case(label(op.__name__, "f4"), op, ((2, 3), (3,)), ("f4", "f4"), order=0))
    rows.append(Case("logaddexp-equal", lambda x: np.logaddexp(x, x), ((2, 3),)))
    rows.append(Case("arctan2-quadrants", np.arctan2, ((4, 5), (4, 5))))
    return rows


def _running() -> list[Case]:
    rows = []
    for axis in (None, 0, 1, -1):
        for op in (np.cumsum, np.cumprod):
            fn = lambda x, op=op, a=axis: op(x, axis=a)  # noqa: E731
            rows.append(
                Case(label(op.__name__, "None" if axis is None else axis), fn, ((2, 5, 3),), tolerance=1e-5)
            )
    for axis in (None, 0, 1, (0, 2), ()):
        for keep in (False, True):
            fn = lambda x, a=axis, k=keep: np.prod(x, axis=a, keepdims=k)  # noqa: E731
            name = label("prod", "None" if axis is None else axis, "keep" if keep else None)
            rows.append(Case(name, fn, ((2, 3, 5),), tolerance=1e-5))
    for op in (np.cumsum, np.cumprod, np.prod):
        name = op.__name__
        rows += [Case(label(name, d), op, ((2, 3),), (d,), order=0) for d in ("?", "f4", *INTEGERS)]
        rows.append(Case(label(name, "empty"), lambda x, op=op: op(x, axis=0), ((0, 3),), order=1))
        rows.append(Case(label(name, "zeros"), lambda x, op=op: op(x, axis=0), ((4, 3),), ties=True))
    rows += [
        Case("cumsum-reverse", lambda x: np.cumsum(x[::-1], 0)[::-1], ((4, 3),), order=1),
        Case("cumsum-wide", lambda x: np.cumsum(x, 1), ((2, 3, 1100),), order=1),
        Case("cumsum-scalar", np.cumsum, ((),), order=1),
    ]
    return rows


def _arrangement() -> list[Case]:
    one: list[tuple[str, Callable[..., Any], tuple[int, ...]]] = [
        ("roll", lambda x: np.roll(x, 2), (2, 3)), ("roll-axis", lambda x: np.roll(x, -1, 0), (3, 2)),
        ("roll-axes", lambda x: np.roll(x, (1, 2), (0, 1)), (3, 4)),
        ("roll-beyond", lambda x: np.roll(x, 7, 1), (2, 3)), ("roll-none", lambda x: np.roll(x, 3, 1), (2, 3)),
        ("roll-empty", lambda x: np.roll(x, 1), (0, 3)), ("diff", np.diff, (2, 4)),
        ("diff-2", lambda x: np.diff(x, 2, 0), (4, 2)), ("diff-0", lambda x: np.diff(x, 0), (3,)),
        ("diff-joined", lambda x: np.diff(x, axis=0, prepend=0.0, append=x[:1]), (3, 2)),
        ("diff-long", lambda x: np.diff(x, 5), (3,)), ("tril", np.tril, (3, 4)),
        ("triu", lambda x: np.triu(x, 1), (2, 3, 3)), ("triu-below", lambda x: np.triu(x, -1), (4, 3)),
        ("diagonal", lambda x: np.diagonal(x, 1), (3, 4)),
        ("diagonal-axes", lambda x: np.diagonal(x, -1, 2, 0), (3, 2, 4)),
        ("diagonal-none", lambda x: np.diagonal(x, 9), (3, 4)), ("diag", np.diag, (3, 4)),
        ("diag-below", lambda x: np.diag(x, -2), (4, 3)), ("diag-vector", np.diag, (3,)),
        ("diag-vector-above", lambda x: np.diag(x, 2), (3,)), ("diag-vector-below", lambda x: np.diag(x, -1), (3,)),
        ("diag-vector-empty", np.diag, (0,)), ("trace-offset", lambda x: np.trace(x, 1, 0, 2), (3, 2, 4)),
        ("tile", lambda x: np.tile(x, (2, 3)), (2, 2)), ("tile-more", lambda x: np.tile(x, (2, 1, 2)), (3,)),
        ("tile-fewer", lambda x: np.tile(x, 2), (2, 3)), ("repeat", lambda x: np.repeat(x, 3), (2, 2)),
        ("repeat-axis", lambda x: np.repeat(x, 2, 1), (2, 3)),
        ("repeat-each", lambda x: np.repeat(x, [2, 0, 1], 1), (2, 3)), ("fliplr", np.fliplr, (2, 3)),
        ("flipud", np.flipud, (2, 3)), ("rot90", np.rot90, (2, 3)), ("rot90-2", lambda x: np.rot90(x, 2), (2, 3)),
        ("rot90-3", lambda x: np.rot90(x, -1, (1, 2)), (2, 3, 4)), ("atleast_1d", np.atleast_1d, ()),
        ("atleast_2d", np.atleast_2d, (3,)), ("append", lambda x: np.append(x, [1.0]), (2, 2)),
    ]  # fmt: skip
    rows = [Case(name, fn, (shape,), order=1) for name, fn, shape in one]
    rows += [
        Case("meshgrid", lambda x, y: np.meshgrid(x, y)[0] * np.meshgrid(x, y)[1], ((3,), (2,))),
        Case("meshgrid-ij", lambda x, y: np.meshgrid(x, y, indexing="ij")[1] * x[:, None], ((3,), (2,))),
        Case("column_stack", lambda x, y: np.column_stack([x, y]), ((3,), (3, 2)), order=1),
        Case("diff-bool", np.diff, ((5,),), ("?",), order=0),
        Case("tril-int", np.tril, ((3, 3),), ("i4",), order=0),
    ]
    return rows


def _products() -> list[Case]:
    rows = [
        Case("vdot", np.vdot, ((2, 3), (3, 2))),
        Case("vdot-int", np.vdot, ((3,), (3,)), ("i4", "i4"), order=0),
        Case("kron", np.kron, ((2, 3), (3, 2))),
        Case("kron-mixed", np.kron, ((3,), (2, 2))),
        Case("cross", np.cross, ((4, 3), (4, 3))),
        Case("cross-broadcast", np.cross, ((3,), (4, 3))),
        Case("cross-axis", lambda x, y: np.cross(x, y, axis=0), ((3, 4), (3, 4))),
        Case("norm-1", lambda x: np.linalg.norm(x, 1, axis=0), ((3, 4),)),
        Case("norm-inf", lambda x: np.linalg.norm(x, np.inf, 1), ((3, 4),)),
        Case("norm-3", lambda x: np.linalg.norm(x, 3, 1), ((3, 4),)),
        Case("norm-0", lambda x: np.linalg.norm(x, 0), ((4,),), order=1),
    ]
    if hasattr(np, "vecdot"):  # NumPy 2.1
        rows.append(Case("vecdot", lambda x, y: np.vecdot(x, y, axis=0), ((3, 2), (3, 1))))
    table: list[tuple[str, tuple[tuple[int, ...], ...]]] = [
        ("ij,jk->ik", ((2, 3), (3, 4))), ("ij,jk", ((2, 3), (3, 4))), ("ij->ji", ((2, 3),)), ("ij->", ((2, 3),)),
        ("ba", ((2, 3),)), ("ii->i", ((3, 3),)), ("ii", ((3, 3),)), ("iij->j", ((3, 3, 2),)),
        ("i,j->ij", ((2,), (3,))), ("i,i", ((3,), (3,))), ("i,i->i", ((3,), (3,))),
        ("bij,bjk->bik", ((4, 2, 3), (4, 3, 5))), ("bij,kj->ikb", ((4, 2, 3), (5, 3))),
        ("...ij,jk->...ik", ((4, 2, 3), (3, 5))), ("...i,...i->...", ((4, 2, 3), (2, 3))), ("i...->...", ((3, 2),)),
        ("ij,j,k->ik", ((2, 3), (3,), (4,))), ("ab,bc,cd,de->ae", ((2, 3), (3, 4), (4, 2), (2, 3))),
        ("i,j,k->kji", ((2,), (3,), (2,))), ("i,j,k,l->lkji", ((2,), (3,), (2,), (2,))),
        ("bqhd,bkhd->bhqk", ((2, 3, 2, 2), (2, 4, 2, 2))), ("ij,kl->il", ((2, 3), (4, 2))),
        ("ij,jk->ik", ((2, 1), (3, 4))), ("iji,jj->i", ((2, 3, 2), (3, 3))), (",ij->ij", ((), (2, 3))),
        ("ij,ij->i", ((2, 3), (2, 3))), ("...ij,jk->...ik", ((1, 2, 3), (3, 4))), ("ij,jk->ik", ((2, 1), (0, 3))),
    ]  # fmt: skip
    for subscripts, shapes in table:
        fn = lambda *xs, s=subscripts: np.einsum(s, *xs)  # noqa: E731
        rows.append(Case(label("einsum", subscripts, *shapes), fn, shapes, order=2 if len(shapes) > 1 else 1))
    rows.append(
        Case(
            "einsum-int",
            lambda x, y: np.einsum("bij,bj->bi", x, y),
            ((2, 2, 3), (2, 3)),
            ("i4", "i4"),
            order=0,
        )
    )
    return rows


def _weighted() -> list[Case]:
    rows = [
        Case("average", lambda x: np.average(x, 1), ((2, 3),)),
        Case("average-weights", lambda x, w: np.average(x, 1, w), ((2, 3), (3,)), domain=(0.3, 2)),
        Case("average-all", lambda x, w: np.average(x, weights=w), ((2, 3), (2, 3)), domain=(0.3, 2)),
        Case("average-returned", lambda x, w: np.average(x, 0, w, True)[1], ((2, 3), (2,)), order=1),
        Case("average-count", lambda x: np.average(x, returned=True)[1], ((2, 3),), order=0),
        Case("average-int", np.average, ((2, 3),), ("i4",), order=0),
        Case("ptp", lambda x: np.ptp(x, 1), ((2, 4),)),
        Case("ptp-int", np.ptp, ((2, 4),), ("u1",), order=0),
        Case("nan_to_num", lambda x: np.nan_to_num(x) * x, ((2, 3),)),
        Case("nan_to_num-int", np.nan_to_num, ((2, 3),), ("i4",), order=0),
        Case("select", lambda x: np.select([x > 1, x > 0], [x**2, 2 * x], -x), ((4, 3),)),
    ]
    rows += [
        Case(label("count_nonzero", d), lambda x: np.count_nonzero(x, axis=0), ((3, 4),), (d,), order=0)
        for d in ("?", "i4", "f8")
    ]
    return rows


def _sampled() -> list[Case]:
    grid = np.array([-1.5, -0.4, 0.3, 1.4])
    return [
        Case("interp", lambda x, f: np.interp(x, grid, f), ((2, 5), (4,))),
        Case("interp-edges", lambda x, f: np.interp(x, grid, f, left=9.0, right=0.5), ((7,), (4,))),
        Case(
            "interp-knots",
            lambda k, f: np.interp(np.array([0.5, 1.7]), np.cumsum(np.exp(k)), f),
            ((4,), (4,)),
        ),
        Case("interp-one", lambda x, f: np.interp(x, np.zeros(1), f), ((3,), (1,)), order=1),
        Case("trapezoid", lambda y: np.trapezoid(y, dx=0.5, axis=0), ((4, 2),), order=1),
        Case("trapezoid-places", np.trapezoid, ((2, 4), (4,))),
        Case("trapezoid-axis", lambda y, x: np.trapezoid(y, x, axis=0), ((4, 2), (4,))),
        Case("gradient", np.gradient, ((5,),), order=1),
        Case("gradient-axis", lambda x: np.gradient(x, 0.5, axis=1), ((2, 4),), order=1),
        Case("gradient-both", lambda x: np.gradient(x, 0.5, 2.0)[1], ((3, 2),), order=1),
        Case("polyval", np.polyval, ((4,), (2, 3))),
        Case("linspace", lambda a, b: np.linspace(a, b, 5), ((), ()), order=1),
        Case("linspace-arrays", lambda a, b: np.linspace(a, b, 4, False, axis=-1), ((2,), (2,)), order=1),
        Case("linspace-one", lambda a, b: np.linspace(a, b, 1), ((2,), (2,)), order=1),
        *(
            Case(label("convolve", mode, *shapes), lambda a, v, m=mode: np.convolve(a, v, m), shapes)
            for mode in ("full", "same", "valid")
            for shapes in (((6,), (3,)), ((2,), (5,)), ((4,), (2,)))
        ),
    ]


def _outside() -> list[Case]:
    """What code written for NumPy alone calls: padding by elements, folds of any ufunc, rounding, covariance."""
    line = np.array([[0, 2, 1], [1, 1, 0]])
    rows = [
        *(Case(label("pad", m), lambda x, m=m: np.pad(x, (1, 2), mode=m), ((3, 4),), order=1)
          for m in ("edge", "reflect", "symmetric", "wrap")),
        Case("pad-value", lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=1.5), ((2, 3),), order=1),
        Case("pad-value-int", lambda x: np.pad(x, 1, constant_values=3), ((2, 3),), ("i4",), order=0),
        Case("subtract.outer", np.subtract.outer, ((3,), (2, 2)), order=1),
        Case("hypot.outer", np.hypot.outer, ((3,), (2,))),
        Case("maximum.accumulate", lambda x: np.maximum.accumulate(x, axis=1), ((2, 6),)),
        Case("minimum.accumulate", np.minimum.accumulate, ((5, 2),), ("f4",), order=0),
        Case("logaddexp.reduce", lambda x: np.logaddexp.reduce(x, axis=1), ((2, 5),)),
        Case("logaddexp.accumulate", np.logaddexp.accumulate, ((4,),)),
        Case("sum-where", lambda x: np.sum(x * x, axis=1, where=x > 0, initial=2.0), ((3, 4),)),
        Case("mean-where", lambda x, y: np.mean(x * y, axis=0, where=x + 3 > 2), ((4, 3), (3,))),
        Case("max-initial", lambda x: np.max(x, axis=1, initial=0.25), ((2, 4),)),
        Case("max-initial-empty", lambda x: np.max(x, axis=1, initial=0.25), ((2, 0),), order=0),
        Case("prod-initial", lambda x: np.prod(x, axis=0, initial=0.5), ((3, 2),)),
        Case("sinc", np.sinc, ((4, 5),)), Case("sinc-near-0", np.sinc, ((9,),), domain=(-0.04, 0.04)),
        Case("copysign", np.copysign, ((2, 3), (3,)), order=1), Case("heaviside", np.heaviside, ((5,), ()), order=1),
        Case("fmax", np.fmax, ((2, 3), (3,)), order=1), Case("fmin", np.fmin, ((2, 3), (3,)), order=1),
        *(Case(label(f.__name__, d), f, ((3, 7),), (d,), domain=(-4, 4), order=0)
          for f in (np.rint, np.trunc, np.fabs, np.round) for d in ("f8", "f4", "i4")),
        Case("rint-halves", lambda x: np.rint(x / 2), ((40,),), ties=True, domain=(-9, 9)),
        Case("round-decimals", lambda x: np.round(x, 1), ((9,),), order=0),
        Case("round-tens", lambda x: np.round(100 * x, -1), ((9,),), order=0),
        Case("isclose", lambda x: np.isclose(x, 0.5, atol=0.3), ((9,),), order=0),
        Case("cov", np.cov, ((2, 5),)), Case("cov-columns", lambda x, y: np.cov(x, y, False, True), ((4, 2), (4, 1))),
        Case("cov-vector", np.cov, ((5,),)), Case("corrcoef", np.corrcoef, ((3, 5),), tolerance=1e-5),
        Case("nansum", lambda x: np.nansum(np.log(x), axis=0), ((3, 4),), order=0),
        Case("nanmean", lambda x: np.nanmean(x, axis=1), ((3, 4),)),
        *(Case(label("correlate", m, *shapes), lambda a, v, m=m: np.correlate(a, v, m), shapes)
          for m in ("full", "same", "valid") for shapes in (((6,), (3,)), ((2,), (5,)), ((3,), (3,)))),
        Case("take_along_axis", lambda x: np.take_along_axis(x, line, axis=1), ((2, 3),), order=1),
        Case("take_along_axis-spread", lambda x: np.take_along_axis(x, line[:1], axis=1), ((4, 3),), order=1),
        Case("reshape-fortran", lambda x: x.reshape((3, -1), order="F"), ((2, 6),), order=1),
        Case("ravel-fortran", lambda x: np.ravel(x, order="F"), ((2, 3),), order=1),
        Case("dstack", lambda x, y: np.dstack([x, y]), ((2, 3), (2, 3)), order=1),
        Case("array_split", lambda x: np.array_split(x, 3)[1], ((7, 2),), order=1),
        Case("broadcast_arrays", lambda x, y: 1.0 * np.broadcast_arrays(x, y)[1], ((2, 1), (3,)), order=1),
        Case("concatenate-raveled", lambda x, y: np.concatenate([x, y], axis=None), ((2, 2), (3,)), order=1),
        Case("meshgrid-sparse", lambda x, y: sum(np.meshgrid(x, y, sparse=True)), ((3,), (2,)), order=1),
        Case("gradient-f4", np.gradient, ((5,),), ("f4",), order=0),
        Case("diff-f4-joined", lambda x: np.diff(x, prepend=0), ((5,),), ("f4",), order=0),
        Case("append-f4", lambda x: np.append(x, 1.5), ((3,),), ("f4",), order=0),
        Case("polyval-f4", lambda p: np.polyval(p, 2.0), ((3,),), ("f4",), order=0),
        Case("square-bool", np.square, ((3,),), ("?",), order=0),
    ]  # fmt: skip
    return rows


ROWS: list[Case] = [
    *_outside(),
    *_mathematics(),
    *_running(),
    *_arrangement(),
    *_products(),
    *_weighted(),
    *_sampled(),
]
"""Every row of this file."""
