"""Random numbers: known answers of the generator, the same bits everywhere, keys as values, bad input.

What holds of every op (batch rule, kernels, guard zones) is tested over the rows of `cases_random`; how the draws are
distributed in `test_random_statistics`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import mpmath
import numpy as np
import pytest

import fastgrad as fg
from cases_random import RANDOM_ROWS
from fastgrad import autodiff, batching, passes
from fastgrad.core import counter, quantile
from fastgrad.core.aval import aval_of
from fastgrad.errors import ArgumentError, DTypeError, ShapeError, TraceError, UnsupportedError
from fastgrad.executor import tape
from fastgrad.executor.executable import Executable
from fastgrad.ops.random import random_bits
from fastgrad.ops.special import ndtri
from fastgrad.random import bits, fold_in, key, normal, split, uniform
from fastgrad.schedule import schedule
from fastgrad.trace import trace

KNOWN_ANSWERS = [  # key, counter, result: "threefry2x32 20" of kat_vectors in Random123 1.14
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


def graph_of(fn: Callable, *arrays):
    def flat(*xs):
        out = fn(*xs)
        return list(out) if isinstance(out, tuple | list) else [out]

    return trace(flat, [aval_of(a) for a in arrays])


def same_bits(got, expected) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert got.tobytes() == expected.tobytes()


# -- the generator -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "count", "answer"), KNOWN_ANSWERS)
def test_known_answers(words, count, answer):
    k, c = np.array(words, np.uint32), np.array(count, np.uint32)
    with np.errstate(over="ignore"):
        assert counter.threefry2x32(k[0], k[1], c[0], c[1]) == answer
    number = int(count[0]) << 32 | int(count[1])
    expected = np.array(answer, np.uint32)
    for backend in ("numba", "numpy"):
        same_bits(fg.jit(fold_in, backend=backend)(k, np.uint64(number)), expected)
    same_bits(fold_in(k, number), expected)


def test_a_draw_is_the_generator_at_the_number_of_each_element():
    k = key(5)
    drawn = bits(k, (3, 2), np.uint64)
    for i, value in enumerate(drawn.ravel()):
        words = fold_in(k, i)
        assert int(value) == int(words[0]) << 32 | int(words[1])
    words = [fold_in(k, i) for i in range(6)]
    same_bits(bits(k, 6), np.array([w[0] ^ w[1] for w in words]))
    same_bits(split(k, 6), np.stack(words))


def test_a_draw_longer_than_32_bits_count():
    """Traced only: the counter gets a high word; 34 GB are not drawn."""
    graph = trace(lambda k: [random_bits(k[0], k[1], (2, 2**31 + 5), 32)], [aval_of(key(0))])
    names = [eqn.prim.name for eqn in passes.run(graph).eqns]
    assert names.count("iota") == 1 and "shr" in names


# -- the same everywhere -----------------------------------------------------------------------------------------------

DRAWS = [case for case in RANDOM_ROWS if case.dtypes == ("u4",) and not case.name.startswith("iota")]


@pytest.mark.parametrize("case", DRAWS, ids=lambda case: case.name)
def test_plain_interpreted_and_compiled_give_the_same_bits(case):
    for seed in range(3):
        (k,) = case.inputs(seed)
        expected = case.fn(k)
        for backend in ("numpy", "numba"):
            same_bits(fg.jit(case.fn, backend=backend)(k), expected)


@pytest.mark.parametrize("case", DRAWS, ids=lambda case: case.name)
def test_over_keys_it_is_a_loop_over_keys(case):
    keys = np.stack([case.inputs(seed)[0] for seed in range(3)])
    batched = batching.vmap(graph_of(case.fn, keys[0]), [True], 3)
    same_bits(Executable(batched)(keys)[0], np.stack([case.fn(k) for k in keys]))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("draw", [uniform, normal, fg.random.exponential])
def test_large_draws_at_any_number_of_threads(draw, dtype, monkeypatch):
    monkeypatch.setattr(tape, "PARALLEL_NS", 0.0)
    monkeypatch.setattr(tape, "REGION_NS", 0.0)
    k = key(11)
    graph = graph_of(lambda k: draw(k, (3, 50_001), dtype), k)
    expected = draw(k, (3, 50_001), dtype)
    for threads in (1, 2, 3):
        same_bits(Executable(graph, threads=threads)(k)[0], expected)


def test_a_draw_takes_no_memory_but_its_result():
    graph = passes.run(graph_of(lambda k: normal(k, (1000, 1000)).sum(), key(0)))
    assert not graph.captured
    planned = fg.jit(lambda k: normal(k, (1000, 1000)).sum()).compile(key(0)).program.plans
    assert sum(plan.arena_bytes for plan in planned) < 100_000


def test_a_mask_is_one_kernel_with_what_it_is_made_of():
    steps = schedule(passes.run(graph_of(lambda k: fg.random.bernoulli(k, 0.5, (64, 64)), key(0)))).steps
    assert [str(step) for step in steps] == ["loop[64, 64]"]


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "words"),
    [
        (0, [0, 0]),
        (7, [0, 7]),
        (-1, [2**32 - 1, 2**32 - 1]),
        (2**40 + 5, [256, 5]),
        (2**64 - 1, [2**32 - 1] * 2),
    ],
)
def test_the_words_of_a_seed(seed, words):
    assert key(seed).tolist() == words
    assert key(seed).dtype == np.uint32
    if seed < 2**63:
        for backend in ("numba", "numpy"):
            same_bits(fg.jit(key, backend=backend)(np.int64(seed)), key(seed))


def test_keys_go_wherever_arrays_go():
    def f(tree, i):
        k = fold_in(tree["key"], i)
        a, b = split(k)
        return {"x": normal(a, (2,)), "next": b}

    k = key(1)
    got = fg.jit(f)({"key": k}, np.int32(3))
    same_bits(got["x"], normal(split(fold_in(k, 3))[0], (2,)))
    same_bits(got["next"], split(fold_in(k, 3))[1])


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_keys_are_carried_through_loops(backend):
    def step(carry, i):
        k, x = carry
        k, sub = split(k)
        return (k, x + normal(sub, (3,))), uniform(fold_in(key(1), i), (2,))

    start = key(8), np.zeros(3)
    end, drawn = fg.jit(lambda c: fg.scan(step, c, np.arange(20)), backend=backend)(start)
    carry = start
    for i in range(20):
        carry, row = step(carry, i)
        same_bits(drawn[i], row)
    same_bits(end[0], carry[0])
    same_bits(end[1], carry[1])


def test_a_loop_counts_for_itself():
    """A draw from a key of outside is no array that is handed into the loop."""
    graph = graph_of(
        lambda k: fg.scan(lambda c, i: (c + normal(k, (50,)), None), np.zeros(50), np.arange(3))[0], key(0)
    )
    assert "iota" not in [eqn.prim.name for eqn in graph.eqns]


def test_splitting_into_a_shape_is_splitting_and_a_reshape():
    same_bits(split(key(3), (2, 3)), split(key(3), 6).reshape(2, 3, 2))


# -- derivatives -------------------------------------------------------------------------------------------------------


def test_derivatives_pass_through_what_is_made_of_a_draw():
    k = key(2)
    z = normal(k, (5,))
    value, (mean, std) = fg.value_and_grad(lambda m, s: (m + s * normal(k, (5,))).sum(), (0, 1))(1.0, 2.0)
    np.testing.assert_allclose(value, 5 + 2 * z.sum())
    np.testing.assert_allclose([mean, std], [5.0, z.sum()])
    low, high = fg.grad(lambda a, b: uniform(k, (5,), minval=a, maxval=b).sum(), (0, 1))(-1.0, 3.0)
    u = uniform(k, (5,))
    np.testing.assert_allclose([low, high], [(1 - u).sum(), u.sum()])


def test_bits_have_no_derivative():
    def f(x, k):
        return [x * fg.random.bernoulli(k, 0.5, (4,)) + bits(k, (4,)).astype(np.float64)]

    x, k = np.ones(4), key(4)
    joint = autodiff.vjp(trace(f, [aval_of(x), aval_of(k)]), [0])
    _, gradient = Executable(joint)(x, k, np.ones(4))
    np.testing.assert_array_equal(gradient, fg.random.bernoulli(k, 0.5, (4,)))


# -- edges -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "digits"), [(np.float32, 24), (np.float64, 53)])
def test_uniforms_lie_on_their_grid(dtype, digits):
    u = uniform(key(0), (20_000,), dtype).astype(np.float64) * 2.0**digits
    assert (u == np.floor(u)).all() and u.min() >= 0 and u.max() < 2.0**digits
    assert (u.astype(np.uint64) & np.uint64(1)).mean() == pytest.approx(0.5, abs=0.02)


def test_uniform_never_reaches_its_upper_bound():
    edge = np.float32(1.0), np.nextafter(np.float32(1.0), np.float32(2.0))
    drawn = uniform(key(0), (1000,), np.float32, float(edge[0]), float(edge[1]))
    assert set(drawn.tolist()) == {1.0}
    wide = uniform(key(0), (10_000,), np.float32, 16_777_215.0, 16_777_216.0)
    assert wide.max() < 16_777_216.0


class Words:
    """Stands in for the generator: every word the same."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch

    def all_are(self, word: int) -> None:
        def constant(k0, k1, shape, width):
            return np.full(shape, word % 2**width, f"u{width // 8}")

        self.monkeypatch.setattr("fastgrad.random.continuous.random_bits", constant)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("word", [0, 1, 2, 3, 2**64 - 1, 2**64 - 2, 2**63, 2**31 - 1, 2**31])
def test_the_outermost_words_give_finite_numbers(word, dtype, monkeypatch):
    Words(monkeypatch).all_are(word)
    k = key(0)
    assert 0 <= uniform(k, (), dtype) < 1
    assert abs(normal(k, (), dtype)) <= (6.4 if dtype == np.float32 else 9.2)
    for draw in (fg.random.exponential, fg.random.gumbel, fg.random.laplace):
        assert np.isfinite(draw(k, (), dtype))
    assert fg.random.exponential(k, (), dtype) > 0
    assert np.isfinite(fg.random.truncated_normal(k, -np.inf, np.inf, (), dtype))
    assert 3 <= fg.random.truncated_normal(k, 3.0, np.inf, (), dtype) < 12


@pytest.mark.parametrize(("word", "p"), [(0, 2.0**-65), (1, 2.0**-65), (2**64 - 2, 0.5), (2**63, 0.25)])
def test_normals_are_quantiles_of_the_word(word, p, monkeypatch):
    Words(monkeypatch).all_are(word)
    expected = float(quantile.ndtri(np.float64(p))) * (-1 if word % 2 else 1)
    assert normal(key(0)) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("dtype", "lowest", "ulps"), [("f8", -65.0, 6), ("f4", -33.0, 6)])
def test_ndtri_is_the_quantile(dtype, lowest, ulps):
    rng = np.random.default_rng(0)
    p = np.concatenate([2.0 ** rng.uniform(lowest, -1, 1500), [0.5, 0.075, 0.0751, 2.0**lowest]]).astype(
        dtype
    )
    x = fg.jit(ndtri)(p)
    same_bits(x, ndtri(p))
    with mpmath.workprec(200):
        for probability, got in zip(p, x, strict=True):
            exact = mpmath.mpf(float(got))
            error = (mpmath.ncdf(exact) - mpmath.mpf(float(probability))) / mpmath.npdf(exact)
            assert abs(error) <= ulps * float(np.spacing(abs(got))) + 1e-300, probability
    np.testing.assert_allclose(ndtri(1 - p[p > 1e-3]), -x[p > 1e-3], rtol=1e-4)


def test_ndtri_at_its_ends():
    x = np.array([0.0, 1.0, -0.1, 1.1, np.nan, 5e-324])
    for y in (fg.jit(ndtri)(x), ndtri(x)):
        np.testing.assert_array_equal(y[:5], [-np.inf, np.inf, np.nan, np.nan, np.nan])
        assert y[5] == pytest.approx(-38.467405617144344, rel=1e-14)


@pytest.mark.parametrize("span", [1, 2, 3, 10, 2**31, 2**32, 2**32 + 1, 3 * 2**61, 2**63, 2**64 - 1, 2**64])
def test_randint_stays_within_its_bounds(span):
    low = 0 if span > 2**63 else -(span // 2)
    dtype = np.uint64 if span > 2**63 else np.int64
    drawn = fg.random.randint(key(span % 1000), (2000,), low, low + span, dtype)
    assert int(drawn.min()) >= low and int(drawn.max()) < low + span
    mean = float(np.mean((drawn.astype(np.float64) - low) / span))
    assert span < 100 or abs(mean - 0.5) < 5 * math.sqrt(1 / 12 / 2000)


def test_randint_of_wide_spans_is_an_exact_product():
    k, span = key(9), 3 * 2**61 + 12_345
    a, b = (bits(w, (200,), np.uint64) for w in split(k))
    expected = [((int(x) << 64 | int(y)) * span) >> 128 for x, y in zip(a, b, strict=True)]
    assert fg.random.randint(k, (200,), 0, span).tolist() == expected
    narrow = [int(x) * 1_000_003 >> 64 for x in bits(k, (200,), np.uint64)]
    assert fg.random.randint(k, (200,), 0, 1_000_003).tolist() == narrow


def test_randint_where_traced_bounds_cross_is_the_lower_one():
    drawn = fg.jit(lambda k, a, b: fg.random.randint(k, (3,), a, b))(
        key(0), np.array([5, 5, 5]), np.array([5, 4, 6])
    )
    assert drawn.tolist() == [5, 5, 5]


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutations_hold_every_number_once(n):
    for backend in ("numba", "numpy"):
        drawn = fg.jit(lambda k: fg.random.permutation(k, n), backend=backend)(key(n))
        assert sorted(drawn.tolist()) == list(range(n))


# -- bad input ---------------------------------------------------------------------------------------------------------

R = fg.random
K = key(0)
BAD: list[tuple[Callable, type[Exception], str]] = [
    (lambda: R.normal(0), DTypeError, r"normal: a key is u32\[2\], got i64\*\[\]\n.*try: fg.random.key\(0\)"),
    (lambda: R.normal(None), DTypeError, r"normal: a key is u32\[2\], got NoneType"),
    (lambda: R.split([0, 1]), DTypeError, r"split: a key is u32\[2\], got i64\[2\]"),
    (lambda: R.uniform(np.zeros(2)), DTypeError, r"uniform: a key is u32\[2\], got f64\[2\].*\n.*fg.random.key"),
    (lambda: R.bits(np.zeros(3, "u4")), ShapeError, r"bits: takes one key u32\[2\], got u32\[3\]"),
    (lambda: R.bits(split(K)), ShapeError, r"got u32\[2,2\]\n.*try: fg.vmap\(lambda key: fg.random.bits"),
    (lambda: R.key(1.5), DTypeError, r"key: a seed is an integer, got f64\*\[\]"),
    (lambda: R.key(True), DTypeError, "key: a seed is an integer, got bool"),
    (lambda: R.key(2**64), ArgumentError, "key: a seed has 64 bits at most"),
    (lambda: R.key(np.arange(3)), ShapeError, r"key: one seed, got i64\[3\]\n.*fg.vmap\(fg.random.key\)"),
    (lambda: R.fold_in(K, 0.5), DTypeError, "fold_in: data is one integer, got f64"),
    (lambda: R.fold_in(K, np.arange(2)), ShapeError, r"fold_in: data is one integer, got i64\[2\]\n.*vmap"),
    (lambda: R.fold_in(K, 2**64), ArgumentError, "fold_in: data has 64 bits at most"),
    (lambda: R.split(K, -1), ShapeError, r"split: sizes are not negative, got \[-1\]"),
    (lambda: R.split(K, 2.0), ShapeError, "split: a shape holds integers"),
    (lambda: R.bits(K, (2,), np.int32), DTypeError, "bits: dtype must be unsigned, got int32"),
    (lambda: R.uniform(K, (2, -3)), ShapeError, r"uniform: sizes are not negative, got \[2, -3\]"),
    (lambda: R.uniform(K, (), np.int32), DTypeError, "uniform: dtype must be float32 or float64, got int32"),
    (lambda: R.uniform(K, (), np.float16), DTypeError, "float16"),
    (lambda: R.uniform(K, (), np.float64, 1, 1), ArgumentError, "minval must be below maxval, got 1 and 1"),
    (lambda: R.uniform(K, (), np.float64, 0, np.inf), ArgumentError, "minval must be below maxval"),
    (lambda: R.uniform(K, (), np.float64, np.nan, 1), ArgumentError, "minval must be below maxval"),
    (lambda: R.uniform(K, (2,), minval=np.zeros(3)), ShapeError, "do not broadcast"),
    (lambda: R.uniform(K, (), minval=np.zeros(3)), ShapeError, r"shape \[\] does not hold minval f64\[3\].*\n.*\(3,\)"),
    (lambda: R.normal(K, "ab"), ShapeError, "a shape holds integers"),
    (lambda: R.truncated_normal(K, 1, 1), ArgumentError, "lower must be below upper"),
    (lambda: R.truncated_normal(K, 40, np.inf), ArgumentError, "float64 has no probabilities so far out, got a bound of 40"),
    (lambda: R.truncated_normal(K, -np.inf, -13, (), np.float32), ArgumentError, "float32 has no probabilities so far out"),
    (lambda: R.truncated_normal(K, np.zeros(2), 1), UnsupportedError, "bounds are Python numbers"),
    (lambda: R.randint(K, (), 3, 3), ArgumentError, "randint: minval must be below maxval, got 3 and 3"),
    (lambda: R.randint(K, (), 0, 257, np.uint8), ArgumentError, r"randint: \[0, 257\) is not within uint8"),
    (lambda: R.randint(K, (), 0.5, 3), DTypeError, "randint: minval is an integer, got 0.5"),
    (lambda: R.randint(K, (2,), np.zeros(2), 3), DTypeError, "randint: minval is an integer, got f64"),
    (lambda: R.randint(K, (), np.zeros(2, int), 3), ShapeError, r"shape \[\] does not hold minval i64\[2\]"),
    (lambda: R.randint(K, (), 0, 2, np.float32), DTypeError, "randint: dtype must be an integer one"),
    (lambda: R.randint(K, (), 0, 2, bool), DTypeError, "try: fg.random.bernoulli"),
    (lambda: R.bernoulli(K, 1.5), ArgumentError, r"bernoulli: p lies in \[0, 1\], got 1.5"),
    (lambda: R.bernoulli(K, np.arange(3)), DTypeError, r"bernoulli: p is a probability, got i64\[3\]"),
    (lambda: R.bernoulli(K, np.full(3, 0.5), ()), ShapeError, r"shape \[\] does not hold p f64\[3\]"),
    (lambda: R.bernoulli(K, np.full(3, 0.5), (2,)), ShapeError, r"shape \[2\] does not hold p f64\[3\].*\n.*\(3,\)"),
    (lambda: R.bernoulli(K, np.full((3, 1), 0.5), (3,)), ShapeError, r"shape \[3\] does not hold p f64\[3,1\]"),
    (lambda: R.categorical(K, np.arange(3)), DTypeError, r"categorical: logits are floats, got i64\[3\]"),
    (lambda: R.categorical(K, np.zeros((2, 0))), ShapeError, "no classes to draw from"),
    (lambda: R.categorical(K, np.zeros(3), 1), ShapeError, "axis 1 is out of bounds"),
    (lambda: R.categorical(K, np.zeros((4, 3)), shape=(5,)), ShapeError, r"\[5\] does not end with \[4\]"),
    (lambda: R.permutation(K, -1), ShapeError, "permutation: of a count, got -1"),
    (lambda: R.permutation(K, 2**32), ShapeError, "permutation: of 0 to"),
    (lambda: R.permutation(K, 2.0), ShapeError, "permutation: takes an array or a Python integer"),
    (lambda: R.permutation(K, np.zeros((2, 3)), 2), ShapeError, "axis 2 is out of bounds"),
    (lambda: R.choice(K, 0), ArgumentError, "choice: nothing to choose from"),
    (lambda: R.choice(K, 3, (4,), False), ArgumentError, "choice: 4 of 3 rows without replacement"),
    (lambda: R.choice(K, 3, (), False, np.ones(3)), UnsupportedError, "p without replacement"),
    (lambda: R.choice(K, 3, p=np.ones(4)), ShapeError, r"choice: p has an entry a row, 3, got f64\[4\]"),
    (lambda: R.choice(K, 2, p=np.array([-0.1, 1.1])), ArgumentError, r"choice: p holds weights, .* got -0.1 to 1.1"),
    (lambda: R.choice(K, 2, p=np.array([np.nan, 1.0])), ArgumentError, "choice: p holds weights"),
    (lambda: R.choice(K, 2, p=np.zeros(2)), ArgumentError, "not all 0"),
    (lambda: fg.jit(lambda n: R.normal(K, (n,)))(3), TraceError, ""),
    (lambda: np.left_shift(_traced(np.ones(2)), 1), DTypeError, r"left_shift: shifts integers, got f64\[2\]"),
]  # fmt: skip


def _traced(x):
    return trace(lambda x: [x << 1], [aval_of(x)])


@pytest.mark.parametrize("i", range(len(BAD)))
def test_bad_input(i):
    call, error, message = BAD[i]
    with pytest.raises(error) as caught:
        call()
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "at test_random.py:" in str(caught.value)
