"""Likelihoods and estimators. Plain NumPy."""

import numpy as np


def log_sum_exp(x, axis=-1):
    top = np.max(x, axis=axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.sum(np.exp(x - top), axis=axis))


def log_gamma(x):
    """Stirling's series after shifting the argument up by 6 (Abramowitz and Stegun 6.1.41)."""
    shift = sum(np.log(x + k) for k in range(6))
    y = x + 6.0
    series = 1 / (12 * y) - 1 / (360 * y**3) + 1 / (1260 * y**5) - 1 / (1680 * y**7)
    return (y - 0.5) * np.log(y) - y + 0.5 * np.log(2 * np.pi) + series - shift


def kalman_filter(log_noise, observations, dt=0.5):
    """Log-likelihood of a constant-velocity Kalman filter that sees positions (Kalman 1960)."""
    q, r = np.exp(log_noise)
    f = np.array([[1.0, dt], [0.0, 1.0]])
    shape = np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
    h = np.array([1.0, 0.0])
    mean, cov = np.array([0.0, 0.0]), np.eye(2)
    log_likelihood = 0.0
    for y in observations:
        mean = f @ mean
        cov = f @ cov @ f.T + q * shape
        innovation = y - h @ mean
        s = h @ cov @ h + r
        gain = cov @ h / s
        mean = mean + gain * innovation
        cov = cov - np.outer(gain, h @ cov)
        log_likelihood -= 0.5 * (np.log(2 * np.pi * s) + innovation**2 / s)
    return log_likelihood


def gaussian_mixture(logits, means, log_scales, data):
    """Log-likelihood of a mixture of diagonal Gaussians."""
    z = (data[:, None, :] - means) / np.exp(log_scales)
    log_density = (
        -0.5 * np.sum(z**2, axis=2) - np.sum(log_scales, axis=1) - np.log(2 * np.pi) * data.shape[1] / 2
    )
    log_weights = logits - log_sum_exp(logits)
    return np.mean(log_sum_exp(log_weights + log_density, axis=1))


def hmm_forward(start, transition, emission, observed=(0, 2, 1, 1, 0, 2)):
    """Log-probability of observed symbols, forward algorithm with scaling (Rabiner 1989). All arguments are logits."""

    def softmax(x):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    p, a, b = softmax(start), softmax(transition), softmax(emission)
    total = 0.0
    alpha = p * b[:, observed[0]]
    for symbol in observed[1:]:
        scale = alpha.sum()
        total += np.log(scale)
        alpha = (alpha / scale) @ a * b[:, symbol]
    return total + np.log(alpha.sum())


def logistic_regression(weights, bias, features, labels, l2=0.01):
    """Cross-entropy of ±1 labels plus a ridge."""
    margins = labels * (features @ weights + bias)
    return np.mean(np.logaddexp(0, -margins)) + l2 * np.sum(weights**2)


def softmax_regression(weights, features, labels):
    """Cross-entropy of integer labels, read out with an index pair."""
    logits = np.dot(features, weights)
    log_p = logits - log_sum_exp(logits, axis=1)[:, None]
    return -np.mean(log_p[np.arange(len(labels)), labels])


def poisson_regression(weights, features, counts):
    """Poisson deviance with the log link, up to a constant."""
    eta = features @ weights
    return np.sum(np.exp(eta) - counts * eta)


def cox_partial_likelihood(weights, features, events):
    """Cox (1972) partial likelihood, subjects sorted by time: the risk sets are reversed cumulative sums."""
    risk = features @ weights
    at_risk = np.cumsum(np.exp(risk)[::-1])[::-1]
    return -np.sum(events * (risk - np.log(at_risk)))


def student_t(location, log_scale, log_dof, data):
    """Log-likelihood of Student's t with every parameter free."""
    nu = np.exp(log_dof)
    z = (data - location) * np.exp(-log_scale)
    log_norm = log_gamma((nu + 1) / 2) - log_gamma(nu / 2) - 0.5 * np.log(nu * np.pi) - log_scale
    return np.sum(log_norm - (nu + 1) / 2 * np.log1p(z**2 / nu))


def negative_binomial(log_mean, log_dispersion, counts):
    """Log-likelihood of over-dispersed counts; log Γ by Stirling's series."""
    mu, r = np.exp(log_mean), np.exp(log_dispersion)
    log_pmf = log_gamma(counts + r) - log_gamma(counts + 1.0) - log_gamma(r)
    log_pmf = log_pmf + r * np.log(r / (r + mu)) + counts * np.log(mu / (r + mu))
    return np.sum(log_pmf)


def huber_regression(weights, features, targets, delta=0.5):
    """Huber's loss (1964): quadratic near, linear far."""
    residual = np.abs(features @ weights - targets)
    return np.sum(np.where(residual <= delta, 0.5 * residual**2, delta * (residual - 0.5 * delta)))


def ridge_line(x, y, ridge):
    """Slope and intercept of a ridge line by the closed form of its 2 × 2 normal equations."""
    n = x.shape[0]
    sxx, sx, sxy, sy = np.vdot(x, x) + ridge, np.sum(x), np.vdot(x, y), np.sum(y)
    determinant = sxx * (n + ridge) - sx**2
    slope = ((n + ridge) * sxy - sx * sy) / determinant
    intercept = (sxx * sy - sx * sxy) / determinant
    return np.hstack([slope, intercept])


def maximum_mean_discrepancy(sample, other, bandwidth=1.3):
    """Squared MMD between two samples under a Gaussian kernel (Gretton et al. 2012)."""

    def kernel(a, b):
        squared = np.sum(a**2, 1)[:, None] + np.sum(b**2, 1)[None, :] - 2 * np.inner(a, b)
        return np.exp(-squared / (2 * bandwidth**2))

    return kernel(sample, sample).mean() + kernel(other, other).mean() - 2 * kernel(sample, other).mean()


def fourier_fit(coefficients, times, values):
    """Mean squared error of a truncated Fourier series with sine and cosine rows."""
    orders = np.arange(1, coefficients.shape[1] + 1)
    angles = 2 * np.pi * np.outer(times, orders)
    series = np.sin(angles) @ coefficients[0] + np.cos(angles) @ coefficients[1]
    return np.mean((series - values) ** 2)


def soft_dtw(a, b, gamma=0.5):
    """Soft dynamic time warping (Cuturi and Blondel 2017), the table kept in Python lists."""
    n, m = len(a), len(b)
    table = {(0, 0): 0.0}
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            before = [table[key] for key in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if key in table]
            low = before[0]
            for other in before[1:]:
                low = np.minimum(low, other)
            soft = low - gamma * np.log(sum(np.exp((low - value) / gamma) for value in before))
            table[i, j] = (a[i - 1] - b[j - 1]) ** 2 + soft
    return table[n, m]
