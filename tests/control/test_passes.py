"""What the passes make of loops: by the structure of the graph, and by the numbers before and after."""

from __future__ import annotations

import numpy as np
import pytest
from programs import equal, graph_of, random_inputs, vjp

import fastgrad as fg
from fastgrad import autodiff, batching, passes, pytree
from fastgrad.core.graph import Eqn, Graph, subgraphs
from fastgrad.core.loops import View
from fastgrad.interpreter import evaluate
from fastgrad.nn import functional as F

T, B, D, H = 64, 32, 32, 128


def lstm(wx, wh, b, xs):
    """An LSTM layer and a loss over all its outputs, gates in one product (Hochreiter & Schmidhuber 1997)."""

    def step(carry, x):
        h, c = carry
        i, f, g, o = np.split(x @ wx + h @ wh + b, 4, axis=-1)
        c = F.sigmoid(f) * c + F.sigmoid(i) * np.tanh(g)
        h = F.sigmoid(o) * np.tanh(c)
        return (h, c), h

    zero = np.zeros((xs.shape[1], wh.shape[0]), np.float32)
    return ((fg.scan(step, (zero, zero), xs)[1] ** 2).mean(),)


LSTM = [
    np.random.default_rng(0).normal(0, 0.1, s).astype(np.float32)
    for s in [(D, 4 * H), (H, 4 * H), (4 * H,), (T, B, D)]
]


def scans(graph: Graph) -> list[Eqn]:
    return [e for e in graph.eqns if e.prim.name == "scan"]


def names(graph: Graph) -> list[str]:
    return [e.prim.name for e in graph.eqns]


def products(graph: Graph) -> list[str]:
    return [f"{e.inputs[0].aval} @ {e.inputs[1].aval}" for e in graph.eqns if e.prim.name == "matmul"]


def same_numbers(graph: Graph, tolerance: float = 1e-12) -> Graph:
    """``graph`` after the passes, which keep its numbers."""
    after = passes.run(graph)
    arrays = random_inputs(graph)
    equal(evaluate(after, arrays), evaluate(graph, arrays), tolerance)
    return after


def test_an_lstm_has_one_product_a_step_each_way_and_four_outside():
    graph = passes.run(autodiff.vjp(graph_of(lstm, LSTM), range(4)))
    forward, backward = scans(graph)
    assert products(forward.params["body"]) == [f"f32[{B},{H}] @ f32[{H},{4 * H}]"]
    assert products(backward.params["body"]) == [f"f32[{B},{4 * H}] @ f32[{4 * H},{H}]"]
    assert sorted(products(graph)) == sorted(
        [
            f"f32[{T * B},{D}] @ f32[{D},{4 * H}]",  # x @ Wx of all steps
            f"f32[{D},{T * B}] @ f32[{T * B},{4 * H}]",  # its gradients
            f"f32[{T * B},{4 * H}] @ f32[{4 * H},{D}]",
            f"f32[{H},{T * B}] @ f32[{T * B},{4 * H}]",  # the gradient of Wh
        ]
    )
    sums = [e for e in graph.eqns if e.prim.name == "reduce_sum" and e.params["axes"] == (0, 1)]
    assert [str(e.outputs[0].aval) for e in sums] == [f"f32[{4 * H}]"]  # of b
    assert "pad" not in names(backward.params["body"])
    assert names(backward.params["body"]).count("concatenate") == 1
    assert backward.params["carry"] == 2  # the cotangents of h and c, no sums


def test_an_lstm_has_the_same_gradients_after_the_passes():
    graph = autodiff.vjp(graph_of(lstm, LSTM), range(4))
    arrays = [*LSTM, np.float32(1)]
    for got, expected in zip(evaluate(passes.run(graph), arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_gradients_for_each_example_are_gathered_too():
    def layer(wh, h, xs):
        return (fg.scan(lambda h, x: (np.tanh(h @ wh + x), None), h, xs)[0].sum(),)

    arrays = [np.ones((3, 3)), np.ones((4, 3)), np.ones((5, 4, 3))]
    joint = autodiff.vjp(graph_of(layer, arrays), [0])
    graph = same_numbers(batching.vmap(joint, [False, True, True, False], 2))
    assert products(scans(graph)[1].params["body"]) == ["f64[8,3] @ f64[3,3]"]
    assert products(graph) == ["f64[2,3,20] @ f64[2,20,3]"]


def test_products_with_results_alone_are_one_product_after_the_loop():
    def f(w, v, xs):
        return fg.scan(lambda h, x: (np.tanh(h @ w + x), F.softmax(h @ v, -1) * 2.0), xs[0], xs)

    graph = same_numbers(graph_of(f, [np.ones((3, 3)), np.ones((3, 2)), np.ones((5, 4, 3))]))
    [scan] = scans(graph)
    assert products(scan.params["body"]) == ["f64[4,3] @ f64[3,3]"]
    assert products(graph) == ["f64[20,3] @ f64[3,2]"]


def test_work_on_consts_is_done_once():
    def f(c, w, xs):
        return fg.scan(lambda h, x: (h * np.exp(c) + x @ (w @ w), None), np.ones((4, 3)), xs)

    graph = same_numbers(graph_of(lambda *a: (f(*a)[0],), [np.ones(()), np.ones((3, 3)), np.ones((5, 4, 3))]))
    assert names(scans(graph)[0].params["body"]) == ["mul", "add"]
    assert sorted(names(graph)) == ["exp", "matmul", "matmul", "reshape", "reshape", "scan"]


def test_while_loops_hoist_what_cannot_fail():
    def f(c, i, v):
        step = lambda s: (s[0] + 1, s[1] * np.exp(c) + np.take(c, i, 0))  # noqa: E731
        return (fg.while_loop(lambda s: s[0] < 3, step, (0, v))[1],)

    graph = same_numbers(graph_of(f, [np.ones(3), np.int64(1), np.ones(3)]))
    [loop] = [e for e in graph.eqns if e.prim.name == "while"]
    assert "exp" not in names(loop.params["body"]) and "take" in names(loop.params["body"])


def test_what_may_fail_stays_in_a_loop_that_does_not_run():
    def f(i, c, xs):
        return (fg.scan(lambda h, x: (h + x * np.take(c, i, 0), None), 0.0, xs)[0],)

    empty, some = np.ones(0), np.ones(3)
    graph = passes.run(graph_of(f, [np.int64(0), np.ones(3), empty]))
    assert evaluate(graph, [np.int64(7), np.ones(3), empty])[0] == 0  # out of bounds, but never reached
    assert "take" in names(passes.run(graph_of(f, [np.int64(0), np.ones(3), some])))


def test_what_a_loop_need_not_carry_goes():
    def f(a, xs):
        def step(carry, x):
            used, dead, fixed, feeds = carry
            return (used + x * fixed + feeds, dead * 2 + used, fixed, np.sin(feeds)), (x, used, dead, fixed)

        (used, _, fixed, _), (x, first, _, _) = fg.scan(step, (a, a, a + 1, a), {"x": xs, "y": xs}["x"])
        return used, fixed, x, first

    graph = same_numbers(graph_of(f, [np.ones(3), np.ones((4, 3))]))
    [scan] = scans(graph)
    assert (scan.params["carry"], scan.params["consts"], len(scan.outputs)) == (2, 1, 3)
    assert graph.outputs[2] is graph.inputs[1]  # ys that are the slices of xs are xs


def test_a_loop_nobody_reads_goes():
    graph = graph_of(lambda x: ((fg.scan(lambda c, v: (c + v, c), 0.0, x), x)[1],), [np.ones(3)])
    assert not passes.run(graph).eqns


def test_a_loop_that_only_adds_up_is_a_sum():
    graph = graph_of(lambda x: (fg.scan(lambda c, v: (c + v, None), 0.0, x)[0],), [np.ones(3)])
    assert names(same_numbers(graph)) == ["reduce_sum"]


def test_switches_take_and_give_what_is_needed():
    def f(i, x, y, z):
        return (fg.switch(i, [lambda x, y, z: (x, y), lambda x, y, z: (x * 2, z)], x, y, z)[0],)

    arrays = [np.int64(1), np.ones(2), np.ones(3), np.ones(3)]
    [switch] = passes.run(graph_of(f, arrays)).eqns
    assert (len(switch.inputs), len(switch.outputs)) == (2, 1)
    graph = passes.run(graph_of(lambda x: (fg.switch(1, [np.sin, np.cos], x),), [np.ones(2)]))
    assert names(graph) == ["cos"]  # an index that is known


def test_unused_carries_of_a_while_loop_go():
    def f(x, y):
        def step(s):
            n, v, w, fixed = s
            return n + 1, v * fixed, w + v, fixed

        return (fg.while_loop(lambda s: s[0] < 3, step, (0, x, x, y))[1],)

    graph = same_numbers(graph_of(f, [np.ones(3), np.ones(3)]))
    [loop] = graph.eqns
    assert len(loop.outputs) == 2


def test_cotangents_of_slices_are_concatenated():
    graph = passes.run(vjp(graph_of(lambda x: tuple(np.split(x, 3)), [np.ones(6)])))
    assert names(graph).count("concatenate") == 1 and "pad" not in names(graph)
    graph = passes.run(vjp(graph_of(lambda x: (x[:2], x[3:]), [np.ones(6)])))  # with a gap
    assert "concatenate" not in names(graph)


def kept_bytes(graph: Graph) -> int:
    """Bytes of every value that a graph computes, and of the largest of its bodies' values."""
    work = [e for e in graph.eqns if not isinstance(e.prim.kernel, View)]
    own = sum(v.aval.nbytes for e in work for v in e.outputs)
    return own + max((kept_bytes(g) for e in graph.eqns for g in subgraphs(e)), default=0)


@pytest.mark.parametrize("length", [10_000, 10_050])
def test_limited_memory_is_limited(length: int):
    """A 14-wide cell over many steps: what is kept with ``checkpoint_every=100``, beside what is kept without."""

    def f(w, h, xs, every=None):
        cell = lambda h, x: (np.tanh(h @ w + x), None)  # noqa: E731
        return (fg.scan(cell, h, xs, checkpoint_every=every)[0].sum(),)

    arrays = [np.ones((14, 14)), np.ones((1, 14)), np.ones((length, 1, 14))]
    full, limited = (
        kept_bytes(passes.run(autodiff.vjp(graph_of(lambda *a, e=e: f(*a, every=e), arrays), [0, 1])))
        for e in (None, 100)
    )
    assert limited < 0.15 * full


def test_the_same_body_is_rewritten_once():
    graph = graph_of(lambda x: (fg.scan(lambda c, v: (np.exp(c + v), c), 0.0, x)[0],), [np.ones(3)])
    body = scans(graph)[0].params["body"]
    assert passes.run(body) is passes.run(body)
    assert passes.run(passes.run(body)) is passes.run(body)


def test_a_carry_of_products_and_plain_sums_leaves_in_two_turns():
    """Its products go first; the sum that is left goes next, and the products begin with it."""

    def f(a, xs):
        def step(c, x):
            return c + np.outer(x, a * x) @ np.outer(x, x) + x[:, None] * a, None

        return (fg.scan(step, np.outer(a, a), xs)[0],)

    def g(a, xs):
        def step(c, x):
            return c + x[0] @ x[1] + x[0], x[0]

        return fg.scan(step, np.outer(a, a), (xs, xs * 2))

    arrays = [np.array([0.5, -1.0]), np.arange(6.0).reshape(3, 2)]
    same_numbers(graph_of(f, arrays))
    graph = same_numbers(graph_of(g, [arrays[0], np.arange(12.0).reshape(3, 2, 2)]))
    assert not scans(graph) and "reduce_sum" in names(graph) and "matmul" in names(graph)


@pytest.mark.parametrize("derive", [fg.grad, fg.hessian])
def test_numbers_in_a_recomputed_body_stay(derive):
    """What checkpoint computes again waits for a cotangent, but is not linear in it: 1 + c * c keeps its 1."""

    def body(c, x):
        return c / (1 + c * c) + x, 2.0 + c * x

    def f(step):
        def loss(c, xs):
            last, ys = fg.scan(step, c, xs)
            chosen = fg.cond(xs[0] > 0, lambda c: step(c, c)[0], lambda c: c, last)
            return last * chosen + (ys * ys).sum()

        return loss

    args = np.array(0.7), np.array([0.5, -0.2, 0.9])
    kept = derive(f(body), argnums=(0, 1), backend="numpy")(*args)
    anew = derive(f(fg.checkpoint(body)), argnums=(0, 1), backend="numpy")(*args)
    for a, b in zip(pytree.flatten(kept)[0], pytree.flatten(anew)[0], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-12)


def test_a_product_gathered_from_what_a_gathered_result_stacks() -> None:
    """The gradient by ``d`` is one product of stacks, of which ``y @ d``, a result that left the loop, is made first."""
    rng = np.random.default_rng(0)
    s0, c, d = (rng.standard_normal((5, 5)) for _ in range(3))
    ys = rng.standard_normal((3, 5, 5))

    def f(d):  # type: ignore[no-untyped-def]
        return fg.scan(lambda s, y: (np.tanh(s + c @ (y @ d)), s.sum()), s0, ys)[0].sum()

    gradient, eps = fg.jit(fg.grad(f))(d), 1e-6
    for place in ((0, 0), (2, 3), (4, 1)):
        step = np.zeros((5, 5))
        step[place] = eps
        np.testing.assert_allclose(
            gradient[place], (f(d + step) - f(d - step)) / (2 * eps), rtol=1e-5, atol=1e-8
        )
