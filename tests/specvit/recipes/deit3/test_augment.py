"""DeiT-III's augmentation, and masks that are augmented with their images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as tv

from specvit.recipes.deit3 import augment
from specvit.recipes.deit3.augment import augment_images, augment_masks, mask_crops, simple_crops, three_augment
from specvit.recipes.deit3.settings import DeiT3Cpu
from specvit.training.augment import blur_matrix
from specvit.training.crops import sample_crops
from specvit.training.learner import Batch


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _batch(images: Tensor, masks: Tensor | None = None, *, step: int = 0) -> Batch:
    return Batch(images=images, labels=None, step=step, steps=10, seed=0, masks=masks)


def test_each_image_gets_exactly_one_of_grey_solarisation_and_blur(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(300, 3, 12, 12, generator=_generator())
    # One sigma for all: 224 / 12 px of 224 are 1 px of 12.
    monkeypatch.setattr(augment.ColourSettings, "blur_sigma", (224 / 12, 224 / 12))
    augmented = three_augment(images, generator=_generator())
    blur = blur_matrix(torch.ones(1), size=12)
    outcomes = (tv.rgb_to_grayscale(images, 3), tv.solarize(images, 0.5), blur @ images @ blur.transpose(1, 2))
    # torchvision's grey is darker by up to 1e-4.
    matches = torch.stack([(augmented - outcome).abs().flatten(1).amax(1) < 2e-4 for outcome in outcomes])
    assert (matches.sum(0) == 1).all()
    for count in matches.sum(1).tolist():
        assert 70 <= count <= 130  # of 300, at one third: 3.7 standard deviations to either side


def test_the_blur_of_three_augment_is_the_published_one() -> None:
    # Radius 0.1 to 2 px, on images of 224 px.
    assert augment.ColourSettings.blur_sigma == (0.1, 2.0)


def test_simple_crops_are_shifts_of_the_reflected_image_flipped_or_not() -> None:
    images = torch.rand(40, 3, 10, 12, generator=_generator())
    crops = simple_crops(images, padding=4, generator=_generator())
    assert crops.shape == images.shape
    shifts = []
    for image, crop in zip(images, crops, strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (4, 4), (4, 4)), mode="reflect")
        found = [
            (top, left, flipped)
            for top in range(9)
            for left in range(9)
            for flipped in (False, True)
            if np.array_equal(padded[:, top : top + 10, left : left + 12][..., :: -1 if flipped else 1], crop.numpy())
        ]
        assert len(found) == 1
        shifts += found
    tops, lefts, flips = (np.array(values) for values in zip(*shifts, strict=True))
    assert tops.min() <= 1
    assert tops.max() >= 7
    assert lefts.min() <= 1
    assert lefts.max() >= 7
    assert 8 <= flips.sum() <= 32


@pytest.mark.parametrize("crop", ["resized", "simple"])
def test_the_recipe_chooses_the_crop_and_views_stay_in_range(crop: str) -> None:
    recipe = DeiT3Cpu(crop=crop, three_augment=False, colour_jitter=0.0)
    batch = _batch(torch.rand(6, 3, 16, 16, generator=_generator(1)))
    views = augment_images(batch, recipe)
    assert views.shape == batch.images.shape
    assert 0.0 <= float(views.min()) <= float(views.max()) <= 1.0
    simple = simple_crops(batch.images, padding=4, generator=batch.stream("crops"))
    assert torch.allclose(views, simple, atol=1e-5) is (crop == "simple")


@pytest.mark.parametrize(("height", "width", "size"), [(16, 16, 16), (12, 20, 16), (24, 24, 7)])
def test_mask_crops_are_torchs_exact_nearest_neighbours_of_the_drawn_boxes(height: int, width: int, size: int) -> None:
    masks = torch.randint(0, 256, (20, height, width), generator=_generator(2)).to(torch.uint8)
    crops = mask_crops(masks, size=size, scale=(0.1, 1.0), generator=_generator(3))
    boxes, flipped = sample_crops(
        20, height=height, width=width, scale=(0.1, 1.0), flip_probability=0.5, generator=_generator(3)
    )
    assert crops.dtype == torch.uint8
    assert 4 <= int(flipped.sum()) <= 16
    for mask, (top, left, h, w), flip, crop in zip(masks, boxes.tolist(), flipped.tolist(), crops, strict=True):
        cut = mask[top : top + h, left : left + w].float()[None, None]
        expected = F.interpolate(cut, size=(size, size), mode="nearest-exact")[0, 0]
        assert torch.equal(crop.float(), expected.flip(1) if flip else expected)


def _stripes(num: int, size: int) -> Tensor:
    """Draw masks of 0 with a stripe of 1 in each, across or along; its edges survive resampling, corners would not."""
    rng = np.random.default_rng(0)
    masks = torch.zeros(num, size, size, dtype=torch.uint8)
    for index, mask in enumerate(masks):
        first, length = rng.integers(0, size // 2), rng.integers(size // 4, size // 2)
        (mask if index % 2 else mask.T)[first : first + length] = 1
    return masks


@pytest.mark.parametrize("crop", ["resized", "simple"])
def test_masks_follow_an_image_that_equals_its_mask(crop: str) -> None:
    masks = _stripes(64, 32)
    batch = _batch(masks.float().unsqueeze(1).expand(-1, 3, -1, -1), masks, step=3)
    recipe = DeiT3Cpu(crop=crop, three_augment=False, colour_jitter=0.0)
    images, followed = augment_images(batch, recipe)[:, 0], augment_masks(batch, recipe)
    assert followed.dtype == torch.uint8
    assert not torch.equal(followed, masks)
    # Bicubic edges cross one half where the pixels meet; sharp ones stay sharp in shifts.
    certain = (images - 0.5).abs() > (0.01 if crop == "resized" else -1)
    assert float(certain.float().mean()) > 0.95
    assert torch.equal((images > 0.5)[certain], followed.bool()[certain])
    other_step = _batch(batch.images, masks, step=4)
    assert not torch.equal(augment_masks(other_step, recipe), followed)


@pytest.mark.parametrize("crop", ["resized", "simple"])
def test_masks_keep_every_class_index(crop: str) -> None:
    masks = torch.arange(256, dtype=torch.uint8).view(256, 1, 1).expand(-1, 16, 16)
    followed = augment_masks(_batch(torch.zeros(256, 3, 16, 16), masks), DeiT3Cpu(crop=crop))
    assert torch.equal(followed, masks)


def test_a_batch_without_masks_is_refused() -> None:
    with pytest.raises(ValueError, match="masks"):
        augment_masks(_batch(torch.zeros(2, 3, 16, 16)), DeiT3Cpu())
