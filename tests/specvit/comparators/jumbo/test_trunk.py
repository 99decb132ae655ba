"""Jumbo's blocks against a reference of a few lines."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from specvit.comparators.jumbo.settings import Jumbo
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit

SCALE = Scale(width=16, depth=3, num_heads=2)
J = 3


def test_trunk_equals_slots_apart_in_attention_and_joined_in_the_mlp() -> None:
    plain = build_vit(VitConfig(SCALE, image_size=16, patch_size=4, layer_scale=0.3))
    model = Jumbo(slots=J, mlp_ratio=2.0).build(plain, seed=0).double()
    trunk = model.blocks
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 17, 16, dtype=torch.float64, generator=generator)

    tokens = torch.cat([x[:, 0].unsqueeze(1) + trunk.slot_token[0], x[:, 1:]], dim=1)
    for index in range(3):
        block = model.get_submodule(f"blocks.{index}")
        tokens = tokens + block.ls1.gamma * block.attn(block.norm1(tokens))
        wide = tokens[:, :J].reshape(2, J * 16)
        norm = F.layer_norm(wide, (J * 16,), block.jumbo_norm.weight, block.jumbo_norm.bias, 1e-6)
        hidden = F.gelu(trunk.jumbo_mlp.fc1(norm))
        assert hidden.shape == (2, 2 * J * 16)
        wide = wide + block.jumbo_scale.gamma * trunk.jumbo_mlp.fc2(hidden)
        patches = tokens[:, J:] + block.ls2.gamma * block.mlp(block.norm2(tokens[:, J:]))
        tokens = torch.cat([wide.reshape(2, J, 16), patches], dim=1)
    expected = torch.cat([tokens[:, :J].mean(dim=1, keepdim=True), tokens[:, J:]], dim=1)
    torch.testing.assert_close(trunk(x), expected)


def test_slots_start_near_cls_and_apart() -> None:
    trunk = Jumbo().build(build_vit(VitConfig(SCALE, image_size=16, patch_size=4)), seed=0).blocks
    slots = trunk.slot_token[0].detach()
    assert slots.shape == (6, 16)
    assert 0.01 < slots.std() < 0.03  # std 0.02
    assert torch.cdist(slots, slots).fill_diagonal_(1).min() > 0


def test_one_slot_without_its_mlp_and_noise_is_attention_alone() -> None:
    plain = build_vit(VitConfig(SCALE, image_size=16, patch_size=4))
    trunk = Jumbo(slots=1).build(plain, seed=0).blocks
    with torch.no_grad():
        trunk.slot_token.zero_()
        trunk.jumbo_mlp.fc2.weight.zero_()
    x = torch.randn(2, 17, 16)
    block = trunk.get_submodule("0")
    attended = x + block.attn(block.norm1(x))
    torch.testing.assert_close(trunk._block(block, x)[:, 0], attended[:, 0])
    torch.testing.assert_close(trunk._block(block, x)[:, 1:], block(x)[:, 1:])
