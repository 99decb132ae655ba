"""Frozen features: of a backbone, and of the bare pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from specvit.data import Split
from specvit.device import Device
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit
from specvit.probes import features
from specvit.probes.features import backbone_features, pixel_features, subset
from specvit.training.augment import to_unit

CPU = Device(torch.device("cpu"))
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def _split(num_images: int = 7, size: int = 8) -> Split:
    rng = np.random.default_rng(0)
    return Split(
        images=rng.integers(0, 256, (num_images, 3, size, size), dtype=np.uint8),
        labels=rng.integers(0, 4, num_images),
        masks=rng.integers(0, 3, (num_images, size, size), dtype=np.uint8),
    )


def test_to_unit_maps_bytes_to_zero_to_one() -> None:
    images = np.array([0, 51, 255], dtype=np.uint8).reshape(1, 3, 1, 1)
    unit = to_unit(images, CPU)
    assert unit.dtype is torch.float32
    torch.testing.assert_close(unit.flatten(), torch.tensor([0.0, 0.2, 1.0]))
    assert images.flatten().tolist() == [0, 51, 255]


@pytest.mark.parametrize("training", [True, False])
def test_backbone_features_are_timms_tokens_in_evaluation_mode_whatever_the_batches(
    monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    monkeypatch.setattr(features, "BATCH_SIZE", 3)
    model = build_vit(VitConfig(Scale(16, 2, 2), image_size=8, patch_size=4, drop_path=0.9))
    model.train(training)
    split = _split()
    got = backbone_features(model, split, device=CPU)
    assert model.training is training
    inputs = (split.images / 255 - MEAN[:, None, None]) / STD[:, None, None]
    tokens = model.eval().forward_features(torch.from_numpy(inputs).float()).detach()
    torch.testing.assert_close(got.cls, tokens[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(got.patches, tokens[:, 1:], rtol=0, atol=1e-5)
    assert got.grid == (2, 2)
    np.testing.assert_array_equal(got.labels, split.labels)
    np.testing.assert_array_equal(got.masks, split.masks)


def test_features_of_every_batch_are_written_where_they_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BATCH_SIZE", 3)
    model = build_vit(VitConfig(Scale(16, 2, 2), image_size=8, patch_size=4))
    split = _split()
    got = backbone_features(model, split, device=CPU, num_blocks=2)
    for start in (0, 3, 6):
        part = backbone_features(model, subset(split, np.arange(start, min(start + 3, 7))), device=CPU, num_blocks=2)
        for name in ("cls", "patches", "intermediate_cls"):
            assert torch.equal(getattr(got, name)[start : start + 3], getattr(part, name))
    assert got.intermediate_cls is not None
    assert got.intermediate_cls.shape == (7, 2, 16)


def test_pixel_features_are_each_patchs_pixels_row_by_row() -> None:
    split = _split(num_images=2)
    got = pixel_features(split, patch_size=4)
    assert got.grid == (2, 2)
    np.testing.assert_allclose(got.cls, split.images.reshape(2, -1) / 255, rtol=1e-6)
    for image in range(2):
        for patch in range(4):
            top, left = 4 * (patch // 2), 4 * (patch % 2)
            pixels = split.images[image, :, top : top + 4, left : left + 4].reshape(-1) / 255
            np.testing.assert_allclose(got.patches[image, patch], pixels, rtol=1e-6)


def test_features_of_a_split_without_targets_have_none() -> None:
    got = pixel_features(Split(images=_split().images), patch_size=4)
    assert got.labels is None
    assert got.masks is None
    assert got.boxes is None
    assert got.image_size == (8, 8)
    assert got.depth is None


def test_features_carry_depth_as_it_is() -> None:
    depth = np.array([[[1.5, 0.0], [np.nan, 9.75]]], dtype=np.float16).repeat(4, 1).repeat(4, 2)
    got = pixel_features(Split(images=_split(num_images=1).images, depth=depth), patch_size=4)
    assert got.depth is not None
    assert got.depth.dtype is torch.float16
    np.testing.assert_array_equal(got.depth.numpy(), depth)


def test_a_subset_takes_images_with_their_targets_in_the_order_asked_for() -> None:
    split = _split()
    taken = subset(split, np.array([4, 0]))
    assert taken.targets == split.targets == {"labels", "masks"}
    for name in ("images", "labels", "masks"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(split, name)[[4, 0]])
