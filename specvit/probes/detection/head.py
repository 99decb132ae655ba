"""The head: from frozen patch tokens to a class, a box and its expected fit for every cell.

Legend: B images, P cells = patches, D channels of a token, C channels of the head, K classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PRIOR = 0.01
"""Probability of every class before the first step, as the focal loss wants it."""


class Predictions(NamedTuple):
    """The predictions of the head for every cell.

    Attributes:
        classes: ``(B, P, K)`` logits.
        codes: ``(B, P, 4)`` boxes as ``Cells.encode`` writes them.
        fit: ``(B, P)`` logits of the IoU that the box will have with the object.
    """

    classes: Tensor
    codes: Tensor
    fit: Tensor


class DetectionHead(nn.Module):
    """Predict objects on the patch grid: standardised channels, 1x1 convolution, then one 3x3 convolution a branch.

    Source: FCOS (Tian et al., arXiv 2006.09214): one branch for classes, one for boxes, which also tells how
    good they are. Deviations: one convolution a branch instead of four, and no pyramid: the grid is all there is;
    channels are standardised (``standardise``), then scaled and shifted as learnt. A norm of every token by itself
    would take away how bright a patch of raw pixels is, and put the floor of the probe too low.

    Args:
        dim: D.
        num_classes: K.
        grid: Patches per column and per row.
        width: C.
        generator: Draws the initial weights; the global generators are left alone.
    """

    def __init__(
        self, dim: int, *, num_classes: int, grid: tuple[int, int], width: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.grid = grid
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.norm_weight = nn.Parameter(torch.ones(dim))
        self.norm_bias = nn.Parameter(torch.zeros(dim))

        def kaiming(*shape: int) -> nn.Parameter:
            fan_in = math.prod(shape[1:])
            return nn.Parameter(torch.randn(shape, generator=generator) * math.sqrt(2 / fan_in))

        self.reduce = kaiming(width, dim)
        self.reduce_bias = nn.Parameter(torch.zeros(width))
        self.towers = kaiming(2 * width, width, 3, 3)
        self.towers_bias = nn.Parameter(torch.zeros(2 * width))
        # Small, so that the first predictions are the prior and a box of one cell, whatever the tokens.
        self.classify = nn.Parameter(0.1 * kaiming(num_classes, width).data)
        self.classify_bias = nn.Parameter(torch.full((num_classes,), -math.log((1 - _PRIOR) / _PRIOR)))
        self.locate = nn.Parameter(0.1 * kaiming(5, width).data)
        self.locate_bias = nn.Parameter(torch.zeros(5))

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Set the ``(D,)`` mean and standard deviation of the channels; infinite for those that count for nothing."""
        self.mean, self.std = mean.to(self.mean), std.to(self.std)

    def forward(self, tokens: Tensor) -> Predictions:
        """Predict from ``(B, P, D)`` float32 patch tokens."""
        tokens = (tokens - self.mean) / self.std * self.norm_weight + self.norm_bias
        hidden = F.relu(F.linear(tokens, self.reduce, self.reduce_bias))
        on_grid = hidden.transpose(1, 2).reshape(len(tokens), -1, *self.grid)
        towers = F.relu(F.conv2d(on_grid, self.towers, self.towers_bias, padding=1))
        of_class, of_box = towers.flatten(2).transpose(1, 2).chunk(2, dim=-1)
        located = F.linear(of_box, self.locate, self.locate_bias)
        return Predictions(
            classes=F.linear(of_class, self.classify, self.classify_bias),
            codes=located[..., :4],
            fit=located[..., 4],
        )
