"""The reusable parts of a training program, without training."""

import numpy as np
import pytest

from fastgrad.train import accuracy, confusion_matrix, evaluate, init_mlp, throughput


def test_init_mlp_has_he_scale_zero_biases_and_a_seed():
    params = init_mlp([400, 300, 10], seed=1)
    assert [layer["w"].shape for layer in params] == [(400, 300), (300, 10)]
    assert all(layer["w"].dtype == layer["b"].dtype == np.float32 for layer in params)
    assert params[0]["w"].std() == pytest.approx(np.sqrt(2 / 400), rel=0.02)
    assert not params[0]["b"].any()
    assert np.array_equal(params[1]["w"], init_mlp([400, 300, 10], seed=1)[1]["w"])
    assert not np.array_equal(params[1]["w"], init_mlp([400, 300, 10], seed=2)[1]["w"])


def test_both_precisions_start_at_the_same_point():
    single, double = init_mlp([5, 3], 7), init_mlp([5, 3], 7, np.float64)
    assert double[0]["w"].dtype == np.float64
    assert np.array_equal(single[0]["w"], double[0]["w"].astype(np.float32))


@pytest.mark.parametrize("sizes", [[], [3], [3, 0]])
def test_init_mlp_refuses_sizes(sizes):
    with pytest.raises(ValueError, match="two or more positive integers"):
        init_mlp(sizes)


def test_confusion_matrix_counts_true_by_predicted():
    found = confusion_matrix(np.array([0, 1, 1, 2]), np.array([0, 1, 0, 2]), 3)
    assert found.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_wrong_labels_and_shapes_raise():
    with pytest.raises(ValueError, match=r"must lie in 0..1, got 0..2"):
        confusion_matrix(np.array([0, 2]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="confusion_matrix"):
        confusion_matrix(np.array([0, 1]), np.array([0]), 2)
    with pytest.raises(ValueError, match="accuracy"):
        accuracy(np.array([], int), np.array([], int))


def test_evaluate_takes_the_greatest_logit():
    found = evaluate(
        lambda params, x: x @ params, np.eye(2), np.array([[1.0, 0], [3, 2], [0, 1]]), np.array([0, 1, 1]), 2
    )
    assert found.accuracy == pytest.approx(2 / 3) and found.confusion.tolist() == [[1, 0], [1, 1]]


class CountingStep:
    """Stands for a TrainStep: notes the sizes that `run` was given."""

    def __init__(self):
        self.sizes = []

    def run(self, x, y, *, batch_size, epochs, shuffle):
        assert len(x) == len(y) and epochs == 1
        self.sizes.append(len(x))
        return np.zeros(-(-len(x) // batch_size))


@pytest.mark.parametrize(
    ("rows", "measured"), [(10, 10), (1600, 1600), (60_001, 49 * 32 + 1), (64_000, 49 * 32)]
)
def test_throughput_runs_few_batches_and_keeps_the_short_one(rows, measured):
    step = CountingStep()
    found = throughput(step, np.zeros((rows, 1)), np.zeros(rows), 32, seed=0, seconds=0)
    assert step.sizes == [measured] * 4
    assert found.steps_per_s > 0 and found.compile_s >= 0
