"""Test functions of optimisation, and problems that are minimised in practice. Plain NumPy."""

import numpy as np


def rosenbrock(x):
    """The banana valley, generalised to n variables (Rosenbrock 1960)."""
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def ackley(x, a=20.0, b=0.2, c=2 * np.pi):
    """Nearly flat far out, a funnel in the middle (Ackley 1987)."""
    n = x.shape[0]
    radius = np.sqrt(np.sum(x**2) / n)
    return -a * np.exp(-b * radius) - np.exp(np.mean(np.cos(c * x))) + a + np.e


def rastrigin(x):
    """A bowl covered with regular local minima (Rastrigin 1974)."""
    return 10.0 * len(x) + np.sum(x**2 - 10.0 * np.cos(2 * np.pi * x))


def himmelblau(point):
    """Four equal minima in the plane (Himmelblau 1972)."""
    x, y = point
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def griewank(x):
    """A bowl with a product of cosines on it (Griewank 1981)."""
    i = np.arange(1, x.size + 1)
    return 1 + np.sum(np.square(x)) / 4000 - np.prod(np.cos(x / np.sqrt(i)))


def levy(x):
    """Lévy's function of n variables, sin² terms around 1."""
    w = 1 + (x - 1) / 4
    first = np.sin(np.pi * w[0]) ** 2
    middle = np.sum((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2))
    last = (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2)
    return first + middle + last


def beale_from_list(point):
    """Beale's function, its three residuals gathered in a Python list."""
    x, y = point[0], point[1]
    residuals = [target - x * (1 - y ** (i + 1)) for i, target in enumerate((1.5, 2.25, 2.625))]
    return sum(r**2 for r in residuals)


def catenary(inner, span=4.0, length=6.0, stiffness=50.0):
    """Energy of a hanging chain of stiff springs; `inner` holds the (x, y) of its free joints."""
    left, right = np.array([[0.0, 0.0]]), np.array([[span, 0.0]])
    joints = np.concatenate([left, inner, right])
    dx, dy = np.diff(joints, axis=0).T
    rest = length / (len(joints) - 1)
    gravity = np.sum(0.5 * (joints[1:, 1] + joints[:-1, 1])) * rest
    return gravity + 0.5 * stiffness * np.sum((np.hypot(dx, dy) - rest) ** 2)


def brachistochrone(drops, width=1.0, start_speed=0.1, g=9.81):
    """Time of descent along a polygon of given depths at equal steps; from rest the minimum is a cycloid."""
    depth = np.concatenate((np.array([0.0]), np.cumsum(drops)))
    step = width / drops.shape[0]
    speed = np.sqrt(start_speed**2 + 2 * g * depth)
    mean_speed = (speed[1:] + speed[:-1]) / 2
    return np.sum(np.sqrt(step**2 + np.diff(depth) ** 2) / mean_speed)


def conjugate_gradients(matrix, rhs, steps=4):
    """Quadratic form after a few conjugate-gradient steps on A x = b (Hestenes and Stiefel 1952)."""
    a = matrix @ matrix.T + 3.0 * np.eye(len(rhs))
    x = np.zeros_like(rhs)
    r = rhs - a @ x
    p = r
    rr = np.dot(r, r)
    for _ in range(steps):
        ap = a @ p
        alpha = rr / np.dot(p, ap)
        x = x + alpha * p
        r = r - alpha * ap
        rr_new = np.dot(r, r)
        p = r + (rr_new / rr) * p
        rr = rr_new
    return 0.5 * x @ a @ x - rhs @ x


def sinkhorn(cost, log_source, log_target, eps=0.3, sweeps=6):
    """Entropic optimal transport cost by Sinkhorn sweeps in the log domain (Cuturi 2013)."""
    f = np.zeros_like(log_source)
    g = np.zeros_like(log_target)

    def soft_min(z, axis):
        top = np.max(z, axis=axis, keepdims=True)
        return -eps * (np.log(np.sum(np.exp(z - top), axis=axis)) + np.squeeze(top, axis=axis))

    for _ in range(sweeps):
        f = eps * log_source + soft_min((g[None, :] - cost) / eps, axis=1)
        g = eps * log_target + soft_min((f[:, None] - cost) / eps, axis=0)
    plan = np.exp((f[:, None] + g[None, :] - cost) / eps)
    return np.sum(plan * cost)


def portfolio(scores, returns, risk_aversion=2.0):
    """Mean-variance utility and Sharpe ratio of softmax weights (Markowitz 1952)."""
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    daily = returns @ weights
    centred = returns - returns.mean(axis=0)
    covariance = centred.T @ centred / (returns.shape[0] - 1)
    variance = np.dot(weights, np.dot(covariance, weights))
    sharpe = np.mean(daily) / np.std(daily)
    return daily.mean() - 0.5 * risk_aversion * variance + 0.1 * sharpe
