"""Losses that keep patches from growing alike. Settings, source: ``specvit.comparators.patch_diversification``.

Shapes: B images, P patches, D channels. All is computed in float32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


def patch_cosine(patches: Tensor) -> Tensor:
    """Return the mean absolute cosine between different patches of an image.

    Args:
        patches: ``(B, P, D)``.

    Returns:
        A scalar in [0, 1], a mean over images and ordered pairs; 0 if there is but one patch.

    Source: Gong et al. 2021, section 4, patch-wise cosine loss.
    """
    num_patches = patches.shape[1]
    with torch.autocast(patches.device.type, enabled=False):
        x = F.normalize(_wide(patches), dim=-1)
        cosines = (x @ x.transpose(1, 2)).abs()
    others = ~torch.eye(num_patches, dtype=torch.bool, device=x.device)
    return (cosines * others).sum() / (len(x) * max(1, num_patches * (num_patches - 1)))


def patch_contrast(first: Tensor, last: Tensor) -> Tensor:
    """Tell each last-layer patch from the mean of the others by what was there after the first block.

    ``-log(exp(f_i . l_i) / (exp(f_i . l_i) + exp(f_i . m_i)))``, where m_i is the mean of the last-layer patches
    other than i; no gradient passes through the first layer's patches.

    Args:
        first: ``(B, P, D)`` patches after the first block.
        last: ``(B, P, D)`` patches after the last.

    Returns:
        The mean over images and patches; log 2 where all patches are alike, 0 if there is but one patch.

    Source: Gong et al. 2021, section 4, patch-wise contrastive loss.
    """
    num_patches = last.shape[1]
    if num_patches == 1:
        return last.sum() * 0
    first, last = _wide(first.detach()), _wide(last)
    others = (last.sum(dim=1, keepdim=True) - last) / (num_patches - 1)
    return F.softplus((first * (others - last)).sum(dim=-1)).mean()


class PatchRegulariser:
    """Keep the first block's patches while a model trains, and compute a loss on them and the last ones."""

    def __init__(
        self, backbone: VisionTransformer, losses: Callable[[Tensor, Tensor], dict[str, Tensor]]
    ) -> None:
        """Watch the first block of ``backbone``.

        Args:
            backbone: The model that trains, itself and not a copy of it.
            losses: What makes terms of first-layer and last-layer patches, ``(B, P, D)`` each.
        """
        self.losses = losses
        self.num_prefix: int = backbone.num_prefix_tokens
        self._first: Tensor | None = None
        backbone.blocks[0].register_forward_hook(lambda block, _, output: self._keep(output, training=block.training))

    def _keep(self, output: Tensor, *, training: bool) -> None:
        self._first = output if training else None

    def __call__(self, last: Tensor) -> dict[str, Tensor]:
        """Return the terms for the images that the model saw last.

        Args:
            last: ``(B, P, D)`` their patches after the final norm.
        """
        first, self._first = self._first, None
        if first is None:
            raise RuntimeError("the backbone must have computed these patches just before, in training mode")
        return self.losses(first[:, self.num_prefix :], last)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
