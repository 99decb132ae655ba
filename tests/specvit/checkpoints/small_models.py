"""Small models of ours and of timm's, with weights that differ from those they were built with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.models.config import BACKBONE_OPTIONS, VitConfig, parse_high_norm
from specvit.models.routed_layers import own_parameters
from specvit.models.scales import Scale
from specvit.models.vit import build_vit

SCALE = Scale(width=16, depth=3, num_heads=2)
EVERYTHING = "norm+qkv(gate)+proj(lora:2)+mlp@last-half+final_norm"


def build(text: str = "none", *, high_norm: str = "vanilla", **settings: Any) -> VisionTransformer:
    options, build_options = (
        {name: settings.pop(name) for name in names if name in settings}
        for names in (("num_classes", "global_pool", "norm_layer"), ("seed", "init", "pretrained"))
    )
    config = VitConfig(
        SCALE,
        **({"image_size": 16, "patch_size": 4} | settings),
        specialization=text,
        high_norm=parse_high_norm(high_norm),
        options={**BACKBONE_OPTIONS, **options},
    )
    return build_vit(config, **build_options).eval()


def timm_vit(**settings: Any) -> VisionTransformer:
    """Build timm's own model of the same scale, with a head, from weights of its own."""
    torch.manual_seed(9)
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 5}
    model = VisionTransformer(**(shape | settings))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value), alpha=0.05)
    return model.eval()


def shake(model: VisionTransformer) -> VisionTransformer:
    torch.manual_seed(2)
    with torch.no_grad():
        for value in own_parameters(model).values():
            value.add_(torch.randn_like(value), alpha=0.1)
    return model


def images(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def write(model: nn.Module, path: Path) -> Path:
    save_file(model.state_dict(), path)
    return path
