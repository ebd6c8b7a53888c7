"""Problems of the literature, each written once for all libraries: ``value(lib, params, data)`` and random data.

``lib.xp`` has NumPy's names (NumPy itself under fastgrad's trace, jax.numpy, torch where the two agree); what they do not
share stands in `Library`. Formulas: Gaussian mixtures, bundle adjustment and the diagonal LSTM as in Srajer, Kukelova
and Fitzgibbon 2018 (ADBench), Rosenbrock 1960, Brusselator (Prigogine and Lefever 1968), Huber 1964, Burgers' equation as
in Raissi, Perdikaris and Karniadakis 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Library:
    """What problems take from a library; ``array`` makes its array of a NumPy one, ``scan`` is as `jax.lax.scan`."""

    xp: Any
    array: Callable[[np.ndarray], Any]
    logsumexp: Callable[[Any, int], Any]
    sigmoid: Callable[[Any], Any]
    scan: Callable[..., Any]


@dataclass(frozen=True)
class Problem:
    """``make()`` draws ``(params, data)``; ``value(lib, params, data)`` is differentiated by ``params`` (a dict)."""

    dtype: str
    make: Callable[[], tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]
    value: Callable[[Library, Any, Any], Any]


def _draw(seed: int = 0) -> Callable[..., np.ndarray]:
    return np.random.default_rng(seed).standard_normal


# -- Gaussian mixture --------------------------------------------------------------------------------------------------

GAMMA, WISHART = 1.0, 0


def gmm_data(points: int = 1000, d: int = 10, k: int = 25) -> Any:
    """The inverse covariances' factors: logarithms of the diagonal, then what lies below it."""
    draw = _draw()
    params = {"alphas": draw(k), "icf": 0.5 * draw((k, d * (d + 1) // 2)), "means": draw((k, d))}
    return params, {"x": draw((points, d)), "place": _triangle(d)}


def _triangle(d: int) -> np.ndarray:
    """Where each element of the factor stands in (exp of the diagonal, below the diagonal, a zero)."""
    place = np.full((d, d), d * (d + 1) // 2)
    place[np.diag_indices(d)] = np.arange(d)
    rows, columns = np.triu_indices(d, 1)
    place[columns, rows] = d + np.arange(rows.size)
    return place


def gmm(lib: Library, params: Any, data: Any) -> Any:
    """Log likelihood with a Wishart prior."""
    xp, (n, d) = lib.xp, data["x"].shape
    alphas, icf, k = params["alphas"], params["icf"], params["alphas"].shape[0]
    logs, below = icf[:, :d], icf[:, d:]
    diagonal = xp.exp(logs)
    zero = 0.0 * icf[:, :1]
    factors = xp.concatenate([diagonal, below, zero], 1)[:, data["place"]]  # [k, d, d]
    centred = data["x"][:, None, :] - params["means"][None]  # [n, k, d]
    turned = xp.einsum("kij,nkj->nki", factors, centred)
    inner = alphas + xp.sum(logs, axis=1) - 0.5 * xp.sum(turned * turned, axis=2)
    prior = 0.5 * GAMMA**2 * (xp.sum(diagonal * diagonal) + xp.sum(below * below)) - WISHART * xp.sum(logs)
    constant = -0.5 * n * d * np.log(2 * np.pi) - k * d * (d + WISHART + 1) * np.log(GAMMA)
    return constant + xp.sum(lib.logsumexp(inner, 1)) - n * lib.logsumexp(alphas, 0) + prior


# -- bundle adjustment -------------------------------------------------------------------------------------------------


def ba_data(cameras: int = 49, points: int = 7776, seen: int = 31843) -> Any:
    """Cameras: rotation 3, centre 3, focal length, principal point 2, distortion 2."""
    draw, rng = _draw(), np.random.default_rng(1)
    cams = np.concatenate(
        [0.3 * draw((cameras, 6)), 1 + 0.1 * draw((cameras, 1)), 0.1 * draw((cameras, 4))], 1
    )
    params = {"cams": cams, "w": draw(seen), "x": draw((points, 3)) + np.array([0.0, 0.0, 8.0])}
    picks = {"cam": rng.integers(0, cameras, seen), "point": rng.integers(0, points, seen)}
    return params, picks | {"feature": draw((seen, 2))}


def ba(lib: Library, params: Any, data: Any) -> Any:
    """Half the sum of squares of weighted reprojection errors and of 1 - w²."""
    xp = lib.xp
    cam, x, w = params["cams"][data["cam"]], params["x"][data["point"]], params["w"]
    r, moved = [cam[:, i] for i in range(3)], [x[:, i] - cam[:, 3 + i] for i in range(3)]
    square = r[0] * r[0] + r[1] * r[1] + r[2] * r[2]
    angle = xp.sqrt(square)
    cos, sin = xp.cos(angle), xp.sin(angle)
    v = [c / angle for c in r]
    across = [v[i - 2] * moved[i - 1] - v[i - 1] * moved[i - 2] for i in range(3)]
    along = (v[0] * moved[0] + v[1] * moved[1] + v[2] * moved[2]) * (1.0 - cos)
    turned = [m * cos + a * sin + c * along for m, a, c in zip(moved, across, v, strict=True)]
    p, q = turned[0] / turned[2], turned[1] / turned[2]
    radius = p * p + q * q
    scale = cam[:, 6] * (1.0 + cam[:, 9] * radius + cam[:, 10] * radius * radius)
    first = w * (scale * p + cam[:, 7] - data["feature"][:, 0])
    second = w * (scale * q + cam[:, 8] - data["feature"][:, 1])
    return 0.5 * (xp.sum(first * first) + xp.sum(second * second) + xp.sum((1.0 - w * w) ** 2))


# -- chains and grids --------------------------------------------------------------------------------------------------


def rosenbrock_data(n: int = 10_000) -> Any:
    return {"x": _draw()(n)}, {}


def rosenbrock(lib: Library, params: Any, data: Any) -> Any:
    """Rosenbrock's function in n dimensions."""
    x = params["x"]
    return lib.xp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def brusselator_data(n: int = 64) -> Any:
    draw = _draw()
    return {"u": 1.0 + 0.1 * draw((n, n)), "v": 3.0 + 0.1 * draw((n, n))}, {}


def brusselator(lib: Library, params: Any, data: Any, steps: int = 10) -> Any:
    """Half the sum of squares after some explicit Euler steps on a periodic grid."""
    xp, u, v = lib.xp, params["u"], params["v"]
    h, alpha, a, b = 1e-3, 0.02 * u.shape[0] ** 2, 3.4, 1.0

    def laplacian(x: Any) -> Any:
        return xp.roll(x, 1, 0) + xp.roll(x, -1, 0) + xp.roll(x, 1, 1) + xp.roll(x, -1, 1) - 4.0 * x

    for _ in range(steps):
        fast = u * u * v
        u, v = (
            u + h * (b + fast - (a + 1.0) * u + alpha * laplacian(u)),
            v + h * (a * u - fast + alpha * laplacian(v)),
        )
    return 0.5 * (xp.sum(u * u) + xp.sum(v * v))


def huber_data(n: int = 2**22) -> Any:
    draw = _draw()
    return {"x": draw(n).astype(np.float32)}, {"y": draw(n).astype(np.float32)}


def huber(lib: Library, params: Any, data: Any) -> Any:
    """Huber's loss 1964: its gradient moves twelve bytes an element for a few operations."""
    xp = lib.xp
    r = params["x"] - data["y"]
    size = xp.abs(r)
    return xp.sum(xp.where(size < 1.0, 0.5 * r * r, size - 0.5))


# -- the diagonal LSTM -------------------------------------------------------------------------------------------------


def lstm_data(layers: int = 2, characters: int = 256, b: int = 14) -> Any:
    draw = _draw()
    params = {"main": 0.5 * draw((2 * layers, 4, b)), "extra": draw((3, b))}
    return params, {"state": 0.5 * draw((2 * layers, b)), "sequence": draw((characters, b))}


def lstm(lib: Library, params: Any, data: Any) -> Any:
    """ADBench's LSTM, whose gates have diagonal weights; mean over the sequence of the log likelihood of the next."""
    xp, main, extra = lib.xp, params["main"], params["extra"]
    layers = main.shape[0] // 2

    def cell(state: Any, given: Any) -> Any:
        x, kept = given * extra[0], []
        for i in range(layers):
            w, bias, hidden, memory = main[2 * i], main[2 * i + 1], state[2 * i], state[2 * i + 1]
            forget, let_in = lib.sigmoid(x * w[0] + bias[0]), lib.sigmoid(hidden * w[1] + bias[1])
            let_out, change = lib.sigmoid(x * w[2] + bias[2]), xp.tanh(hidden * w[3] + bias[3])
            memory = memory * forget + let_in * change
            x = let_out * xp.tanh(memory)
            kept += [x, memory]
        return tuple(kept), x * extra[1] + extra[2]

    sequence = data["sequence"]
    state = tuple(data["state"][i] for i in range(2 * layers))
    _, said = lib.scan(cell, state, sequence[:-1])
    normal = xp.log(xp.sum(xp.exp(said), axis=1) + 2.0)
    return -xp.sum(sequence[1:] * (said - normal[:, None])) / (sequence.shape[0] - 1)


PROBLEMS = {
    "gmm d10 k25 n1000": Problem("float64", gmm_data, gmm),
    "bundle adjustment 49-7776-31843": Problem("float64", ba_data, ba),
    "diagonal lstm l2 c256": Problem("float64", lstm_data, lstm),
    "rosenbrock 10,000": Problem("float64", rosenbrock_data, rosenbrock),
    "brusselator 64x64, 10 steps": Problem("float64", brusselator_data, brusselator),
    "huber 4M": Problem("float32", huber_data, huber),
}


# -- networks ----------------------------------------------------------------------------------------------------------

PINN, COLLOCATION, VISCOSITY = (2, 32, 32, 32, 1), 256, 0.01 / np.pi


def pinn_points() -> tuple[np.ndarray, np.ndarray]:
    """x and t, each ``[COLLOCATION]``."""
    rng = np.random.default_rng(1)
    return tuple(rng.uniform(low, 1.0, COLLOCATION).astype(np.float32) for low in (-1.0, 0.0))  # type: ignore[return-value]


def tanh_network(xp: Any, params: Any, x: Any) -> Any:
    """A perceptron with tanh between its layers."""
    for layer in params[:-1]:
        x = xp.tanh(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def residual_loss(transform: Any, xp: Any, params: Any, x: Any, t: Any) -> Any:
    """Mean square of Burgers' ``u_t + u u_x - nu u_xx``; ``transform`` has ``grad`` and ``vmap``."""

    def u(x: Any, t: Any) -> Any:
        return tanh_network(xp, params, xp.stack([x, t]))[0]

    u_x = transform.grad(u, 0)

    def residual(x: Any, t: Any) -> Any:
        return transform.grad(u, 1)(x, t) + u(x, t) * u_x(x, t) - VISCOSITY * transform.grad(u_x, 0)(x, t)

    return xp.mean(transform.vmap(residual)(x, t) ** 2)
