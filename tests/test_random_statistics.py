"""How draws are distributed: a battery with fixed seeds, so that it either always passes or never.

With some hundred p-values between them, one below 1e-4 would mean a broken generator. p-values are asymptotic:
Kolmogorov's series with Stephens' correction (1970), and Wilson & Hilferty's normal approximation (1931) of chi-square.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.ops.random import permutation_p
from fastgrad.random import bits, fold_in, key, normal, split, uniform

R = fg.random
N = 100_000
LOW = 1e-4


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * math.erfc(-v / math.sqrt(2.0)) for v in x])


def ks(sample: np.ndarray, cdf: Callable[[np.ndarray], np.ndarray]) -> float:
    """The p-value of Kolmogorov and Smirnov's test."""
    u, n = np.sort(cdf(np.sort(sample.ravel().astype(np.float64)))), sample.size
    ranks = np.arange(n)
    distance = max((u - ranks / n).max(), ((ranks + 1) / n - u).max())
    t = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    return min(1.0, max(0.0, 2 * sum((-1) ** (j - 1) * math.exp(-2 * (j * t) ** 2) for j in range(1, 100))))


def chi_square(counts: np.ndarray, expected: np.ndarray | float, freedom: int | None = None) -> float:
    """The p-value of Pearson's test."""
    statistic = float(np.sum((counts - expected) ** 2 / expected))
    freedom = counts.size - 1 if freedom is None else freedom
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two samples, in standard deviations of what independent ones give."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) * math.sqrt(a.size)


def test_the_tests_can_fail():
    u = uniform(key(0), (N,))
    assert ks(u, lambda x: x) > LOW
    assert ks(u**1.05, lambda x: x) < LOW
    assert ks(normal(key(0), (N,)) + 0.03, normal_cdf) < LOW
    assert chi_square(np.bincount((u**1.1 * 10).astype(int)), N / 10) < LOW
    assert abs(correlation(u, u + 20 * uniform(key(1), (N,)))) > 5


# -- distributions -----------------------------------------------------------------------------------------------------

TRUNCATION = normal_cdf(np.array([-0.5, 2.0]))
CONTINUOUS: dict[str, tuple[Callable, Callable, float, float]] = {  # the draw, its distribution function, mean, variance
    "uniform": (uniform, lambda x: x, 0.5, 1 / 12),
    "normal": (normal, normal_cdf, 0.0, 1.0),
    "exponential": (R.exponential, lambda x: -np.expm1(-x), 1.0, 1.0),
    "gumbel": (R.gumbel, lambda x: np.exp(-np.exp(-x)), np.euler_gamma, math.pi**2 / 6),
    "laplace": (R.laplace, lambda x: np.where(x < 0, np.exp(x) / 2, 1 - np.exp(-x) / 2), 0.0, 2.0),
    "truncated": (
        lambda k, s, d: R.truncated_normal(k, -0.5, 2.0, s, d),
        lambda x: (normal_cdf(x) - TRUNCATION[0]) / (TRUNCATION[1] - TRUNCATION[0]),
        0.44576, 0.37659,
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_floats_follow_their_distribution(name, dtype):
    draw, cdf, mean, variance = CONTINUOUS[name]
    for seed in range(3):
        x = draw(key(seed), (N,), dtype).astype(np.float64)
        assert LOW < ks(x, cdf) < 1 - LOW
        assert abs(x.mean() - mean) < 4 * math.sqrt(variance / N) + 1e-4
        assert abs(x.var() / variance - 1) < 0.03


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_tails_of_normals(dtype):
    x = fg.jit(lambda k: normal(k, (2_000_000,), dtype))(key(1)).astype(np.float64)
    skew, kurtosis = np.mean(x**3), np.mean(x**4)
    assert abs(skew) < 4 * math.sqrt(15 / x.size) and abs(kurtosis - 3) < 4 * math.sqrt(96 / x.size)
    for edge in (2.0, 3.0, 4.0):
        p = 0.5 * math.erfc(edge / math.sqrt(2.0))
        for count in ((x > edge).sum(), (x < -edge).sum()):
            assert abs(count - p * x.size) < 4.5 * math.sqrt(p * x.size) + 1
    deep = R.truncated_normal(key(2), 6.0, np.inf, (N,), dtype).astype(np.float64)
    assert LOW < ks(deep, lambda v: 1 - normal_cdf(-v) / normal_cdf(np.array([-6.0]))) < 1 - LOW


@pytest.mark.parametrize("count", [2, 10, 257])
def test_integers_are_uniform(count):
    for seed in range(3):
        counts = np.bincount(R.randint(key(seed), (N,), 0, count), minlength=count)
        assert LOW < chi_square(counts, N / count) < 1 - LOW
        traced = R.randint(key(seed), (N,), np.zeros(1, np.int64), np.full(1, count))
        assert LOW < chi_square(np.bincount(traced, minlength=count), N / count) < 1 - LOW


def test_wide_integers_are_uniform():
    span = 3 * 2**61
    drawn = R.randint(key(3), (N,), 0, span)
    assert LOW < chi_square(np.bincount((drawn // (span // 12)).astype(int)), N / 12) < 1 - LOW


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_classes_have_their_probabilities(dtype):
    p = np.array([0.5, 0.2, 0.15, 0.1, 0.04, 0.01])
    logits = (np.log(p) + 3.0).astype(dtype)
    for seed in range(3):
        counts = np.bincount(R.categorical(key(seed), logits, shape=(N,)), minlength=p.size)
        assert LOW < chi_square(counts, N * p) < 1 - LOW
        counts = np.bincount(R.choice(key(seed), p.size, (N,), p=p), minlength=p.size)
        assert LOW < chi_square(counts, N * p) < 1 - LOW


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9])
def test_coins_have_their_probability(p):
    for seed in range(3):
        heads = R.bernoulli(key(seed), p, (N,)).sum()
        assert abs(heads - N * p) < 4 * math.sqrt(N * p * (1 - p))
    assert not R.bernoulli(key(0), 0.0, (N,)).any() and R.bernoulli(key(0), 1.0, (N,)).all()


def test_every_order_is_as_likely():
    orders = {order: i for i, order in enumerate(itertools.permutations(range(4)))}
    keys = split(key(5), 12_000)
    drawn = [orders[tuple(row)] for row in permutation_p(keys, n=4).tolist()]
    assert LOW < chi_square(np.bincount(drawn, minlength=24), len(drawn) / 24) < 1 - LOW


def test_every_number_lands_everywhere_as_often():
    keys = split(key(6), 20_000)
    drawn = permutation_p(keys, n=10)
    for place in range(10):
        assert LOW < chi_square(np.bincount(drawn[:, place], minlength=10), len(keys) / 10) < 1 - LOW


# -- words and streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_every_bit_is_fair(dtype):
    words = bits(key(7), (N,), dtype)
    width = 8 * words.itemsize
    shares = [int(((words >> dtype(i)) & dtype(1)).sum()) for i in range(width)]
    assert LOW < chi_square(np.array(shares + [N - s for s in shares]), N / 2, freedom=width) < 1 - LOW
    neighbours = np.unpackbits((words[1:] ^ words[:-1]).view(np.uint8))
    assert abs(neighbours.mean() - 0.5) < 4 * 0.5 / math.sqrt(neighbours.size)


def test_bits_of_a_word_do_not_go_together():
    words = bits(key(8), (N,), np.uint32)
    columns = np.unpackbits(words.view(np.uint8)).reshape(N, 32).astype(np.float64)
    r = np.corrcoef(columns.T) * math.sqrt(N)
    assert np.abs(r[~np.eye(32, dtype=bool)]).max() < 5


def test_pairs_and_triples_fill_their_cells():
    u = uniform(key(9), (3 * N,))
    for size, cells in ((2, 32), (3, 12)):
        rows = (u[: u.size // size * size].reshape(-1, size) * cells).astype(int)
        flat = np.ravel_multi_index(tuple(rows.T), (cells,) * size)
        assert LOW < chi_square(np.bincount(flat, minlength=cells**size), len(rows) / cells**size) < 1 - LOW


def test_elements_do_not_go_together():
    x = normal(key(10), (N,))
    for lag in (1, 2, 3, 16, 64, 1000):
        assert abs(correlation(x[lag:], x[:-lag])) < 4.5


STREAMS: dict[str, Callable[[int], np.ndarray]] = {
    "neighbouring seeds": key,
    "seeds that differ in one bit": lambda i: key(1 << i),
    "children of split": lambda i: split(key(3), 8)[i],
    "children of fold_in": lambda i: fold_in(key(3), i),
    "a line of descent": lambda i: key(3) if i == 0 else split(STREAMS["a line of descent"](i - 1))[0],
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_other_keys_are_unrelated(name):
    keys = [STREAMS[name](i) for i in range(8)]
    samples = [normal(k, (20_000,)) for k in keys]
    words = [bits(k, (20_000,)) for k in keys]
    for (a, x), (b, y) in itertools.combinations(zip(samples, words, strict=True), 2):
        assert abs(correlation(a, b)) < 4.5
        assert abs(correlation(a[1:], b[:-1])) < 4.5
        assert abs(np.unpackbits((x ^ y).view(np.uint8)).mean() - 0.5) < 4.5 * 0.5 / math.sqrt(32 * x.size)
    assert LOW < ks(np.concatenate(samples), normal_cdf) < 1 - LOW


def test_first_draws_of_many_keys_are_a_stream_of_their_own():
    for keys in (np.stack([key(i) for i in range(3000)]), split(key(4), 3000)):
        first = np.array([uniform(k) for k in keys])
        assert LOW < ks(first, lambda x: x) < 1 - LOW
        assert abs(correlation(first[1:], first[:-1])) < 4.5
