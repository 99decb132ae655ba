"""Patch diversification: the plain model, with losses that keep its patches from growing alike.

Source: Gong et al. 2021, "Vision Transformers with Patch Diversification" (arXiv 2104.12753), section 4: the
patch-wise cosine, contrastive and mixing losses. Deviations: the mixing loss is off by default, since
self-supervised recipes have no labels for it; it takes the recipe's CutMix, whose box may cut through a patch
(such a patch has two classes, by their shares of its pixels), and the recipe's mixup, where every patch has two
(in their code, deit/engine.py, boxes end where patches do); "last layer" is what the probes see, the patches
after the final norm; the weights are not tuned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from specvit.comparators.base import Comparator
from specvit.errors import ConfigError
from specvit.models.scales import Scale
from specvit.settings import NonNegativeFloat, settings

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    from specvit.training.recipe import Recipe


@settings
class PatchDiversification(Comparator):
    """Losses on the patches of the global views (DINOv2) or of the images (DeiT-III)."""

    name: ClassVar[str] = "patch_diversification"
    changes_model: ClassVar[bool] = False
    comparator: Literal["patch_diversification"] = "patch_diversification"

    cosine_weight: NonNegativeFloat = 1.0
    """Weight of the mean absolute cosine between different patches of the last layer; 0 = off."""
    contrast_weight: NonNegativeFloat = 1.0
    """Weight of telling each last-layer patch from the others by its first-layer self; 0 = off."""
    mixing_weight: NonNegativeFloat = 0.0
    """Weight of naming the class of the image that each patch was cut from, by a linear classifier that all
    patches share; 0 = off. For recipes that mix labelled images by cutmix; the paper adds all three losses."""

    @model_validator(mode="after")
    def _check_weights(self) -> PatchDiversification:
        if not (self.cosine_weight or self.contrast_weight or self.mixing_weight):
            raise ValueError(
                "cosine_weight must be above 0 where contrast_weight and mixing_weight are 0, or it is the baseline"
            )
        return self

    def build(self, plain: VisionTransformer, *, seed: int) -> VisionTransformer:  # noqa: ARG002
        """Return the model as it is: the losses are all that differs."""
        return plain

    def build_regulariser(self, backbone: VisionTransformer, *, num_classes: int, seed: int) -> nn.Module:
        """Build the losses whose weight is above 0, and with the mixing loss the classifier of patches."""
        from specvit.comparators.patch_diversification.regulariser import PatchRegulariser

        return PatchRegulariser(
            backbone,
            cosine_weight=self.cosine_weight,
            contrast_weight=self.contrast_weight,
            mixing_weight=self.mixing_weight,
            num_classes=num_classes,
            seed=seed,
        )

    def count_extra_parameters(self, scale: Scale, *, layer_scale: bool = False) -> int:
        """Return 0."""
        del scale, layer_scale
        return 0

    def check_recipe(self, recipe: Recipe) -> None:
        """Check that patches have classes where the mixing loss is on.

        Raises:
            ConfigError: If ``mixing_weight`` is above 0 with a recipe that does not mix labelled images by cutmix.
        """
        if self.mixing_weight > 0 and not recipe.labels_patches():
            raise ConfigError(
                "mixing_weight must be 0 with a recipe that does not mix labelled images by cutmix, such as "
                f"{recipe.name!r} as it is set, not {self.mixing_weight}"
            )
