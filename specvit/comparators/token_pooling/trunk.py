"""Pooling of tokens by weighted k-medoids. Settings, source, deviations: ``settings`` beside this.

Shapes: B images, N tokens, R of them the prefix, P patches, K medoids, D channels.
"""

from __future__ import annotations

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from specvit.models.attention import attention_weights, key_bias_of, split_heads
from specvit.models.patches import take
from specvit.models.trunk import Trunk


class TokenPoolingTrunk(Trunk):
    """Some blocks on all tokens, the rest on the prefix and the medoids of the patches."""

    def __init__(self, plain: VisionTransformer, *, num_before: int, keep: float, iterations: int) -> None:
        super().__init__(plain)
        self.num_before = num_before
        self.keep = keep
        self.iterations = iterations

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(B, N, D)`` to tokens ``(B, N, D)``; patches of one medoid come out equal."""
        blocks = self.plain_blocks()
        for block in blocks[: self.num_before - 1]:
            x = block(x)
        last = blocks[self.num_before - 1]
        weights = attention_received(last.attn, last.norm1(x))[:, self.num_prefix :]
        x = last(x)
        prefix, patches = x[:, : self.num_prefix], x[:, self.num_prefix :]
        num_kept = max(1, int(self.keep * patches.shape[1] + 0.5))
        medoids, assigned = weighted_k_medoids(patches, weights, num_kept, iterations=self.iterations)
        x = torch.cat([prefix, take(patches, medoids)], dim=1)
        for block in blocks[self.num_before :]:
            x = block(x)
        return torch.cat([x[:, : self.num_prefix], take(x[:, self.num_prefix :], assigned)], dim=1)


@torch.no_grad()
def attention_received(attention: Attention, x: Tensor) -> Tensor:
    """Compute how much attention each token receives, a mean over heads and over all tokens that attend.

    Args:
        attention: timm's attention, or ``BiasedAttention``, whose learned key takes its share too.
        x: ``(B, N, D)`` the tokens as the attention gets them.

    Returns:
        ``(B, N)`` float32; without a learned key each row sums to 1.
    """
    q, k, _ = split_heads(attention, attention.qkv(x))
    weights = attention_weights(q, k, scale=attention.scale, key_bias=key_bias_of(attention))
    return weights[..., : x.shape[1]].mean(dim=(1, 2))


@torch.no_grad()
def weighted_k_medoids(
    tokens: Tensor, weights: Tensor, num_medoids: int, *, iterations: int
) -> tuple[Tensor, Tensor]:
    """Choose the tokens that best stand for all, by Lloyd's iterations from the tokens of largest weight.

    The cost is the sum over tokens of weight times squared distance to the nearest medoid; a round assigns
    each token to its nearest medoid, then makes that member the medoid of a cluster that costs least.

    Args:
        tokens: ``(B, P, D)``.
        weights: ``(B, P)`` not negative.
        num_medoids: K, from 1 to P.
        iterations: Rounds.

    Returns:
        ``(B, K)`` int64 the medoids' positions, rising, and ``(B, P)`` int64 which medoid (0 to K - 1) each
        token belongs to; a medoid belongs to itself.

    Source: Marin et al. 2021, section 4.
    """
    # Not by way of inner products, whose rounding would part a token from its equals.
    x = tokens.float()
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    medoids = weights.topk(num_medoids, dim=1).indices.sort(dim=1).values
    for _ in range(iterations):
        assigned = _assign(distances, medoids)
        same = assigned.unsqueeze(2) == assigned.unsqueeze(1)
        cost = (weights.unsqueeze(2) * distances * same).sum(dim=1)
        members = assigned.unsqueeze(1) == torch.arange(num_medoids, device=x.device).view(1, -1, 1)
        medoids = cost.unsqueeze(1).masked_fill(~members, torch.inf).argmin(dim=2).sort(dim=1).values
    return medoids, _assign(distances, medoids)


def _assign(distances: Tensor, medoids: Tensor) -> Tensor:
    """Return the number of each token's nearest medoid: ``(B, P, P)``, ``(B, K)`` -> ``(B, P)``."""
    num_tokens, num_medoids = distances.shape[1], medoids.shape[1]
    to_medoids = distances.gather(2, medoids.unsqueeze(1).expand(-1, num_tokens, -1))
    own = torch.arange(num_medoids, device=medoids.device).expand_as(medoids)
    # Of two equal medoids both keep themselves, so that no cluster is ever empty.
    return to_medoids.argmin(dim=2).scatter(1, medoids, own)
