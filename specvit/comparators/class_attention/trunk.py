"""CaiT's class attention. Settings, source and deviations: ``specvit.comparators.class_attention.settings``."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.layer_scale import LayerScale
from timm.layers.mlp import Mlp
from timm.models.cait import ClassAttn
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.models.parameter_counts import MLP_RATIO
from specvit.models.trunk import Trunk, layer_scale_init, norm_eps
from specvit.models.vit import init_linear


class ClassAttentionBlock(nn.Module):
    """A block that updates [CLS] from all tokens: q from [CLS], k and v from [CLS] and patches, then its MLP."""

    def __init__(self, width: int, *, num_heads: int, eps: float, layer_scale: float) -> None:
        """Draw a block.

        Args:
            width: D.
            num_heads: Heads of the attention.
            eps: Of the norms.
            layer_scale: Initial value of the layer scales; 0 = none.
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = ClassAttn(width, num_heads=num_heads, qkv_bias=True)
        self.ls1 = LayerScale(width, init_values=layer_scale) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden_features=MLP_RATIO * width)
        self.ls2 = LayerScale(width, init_values=layer_scale) if layer_scale else nn.Identity()
        init_linear(self)

    def forward(self, cls: Tensor, others: Tensor) -> Tensor:
        """Return [CLS] updated: ``(B, 1, D)`` and ``(B, N - 1, D)`` -> ``(B, 1, D)``."""
        cls = cls + self.ls1(self.attn(self.norm1(torch.cat([cls, others], dim=1))))
        updated: Tensor = cls + self.ls2(self.mlp(self.norm2(cls)))
        return updated


class ClassAttentionTrunk(Trunk):
    """The plain blocks on all tokens but [CLS], then the class-attention blocks on [CLS]."""

    def __init__(self, plain: VisionTransformer, *, num_blocks: int) -> None:
        super().__init__(plain)
        first: Any = plain.blocks[0]
        layer_scale = layer_scale_init(plain)
        self.class_attention = nn.ModuleList(
            ClassAttentionBlock(
                plain.embed_dim,
                num_heads=first.attn.num_heads,
                eps=norm_eps(plain),
                layer_scale=layer_scale,
            )
            for _ in range(num_blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(B, N, D)`` to tokens ``(B, N, D)``."""
        cls, others = x[:, :1], x[:, 1:]
        for block in self.plain_blocks():
            others = block(others)
        for block in self.class_attention:
            cls = block(cls, others)
        return torch.cat([cls, others], dim=1)

    def cls_sources(self) -> list[nn.Module]:
        """Return the class-attention blocks; before them [CLS] is the same for all images."""
        return list(self.class_attention)
