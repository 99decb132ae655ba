"""Statistics of tokens and of attention, one value an image: tensors in, tensors out.

Shapes: B images, N tokens = [CLS], R registers, P patches; D channels; h heads of d channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from specvit.models.attention import attention_weights

RANK_ME_EPS = 1e-7

_ATTENTION_CHUNK = 1 << 24
"""Attention weights held at a time, so that large images do not fill the memory."""


def cls_patch_cosine(tokens: Tensor, *, num_prefix: int) -> Tensor:
    """Average the cosine between [CLS] and each patch.

    Args:
        tokens: ``(B, N, D)`` float32.
        num_prefix: 1 + R, the tokens before the patches; N is above it.

    Returns:
        ``(B,)`` float64 in [-1, 1].
    """
    unit = F.normalize(tokens, dim=-1)
    return (unit[:, 0].double() * unit[:, num_prefix:].mean(dim=1, dtype=torch.float64)).sum(dim=-1)


def patch_patch_cosine(patches: Tensor) -> Tensor:
    """Average the cosine between two different patches of an image, over all pairs.

    In closed form, without the P x P cosines: the squared norm of the sum of the unit vectors holds every
    pair twice, and every vector with itself once.

    Args:
        patches: ``(B, P, D)`` float32, P of 2 or more.

    Returns:
        ``(B,)`` float64 in [-1, 1].
    """
    num_patches = patches.shape[1]
    unit = F.normalize(patches, dim=-1)
    pairs_and_selves = unit.sum(dim=1, dtype=torch.float64).square().sum(dim=-1)
    selves = unit.square().sum(dim=(1, 2), dtype=torch.float64)
    return (pairs_and_selves - selves) / (num_patches * (num_patches - 1))


def attention_shares(q: Tensor, k: Tensor, *, num_prefix: int, scale: float, key_bias: Tensor | None = None) -> Tensor:
    """Compute how much attention [CLS] and the patches pay to each kind of token in total.

    Args:
        q: ``(B, h, N, d)`` queries.
        k: ``(B, h, N, d)`` keys.
        num_prefix: 1 + R, the tokens before the patches.
        scale: What the products of queries and keys are multiplied by.
        key_bias: ``(h, 1, d)`` a key that is always there besides the tokens'; None = there is none.

    Returns:
        ``(B, 2, 4)`` float64: from [CLS], and from a patch on average; to [CLS], to all registers, to all
        patches, and to the extra key. Means over the heads; the four sum to 1.
    """
    num_images, num_heads, num_tokens, _ = q.shape
    at_once = max(1, _ATTENTION_CHUNK // (num_heads * num_tokens**2))
    shares = []
    for start in range(0, num_images, at_once):
        queries, keys = (x[start : start + at_once] for x in (q, k))
        weights = attention_weights(queries, keys, scale=scale, key_bias=key_bias)
        ends = (0, 1, num_prefix, num_tokens, weights.shape[-1])
        by_kind = torch.stack(
            [weights[..., a:b].sum(dim=-1, dtype=torch.float64) for a, b in pairwise(ends)], dim=-1
        ).mean(dim=1)
        shares.append(torch.stack([by_kind[:, 0], by_kind[:, num_prefix:].mean(dim=1)], dim=1))
    return torch.cat(shares)


def rank_me(singular_values: Tensor) -> float:
    """Compute RankMe, a smooth rank: the exponential of the entropy of the normalised singular values.

    It tells a collapsed representation from one that is not. It says nothing about which of two sound
    representations is better for dense tasks: over many models its rank correlation with dense quality is
    about -0.1 (arXiv 2510.17299).

    Args:
        singular_values: ``(K,)`` at least 0, of a matrix of features.

    Returns:
        From about 1 (one direction holds everything) to K; 0 if all singular values are 0.

    Source: Garrido et al. 2023, "RankMe" (arXiv 2210.02885), section 3.1, with their epsilon.
    """
    total = singular_values.sum()
    if total == 0:
        return 0.0
    shares = singular_values.double() / total.double() + RANK_ME_EPS
    return float(torch.exp(-(shares * shares.log()).sum()))
