"""The losses of DINOv2 against loops in float64 that follow their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from specvit.recipes.dinov2 import losses
from specvit.recipes.dinov2.losses import (
    Centre,
    cross_entropy,
    dino_loss,
    ibot_loss,
    koleo_loss,
    koleo_of_part,
    sinkhorn,
)

B, K, D, TEMPERATURE = 5, 7, 6, 0.1


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _slow_cross_entropy(targets: Tensor, logits: Tensor) -> float:
    scores = [math.exp(float(z) / TEMPERATURE) for z in logits]
    return -sum(float(t) * math.log(s / sum(scores)) for t, s in zip(targets, scores, strict=True))


def test_cross_entropy_of_rows_equals_the_definition() -> None:
    targets, logits = _randn(3, 4, K).softmax(-1), _randn(3, 4, K, seed=1)
    got = cross_entropy(targets, logits, temperature=TEMPERATURE)
    assert got.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            assert float(got[i, j]) == pytest.approx(_slow_cross_entropy(targets[i, j], logits[i, j]), rel=1e-9)


@pytest.mark.parametrize("num_locals", [0, 1, 4])
def test_dino_loss_is_the_mean_over_all_pairs_of_different_views(num_locals: int) -> None:
    targets, logits = _randn(2, B, K).softmax(-1), _randn(2 + num_locals, B, K, seed=1)
    pairs = [(t, s) for t in range(2) for s in range(2 + num_locals) if s != t]
    assert len(pairs) == 2 + 2 * num_locals
    terms = [_slow_cross_entropy(targets[t, i], logits[s, i]) for t, s in pairs for i in range(B)]
    got = dino_loss(targets, logits[:2], logits[2:], temperature=TEMPERATURE)
    assert float(got) == pytest.approx(sum(terms) / len(terms), rel=1e-9)


def test_ibot_loss_is_the_mean_over_the_masked_patches_of_each_crop_over_all_crops() -> None:
    counts = [3, 0, 1, 2, 0]  # masked patches of each crop
    targets, logits = _randn(sum(counts), K).softmax(-1), _randn(sum(counts), K, seed=1)
    weights = torch.tensor([1 / count for count in counts for _ in range(count)], dtype=torch.float64)
    expected, row = 0.0, 0
    for count in counts:
        rows = range(row, row + count)
        if count:
            expected += sum(_slow_cross_entropy(targets[r], logits[r]) for r in rows) / count / len(counts)
        row += count
    got = ibot_loss(targets, logits, weights=weights, num_crops=len(counts), temperature=TEMPERATURE)
    assert float(got) == pytest.approx(expected, rel=1e-9)


def test_koleo_loss_is_minus_the_mean_log_distance_to_the_nearest_neighbour() -> None:
    features = _randn(8, D)
    unit = [row / row.norm() for row in features]
    logs = [
        math.log(min(float((unit[i] - unit[j]).norm()) for j in range(8) if j != i) + 1e-8) for i in range(8)
    ]
    # Computed in float32.
    assert float(koleo_loss(features)) == pytest.approx(-sum(logs) / 8, rel=1e-5)


def test_koleo_loss_does_not_depend_on_the_length_of_features_and_pushes_neighbours_apart() -> None:
    features = torch.tensor([[1.0, 0.0], [0.98, 0.2], [-1.0, 0.1]], requires_grad=True)
    assert float(koleo_loss(7 * features).detach()) == pytest.approx(float(koleo_loss(features).detach()), rel=1e-5)
    koleo_loss(features).backward()
    assert features.grad is not None
    moved = (features - 0.01 * features.grad).detach()
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(moved[0], moved[1], dim=0) < cosine(features[0], features[1], dim=0)


def test_koleo_loss_of_two_equal_images_is_finite() -> None:
    assert math.isfinite(float(koleo_loss(torch.ones(2, 4))))


def test_koleo_with_a_radius_bounds_its_gradient_where_the_published_form_has_none() -> None:
    radius = 0.05
    for distance in (1e-5, radius, 0.5):
        angle = 2 * math.asin(distance / 2)
        points = [[1.0, 0.0], [math.cos(angle), math.sin(angle)]]
        features = torch.tensor(points, dtype=torch.float64, requires_grad=True)
        loss = koleo_loss(features, radius=radius)
        assert float(loss.detach()) == pytest.approx(-0.5 * math.log(distance**2 + radius**2), rel=1e-4)
        loss.backward()
        assert features.grad is not None
        # Each point's neighbour is the other: the slope of the mean over both, d / (d^2 + r^2), is that of each.
        slope = distance / (distance**2 + radius**2) * math.sqrt(1 - distance**2 / 4)
        assert float(features.grad[1].norm()) == pytest.approx(slope, rel=1e-2)
        assert float(features.grad[1].norm()) <= 1 / (2 * radius)
    near = torch.tensor([[1.0, 0.0], [1.0, 1e-4]], requires_grad=True)
    koleo_loss(near).backward()
    assert near.grad is not None
    assert float(near.grad.norm()) > 1e3


def test_koleo_of_parts_takes_the_radius_along() -> None:
    everyone = _randn(6, D).float()
    whole = koleo_loss(everyone, radius=0.3)
    part = koleo_of_part(everyone[2:4].clone().requires_grad_(), everyone, slice(2, 4), radius=0.3)
    assert float(part.detach()) == pytest.approx(float(whole), rel=1e-5)


def _slow_sinkhorn(logits: Tensor, *, iterations: int) -> Tensor:
    """The published definition: Q is prototypes x samples; scale its rows to 1/K, its columns to 1/B, in turn."""
    q = torch.exp(logits.double() / TEMPERATURE).T
    q /= q.sum()
    num_prototypes, num_samples = q.shape
    for _ in range(iterations):
        q = q / q.sum(dim=1, keepdim=True) / num_prototypes
        q = q / q.sum(dim=0, keepdim=True) / num_samples
    return (q * num_samples).T


def test_sinkhorn_equals_three_iterations_of_its_definition_and_rows_sum_to_one() -> None:
    logits = 0.3 * _randn(12, K)
    got = sinkhorn(logits, temperature=TEMPERATURE)
    torch.testing.assert_close(got.double(), _slow_sinkhorn(logits, iterations=3), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.sum(1), torch.ones(12))


def test_sinkhorn_iterated_to_its_end_uses_all_prototypes_equally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "SINKHORN_ITERATIONS", 300)
    got = sinkhorn(0.3 * _randn(14, K), temperature=TEMPERATURE)
    torch.testing.assert_close(got.sum(1), torch.ones(14), rtol=1e-4, atol=0)
    torch.testing.assert_close(got.sum(0), torch.full((K,), 14 / K), rtol=1e-3, atol=0)


def test_sinkhorn_of_values_whose_exponential_overflows_equals_its_definition_in_float64() -> None:
    logits = torch.linspace(-1, 10, 42).view(6, 7).sin() * 10  # exp(10 / 0.1) is beyond float32
    got = sinkhorn(logits, temperature=TEMPERATURE)
    assert torch.exp(logits / TEMPERATURE).isinf().any()
    torch.testing.assert_close(got.double(), _slow_sinkhorn(logits, iterations=3), rtol=1e-3, atol=1e-6)


def test_sinkhorn_of_cosines_at_the_coldest_temperature_stays_finite_and_normalised() -> None:
    cosines = torch.tensor([[1.0, -1.0, -1.0], [1.0, -1.0, -0.9], [0.9, -1.0, -1.0]])
    got = sinkhorn(cosines, temperature=0.04)
    assert got.isfinite().all()
    torch.testing.assert_close(got.sum(1), torch.ones(3))


def test_centre_is_a_running_mean_that_is_taken_off_before_it_moves() -> None:
    centre = Centre(2)
    first, second = torch.tensor([[1.0, 3.0], [3.0, 5.0]]), torch.tensor([[0.0, 1.0]])
    # The first time nothing is taken off: softmax of a difference of 2 at temperature 2.
    share = 1 / (1 + math.exp(-1))
    torch.testing.assert_close(centre(first, temperature=2.0), torch.tensor([[1 - share, share]] * 2))
    centre.move(centre.sum_of(first), num_rows=2)
    torch.testing.assert_close(centre.centre, torch.tensor([0.2, 0.4]))  # 0.1 x the means 2 and 4
    share = 1 / (1 + math.exp(-(1 - 0.2) / 2))  # differences of 1, less those of the centre
    torch.testing.assert_close(centre(second, temperature=2.0), torch.tensor([[1 - share, share]]))
    centre.move(centre.sum_of(second), num_rows=1)
    torch.testing.assert_close(centre.centre, torch.tensor([0.18, 0.46]))  # 0.9 x before + 0.1 x (0, 1)


def test_without_a_masked_patch_there_are_no_targets_and_the_centre_stays() -> None:
    centre = Centre(3)
    centre.move(torch.ones(3), num_rows=2)
    before = centre.centre.clone()
    assert before.any()
    assert centre(torch.empty(0, 3), temperature=1.0).shape == (0, 3)
    centre.move(centre.sum_of(torch.empty(0, 3)), num_rows=0)
    assert torch.equal(centre.centre, before)
    assert sinkhorn(torch.empty(0, 3), temperature=1.0).shape == (0, 3)
