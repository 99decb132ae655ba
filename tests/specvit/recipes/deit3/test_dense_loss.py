"""The dense loss against loops over pixels, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from specvit.errors import ConfigError, DataError
from specvit.models.patches import count_pixels
from specvit.recipes.deit3.dense_loss import check_masks, dense_loss, mixed_class_counts
from specvit.training.mixing import Mixing

K = 3


def reference(logits: NDArray[np.float64], masks: NDArray[np.uint8], weights: NDArray[np.float64], patch: int) -> float:
    """Return the weighted mean of -log softmax over pixels; one mask or several may lie on the logits' images."""
    total = norm = 0.0
    for scores, mask, weight in zip(logits, masks, weights, strict=True):
        columns = mask.shape[1] // patch
        for (row, column), label in np.ndenumerate(mask):
            if label != 255:
                z = scores[row // patch * columns + column // patch]
                total += weight * (np.log(np.exp(z).sum()) - z[label])
                norm += weight
    return total / norm


def drawn(num: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw logits ``(N, 4, K)`` of 2 x 2 patches and masks ``(N, 8, 8)``, a fifth of whose pixels is ignored."""
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, K, (num, 8, 8)).astype(np.uint8)
    masks[rng.random(masks.shape) < 0.2] = 255
    return torch.from_numpy(rng.normal(size=(num, 4, K))), torch.from_numpy(masks)


def test_dense_loss_is_the_mean_over_labelled_pixels() -> None:
    logits, masks = drawn(3)
    loss = dense_loss(logits, count_pixels(masks, (4, 4), num_classes=K))
    assert float(loss) == pytest.approx(reference(logits.numpy(), masks.numpy(), np.ones(3), 4), rel=1e-12)


def test_dense_loss_by_cutmix_is_that_of_the_pasted_masks() -> None:
    logits, masks = drawn(2, seed=1)
    counts = mixed_class_counts(masks, Mixing(0.75, (2, 6, 1, 5)), num_classes=K, patch_size=(4, 4))
    pasted = masks.numpy().copy()
    pasted[:, 2:6, 1:5] = masks.numpy()[::-1, 2:6, 1:5]
    expected = reference(logits.numpy(), pasted, np.ones(2), 4)
    assert float(dense_loss(logits, counts)) == pytest.approx(expected, rel=1e-6)


def test_dense_loss_by_mixup_weighs_the_pixels_of_both_masks() -> None:
    logits, masks = drawn(3, seed=2)
    counts = mixed_class_counts(masks, Mixing(0.7), num_classes=K, patch_size=(4, 4))
    both = np.concatenate([masks.numpy(), masks.numpy()[::-1]])
    weights = np.array([0.7] * 3 + [0.3] * 3)
    expected = reference(np.concatenate([logits.numpy()] * 2), both, weights, 4)
    assert float(dense_loss(logits, counts)) == pytest.approx(expected, rel=1e-6)


def test_dense_loss_known_values() -> None:
    masks = torch.full((1, 4, 4), 2, dtype=torch.uint8)
    counts = count_pixels(masks, (4, 4), num_classes=4)
    assert float(dense_loss(torch.zeros(1, 1, 4), counts)) == pytest.approx(math.log(4))
    logits = torch.zeros(1, 1, 4, requires_grad=True)
    nothing = count_pixels(torch.full_like(masks, 255), (4, 4), num_classes=4)
    loss = dense_loss(logits, nothing)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_check_masks_names_the_setting_and_what_is_wrong() -> None:
    masks = np.array([[[0, 2], [255, 1]]], dtype=np.uint8)
    check_masks(masks, num_classes=3, field="objective.dense_weight")
    with pytest.raises(DataError, match=r"objective\.dense_weight: train masks must hold classes in \[0, 2\).*is 2"):
        check_masks(masks, num_classes=2, field="objective.dense_weight")
    with pytest.raises(ConfigError, match=r"objective\.dense_weight: must be 0 .* without masks"):
        check_masks(None, num_classes=3, field="objective.dense_weight")
