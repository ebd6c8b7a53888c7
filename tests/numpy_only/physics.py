"""Energies, orbits and small simulations. Plain NumPy."""

import numpy as np


def lennard_jones(positions, epsilon=1.0, sigma=1.0):
    """Energy of a cluster of atoms: 4 ε Σ (σ/r)¹² − (σ/r)⁶ over pairs."""
    n = len(positions)
    i, j = np.triu_indices(n, k=1)
    delta = positions[i] - positions[j]
    r2 = np.sum(delta * delta, axis=-1)
    s6 = (sigma**2 / r2) ** 3
    return 4 * epsilon * np.sum(s6**2 - s6)


def nbody_energy(positions, velocities, masses, softening=0.1):
    """Kinetic plus softened gravitational energy of n bodies (Plummer softening)."""
    kinetic = 0.5 * np.sum(masses * np.sum(velocities**2, axis=1))
    delta = positions[:, np.newaxis, :] - positions[np.newaxis, :, :]
    distance = np.sqrt((delta**2).sum(axis=-1) + softening**2)
    potential = -np.sum(np.triu(np.outer(masses, masses) / distance, k=1))
    return kinetic + potential


def pendulum_leapfrog(state, length, dt=0.1, steps=12):
    """End state of a pendulum after kick-drift-kick steps."""
    theta, omega = state[0], state[1]
    for _ in range(steps):
        omega = omega - 0.5 * dt * 9.81 / length * np.sin(theta)
        theta = theta + dt * omega
        omega = omega - 0.5 * dt * 9.81 / length * np.sin(theta)
    return np.stack([theta, omega])


def lotka_volterra(params, populations, dt=0.1, steps=10):
    """Trajectory of prey and predators by the classical Runge-Kutta method."""
    alpha, beta, delta, gamma = params

    def rate(y):
        prey, predators = y
        return np.stack(
            [alpha * prey - beta * prey * predators, delta * prey * predators - gamma * predators]
        )

    y = populations
    trajectory = [y]
    for _ in range(steps):
        k1 = rate(y)
        k2 = rate(y + dt / 2 * k1)
        k3 = rate(y + dt / 2 * k2)
        k4 = rate(y + dt * k3)
        y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        trajectory.append(y)
    return np.stack(trajectory)


def lorenz(state, sigma, rho, beta, dt=0.02, steps=8):
    """Mean squared distance from the origin along the Lorenz attractor (1963), by the midpoint rule."""

    def velocity(s):
        x, y, z = s[0], s[1], s[2]
        return np.stack((sigma * (y - x), x * (rho - z) - y, x * y - beta * z), axis=0)

    total = 0.0
    for _ in range(steps):
        state = state + dt * velocity(state + 0.5 * dt * velocity(state))
        total = total + np.dot(state, state)
    return total / steps


def heat_residual(u, diffusivity, dt=0.01, dx=0.1):
    """Residual of the heat equation on a space-time grid u[t, x], by finite differences."""
    u_t = (u[1:, 1:-1] - u[:-1, 1:-1]) / dt
    u_xx = (u[:-1, 2:] - 2 * u[:-1, 1:-1] + u[:-1, :-2]) / dx**2
    return u_t - diffusivity * u_xx


def burgers(u, viscosity, dt=0.01, steps=5):
    """Kinetic energy after steps of the periodic viscous Burgers equation, by central differences."""
    dx = 2 * np.pi / u.shape[0]
    for _ in range(steps):
        ahead, behind = np.roll(u, -1), np.roll(u, 1)
        convection = u * (ahead - behind) / (2 * dx)
        diffusion = viscosity * (ahead - 2 * u + behind) / dx**2
        u = u + dt * (diffusion - convection)
    return 0.5 * dx * np.sum(u**2)


def wave_2d_energy(u, velocity):
    """Energy of a membrane on a periodic grid: the gradient by np.roll along both axes."""
    ux = np.roll(u, -1, axis=1) - u
    uy = np.roll(u, -1, axis=0) - u
    return 0.5 * np.sum(velocity**2 + ux**2 + uy**2)


def ising_mean_field(fields, coupling=0.4, temperature=1.5):
    """Mean-field free energy of an Ising lattice with magnetisations m = tanh(fields)."""
    m = np.tanh(fields)
    neighbours = sum(np.roll(m, shift, axis) for shift in (-1, 1) for axis in (0, 1))
    energy = -0.5 * coupling * np.sum(m * neighbours)
    up, down = (1 + m) / 2, (1 - m) / 2
    entropy = -np.sum(up * np.log(up) + down * np.log(down))
    return energy - temperature * entropy


def spring_network(positions, stiffness):
    """Elastic energy of a truss, its edges given as index arrays."""
    start = np.array([0, 0, 0, 1, 1, 2])
    end = np.array([1, 2, 3, 2, 3, 3])
    lengths = np.linalg.norm(positions[start] - positions[end], axis=1)
    return 0.5 * np.sum(stiffness * (lengths - 1.0) ** 2)


def kepler_position(elements, time):
    """Position on an elliptic orbit: Newton steps on Kepler's equation E - e sin E = M, then the true anomaly."""
    axis, eccentricity, phase = elements
    mean_anomaly = time / axis**1.5 + phase
    anomaly = mean_anomaly
    for _ in range(6):
        anomaly = anomaly - (anomaly - eccentricity * np.sin(anomaly) - mean_anomaly) / (
            1 - eccentricity * np.cos(anomaly)
        )
    true_anomaly = 2 * np.arctan2(
        np.sqrt(1 + eccentricity) * np.sin(anomaly / 2), np.sqrt(1 - eccentricity) * np.cos(anomaly / 2)
    )
    radius = axis * (1 - eccentricity * np.cos(anomaly))
    return np.stack([radius * np.cos(true_anomaly), radius * np.sin(true_anomaly)], axis=-1)


def planck_spectrum(temperatures, wavelengths):
    """log10 of black-body radiance (SI scaled to microns) for every temperature and wavelength."""
    x = 14387.769 / np.outer(wavelengths, temperatures)
    return np.log10(1.191043e8 / wavelengths[:, None] ** 5 / np.expm1(x))


def double_well_action(path, dt=0.05, temperature=0.5):
    """Onsager-Machlup action of a path in the double well V = (x² - 1)² / 4."""
    force = -path * (path**2 - 1)
    velocity = np.diff(path) / dt
    drift = 0.5 * (force[1:] + force[:-1])
    return dt / (4 * temperature) * np.sum((velocity - drift) ** 2)


def soliton_residual(params, x):
    """How far a·sech²(k (x - c)) is from solving the steady Korteweg-de Vries equation, by np.gradient's stencil."""
    a, k, c = params
    u = a / np.cosh(k * (x - c)) ** 2
    dx = x[1] - x[0]
    u_xx = (u[2:] - 2 * u[1:-1] + u[:-2]) / dx**2
    return np.mean((u_xx + 3 * u[1:-1] ** 2 - 4 * u[1:-1]) ** 2)


def michaelis_menten_chain(rates, feed, dt=0.2, steps=8):
    """Concentrations along a chain of enzymes, each obeying Michaelis-Menten kinetics."""
    v_max, k_m = rates
    s = feed
    for _ in range(steps):
        flux = v_max * s / (k_m + s)
        inflow = np.concatenate([flux[-1:] * 0.1, flux[:-1]])
        s = s + dt * (inflow - flux)
    return s


def sir_epidemic(rates, start, dt=0.25, steps=16):
    """Peak-weighted infections of an SIR epidemic by Euler steps."""
    beta, gamma = rates[0], rates[1]
    s, i, r = start
    infected = []
    for _ in range(steps):
        new, healed = beta * s * i, gamma * i
        s, i, r = s - dt * new, i + dt * (new - healed), r + dt * healed
        infected += [i]
    curve = np.stack(infected)
    return np.sum(curve * np.exp(curve)) + r
