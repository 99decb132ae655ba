"""Stochastic depth as DINOv2 trains with it: a block computes a part of the batch only.

Shapes: B images, S of them in the subset, N tokens, D channels.

timm's ``DropPath`` computes every image's residual and multiplies some by zero. Here each residual is computed
for a random subset of the images, whose size is fixed, and added at their places, scaled by B / subset: the same
in expectation, and a rate of 0.3 saves 30% of the work.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers.drop import DropPath
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from specvit.training.batch_parts import current_slice


class SubsetBlock(Block):
    """Be timm's block, its residuals computed for a random subset of the batch while it trains.

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


def set_stochastic_depth(model: nn.Module, rate: float, *, uniform: bool, subset: bool) -> None:
    """Set the way in which the blocks of a ViT are left out, in place.

    Args:
        model: What holds timm's blocks. Blocks of other kinds are left alone; those that a comparator's trunk
            calls part by part go on with ``DropPath``, at the rate set here.
        rate: Rate of the blocks where it is uniform, in [0, 1).
        uniform: Give all blocks that rate, in place of the rates that the model was built with.
        subset: Compute a subset of the images, in place of zeroing residuals.
    """
    for block in model.modules():
        if type(block) is not Block:
            continue
        if uniform:
            block.drop_path1, block.drop_path2 = DropPath(rate), DropPath(rate)
        if subset:
            # Its parameters, their names and the swapped layers all stay: only the forward is another.
            block.__class__ = SubsetBlock
