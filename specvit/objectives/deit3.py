"""DeiT-III: supervised training with binary cross-entropy on mixed images.

Source: Touvron et al. 2022 ("DeiT III: Revenge of the ViT"), facebookresearch/deit (README_revenge.md,
augment.py). ``deit3`` holds the published constants, ``deit3_cpu`` a preset for a few hundred steps on one core.
Deviation: AdamW in place of LAMB, as for every recipe here, so that optimizers do not differ between recipes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from specvit.objectives.base import Recipe
from specvit.settings import Flag, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, settings

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from specvit.data import Dataset
    from specvit.learners.base import Learner


@settings
class DeiT3(Recipe):
    """Hold the constants of DeiT-III, at their published defaults (ViT-S/16 on ImageNet-1k, 800 epochs)."""

    name: ClassVar[str] = "deit3"
    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    recipe: Literal["deit3"] = "deit3"

    steps: PositiveInt = 500_000
    batch_size: PositiveInt = 2048
    lr: PositiveFloat = 4e-3
    warmup: Fraction = 0.00625
    weight_decay: NonNegativeFloat = 0.05
    weight_decay_end: NonNegativeFloat = 0.05
    clip_norm: NonNegativeFloat = 1.0
    drop_path: Fraction = 0.05
    layer_scale: NonNegativeFloat = 1e-4
    cls_position: Flag = False

    mixup: NonNegativeFloat = 0.8
    """Alpha of mixup; 0 = off. A batch is mixed by mixup or by cutmix, with equal chances if both are on."""
    cutmix: NonNegativeFloat = 1.0
    """Alpha of cutmix; 0 = off."""
    three_augment: Flag = True
    """Whether each image gets exactly one of grey, solarisation, blur."""
    colour_jitter: Fraction = 0.3
    """Strength of the jitter of brightness, contrast and saturation."""
    crop: Literal["resized", "simple"] = "resized"
    """``resized``: random resized crops. ``simple``: 4 px of reflection around, a crop of the image's size."""
    crop_scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Least and largest share of the area that a resized crop covers."""

    def build(self, backbone: VisionTransformer, dataset: Dataset, *, seed: int) -> Learner:
        """Put a classifier on ``backbone``."""
        from specvit.learners.deit3 import DeiT3Learner

        return DeiT3Learner(backbone, self, num_classes=len(dataset.class_names), seed=seed)


@settings
class DeiT3Cpu(DeiT3):
    """Hold a preset for a few hundred steps on a core."""

    name: ClassVar[str] = "deit3_cpu"
    recipe: Literal["deit3_cpu"] = "deit3_cpu"  # type: ignore[assignment]

    steps: PositiveInt = 300
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 2e-3
    warmup: Fraction = 0.1
    drop_path: Fraction = 0.0
    layer_scale: NonNegativeFloat = 0.0
    crop_scale: tuple[Fraction, Fraction] = (0.32, 1.0)
