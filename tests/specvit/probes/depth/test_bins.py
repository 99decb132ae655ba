import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from specvit.probes.depth.base import Limits
from specvit.probes.depth.bins import (
    BinsFitter,
    expectation,
    log_loss,
    standardisation,
)

from .test_ridge import make_task

METRES = arrays(np.float64, (2, 3, 4), elements=st.floats(0.01, 80.0))
HOLES = arrays(np.bool_, (2, 3, 4))


@given(predictions=METRES, depth=METRES, holes=HOLES.filter(lambda holes: not holes.all()))
def test_log_loss_equals_its_formula_over_measured_pixels(predictions, depth, holes):
    g = np.array([np.log(p) - np.log(d) for p, d, hole in zip(predictions.flat, depth.flat, holes.flat, strict=True)
                  if not hole])  # fmt: skip
    variance = sum((value - sum(g) / len(g)) ** 2 for value in g) / len(g)
    expected = np.sqrt(variance + 0.15 * (sum(g) / len(g)) ** 2)

    truth = torch.tensor(np.where(holes, np.nan, depth))
    loss = log_loss(torch.tensor(predictions), truth)

    assert float(loss) == pytest.approx(max(expected, 1e-6), rel=1e-6, abs=1e-9)


def test_log_loss_forgives_most_of_a_common_factor():
    depth = torch.tensor([[[1.0, 2.0], [4.0, 8.0]]]).double()
    # log 2 everywhere: no variance, sqrt(0.15) log 2.
    assert float(log_loss(2 * depth, depth)) == pytest.approx(np.sqrt(0.15) * np.log(2))


def test_log_loss_of_a_perfect_prediction_has_a_finite_gradient():
    depth = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)) + 1
    predictions = depth.clone().requires_grad_()
    log_loss(predictions, depth).backward()
    assert predictions.grad.isfinite().all()


@given(arrays(np.float64, (3, 5), elements=st.floats(-5, 5)))
def test_expectation_weighs_bins_by_rectified_scores_and_a_floor(scores):
    bins = [1.0, 2.0, 4.0, 7.0, 9.0]
    expected = []
    for row in scores:
        weights = [max(score, 0.0) + 0.1 for score in row]
        expected.append(sum(w * b for w, b in zip(weights, bins, strict=True)) / sum(weights))

    depth = expectation(torch.tensor(scores), torch.tensor(bins).double())

    np.testing.assert_allclose(depth.numpy(), expected, rtol=1e-12)


def test_expectation_without_scores_is_the_middle_of_the_range():
    assert float(expectation(torch.zeros(1, 11), torch.linspace(1.0, 5.0, 11))) == pytest.approx(3.0)


def test_standardisation_equals_numpy_and_marks_constant_features():
    task = make_task(9)
    task.split.patches[..., 2] = 3.25
    images = torch.tensor([1, 4, 8])
    mean, scale = standardisation(task, images)
    tokens = task.split.patches[images].flatten(0, 1).double().numpy()
    np.testing.assert_allclose(mean.numpy(), tokens.mean(0), rtol=1e-6)
    assert scale[2] == torch.inf
    kept = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(scale.numpy()[kept], tokens.std(0)[kept], rtol=1e-5)


def fit(task, lrs, *, seed=0, steps=80):
    fitter = BinsFitter(task, Limits(0.5, 9.0), seed=seed, num_bins=32, steps=steps, batch_size=4)
    return fitter.fit(torch.arange(len(task.split)), lrs)


def test_a_head_does_not_depend_on_the_heads_trained_beside_it():
    task = make_task(8)
    tokens = task.tokens(torch.arange(8))
    beside = list(fit(task, (1e-3, 0.1)).on_grid(tokens))
    for i, lr in enumerate((1e-3, 0.1)):
        (alone,) = fit(task, (lr,)).on_grid(tokens)
        torch.testing.assert_close(alone, beside[i], rtol=0, atol=0)


def test_training_lowers_the_loss_and_the_seed_decides_the_head():
    task = make_task(8)
    tokens = task.tokens(torch.arange(8))
    truth = task.depth.float()

    def loss(estimator):
        (on_grid,) = estimator.on_grid(tokens)
        return float(log_loss(on_grid.view(8, 3, 2).repeat_interleave(4, 1).repeat_interleave(4, 2), truth))

    assert loss(fit(task, (0.1,))) < 0.97 * loss(fit(task, (1e-9,)))
    assert loss(fit(task, (0.1,), seed=1)) != loss(fit(task, (0.1,), seed=2))


def test_depth_lies_within_the_limits():
    task = make_task(8)
    (on_grid,) = fit(task, (0.1,)).on_grid(1e4 * task.tokens(torch.arange(8)))
    assert on_grid.min() >= 0.5
    assert on_grid.max() <= 9.0
    assert not on_grid.requires_grad


def test_scores_of_all_bins_are_counted_as_numbers_of_a_token():
    fitter = BinsFitter(make_task(4), Limits(1.0, 9.0), seed=0, num_bins=37, steps=1, batch_size=2)
    assert fitter.fit(torch.arange(4), [0.1]).values_per_token == 37
