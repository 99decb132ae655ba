"""Layers with two sets of weights: one for [CLS], one for all other tokens.

Shapes: B images, N tokens with [CLS] first, D channels in, E channels out.

Every row goes through the shared weights, then the one [CLS] row of each image is corrected: a few rows more
than the plain layer computes, and no split and concatenation of the sequence. A linear layer adds the
difference of the two weights, which is exactly zero as long as they are equal, so that an arm that starts
from copies computes the baseline's function to the last bit. The shared weights keep the names of the plain
layer, so that a plain model's weights load unchanged.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class RoutedLinear(nn.Linear):
    """Apply own weights to [CLS] and shared weights to all other tokens: ``(B, N, D) -> (B, N, E)``."""

    cls_bias: nn.Parameter | None

    def __init__(self, shared: nn.Linear, own: nn.Linear) -> None:
        """Take over ``shared``'s parameters and start the [CLS] weights as a copy of ``own``'s."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = shared.in_features, shared.out_features
        self.weight, self.bias = shared.weight, shared.bias
        self.cls_weight = nn.Parameter(own.weight.detach().clone())
        self.cls_bias = None if own.bias is None else nn.Parameter(own.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, N, D)`` to ``(B, N, E)``."""
        y = F.linear(x, self.weight, self.bias)
        bias = None if self.bias is None or self.cls_bias is None else self.cls_bias - self.bias
        y[:, 0] += F.linear(x[:, 0], self.cls_weight - self.weight, bias)
        return y


class RoutedLayerNorm(nn.LayerNorm):
    """Scale and shift [CLS] by its own weights, all other tokens by shared ones: ``(B, N, D) -> (B, N, D)``."""

    def __init__(self, shared: nn.LayerNorm, own: nn.LayerNorm) -> None:
        """Take over ``shared``'s parameters and start the [CLS] weights as a copy of ``own``'s."""
        nn.Module.__init__(self)
        self.normalized_shape, self.eps = shared.normalized_shape, shared.eps
        self.elementwise_affine = shared.elementwise_affine
        self.weight, self.bias = shared.weight, shared.bias
        self.cls_weight = nn.Parameter(own.weight.detach().clone())
        self.cls_bias = nn.Parameter(own.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, N, D)`` over its channels."""
        y = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        y[:, 0] = F.layer_norm(x[:, 0], self.normalized_shape, self.cls_weight, self.cls_bias, self.eps)
        return y


def route(shared: nn.Module, own: nn.Module) -> nn.Module:
    """Make the two-kinds version of a layer.

    Args:
        shared: The plain layer; its parameters become those of all tokens but [CLS].
        own: A layer of the same shape whose values the [CLS] weights start from.

    Raises:
        TypeError: If there is no two-kinds version of this type of layer.
    """
    if isinstance(shared, nn.Linear) and isinstance(own, nn.Linear):
        return RoutedLinear(shared, own)
    if isinstance(shared, nn.LayerNorm) and isinstance(own, nn.LayerNorm):
        return RoutedLayerNorm(shared, own)
    raise TypeError(f"no two-kinds version of {type(shared).__name__}")


def routed_parameters(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that only [CLS] uses, by name."""
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if name.rpartition(".")[2] in ("cls_weight", "cls_bias")
    }
