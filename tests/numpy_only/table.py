"""Every function of this directory with inputs for it, what to differentiate by, and what to map over.

Nothing here knows of any library but NumPy. The modules of functions read `np` alone, so that their source may be run
with another module under that name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import finance as fi
import geometry as ge
import learning as le
import numpy as np
import optimisation as op
import physics as ph
import signals as si
import statistics_by_hand as st


@dataclass(frozen=True)
class Problem:
    """A function; ``make(rng)`` gives its arguments, ``wrt`` are differentiated, argument ``mapped`` is batched."""

    f: Callable[..., Any]
    make: Callable[[np.random.Generator], tuple]
    wrt: tuple[int, ...] = (0,)
    mapped: int = 0
    writes: bool = False  # in place, which not every library of arrays takes

    @property
    def name(self) -> str:
        return self.f.__name__

    def args(self, seed: int = 0) -> tuple:
        """Arguments, the same for the same seed."""
        return self.make(np.random.default_rng(seed))


def normal(*shape: int, scale: float = 1.0) -> Callable[[np.random.Generator], tuple]:
    """One array of normals."""
    return lambda rng: (scale * rng.standard_normal(shape),)


def _signs(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.where(rng.random(n) < 0.5, -1.0, 1.0)


def _cluster(rng: np.random.Generator) -> np.ndarray:
    """Atoms on a jittered cubic grid: none too near another."""
    grid = np.array([[x, y, z] for x in (0, 1.2) for y in (0, 1.2) for z in (0, 1.2)])[:5]
    return grid + 0.1 * rng.standard_normal(grid.shape)


def _ratings(rng: np.random.Generator) -> np.ndarray:
    ratings = rng.uniform(1, 5, (4, 5))
    ratings[rng.random(ratings.shape) < 0.3] = np.nan
    return ratings


def _gru(rng: np.random.Generator) -> tuple:
    params = {name: 0.5 * rng.standard_normal((5, 3)) for name in ("wz", "wr", "wh")}
    return params, rng.standard_normal((4, 2))


def _neural_ode(rng: np.random.Generator) -> tuple:
    layers = [
        (0.5 * rng.standard_normal((4, 2)), 0.1 * rng.standard_normal(4)),
        (0.5 * rng.standard_normal((2, 4)), 0.1 * rng.standard_normal(2)),
    ]
    return layers, rng.standard_normal(2)


def _affinities(rng: np.random.Generator, n: int) -> np.ndarray:
    p = np.exp(rng.standard_normal((n, n)))
    p = (p + p.T) * (1 - np.eye(n))
    return p / p.sum()


PROBLEMS = [
    Problem(op.rosenbrock, normal(6)),
    Problem(op.ackley, normal(4)),
    Problem(op.rastrigin, normal(5)),
    Problem(op.himmelblau, normal(2, scale=2.0)),
    Problem(op.griewank, normal(5, scale=3.0)),
    Problem(op.levy, normal(4)),
    Problem(op.beale_from_list, normal(2)),
    Problem(
        op.catenary,
        lambda r: (
            np.stack([np.linspace(0.5, 3.5, 6), -1 - r.random(6)], axis=1) + 0.1 * r.standard_normal((6, 2)),
        ),
    ),
    Problem(op.brachistochrone, lambda r: (r.uniform(0.05, 0.3, 8),)),
    Problem(op.conjugate_gradients, lambda r: (r.standard_normal((4, 4)), r.standard_normal(4)), (0, 1)),
    Problem(
        op.sinkhorn,
        lambda r: (r.random((4, 3)), np.log(r.dirichlet(np.ones(4))), np.log(r.dirichlet(np.ones(3)))),
        (0, 1),
    ),
    Problem(op.portfolio, lambda r: (r.standard_normal(4), 0.1 * r.standard_normal((12, 4)))),
    Problem(ph.lennard_jones, lambda r: (_cluster(r),)),
    Problem(
        ph.nbody_energy,
        lambda r: (r.standard_normal((4, 3)), r.standard_normal((4, 3)), r.uniform(0.5, 2, 4)),
        (0, 1, 2),
    ),
    Problem(ph.pendulum_leapfrog, lambda r: (r.standard_normal(2), r.uniform(0.5, 1.5)), (0, 1)),
    Problem(ph.lotka_volterra, lambda r: (r.uniform(0.3, 1, 4), r.uniform(0.5, 1.5, 2)), (0, 1)),
    Problem(ph.lorenz, lambda r: (r.standard_normal(3), 10.0, 28.0, 8 / 3), (0, 1, 2, 3)),
    Problem(ph.heat_residual, lambda r: (r.standard_normal((4, 6)), r.uniform(0.1, 1)), (0, 1)),
    Problem(ph.burgers, lambda r: (r.standard_normal(8), r.uniform(0.1, 0.5)), (0, 1)),
    Problem(ph.wave_2d_energy, lambda r: (r.standard_normal((4, 5)), r.standard_normal((4, 5))), (0, 1)),
    Problem(ph.ising_mean_field, normal(3, 4, scale=0.7)),
    Problem(ph.spring_network, lambda r: (r.standard_normal((4, 2)), r.uniform(1, 2, 6)), (0, 1)),
    Problem(
        ph.kepler_position,
        lambda r: (
            np.array([r.uniform(1, 2), r.uniform(0.1, 0.5), r.uniform(0, 1)]),
            r.uniform(0, 2, 5),
        ),
        (0, 1),
    ),
    Problem(ph.planck_spectrum, lambda r: (r.uniform(3000, 6000, 3), r.uniform(0.4, 2, 4)), (0, 1)),
    Problem(ph.double_well_action, normal(12)),
    Problem(
        ph.soliton_residual, lambda r: (np.array([2.0, 1.0, 0.1]) + 0.1 * r.random(3), np.linspace(-4, 4, 21))
    ),
    Problem(
        ph.michaelis_menten_chain,
        lambda r: ((r.uniform(0.5, 1.5, 4), r.uniform(0.5, 1.5, 4)), r.uniform(0, 2, 4)),
        (0, 1),
    ),
    Problem(ph.sir_epidemic, lambda r: (r.uniform(0.5, 1.5, 2), np.array([0.9, 0.08, 0.02])), (0, 1)),
    Problem(
        fi.black_scholes,
        lambda r: (r.uniform(80, 120, 3), 100.0, r.uniform(0.5, 2), 0.03, r.uniform(0.1, 0.4)),
        (0, 1, 2, 3, 4),
    ),
    Problem(
        fi.heston_monte_carlo,
        lambda r: (
            np.array([1.5, 0.04, 0.3, -0.6, 0.04]) * r.uniform(0.9, 1.1, 5),
            r.standard_normal((2, 4, 6)),
        ),
    ),
    Problem(
        fi.nelson_siegel,
        lambda r: (np.array([0.04, -0.02, 0.01, 1.8]) + 0.01 * r.random(4), 0.04 * r.random(10)),
    ),
    Problem(fi.american_put_tree, lambda r: (r.uniform(0.8, 1.2), r.uniform(0.2, 0.4)), (0, 1)),
    Problem(fi.garch_likelihood, lambda r: (np.log(r.uniform(0.1, 0.4, 3)), r.standard_normal(6)), (0, 1)),
    Problem(fi.bond_duration, lambda r: (r.uniform(0.01, 0.05, 6), np.array([3.0] * 5 + [103.0])), (0, 1)),
    Problem(st.kalman_filter, lambda r: (r.standard_normal(2), r.standard_normal(6)), (0, 1)),
    Problem(
        st.gaussian_mixture,
        lambda r: (
            r.standard_normal(3),
            r.standard_normal((3, 2)),
            0.3 * r.standard_normal((3, 2)),
            r.standard_normal((7, 2)),
        ),
        (0, 1, 2),
    ),
    Problem(
        st.hmm_forward,
        lambda r: (r.standard_normal(3), r.standard_normal((3, 3)), r.standard_normal((3, 3))),
        (0, 1, 2),
    ),
    Problem(
        st.logistic_regression,
        lambda r: (r.standard_normal(3), 0.1, r.standard_normal((8, 3)), _signs(r, 8)),
        (0, 1),
    ),
    Problem(
        st.softmax_regression,
        lambda r: (r.standard_normal((3, 4)), r.standard_normal((6, 3)), r.integers(0, 4, 6)),
    ),
    Problem(
        st.poisson_regression,
        lambda r: (0.3 * r.standard_normal(3), r.standard_normal((6, 3)), r.poisson(2.0, 6)),
    ),
    Problem(
        st.cox_partial_likelihood,
        lambda r: (r.standard_normal(3), r.standard_normal((7, 3)), (r.random(7) < 0.7).astype(float)),
    ),
    Problem(st.student_t, lambda r: (0.1, 0.2, np.log(r.uniform(2, 6)), r.standard_normal(6)), (0, 1, 2)),
    Problem(
        st.negative_binomial,
        lambda r: (r.uniform(0, 1), r.uniform(0, 1), r.poisson(3.0, 6).astype(float)),
        (0, 1),
    ),
    Problem(
        st.huber_regression,
        lambda r: (r.standard_normal(3), r.standard_normal((8, 3)), r.standard_normal(8)),
    ),
    Problem(st.ridge_line, lambda r: (r.standard_normal(6), r.standard_normal(6), 0.1), (0, 1, 2)),
    Problem(
        st.maximum_mean_discrepancy,
        lambda r: (r.standard_normal((4, 2)), 1 + r.standard_normal((5, 2))),
        (0, 1),
    ),
    Problem(st.fourier_fit, lambda r: (r.standard_normal((2, 3)), r.random(9), r.standard_normal(9)), (0, 1)),
    Problem(st.soft_dtw, lambda r: (r.standard_normal(4), r.standard_normal(3)), (0, 1)),
    Problem(le.kmeans, lambda r: (r.standard_normal((3, 2)), r.standard_normal((9, 2))), (0, 1)),
    Problem(
        le.svm_hinge, lambda r: (r.standard_normal(3), 0.2, r.standard_normal((7, 3)), _signs(r, 7)), (0, 1)
    ),
    Problem(le.neural_ode, _neural_ode, (0, 1), mapped=1),
    Problem(le.gru, _gru, (0, 1), mapped=1),
    Problem(
        le.attention_head,
        lambda r: (r.standard_normal((4, 3)), *(r.standard_normal((3, 2)) for _ in range(3))),
        (0, 1, 2, 3),
    ),
    Problem(
        le.multi_head_attention,
        lambda r: (r.standard_normal((3, 4)), *(0.5 * r.standard_normal((4, 4)) for _ in range(3))),
        (0, 1),
    ),
    Problem(le.contrastive, lambda r: (r.standard_normal((4, 3)), r.standard_normal((4, 3))), (0, 1)),
    Problem(le.pagerank, normal(4, 4)),
    Problem(le.stochastic_neighbours, lambda r: (r.standard_normal((5, 2)), _affinities(r, 5))),
    Problem(
        le.matrix_factorisation,
        lambda r: (r.standard_normal((4, 2)), r.standard_normal((5, 2)), _ratings(r)),
        (0, 1),
    ),
    Problem(
        le.boltzmann_free_energy,
        lambda r: (
            r.standard_normal((4, 3)),
            r.standard_normal(4),
            r.standard_normal(3),
            r.integers(0, 2, (5, 4)),
        ),
        (0, 1, 2),
    ),
    Problem(
        le.variational_bound,
        lambda r: (
            0.5 * r.standard_normal((3, 4)),
            r.standard_normal((2, 3)),
            r.standard_normal((5, 3)),
            r.standard_normal((5, 2)),
        ),
        (0, 1),
    ),
    Problem(le.convolution_1d, lambda r: (r.standard_normal(3), r.standard_normal(10)), (0, 1)),
    Problem(
        le.tensor_train,
        lambda r: (
            (r.standard_normal((3, 2)), r.standard_normal((2, 3, 2)), r.standard_normal((2, 3))),
            tuple(r.integers(0, 3, (3, 6))),
        ),
    ),
    Problem(
        ge.bundle_adjustment,
        lambda r: (
            np.concatenate([0.3 * r.standard_normal(3), [0.1, 0.2, -5.0], [1.5, 0.01, 0.001]]),
            r.standard_normal((4, 3)),
            r.standard_normal((4, 2)),
        ),
        (0, 1),
    ),
    Problem(
        ge.quaternion_alignment,
        lambda r: (r.standard_normal(4), r.standard_normal((5, 3)), r.standard_normal((5, 3))),
        (0, 1),
    ),
    Problem(ge.two_link_arm, lambda r: (r.standard_normal(2), np.array([1.0, 0.7])), (0, 1)),
    Problem(ge.great_circle, lambda r: (r.uniform(-60, 60, 2), r.uniform(-60, 60, 2)), (0, 1)),
    Problem(ge.total_variation, lambda r: (r.random((4, 5)), r.random((4, 5))), (0, 1)),
    Problem(ge.horner, lambda r: (r.standard_normal(5), r.uniform(-1, 1, 6)), (0, 1)),
    Problem(ge.b_spline, lambda r: (r.standard_normal(6), r.uniform(1, 4, 7)), (0, 1)),
    Problem(ge.gradient_noise, lambda r: (r.standard_normal(5), r.uniform(0, 9, 8)), (0, 1)),
    Problem(ge.mandelbrot_escape, lambda r: (r.uniform(-1.5, 0.5, 7), r.uniform(-1, 1, 7)), (0, 1)),
    Problem(ge.bezier_length, normal(4, 2)),
    Problem(
        ge.polygon_area,
        lambda r: (
            np.stack([np.cos(np.arange(5) * 1.25), np.sin(np.arange(5) * 1.25)], 1)
            + 0.1 * r.standard_normal((5, 2)),
        ),
    ),
    Problem(
        ge.smooth_union,
        lambda r: (r.standard_normal((3, 2)), r.uniform(0.2, 0.5, 3), 2 * r.standard_normal((6, 2))),
        (0, 1),
    ),
    Problem(ge.antenna_gain, lambda r: (r.standard_normal(4), r.uniform(-1, 1, 5)), (0, 1)),
    Problem(ge.snell_path, lambda r: (np.sort(r.uniform(0, 3, 3)),)),
    Problem(ge.lens_map, lambda r: (r.standard_normal(5), r.uniform(0.5, 1.5)), (0, 1)),
    Problem(si.heat_on_a_torus, normal(4, 5)),
    Problem(si.edge_strength, lambda r: (r.random((4, 5)),)),
    Problem(si.kernel_energy, normal(5, 2)),
    Problem(si.autocorrelation, normal(12)),
    Problem(si.windowed_sinc, lambda r: (r.uniform(-3, 3, 7),)),
    Problem(si.largest_drawdown, lambda r: (0.1 * r.standard_normal(9) - 0.1,)),
    Problem(si.sharpe_ratio, lambda r: (r.uniform(0.2, 1, 3), r.standard_normal((8, 3)) + 0.5), (0, 1)),
    Problem(si.cross_entropy_by_label, normal(5, 3)),
    Problem(
        si.eliminate, lambda r: (r.random((4, 4)) + 4 * np.eye(4), r.standard_normal(4)), (0, 1), writes=True
    ),
    Problem(si.log_determinant, normal(4, 4), writes=True),
    Problem(si.gaps_filled, normal(8)),
    Problem(si.vectorised_sylvester, normal(3, 3)),
]
"""Every function; each is scalar or an array of floats."""
