"""Attention with a learned key and value against its definition, and timm's."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from timm.layers.attention import Attention
from torch import Tensor, nn

from specvit.errors import ConfigError
from specvit.models.attention import BiasedAttention, SplitAttention, attention_weights, key_bias_of, split_heads
from specvit.models.config import HighNorm, VitConfig
from specvit.models.scales import Scale
from specvit.models.vit import build_vit

WIDTH, HEADS, HEAD = 8, 2, 4


def _attention(**options: object) -> Attention:
    torch.manual_seed(0)
    attention = Attention(WIDTH, num_heads=HEADS, qkv_bias=True, norm_layer=nn.LayerNorm, **options).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
    return attention


def _by_definition(attention: BiasedAttention, x: Tensor) -> Tensor:
    """Compute softmax(Q [K; k']^T / sqrt(d)) [V; v'] head by head and query by query."""
    images = []
    for image in x:
        heads = []
        for head in range(HEADS):
            q, k, v = (attention.qkv(image)[:, part * WIDTH + head * HEAD :][:, :HEAD] for part in range(3))
            q, k = attention.q_norm(q), attention.k_norm(k)
            keys = torch.cat([k, attention.key_bias[head]])
            values = torch.cat([v, attention.value_bias[head]])
            heads.append(torch.stack([torch.softmax(keys @ one / math.sqrt(HEAD), dim=0) @ values for one in q]))
        images.append(attention.proj(attention.norm(torch.cat(heads, dim=-1))))
    return torch.stack(images)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"scale_norm": True}, {"gated": True}])
@pytest.mark.parametrize("causal", [False, True])
def test_split_attention_is_timms_to_the_last_bit(options: dict[str, object], causal: bool) -> None:
    plain = _attention(**options)
    split = SplitAttention(copy.deepcopy(plain))
    results = []
    for attention in (plain, split):
        torch.manual_seed(1)
        x = torch.randn(3, 5, WIDTH, dtype=torch.float64, requires_grad=True)
        y = attention(x, is_causal=causal)
        y.square().sum().backward()
        results.append([y, x.grad, *(parameter.grad for parameter in attention.parameters())])
    assert len(results[0]) == len(results[1]) > 4
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"scale_norm": True}])
def test_attention_with_a_learned_key_and_value_is_its_definition(options: dict[str, object]) -> None:
    attention = BiasedAttention(_attention(**options))
    with torch.no_grad():
        attention.key_bias.normal_()
        attention.value_bias.normal_()
    x = torch.randn(3, 5, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(attention(x), _by_definition(attention, x), rtol=0, atol=1e-12)


def test_with_a_key_that_no_query_likes_it_is_timms_attention() -> None:
    plain = _attention()
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        plain.qkv.bias[:WIDTH] = 50.0  # every query points into the positive octant, far out
        expected = plain(x)
        attention = BiasedAttention(plain)
        attention.key_bias.fill_(-50.0)
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-12)


def test_learned_keys_and_values_start_small_and_are_the_seeds() -> None:
    scale = Scale(width=64, depth=6, num_heads=2)
    one, same, other = (
        build_vit(VitConfig(scale, image_size=16, patch_size=4, high_norm=HighNorm(attention_bias=True)), seed=seed)
        for seed in (0, 0, 1)
    )
    keys = torch.stack([block.attn.key_bias for block in one.blocks])
    assert float(keys.detach().std()) == pytest.approx(0.02, rel=0.15)
    assert torch.equal(one.blocks[0].attn.value_bias, same.blocks[0].attn.value_bias)
    assert not torch.equal(one.blocks[0].attn.value_bias, other.blocks[0].attn.value_bias)
    vanilla = build_vit(VitConfig(scale, image_size=16, patch_size=4), seed=0).state_dict()
    for name, value in vanilla.items():
        assert torch.equal(one.state_dict()[name], value), name


def test_weights_computed_again_are_those_that_the_attention_uses() -> None:
    for attention in (_attention(qk_norm=True), BiasedAttention(_attention(qk_norm=True))):
        x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
        q, k, v = split_heads(attention, attention.qkv(x))
        key_bias = key_bias_of(attention)
        weights = attention_weights(q, k, scale=attention.scale, key_bias=key_bias).double()
        assert (key_bias is not None) == isinstance(attention, BiasedAttention)
        assert weights.shape[-1] == 5 + (key_bias is not None)
        if key_bias is not None:
            v = torch.cat([v, attention.value_bias.expand(2, -1, -1, -1)], dim=2)
        expected = attention.proj((weights @ v).transpose(1, 2).reshape(2, 5, WIDTH))
        torch.testing.assert_close(attention(x), expected, rtol=1e-5, atol=1e-5)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="gated"):
        BiasedAttention(_attention(gated=True))
    attention = BiasedAttention(_attention())
    with pytest.raises(ConfigError, match="masks"):
        attention(torch.zeros(1, 2, WIDTH, dtype=torch.float64), is_causal=True)
