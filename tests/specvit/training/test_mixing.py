"""Mixing a batch with its mirror: pixels, shares, and the classes of patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from specvit.training.mixing import Mixing, sample_mixing

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


def _one_hot(*labels: int) -> Tensor:
    return torch.eye(C)[list(labels)]


def _sample(draws: Draws, *, mixup: float, cutmix: float, size: tuple[int, int] = (8, 8)) -> Mixing:
    return sample_mixing(size, mixup=mixup, cutmix=cutmix, rng=draws)  # type: ignore[arg-type]


def test_mixup_takes_the_drawn_share_of_each_image_and_the_rest_of_its_mirror() -> None:
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    draws = Draws(beta=0.75)
    mixing = _sample(draws, mixup=0.8, cutmix=0.0)
    assert draws.alphas == [(0.8, 0.8)]
    # Images 0, 1, 2 with mirrors 2, 1, 0.
    assert mixing.images(images)[:, 0, 0, 0].tolist() == [0.5, 1.0, 1.5]
    assert mixing.blend(_one_hot(0, 1, 2)).tolist() == [[0.75, 0, 0.25, 0], [0, 1, 0, 0], [0.25, 0, 0.75, 0]]
    assert mixing.paste(images) is images


def test_cutmix_pastes_a_box_of_the_mirror_and_counts_its_pixels() -> None:
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    before = images.clone()
    # A share of 3/4 gives a box of half the side: 4 x 4 around row 4, column 3, so rows 2 to 5, columns 1 to 4.
    mixing = _sample(Draws(beta=0.75, integers=(4, 3)), mixup=0.0, cutmix=1.0)
    assert mixing == Mixing(0.75, (2, 6, 1, 5))
    expected = torch.zeros(8, 8)
    expected[2:6, 1:5] = 1.0
    mixed = mixing.images(images)
    assert torch.equal(mixed[0], expected.expand(3, 8, 8))
    assert torch.equal(mixed[1], 1 - expected.expand(3, 8, 8))
    assert mixing.blend(_one_hot(0, 1)).tolist() == [[0.75, 0.25, 0, 0], [0.25, 0.75, 0, 0]]
    assert torch.equal(images, before)


def test_cutmix_pastes_the_same_box_of_masks() -> None:
    masks = torch.arange(2 * 64, dtype=torch.uint8).view(2, 8, 8)
    mixed = Mixing(0.75, (2, 6, 1, 5)).paste(masks)
    for row in range(8):
        for column in range(8):
            inside = 2 <= row < 6 and 1 <= column < 5
            assert mixed[:, row, column].tolist() == (masks.flip(0) if inside else masks)[:, row, column].tolist()


def test_cutmix_at_the_border_counts_what_is_left_of_its_box() -> None:
    # The same box around the corner (0, 0): 2 x 2 pixels are left of it, 4 of 64.
    mixing = _sample(Draws(beta=0.75, integers=(0, 0)), mixup=0.0, cutmix=1.0)
    assert mixing == Mixing(1 - 4 / 64, (0, 2, 0, 2))


@pytest.mark.parametrize(("drawn", "alpha"), [(0.49, 1.0), (0.51, 0.8)])
def test_with_both_on_a_coin_decides_for_cutmix_or_mixup(drawn: float, alpha: float) -> None:
    draws = Draws(random=drawn, integers=(4, 4))
    mixing = _sample(draws, mixup=0.8, cutmix=1.0)
    assert draws.alphas == [(alpha, alpha)]
    assert (mixing.box is None) is (alpha == 0.8)


def test_with_both_off_nothing_is_mixed() -> None:
    images, targets = torch.rand(2, 3, 8, 8), _one_hot(0, 1)
    mixing = sample_mixing((8, 8), mixup=0.0, cutmix=0.0, rng=np.random.default_rng(0))
    assert mixing == Mixing()
    assert torch.equal(mixing.images(images), images)
    assert torch.equal(mixing.blend(targets), targets)


def test_mixed_targets_are_the_shares_of_pixels_whatever_is_drawn() -> None:
    images = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    for seed in range(50):
        mixing = sample_mixing((16, 16), mixup=0.8, cutmix=1.0, rng=np.random.default_rng(seed))
        targets, mixed = mixing.blend(_one_hot(0, 1)), mixing.images(images)
        # The first image is 0 and its mirror is 1: the mean pixel is the mirror's share.
        assert float(mixed[0].mean()) == pytest.approx(float(targets[0, 1]), abs=1e-5)
        assert float(targets[0].sum()) == pytest.approx(1.0)
        labels = mixing.patch_labels(torch.tensor([0, 1]), size=(16, 16), patch_size=(4, 4))
        # And so it is patch by patch.
        patches = mixed[0, 0].unfold(0, 4, 4).unfold(1, 4, 4).mean(dim=(2, 3)).flatten()
        torch.testing.assert_close(1 - labels.share, patches, rtol=0, atol=1e-5)


def test_patch_labels_by_cutmix_are_those_of_the_pixels() -> None:
    # Patches of 4 x 2 px: rows 2 to 5 are half of each patch, columns 1 to 4 half of the first, all of the
    # second, half of the third pair of columns.
    labels = Mixing(0.75, (2, 6, 1, 5)).patch_labels(torch.tensor([3, 0, 2]), size=(8, 8), patch_size=(4, 2))
    assert labels.own.tolist() == [3, 0, 2]
    assert labels.other.tolist() == [2, 0, 3]
    assert labels.share.tolist() == [0.75, 0.5, 0.75, 1.0] * 2


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_patch_labels_by_mixup_are_the_shares_of_the_images(share: float) -> None:
    labels = Mixing(share).patch_labels(torch.tensor([3, 0]), size=(8, 8), patch_size=(4, 4))
    assert labels.share.tolist() == [share] * 4
