"""The projection head of DINO and iBOT, and a backbone with its heads."""

from __future__ import annotations

import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


class DinoHead(nn.Module):
    """Project tokens to prototypes: a 3-layer GELU MLP, L2 normalisation, unit-length prototypes.

    Source: dinov2 layers/dino_head.py. Deviation: the prototypes are normalised in the forward pass in place
    of torch's weight norm with its gain fixed at 1, which computes the same. There the gain is trained from 1 on;
    DINO fixes it, for stability (main_dino.py, ``norm_last_layer``).
    """

    def __init__(self, width: int, *, hidden: int, bottleneck: int, num_prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Linear(bottleneck, num_prototypes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., D)`` tokens to ``(..., K)`` cosines with the prototypes."""
        x = F.normalize(self.mlp(x), dim=-1)
        return F.linear(x, F.normalize(self.prototypes.weight, dim=-1))


class DinoNetwork(nn.Module):
    """Hold a backbone with its heads for [CLS] and for patches, which may be one and the same."""

    def __init__(self, backbone: VisionTransformer, *, cls_head: DinoHead, patch_head: DinoHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.cls_head = cls_head
        self.patch_head = patch_head
