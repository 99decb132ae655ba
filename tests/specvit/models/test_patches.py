"""Images as patches: the order is timm's."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.patch_embed import PatchEmbed

from specvit.models.patches import count_pixels, patchify, take


def test_patches_have_the_order_of_timms_patch_embedding() -> None:
    embed = PatchEmbed(img_size=(8, 12), patch_size=(4, 2), in_chans=3, embed_dim=5).double()
    images = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    patches = patchify(images, (4, 2))
    assert patches.shape == (2, 12, 24)
    by_hand = patches @ embed.proj.weight.flatten(1).T + embed.proj.bias
    torch.testing.assert_close(by_hand, embed(images), rtol=0, atol=1e-12)


def test_take_follows_the_positions_of_each_image() -> None:
    tokens = torch.arange(12.0).view(2, 3, 2)
    taken = take(tokens, torch.tensor([[2, 0], [1, 1]]))
    assert taken.tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]


def test_pixels_of_a_mask_counted_by_hand() -> None:
    mask = torch.tensor([[0, 0, 1, 255], [0, 2, 255, 255], [1, 1, 2, 2], [1, 1, 2, 0]], dtype=torch.uint8)
    counts = count_pixels(mask.unsqueeze(0), (2, 2), num_classes=3)
    assert counts.tolist() == [[[3, 0, 1], [0, 1, 0], [0, 4, 0], [1, 0, 3]]]
    wide = count_pixels(mask.unsqueeze(0), (4, 1), num_classes=3)
    assert wide.tolist() == [[[2, 2, 0], [1, 2, 1], [0, 1, 2], [1, 0, 1]]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(1, 1), (2, 4), (8, 8)]))
def test_pixels_are_those_of_bincount(seed: int, patch_size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, 3, (2, 8, 8)).astype(np.uint8)
    masks[rng.random(masks.shape) < 0.2] = 255
    counts = count_pixels(torch.from_numpy(masks), patch_size, num_classes=3)
    height, width = patch_size
    for image, mask in enumerate(masks):
        for patch in range(64 // (height * width)):
            row, column = divmod(patch, 8 // width)
            tile = mask[row * height : (row + 1) * height, column * width : (column + 1) * width]
            assert counts[image, patch].tolist() == np.bincount(tile[tile != 255], minlength=3).tolist()
