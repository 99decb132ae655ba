"""The projection head of DINO and iBOT, and a backbone with its heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

JOINT_FROM = 8192
"""Prototypes from which a shared head takes [CLS] and patches in one call. To normalise that many, forward and
backward, is a large part of a call; with fewer, one call gains nothing that could be measured, and would add up
in another order, so that trials that have been run would get other numbers in their last digits."""


class DinoHead(nn.Module):
    """A projection of tokens to prototypes: a 3-layer GELU MLP, L2 normalisation, unit-length prototypes.

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
        return F.linear(self.embed(x), self.unit_prototypes())

    def embed(self, x: Tensor) -> Tensor:
        """Map ``(..., D)`` tokens to the bottleneck, at length 1; cosines with the prototypes are one product away."""
        return F.normalize(self.mlp(x), dim=-1)

    def unit_prototypes(self) -> Tensor:
        """Return the prototypes at length 1: ``(K, bottleneck)``."""
        return F.normalize(self.prototypes.weight, dim=-1)


class DinoNetwork(nn.Module):
    """A backbone with its heads for [CLS] and for patches, which may be one and the same."""

    def __init__(self, backbone: VisionTransformer, *, cls_head: DinoHead, patch_head: DinoHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.cls_head = cls_head
        self.patch_head = patch_head

    def project(self, cls: list[Tensor], patches: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the outputs of the heads.

        Args:
            cls: ``(V B, D)`` [CLS] of so many views, encoding by encoding.
            patches: ``(M, D)``.

        Returns:
            ``(sum of V B, K)`` and ``(M, K)``.
        """
        if self.cls_head is self.patch_head and self.cls_head.prototypes.out_features >= JOINT_FROM:
            num_cls = sum(map(len, cls))
            logits = self.cls_head(torch.cat([*cls, patches]))
            return logits[:num_cls], logits[num_cls:]
        return torch.cat([self.cls_head(views) for views in cls]), self.patch_head(patches)
