"""Images as patches: the order is timm's."""

from __future__ import annotations

import torch
from timm.layers.patch_embed import PatchEmbed

from specvit.patches import patchify, take


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
