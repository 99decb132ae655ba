"""timm's attention: with a learned key and value in every head, and its weights computed again to be looked at.

Shapes: B images, N tokens, D channels; h heads of d channels.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from torch import Tensor, nn

from specvit.device import full_precision
from specvit.errors import ConfigError

ATTENTION_BIAS_STD = 0.02


class SplitAttention(Attention):
    """timm's attention, to the last bit, with a cheaper backward: see ``split_heads``."""

    def __init__(self, plain: Attention) -> None:
        """Take over the modules of timm's attention."""
        nn.Module.__init__(self)
        take_over(self, plain)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map ``(B, N, D)`` to ``(B, N, D)``."""
        if not self.fused_attn or self.gate is not None:
            return super().forward(x, attn_mask, is_causal)
        q, k, v = split_heads(self, self.qkv(x))
        dropout = self.attn_drop.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(
            q, k, v, attn_mask=attn_mask, dropout_p=dropout, is_causal=is_causal
        )
        return merge_heads(self, attended)


class BiasedAttention(Attention):
    """Attention to the tokens, and in every head to one learned key and value that is always there.

    ``softmax(Q [K; k']^T / sqrt(d)) [V; v']``.

    Source: Sun et al. 2024, "Massive Activations in Large Language Models" (arXiv 2402.17762), section 3.3.
    """

    def __init__(self, plain: Attention) -> None:
        """Take over the modules of timm's attention; the keys and values are drawn from N(0, 0.02).

        Raises:
            ConfigError: If that attention has a gate.
        """
        if plain.gate is not None:
            raise ConfigError("attention_bias does not work with a gated attention")
        nn.Module.__init__(self)
        take_over(self, plain)
        weight = plain.qkv.weight
        self.key_bias = nn.Parameter(weight.new_empty(self.num_heads, 1, self.head_dim))
        self.value_bias = nn.Parameter(weight.new_empty(self.num_heads, 1, self.head_dim))
        for parameter in (self.key_bias, self.value_bias):
            nn.init.normal_(parameter, std=ATTENTION_BIAS_STD)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map ``(B, N, D)`` to ``(B, N, D)``; masks are not supported."""
        if attn_mask is not None or is_causal:
            raise ConfigError("attention_bias does not work with attention masks")
        q, k, v = split_heads(self, self.qkv(x))
        keys, values = (
            torch.cat([bias.to(own.dtype).expand(len(x), -1, -1, -1), own], dim=2)
            for bias, own in ((self.key_bias, k), (self.value_bias, v))
        )
        dropout = self.attn_drop.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, keys, values, dropout_p=dropout)
        return merge_heads(self, attended)


def take_over(attention: Attention, plain: Attention) -> None:
    """Let an attention without modules have those of another, and its settings."""
    for name in ("num_heads", "head_dim", "attn_dim", "scale", "fused_attn"):
        setattr(attention, name, getattr(plain, name))
    for name, module in plain.named_children():
        setattr(attention, name, module)
    if plain.gate is None:
        attention.gate = None


def split_heads(attention: Attention, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split what ``attention.qkv`` made, ``(B, N, 3 h d)``, into q, k and v ``(B, h, N, d)``, q and k normed.

    Cut along the channels, their gradients join in one copy; timm's axis of three costs two.
    """
    q, k, v = (
        part.view(*qkv.shape[:2], attention.num_heads, attention.head_dim).transpose(1, 2)
        for part in torch.split(qkv, attention.attn_dim, dim=-1)
    )
    return attention.q_norm(q), attention.k_norm(k), v


def merge_heads(attention: Attention, attended: Tensor) -> Tensor:
    """Map what the heads read, ``(B, h, N, d)``, to ``(B, N, D)``."""
    merged = attended.transpose(1, 2).reshape(len(attended), -1, attention.attn_dim)
    mapped: Tensor = attention.proj_drop(attention.proj(attention.norm(merged)))
    return mapped


def key_bias_of(attention: Attention) -> Tensor | None:
    """Return the key ``(h, 1, d)`` that is always there, or None."""
    return cast(Tensor, attention.key_bias) if isinstance(attention, BiasedAttention) else None


def attention_weights(q: Tensor, k: Tensor, *, scale: float, key_bias: Tensor | None = None) -> Tensor:
    """Compute the weights of an attention, in float32.

    Args:
        q: ``(B, h, N, d)`` queries.
        k: ``(B, h, N, d)`` keys.
        scale: What the products of queries and keys are multiplied by.
        key_bias: ``(h, 1, d)`` a key that is always there besides the tokens'; None = there is none.

    Returns:
        ``(B, h, N, N)``, or with a key that is always there ``(B, h, N, N + 1)``, its weight last.
    """
    queries, keys = q.float(), k.float()
    if key_bias is not None:
        keys = torch.cat([keys, key_bias.float().expand(len(keys), -1, -1, -1)], dim=2)
    with full_precision(q):
        return (queries * scale @ keys.transpose(-2, -1)).softmax(dim=-1)
