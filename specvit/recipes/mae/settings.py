"""MAE: a decoder paints the pixels of hidden patches from the few that the backbone sees.

Source: He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners" (arXiv 2111.06377, section 4 and
appendix A.1), and facebookresearch/mae (PRETRAIN.md, main_pretrain.py, models_mae.py). ``mae`` holds the
published constants, ``mae_cpu`` a preset for a few hundred steps on one core.

The decoder is the published one. It sees [CLS] as there; registers end with the backbone.

Deviations, each in all presets:

* The backbone is the one of every recipe here, so its positions are learned, not fixed sines and cosines, and it starts
  from timm's truncated normal (the patch embedding from torch's default), not from Xavier's uniform distribution.
* [CLS] and the decoder's token do not decay; there they do.
* The warm-up's first step is at a rate above 0; there it is at 0.
* Crops are cut from the file at its own resolution, as there, with ``data.keep: encoded``; with ``arrays`` from
  images of ``data.image_size``, the shorter side resized to it and the centre kept, and without rounding to 8 bits.
* On a GPU bfloat16 is used where they use float16 with a scaled loss.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from specvit.settings import Flag, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, ShareRange, settings
from specvit.training.recipe import Beta, Recipe


@settings
class Mae(Recipe):
    """The constants of MAE, at their published defaults (ViT-L/16 on ImageNet-1k, 800 epochs)."""

    name: ClassVar[str] = "mae"
    drops_patches: ClassVar[bool] = True
    recipe: Literal["mae"] = "mae"

    steps: PositiveInt = 250_000
    batch_size: PositiveInt = 4096
    lr: PositiveFloat = 2.4e-3  # 1.5e-4 x batch / 256
    min_lr: NonNegativeFloat = 0.0
    warmup: Fraction = 0.05
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    clip_norm: NonNegativeFloat = 0.0
    cls_std: PositiveFloat = 0.02

    mask_ratio: Fraction = 0.75
    """Share of the patches that are hidden, above 0 and below 1; of what is left the backbone sees whole
    patches, rounded down, one at least."""
    normalise_pixels: Flag = True
    """Whether the pixels to be painted are normalised patch by patch, to mean 0 and variance 1."""
    crop_scale: ShareRange = (0.2, 1.0)
    """Least and largest share of the area that a random resized crop covers; it and flips are all there is."""
    decoder_width: PositiveInt = 512
    """Channels of the decoder, a multiple of 4 (for its positions) and of ``decoder_heads``."""
    decoder_depth: PositiveInt = 8
    """Blocks of the decoder."""
    decoder_heads: PositiveInt = 16
    """Heads of the decoder's attention."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Mae:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must be above 0 and below 1, not {self.mask_ratio}")
        for divisor, what in ((4, "4"), (self.decoder_heads, f"decoder_heads, {self.decoder_heads}")):
            if self.decoder_width % divisor:
                raise ValueError(f"decoder_width must be a multiple of {what}, not {self.decoder_width}")
        return self


@settings
class MaeCpu(Mae):
    """A preset for 600 steps on a core, with patches of 4 px in images of 32 px.

    The decoder is small, the rate is that of a batch of 64, and [CLS] is drawn with a standard deviation of 1e-6;
    masks, crops and targets are the published ones. At half the length mIoU gains 4 points over a backbone that was
    never trained, at this one 9 (one seed).
    """

    name: ClassVar[str] = "mae_cpu"
    recipe: Literal["mae_cpu"] = "mae_cpu"  # type: ignore[assignment]

    steps: PositiveInt = 600
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 2e-3
    warmup: Fraction = 0.1
    cls_std: PositiveFloat = 1e-6
    decoder_width: PositiveInt = 32
    decoder_depth: PositiveInt = 1
    decoder_heads: PositiveInt = 2
