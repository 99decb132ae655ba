"""DeiT-III's learner: augmentation, mixing, loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from specvit.augment import blur_matrix
from specvit.learners import deit3
from specvit.learners.base import Batch
from specvit.learners.deit3 import DeiT3Learner, mix, simple_crops, three_augment
from specvit.objectives.deit3 import DeiT3Cpu
from specvit.scales import Scale
from specvit.specialization import parse_specialization
from specvit.vit import build_vit

SCALE = Scale(width=16, depth=2, num_heads=2)
C = 4


class Draws:
    """Stand in for a NumPy generator: each kind of draw returns what was given to it."""

    def __init__(self, *, random: float = 0.0, beta: float = 0.5, integers: tuple[int, ...] = ()) -> None:
        self._random, self._beta, self._integers = random, beta, list(integers)
        self.alphas: list[tuple[float, float]] = []

    def random(self) -> float:
        return self._random

    def beta(self, a: float, b: float) -> float:
        self.alphas.append((a, b))
        return self._beta

    def integers(self, _high: int) -> int:
        return self._integers.pop(0)


def _learner(text: str = "none", **changes: Any) -> DeiT3Learner:
    recipe = DeiT3Cpu(**changes)
    backbone = build_vit(
        SCALE,
        image_size=16,
        patch_size=4,
        specialization=parse_specialization(text, SCALE.depth),
        layer_scale=recipe.layer_scale,
        cls_position=recipe.cls_position,
    )
    return DeiT3Learner(backbone, recipe, num_classes=C, seed=0)


def _batch(*, step: int = 0, labels: bool = True) -> Batch:
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return Batch(
        images=images, labels=torch.tensor([0, 1, 2, 3, 0, 1]) if labels else None, step=step, steps=10, seed=0
    )


def _one_hot(*labels: int) -> Tensor:
    return torch.eye(C)[list(labels)]


def _mix(images: Tensor, targets: Tensor, draws: Draws, *, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    return mix(images, targets, mixup=mixup, cutmix=cutmix, rng=draws)  # type: ignore[arg-type]


def test_mixup_takes_the_drawn_share_of_each_image_and_the_rest_of_its_mirror() -> None:
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    draws = Draws(beta=0.75)
    mixed, targets = _mix(images, _one_hot(0, 1, 2), draws, mixup=0.8, cutmix=0.0)
    assert draws.alphas == [(0.8, 0.8)]
    # Images 0, 1, 2 with mirrors 2, 1, 0.
    assert mixed[:, 0, 0, 0].tolist() == [0.5, 1.0, 1.5]
    assert targets.tolist() == [[0.75, 0, 0.25, 0], [0, 1, 0, 0], [0.25, 0, 0.75, 0]]


def test_cutmix_pastes_a_box_of_the_mirror_and_counts_its_pixels() -> None:
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    before = images.clone()
    # A share of 3/4 gives a box of half the side: 4 x 4 around row 4, column 3, so rows 2 to 5, columns 1 to 4.
    draws = Draws(beta=0.75, integers=(4, 3))
    mixed, targets = _mix(images, _one_hot(0, 1), draws, mixup=0.0, cutmix=1.0)
    expected = torch.zeros(8, 8)
    expected[2:6, 1:5] = 1.0
    assert torch.equal(mixed[0], expected.expand(3, 8, 8))
    assert torch.equal(mixed[1], 1 - expected.expand(3, 8, 8))
    assert targets.tolist() == [[0.75, 0.25, 0, 0], [0.25, 0.75, 0, 0]]
    assert torch.equal(images, before)


def test_cutmix_at_the_border_counts_what_is_left_of_its_box() -> None:
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    # The same box around the corner (0, 0): 2 x 2 pixels are left of it, 4 of 64.
    mixed, targets = _mix(images, _one_hot(0, 1), Draws(beta=0.75, integers=(0, 0)), mixup=0.0, cutmix=1.0)
    assert mixed[0, 0].sum() == 4
    assert targets[0].tolist() == [1 - 4 / 64, 4 / 64, 0, 0]


@pytest.mark.parametrize(("drawn", "alpha"), [(0.49, 1.0), (0.51, 0.8)])
def test_with_both_on_a_coin_decides_for_cutmix_or_mixup(drawn: float, alpha: float) -> None:
    draws = Draws(random=drawn, integers=(4, 4))
    _mix(torch.rand(2, 3, 8, 8), _one_hot(0, 1), draws, mixup=0.8, cutmix=1.0)
    assert draws.alphas == [(alpha, alpha)]


def test_with_both_off_nothing_is_mixed() -> None:
    images, targets = torch.rand(2, 3, 8, 8), _one_hot(0, 1)
    mixed, same = mix(images, targets, mixup=0.0, cutmix=0.0, rng=np.random.default_rng(0))
    assert torch.equal(mixed, images)
    assert torch.equal(same, targets)


def test_mixed_targets_are_the_shares_of_pixels_whatever_is_drawn() -> None:
    images = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    for seed in range(50):
        mixed, targets = mix(images, _one_hot(0, 1), mixup=0.8, cutmix=1.0, rng=np.random.default_rng(seed))
        # The first image is 0 and its mirror is 1: the mean pixel is the mirror's share.
        assert float(mixed[0].mean()) == pytest.approx(float(targets[0, 1]), abs=1e-5)
        assert float(targets[0].sum()) == pytest.approx(1.0)


def test_the_loss_is_binary_cross_entropy_on_every_class_present_in_the_mix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = _learner()
    logits = torch.linspace(-2, 2, 6 * C).view(6, C)
    monkeypatch.setattr(learner.head, "forward", lambda _: logits)
    shares = 0.3 * _one_hot(0, 1, 2, 3, 0, 1) + 0.7 * _one_hot(1, 0, 3, 2, 1, 0)
    monkeypatch.setattr(deit3, "mix", lambda images, _, **__: (images, shares))
    terms = []
    for logit, share in zip(logits.flatten().tolist(), shares.flatten().tolist(), strict=True):
        probability = 1 / (1 + math.exp(-logit))
        terms.append(-math.log(probability if share > 0 else 1 - probability))
    losses = learner.losses(_batch())
    assert set(losses) == {"bce"}
    assert float(losses["bce"]) == pytest.approx(sum(terms) / len(terms), rel=1e-6)


def test_a_label_that_was_mixed_out_entirely_does_not_count_as_present(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = _learner(mixup=0.0)
    logits = torch.zeros(6, C)
    logits[:, 0] = 30.0  # certain of class 0, which is in the labels of images 0 and 4 alone
    monkeypatch.setattr(learner.head, "forward", lambda _: logits)
    # A share of 1 leaves no pixel of the mirror.
    monkeypatch.setattr(deit3, "numpy_stream", lambda *_: Draws(beta=1.0, integers=(4, 4)))
    # Four images without class 0 lose 30 each; every other logit is 0 and loses log 2.
    expected = (4 * 30.0 + 18 * math.log(2)) / (6 * C)
    assert float(learner.losses(_batch())["bce"]) == pytest.approx(expected, rel=1e-6)


def test_a_batch_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="labels"):
        _learner().losses(_batch(labels=False))


def test_each_image_gets_exactly_one_of_grey_solarisation_and_blur(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(300, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    # One sigma for all: 224 / 12 px of 224 are 1 px of 12.
    monkeypatch.setattr(deit3.ColourSettings, "blur_sigma", (224 / 12, 224 / 12))
    augmented = three_augment(images, generator=torch.Generator().manual_seed(0))
    blur = blur_matrix(torch.ones(1), size=12)
    outcomes = (tv.rgb_to_grayscale(images, 3), tv.solarize(images, 0.5), blur @ images @ blur.transpose(1, 2))
    # torchvision's grey is darker by up to 1e-4.
    matches = torch.stack([(augmented - outcome).abs().flatten(1).amax(1) < 2e-4 for outcome in outcomes])
    assert (matches.sum(0) == 1).all()
    for count in matches.sum(1).tolist():
        assert 70 <= count <= 130  # of 300, at one third: 3.7 standard deviations to either side


def test_the_blur_of_three_augment_is_the_published_one() -> None:
    # Radius 0.1 to 2 px, on images of 224 px.
    assert deit3.ColourSettings.blur_sigma == (0.1, 2.0)


def test_simple_crops_are_shifts_of_the_reflected_image_flipped_or_not() -> None:
    images = torch.rand(40, 3, 10, 12, generator=torch.Generator().manual_seed(0))
    crops = simple_crops(images, padding=4, generator=torch.Generator().manual_seed(0))
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
    learner = _learner(crop=crop, three_augment=False, colour_jitter=0.0)
    batch = _batch()
    views = learner._augment(batch)
    assert views.shape == batch.images.shape
    assert 0.0 <= float(views.min()) <= float(views.max()) <= 1.0
    simple = simple_crops(batch.images, padding=4, generator=batch.stream("crops"))
    assert torch.allclose(views, simple, atol=1e-5) is (crop == "simple")


def test_arms_of_a_pair_see_equal_images_and_have_equal_losses_from_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Tensor] = []
    normalise = deit3.normalise
    monkeypatch.setattr(deit3, "normalise", lambda images: seen.append(images) or normalise(images))
    losses = [_learner(text).losses(_batch())["bce"] for text in ("none", "norm+qkv+mlp+final_norm")]
    assert torch.equal(*seen)
    assert torch.equal(*losses)
    _learner().losses(_batch(step=1))
    assert not torch.equal(seen[0], seen[2])


def test_the_backbone_that_is_trained_is_the_one_that_is_probed() -> None:
    learner = _learner()
    assert learner.probed is learner.backbone
    learner.losses(_batch())["bce"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters())


def test_the_head_does_not_depend_on_the_specialization() -> None:
    plain, arm = _learner(), _learner("qkv")
    assert torch.equal(plain.head.weight, arm.head.weight)
    assert not plain.head.bias.any()
