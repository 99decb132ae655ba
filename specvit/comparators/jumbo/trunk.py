"""Jumbo's global token. Settings, source and deviations: ``specvit.comparators.jumbo.settings``.

Shapes: B images, N tokens, D channels, J slots.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.layer_scale import LayerScale
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.models.trunk import Trunk, layer_scale_init, norm_eps
from specvit.models.vit import INIT_STD, init_linear


class JumboTrunk(Trunk):
    """The blocks with J slots in the place of [CLS]; the mean of the slots is returned as [CLS].

    The norm and the layer scale of the global token belong to their block, so that the optimizer treats them
    as it treats the block's other vectors.
    """

    def __init__(self, plain: VisionTransformer, *, slots: int, hidden: int) -> None:
        super().__init__(plain)
        wide, layer_scale = slots * plain.embed_dim, layer_scale_init(plain)
        self.slots = slots
        self.slot_token = nn.Parameter(torch.empty(1, slots, plain.embed_dim))
        nn.init.trunc_normal_(self.slot_token, std=INIT_STD)
        self.jumbo_mlp = Mlp(wide, hidden_features=hidden)
        init_linear(self.jumbo_mlp)
        # Each gets what would be handed on as [CLS] after its block.
        self.means = nn.ModuleList(nn.Identity() for _ in range(self.depth))
        for block in self.plain_blocks():
            block.jumbo_norm = nn.LayerNorm(wide, eps=norm_eps(plain))
            block.jumbo_scale = LayerScale(wide, init_values=layer_scale) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(B, N, D)`` to tokens ``(B, N, D)``."""
        x = torch.cat([x[:, :1] + self.slot_token, x[:, 1:]], dim=1)
        cls = x[:, :1]
        for block, mean in zip(self.plain_blocks(), self.means, strict=True):
            x = self._block(block, x)
            cls = mean(x[:, : self.slots].mean(dim=1, keepdim=True))
        return torch.cat([cls, x[:, self.slots :]], dim=1)

    def cls_sources(self) -> list[nn.Module]:
        """Return what passes on the mean of the slots after each block."""
        return list(self.means)

    def _block(self, block: Any, x: Tensor) -> Tensor:
        """Run a block on slots and other tokens: ``(B, J + N - 1, D)`` -> the same."""
        x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x))))
        slots, others = x[:, : self.slots], x[:, self.slots :]
        wide = slots.flatten(1)
        wide = wide + block.drop_path2(block.jumbo_scale(self.jumbo_mlp(block.jumbo_norm(wide))))
        others = others + block.drop_path2(block.ls2(block.mlp(block.norm2(others))))
        return torch.cat([wide.view_as(slots), others], dim=1)
