"""Class attention against a reference of a few lines, and against timm's CaiT block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.cait import LayerScaleBlockClassAttn
from torch import Tensor, nn

from specvit.comparators.class_attention.settings import ClassAttention
from specvit.comparators.class_attention.trunk import ClassAttentionBlock
from specvit.models.config import VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit

SCALE = Scale(width=16, depth=3, num_heads=2)


def shaken(module: nn.Module) -> nn.Module:
    """Draw all parameters, so that no bias is 0 and no norm the identity."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module.double()


def reference(block: ClassAttentionBlock, cls: Tensor, patches: Tensor, *, heads: int) -> Tensor:
    """Update [CLS], image by image and head by head."""
    out = []
    for c, p in zip(cls, patches, strict=True):
        u = F.layer_norm(torch.cat([c, p]), (16,), block.norm1.weight, block.norm1.bias, 1e-6)
        q, k, v = block.attn.q(u[0]), block.attn.k(u), block.attn.v(u)
        mixed = [
            torch.softmax((k[:, h] @ q[h]) / len(q[h]) ** 0.5, dim=0) @ v[:, h]
            for h in torch.arange(16).view(heads, -1)
        ]
        c = c + block.attn.proj(torch.cat(mixed))
        n = F.layer_norm(c, (16,), block.norm2.weight, block.norm2.bias, 1e-6)
        out.append(c + block.mlp.fc2(F.gelu(block.mlp.fc1(n))))
    return torch.stack(out)


def test_trunk_equals_blocks_on_patches_then_class_attention_on_cls() -> None:
    model = shaken(ClassAttention().build(build_vit(
        VitConfig(SCALE, image_size=16, patch_size=4),
    ), seed=0))
    x = torch.randn(2, 17, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    cls, patches = x[:, :1], x[:, 1:]
    for index in range(3):
        patches = model.get_submodule(f"blocks.{index}")(patches)
    for index in range(2):
        cls = reference(model.get_submodule(f"blocks.class_attention.{index}"), cls, patches, heads=2)
    torch.testing.assert_close(model.blocks(x), torch.cat([cls, patches], dim=1))


def test_patches_do_not_see_cls() -> None:
    model = ClassAttention().build(build_vit(VitConfig(SCALE, image_size=16, patch_size=4)), seed=0)
    x = torch.randn(2, 17, 16)
    other = torch.cat([x[:, :1] + 1, x[:, 1:]], dim=1)
    assert torch.equal(model.blocks(x)[:, 1:], model.blocks(other)[:, 1:])
    assert not torch.equal(model.blocks(x)[:, 0], model.blocks(other)[:, 0])


def test_block_with_layer_scales_equals_timms() -> None:
    ours = ClassAttentionBlock(16, num_heads=2, eps=1e-5, layer_scale=0.1)
    timms = LayerScaleBlockClassAttn(16, num_heads=2, qkv_bias=True, init_values=0.1)
    state = {k.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v for k, v in ours.state_dict().items()}
    timms.load_state_dict(state)
    cls, patches = torch.randn(2, 1, 16), torch.randn(2, 5, 16)
    torch.testing.assert_close(ours(cls, patches), timms(patches, cls))
