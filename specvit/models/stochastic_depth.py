"""Blocks that are left out in training: image by image as in timm, or for a part of the batch as in DINOv2.

Shapes: B images, S of them in the subset, N tokens, D channels.

timm's ``DropPath`` computes every image's residual and multiplies some by zero. In a ``SubsetBlock`` each residual is
computed for a random subset of the images, whose size is fixed, and added at their places, scaled by B / S: the same in
expectation, and a rate of 0.3 saves 30% of the work. Both draw for the whole batch where a part of it is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import drop
from timm.models import vision_transformer
from torch import Tensor

from specvit.models.batch_slice import current_slice


class DropPath(drop.DropPath):
    """timm's layer, bit for bit; of a part of a batch with the draws of all its images."""

    def forward(self, x: Tensor) -> Tensor:
        """Zero the residuals of some images and scale the others: ``(V b, ...)`` -> the same shape."""
        part = current_slice()
        if part is None or self.drop_prob == 0 or not self.training:
            whole: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return whole
        shape = (part.count_rows(len(x)), *(1,) * (x.ndim - 1))
        kept = part.of(x.new_empty(shape).bernoulli_(1 - self.drop_prob))
        if self.drop_prob < 1 and self.scale_by_keep:
            kept = kept / (1 - self.drop_prob)
        return x * kept


class Block(vision_transformer.Block):
    """timm's block, with our ``DropPath``."""

    def __init__(self, *args: Any, drop_path: float = 0.0, uniform_rate: float | None = None, **options: Any) -> None:
        """Build a block.

        Args:
            *args: As of timm's block.
            drop_path: Rate at which images are left out, in [0, 1).
            uniform_rate: Rate in its place, where timm gives blocks rates that rise; None = there is none.
            **options: As of timm's block.
        """
        super().__init__(*args, **options)
        rate = drop_path if uniform_rate is None else uniform_rate
        if rate > 0:
            self.drop_path1, self.drop_path2 = DropPath(rate), DropPath(rate)


class SubsetBlock(Block):
    """A block whose residuals are computed for a random subset of the batch while it trains.

    Source: dinov2 layers/block.py (the function ``drop_add_residual_stochastic_depth``).
    """

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map tokens ``(B, N, D)`` to tokens ``(B, N, D)``; with a mask, which has images too, as timm does."""
        rate = getattr(self.drop_path1, "drop_prob", 0.0)
        if not self.training or rate == 0 or attn_mask is not None:
            plain: Tensor = super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
            return plain
        x = add_to_subset(x, lambda part: self.ls1(self.attn(self.norm1(part), is_causal=is_causal)), rate=rate)
        return add_to_subset(x, lambda part: self.ls2(self.mlp(self.norm2(part))), rate=rate)


def add_to_subset(x: Tensor, residual: Callable[[Tensor], Tensor], *, rate: float) -> Tensor:
    """Add a residual to a random subset of the images.

    Args:
        x: ``(B, N, D)``.
        residual: Maps ``(S, N, D)`` to ``(S, N, D)``, image by image.
        rate: Share of the images that are left out, in [0, 1); at least one image is not.

    Returns:
        ``(B, N, D)``: the residual of the chosen images times B / S, none of the others. The draw comes from
        torch's global CPU generator on any device; the training loop seeds it by the step, so that all arms of
        a pair leave out the same images.
    """
    part = current_slice()
    num_images = len(x) if part is None else part.count_rows(len(x))
    size = max(int(num_images * (1 - rate)), 1)
    chosen = torch.randperm(num_images)[:size]
    if part is not None:
        # Drawn for the whole batch, so that the way it is cut makes no difference.
        chosen = part.places(chosen)
        if len(chosen) == 0:
            return x
    chosen = chosen.to(x.device)
    change = residual(x[chosen])
    return torch.index_add(x, 0, chosen, change.to(x.dtype), alpha=num_images / size)
