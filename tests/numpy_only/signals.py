"""Images, signals, portfolios and matrices by hand: padding, outer ufuncs, running extremes, elimination in place."""

import numpy as np


def heat_on_a_torus(u, steps=3, rate=0.1):
    """Explicit heat equation on a periodic grid."""
    for _ in range(steps):
        p = np.pad(u, 1, mode="wrap")
        u = u + rate * (p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * u)
    return u


def edge_strength(image):
    """Length and direction of the image gradient, the border repeated."""
    p = np.pad(image, 1, mode="edge")
    across, down = p[1:-1, 2:] - p[1:-1, :-2], p[2:, 1:-1] - p[:-2, 1:-1]
    return np.hypot(across, down) + 0.1 * np.arctan2(down, across)


def kernel_energy(points, width=0.8):
    """Energy of a Gaussian kernel between all points, by outer differences."""
    squares = sum(np.subtract.outer(c, c) ** 2 for c in points.T)
    return np.exp(-squares / (2 * width**2)).sum()


def autocorrelation(x, lags=6):
    """Normalised autocorrelation of a signal."""
    x = x - x.mean()
    return np.correlate(x, x, "full")[len(x) - 1 : len(x) - 1 + lags] / np.dot(x, x)


def windowed_sinc(taps, cutoff=0.3):
    """A low-pass filter's response at its taps' places."""
    return 2 * cutoff * np.sinc(2 * cutoff * taps) * (0.5 + 0.5 * np.cos(np.pi * taps / 4))


def largest_drawdown(returns):
    """Largest loss from a running peak of wealth."""
    wealth = np.cumprod(1 + returns)
    peak = np.maximum.accumulate(wealth)
    return np.max((peak - wealth) / peak, initial=0.0)


def sharpe_ratio(weights, returns):
    """Mean return over its deviation, by the covariance matrix."""
    return np.mean(returns, axis=0) @ weights / np.sqrt(weights @ np.cov(returns, rowvar=False) @ weights)


def cross_entropy_by_label(scores):
    """Softmax cross-entropy, the scores of the labels picked along an axis."""
    labels = np.arange(scores.shape[0])[:, None] % scores.shape[1]
    logs = scores - np.logaddexp.reduce(scores, axis=1)[:, None]
    return -np.take_along_axis(logs, labels, axis=1).mean()


def eliminate(matrix, rhs):
    """Gaussian elimination without pivots, in place in copies."""
    a, b = matrix.copy(), rhs.copy()
    n = len(b)
    for k in range(n - 1):
        for i in range(k + 1, n):
            factor = a[i, k] / a[k, k]
            a[i, k:] -= factor * a[k, k:]
            b[i] -= factor * b[k]
    x = np.zeros_like(b)
    for i in reversed(range(n)):
        x[i] = (b[i] - a[i, i + 1 :] @ x[i + 1 :]) / a[i, i]
    return x


def log_determinant(m):
    """Of m mᵀ + 4 by Cholesky, column after column."""
    a = m @ m.T + 4 * np.eye(m.shape[0])
    low = np.zeros_like(a)
    for j in range(a.shape[0]):
        low[j, j] = np.sqrt(a[j, j] - np.sum(low[j, :j] ** 2))
        for i in range(j + 1, a.shape[0]):
            low[i, j] = (a[i, j] - np.dot(low[i, :j], low[j, :j])) / low[j, j]
    return 2 * np.sum(np.log(np.diag(low)))


def gaps_filled(series):
    """Mean of what is positive, and the logarithms of that, NaN left out."""
    kept = np.where(series > 0, series, np.nan)
    return np.nanmean(kept) + np.nansum(kept**2) + np.sum(series, where=series < 0)


def vectorised_sylvester(x):
    """Residual of A X + X B by Kronecker products on columns stacked as Fortran does."""
    n = x.shape[0]
    a, b = np.diag(np.arange(1.0, n + 1)), np.tri(n)
    operator = np.kron(np.eye(n), a) + np.kron(b.T, np.eye(n))
    return (operator @ x.flatten(order="F")).reshape(n, n, order="F") - x
