"""NumPy's protocols: what each plain ``np.*`` function does when it is handed a traced value (NEP 13 and NEP 18)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from . import numpy as fnp
from .core.aval import result_type
from .errors import UnsupportedError, user_line
from .ops.operands import aval, operand, shape_of


def _where(condition: Any, *choices: Any) -> Any:
    if len(choices) != 2:
        raise UnsupportedError(
            "np.where with one argument: the result's shape would depend on values",
            hint="np.where(condition, x, y)",
            at=user_line(),
        )
    return fnp.where(condition, *choices)


def _named_only(fn: Callable[..., Any], names: str) -> Callable[..., Any]:
    """``fn``, which hands on ``**more``, as a function that takes no other keywords than ``names``."""
    signature = inspect.signature(fn)
    kept = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    kept += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names.split()]
    fn.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return fn


def _sum_like(op: Callable[..., Any], names: str = "") -> Callable[..., Any]:
    """``op`` behind NumPy's positional order for sum and mean; it also takes the keywords ``names``."""

    def call(
        x: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False, **more: Any
    ) -> Any:
        return op(x, axis, dtype=dtype, keepdims=keepdims, **more)

    return _named_only(call, names)


def _var_like(op: Callable[..., Any]) -> Callable[..., Any]:
    """``op`` behind NumPy's positional order for var and std."""
    return lambda x, axis=None, dtype=None, out=None, ddof=0, keepdims=False: op(
        x, axis, dtype=dtype, ddof=ddof, keepdims=keepdims
    )


def _max_like(op: Callable[..., Any], names: str = "") -> Callable[..., Any]:
    """``op`` behind NumPy's positional order for max, argmax, all and their kin; it also takes the keywords ``names``."""

    def call(x: Any, axis: Any = None, out: Any = None, keepdims: bool = False, **more: Any) -> Any:
        return op(x, axis, keepdims=keepdims, **more)

    return _named_only(call, names)


def _cumulative(op: Callable[..., Any]) -> Callable[..., Any]:
    """``op`` behind NumPy's positional order for cumsum and cumprod."""
    return lambda x, axis=None, dtype=None, out=None: op(x, axis, dtype=dtype)


def _outer(op: Callable[..., Any], x: Any, y: Any) -> Any:
    """``op`` of each element of ``x`` with each of ``y``: the axes of x, then those of y."""
    x, y = operand(x), operand(y)
    return op(fnp.reshape(x, (*shape_of(x), *(1,) * len(shape_of(y)))), y)


def _size(x: Any, axis: int | None = None) -> int:
    return aval(x).size if axis is None else shape_of(x)[axis]


def _result_type(*values: Any) -> np.dtype:
    return result_type(*(aval(_stand_in(v)) for v in values))[0]


def _stand_in(value: Any) -> Any:
    return np.empty(0, value) if isinstance(value, type | np.dtype | str) else operand(value)


# --- the tables -----------------------------------------------------------------------------------------------------


def _named(names: str) -> dict[Any, Callable[..., Any]]:
    """NumPy's functions of these names -> ours; those that this NumPy has not are left out."""
    return {getattr(np, n): getattr(fnp, n) for n in names.split() if hasattr(np, n)}


UFUNCS: dict[np.ufunc, Callable[..., Any]] = _named(
    """
    absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh bitwise_and bitwise_or bitwise_xor cbrt ceil
    conjugate copysign cos cosh deg2rad degrees divide equal exp exp2 expm1 fabs float_power floor floor_divide fmax
    fmin greater greater_equal heaviside hypot invert isfinite isinf isnan left_shift less less_equal log log10 log1p
    log2 logaddexp logical_and logical_not logical_or logical_xor matmul maximum minimum multiply negative not_equal
    positive power rad2deg radians reciprocal remainder right_shift rint sign sin sinh sqrt square subtract tan tanh
    trunc vecdot
    """
)
"""What each NumPy ufunc does on traced values."""

METHODS: dict[str, dict[np.ufunc, Callable[..., Any]]] = {
    "__call__": UFUNCS,
    "reduce": {
        np.add: fnp.sum,
        np.multiply: fnp.prod,
        np.maximum: fnp.max,
        np.minimum: fnp.min,
        np.logical_and: fnp.all,
        np.logical_or: fnp.any,
        np.logaddexp: partial(fnp.fold, fnp.logaddexp),
    },
    "accumulate": {
        np.add: fnp.cumsum,
        np.multiply: fnp.cumprod,
        np.maximum: partial(fnp.accumulate, fnp.maximum),
        np.minimum: partial(fnp.accumulate, fnp.minimum),
        np.logaddexp: partial(fnp.accumulate, fnp.logaddexp),
    },
    "outer": {ufunc: partial(_outer, op) for ufunc, op in UFUNCS.items() if ufunc.nin == 2},
}
"""What the methods of ufuncs do on traced values: ``np.add.reduce``, ``np.add.accumulate``, ``np.subtract.outer``."""

FUNCTIONS: dict[Any, Callable[..., Any]] = _named(
    """
    allclose append around array_equal array_split astype atleast_1d atleast_2d average broadcast_arrays broadcast_to clip
    column_stack concatenate convolve copy copyto corrcoef correlate count_nonzero cov cross diag diagonal diff dot dstack
    ediff1d einsum empty_like expand_dims fix flip fliplr flipud full_like gradient hstack imag inner interp isclose kron
    linspace meshgrid moveaxis nan_to_num ones_like outer pad polyval ravel real repeat reshape roll rot90 round select
    sinc split squeeze stack swapaxes take take_along_axis tensordot tile trace transpose trapezoid tril triu vdot vstack
    zeros_like
    """
) | {
    np.sum: _sum_like(fnp.sum, "initial where"),
    np.mean: _sum_like(fnp.mean, "where"),
    np.prod: _sum_like(fnp.prod, "initial"),
    np.cumsum: _cumulative(fnp.cumsum),
    np.cumprod: _cumulative(fnp.cumprod),
    np.nansum: _sum_like(fnp.nansum),
    np.nanmean: _sum_like(fnp.nanmean),
    np.var: _var_like(fnp.var),
    np.std: _var_like(fnp.std),
    np.max: _max_like(fnp.max, "initial"),
    np.min: _max_like(fnp.min, "initial"),
    np.ptp: _max_like(fnp.ptp),
    np.all: _max_like(fnp.all),
    np.any: _max_like(fnp.any),
    np.argmax: _max_like(fnp.argmax),
    np.argmin: _max_like(fnp.argmin),
    np.where: _where,
    np.shape: shape_of,
    np.ndim: lambda x: len(shape_of(x)),
    np.size: _size,
    np.result_type: _result_type,
    np.linalg.norm: fnp.norm,
}
"""What other NumPy functions do on traced values."""
FUNCTIONS |= {np.amax: FUNCTIONS[np.max], np.amin: FUNCTIONS[np.min]}
FUNCTIONS |= {getattr(np.linalg, n): f for n, f in vars(fnp.linalg).items() if hasattr(np.linalg, n)}


# --- a call -----------------------------------------------------------------------------------------------------------


def unsupported(name: str) -> UnsupportedError:
    """The error for a NumPy function that traced values do not know."""
    return UnsupportedError(
        f"{name} is not supported on traced values",
        hint="compose it of functions in fastgrad.numpy, or call it outside the traced function",
        at=user_line(),
    )


@lru_cache(maxsize=256)
def _signature(fn: Callable) -> inspect.Signature:
    return inspect.signature(fn)


def call(name: str, fn: Callable, args: Sequence[Any], kwargs: dict) -> Any:
    """``fn(*args, **kwargs)``; arguments that only NumPy has may be given at their defaults alone."""
    known = _signature(fn).parameters
    given = {k: v for k, v in kwargs.items() if v is not np._NoValue and (v is not None or k in known)}
    if given.get("order") == "C" or given.get("order") == "K":
        del given["order"]
    try:
        bound = _signature(fn).bind(*args, **given)
    except TypeError as error:
        raise UnsupportedError(f"{name}: {error}", hint="leave the argument out", at=user_line()) from None
    if bound.arguments.get("out") is not None:
        raise UnsupportedError(
            f"{name}: out= is not supported on traced values", hint="leave it out", at=user_line()
        )
    return fn(*args, **given)
