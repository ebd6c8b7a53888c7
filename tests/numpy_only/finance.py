"""Prices of options and curves of rates. Plain NumPy."""

import numpy as np


def erf(x):
    """Abramowitz and Stegun, Handbook of Mathematical Functions, formula 7.1.26 (|error| <= 1.5e-7)."""
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x))
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1.0 - poly * np.exp(-x * x))


def normal_cdf(x):
    return 0.5 * (1.0 + erf(x / np.sqrt(2.0)))


def black_scholes(spot, strike, maturity, rate, volatility):
    """European call prices (Black and Scholes 1973)."""
    spread = volatility * np.sqrt(maturity)
    d1 = (np.log(spot / strike) + (rate + 0.5 * volatility**2) * maturity) / spread
    d2 = d1 - spread
    return spot * normal_cdf(d1) - strike * np.exp(-rate * maturity) * normal_cdf(d2)


def heston_monte_carlo(params, normals, spot=1.0, strike=1.0, dt=0.1):
    """Call price under Heston (1993), full-truncation Euler on given normals of shape (2, steps, paths)."""
    kappa, theta, xi, rho, v0 = params
    log_s = np.full(normals.shape[2], np.log(spot))
    v = v0 * np.ones(normals.shape[2])
    for z1, z2 in zip(normals[0], normals[1], strict=True):
        floor = np.maximum(v, 0.0)
        root = np.sqrt(floor * dt + 1e-12)
        log_s = log_s - 0.5 * floor * dt + root * z1
        v = v + kappa * (theta - floor) * dt + xi * root * (rho * z1 + np.sqrt(1 - rho**2) * z2)
    return np.mean(np.maximum(np.exp(log_s) - strike, 0))


def nelson_siegel(params, yields):
    """Squared error of a Nelson-Siegel yield curve (1987) at ten maturities."""
    level, slope, curvature, decay = params
    tau = np.linspace(0.5, 10.0, 10)
    x = tau / decay
    loading = -np.expm1(-x) / x
    curve = level + slope * loading + curvature * (loading - np.exp(-x))
    return np.sum((curve - yields) ** 2)


def american_put_tree(spot, volatility, strike=1.0, rate=0.05, maturity=1.0, steps=6):
    """American put on a binomial tree (Cox, Ross and Rubinstein 1979)."""
    dt = maturity / steps
    up = np.exp(volatility * np.sqrt(dt))
    down = 1 / up
    p = (np.exp(rate * dt) - down) / (up - down)
    discount = np.exp(-rate * dt)
    value = np.maximum(strike - spot * up ** (steps - 2.0 * np.arange(steps + 1)), 0)
    for level in range(steps - 1, -1, -1):
        held = discount * (p * value[:-1] + (1 - p) * value[1:])
        exercised = strike - spot * up ** (level - 2.0 * np.arange(level + 1))
        value = np.maximum(held, exercised)
    return value[0]


def garch_likelihood(params, returns):
    """Negative log-likelihood of GARCH(1,1) (Bollerslev 1986), log-parametrised."""
    omega, alpha, beta = np.exp(params)
    variance = np.var(returns)
    total = 0
    for r in returns:
        total += 0.5 * (np.log(2 * np.pi) + np.log(variance) + r**2 / variance)
        variance = omega + alpha * r**2 + beta * variance
    return total


def bond_duration(rates, coupons):
    """Macaulay duration of a bond from its spot curve, by np.average with weights."""
    times = np.arange(1.0, len(coupons) + 1)
    present = coupons * (1 + rates) ** -times
    return np.average(times, weights=present)
