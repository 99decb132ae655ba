"""timm's attention with a learned key and value in every head."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from torch import Tensor, nn

from specvit.errors import ConfigError

ATTENTION_BIAS_STD = 0.02


class BiasedAttention(Attention):
    """Attend to the tokens, and in every head to one learned key and value that is always there.

    ``softmax(Q [K; k']^T / sqrt(d)) [V; v']``.

    Source: Sun et al. 2024, "Massive Activations in Large Language Models" (arXiv 2402.17762), section 3.3.
    """

    def __init__(self, plain: Attention) -> None:
        """Take over the modules of timm's attention; the keys and values are drawn from N(0, 0.02)."""
        nn.Module.__init__(self)
        for name in ("num_heads", "head_dim", "attn_dim", "scale", "fused_attn"):
            setattr(self, name, getattr(plain, name))
        for name, module in plain.named_children():
            setattr(self, name, module)
        weight = plain.qkv.weight
        self.key_bias = nn.Parameter(weight.new_empty(self.num_heads, 1, self.head_dim))
        self.value_bias = nn.Parameter(weight.new_empty(self.num_heads, 1, self.head_dim))
        for parameter in (self.key_bias, self.value_bias):
            nn.init.normal_(parameter, std=ATTENTION_BIAS_STD)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map ``(B, N, D)`` to ``(B, N, D)``; masks are not supported."""
        if attn_mask is not None or is_causal:
            raise ConfigError("attention_bias does not work with attention masks")
        num_images, num_tokens, _ = x.shape
        qkv = self.qkv(x).reshape(num_images, num_tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        keys, values = (
            torch.cat([bias.to(own.dtype).expand(num_images, -1, -1, -1), own], dim=2)
            for bias, own in ((self.key_bias, k), (self.value_bias, v))
        )
        dropout = self.attn_drop.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, keys, values, dropout_p=dropout)
        projected: Any = self.proj(attended.transpose(1, 2).reshape(num_images, num_tokens, self.attn_dim))
        mapped: Tensor = self.proj_drop(projected)
        return mapped
