"""Patch diversification: the plain model, with losses that keep its patches from growing alike.

Source: Gong et al. 2021, "Vision Transformers with Patch Diversification" (arXiv 2104.12753): the patch-wise
cosine loss and the patch-wise contrastive loss. Deviations: the third loss, which mixes images by CutMix and
classifies every patch, is left out, since self-supervised recipes have no labels for it; "last layer" is what
the probes see, the patches after the final norm; the weights are not tuned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from specvit.comparators.base import Comparator
from specvit.scales import Scale
from specvit.settings import NonNegativeFloat, settings

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor


@settings
class PatchDiversification(Comparator):
    """Add losses on the patches of the global views (DINOv2) or of the images (DeiT-III)."""

    name: ClassVar[str] = "patch_diversification"
    adds_losses: ClassVar[bool] = True
    comparator: Literal["patch_diversification"] = "patch_diversification"

    cosine_weight: NonNegativeFloat = 1.0
    """Weight of the mean absolute cosine between different patches of the last layer; 0 = off."""
    contrast_weight: NonNegativeFloat = 1.0
    """Weight of telling each last-layer patch from the others by its first-layer self; 0 = off."""

    @model_validator(mode="after")
    def _check_weights(self) -> PatchDiversification:
        if not self.cosine_weight and not self.contrast_weight:
            raise ValueError("cosine_weight must be above 0 where contrast_weight is 0, or it is the baseline")
        return self

    def build(self, plain: VisionTransformer, *, seed: int) -> VisionTransformer:
        """Return the plain model."""
        del seed
        return plain

    def count_extra_parameters(self, scale: Scale, *, layer_scale: bool = False) -> int:
        """Return 0."""
        del scale, layer_scale
        return 0

    def extra_losses(self, first: Tensor, last: Tensor) -> dict[str, Tensor]:
        """Compute the terms that are on, for patches of the first and the last layer, ``(B, P, D)`` each."""
        from specvit.trunks.diversification import patch_contrast, patch_cosine

        losses = {}
        if self.cosine_weight > 0:
            losses["patch_cosine"] = self.cosine_weight * patch_cosine(last)
        if self.contrast_weight > 0:
            losses["patch_contrast"] = self.contrast_weight * patch_contrast(first, last)
        return losses
