"""DeiT-III: supervised training with binary cross-entropy on mixed images.

Source: Touvron et al. 2022 ("DeiT III: Revenge of the ViT"), facebookresearch/deit (README_revenge.md, main.py,
augment.py, samplers.py). ``deit3`` holds the published constants, ``deit3_cpu`` a preset for a few hundred steps
on one core, with AdamW. Our addition, off by default: a dense loss on patches, whose absence Marouani et al. 2026
(arXiv 2602.08626) name as the reason why own [CLS] weights gain little in a DeiT-III ViT-L.

Deviations, each in all presets:

* The learning rate is set step by step, warms up from 0, and then falls along a whole cosine; there it is set once an
  epoch, warms up from 1e-6, and joins the cosine of the whole run where the warm-up ends.
* Mixup or cutmix is drawn once for a batch; there once for a GPU's share of it, 256 images. Of the copies of an image
  by repeated augmentation, those in the middle of a batch are mixed with one another; there never, since each copy goes
  to another GPU.
* All images have come before one comes again; there an epoch ends after the copies of a third of them, and the next one
  begins with an order of its own.
* Crops are cut from the file at its own resolution, as there, with ``data.keep: encoded``; with ``arrays`` from
  images of ``data.image_size``, the shorter side resized to it and the centre kept; so too with
  ``crop: simple`` and a dense loss.
* Crops are resized bicubically with antialiasing, as theirs, but all that is done to an image is done in floating point
  and without rounding to 8 bits in between (with ``data.keep: encoded`` crops are rounded once); the colours' jitter
  has a fixed order, theirs a random one. A blur is a Gaussian whose sigma shrinks with crops below 224 px; theirs is
  made of box filters, the same in pixels at any size.
* On a GPU bfloat16 is used where they use float16 with a scaled loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from specvit.settings import Flag, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, ShareRange, settings
from specvit.training.recipe import Recipe


@settings
class DeiT3(Recipe):
    """The constants of DeiT-III, at their published defaults (ViT-S/16 on ImageNet-1k, 800 epochs).

    The published commands set by the model's size: ``drop_path`` 0.05 for S, 0.2 for B, 0.45 for L; ``lr`` 4e-3
    for S, 3e-3 for B and L; images of 224 px for S, 192 px for B and L. For all sizes: LAMB, weight decay 0.05,
    layer scales from 1e-4, [CLS] drawn with a standard deviation of 0.02 and without a position embedding, one rate of
    stochastic depth for all blocks, and gradients clipped to a norm of 1, which is the default of the optimizer that
    they call.
    """

    name: ClassVar[str] = "deit3"
    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    recipe: Literal["deit3"] = "deit3"

    steps: PositiveInt = 500_000
    batch_size: PositiveInt = 2048
    optimizer: Literal["adamw", "lamb"] = "lamb"
    lr: PositiveFloat = 4e-3
    min_lr: NonNegativeFloat = 1e-5
    warmup: Fraction = 0.00625
    weight_decay: NonNegativeFloat = 0.05
    weight_decay_end: NonNegativeFloat = 0.05
    clip_norm: NonNegativeFloat = 1.0
    drop_path: Fraction = 0.05
    drop_path_uniform: Flag = True
    layer_scale: NonNegativeFloat = 1e-4
    cls_position: Flag = False
    cls_std: PositiveFloat = 0.02

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
    crop_scale: ShareRange = (0.08, 1.0)
    """Least and largest share of the area that a resized crop covers."""
    repeats: PositiveInt = 3
    """Copies of an image in a batch, each augmented in its own way (repeated augmentation, Hoffer et al. 2020): a
    batch has ``batch_size / repeats`` different images, and an epoch takes ``repeats`` times as many steps."""
    dense_weight: NonNegativeFloat = 0.0
    """Weight of a cross-entropy on patches: a linear classifier names the classes of each patch's pixels, from
    masks that are cropped, flipped and mixed as their images are; 0 = off, as published. The data must have
    masks."""

    def copies(self) -> int:
        """Return ``repeats``."""
        return self.repeats

    def required_targets(self) -> Mapping[str, str]:
        """Return labels, and with a dense loss masks."""
        required = dict(super().required_targets())
        return {**required, "masks": "dense_weight"} if self.dense_weight > 0 else required

    def labels_patches(self) -> bool:
        """Return whether cutmix, which gives patches the classes of their images, is on."""
        return self.cutmix > 0


@settings
class DeiT3Cpu(DeiT3):
    """A preset for a few hundred steps on a core.

    Beside its length, batch and crops it differs from ``deit3`` by AdamW in place of LAMB, no repeated augmentation, no
    stochastic depth and no layer scales; [CLS] is drawn with a standard deviation of 1e-6, the rate ends at 1e-6, and
    a ``drop_path`` that is given rises linearly from 0.
    """

    name: ClassVar[str] = "deit3_cpu"
    recipe: Literal["deit3_cpu"] = "deit3_cpu"  # type: ignore[assignment]

    steps: PositiveInt = 300
    batch_size: PositiveInt = 64
    optimizer: Literal["adamw", "lamb"] = "adamw"
    lr: PositiveFloat = 2e-3
    min_lr: NonNegativeFloat = 1e-6
    warmup: Fraction = 0.1
    drop_path: Fraction = 0.0
    drop_path_uniform: Flag = False
    layer_scale: NonNegativeFloat = 0.0
    cls_std: PositiveFloat = 1e-6
    crop_scale: ShareRange = (0.32, 1.0)
    repeats: PositiveInt = 1


@settings
class DeiT3DenseCpu(DeiT3Cpu):
    """A preset for half a minute of a core, with the dense loss, without mixing: that of the shipped sweeps on scenes.

    Labels teach [CLS] and masks teach the patches, so that both kinds of token have a loss of their own. Mixed images
    take longer to learn from: with mixup and cutmix 300 steps come to about the mIoU that 200 have without.
    Runs are smooth: a perturbation of 1e-6 moves mIoU by at most .01 points (5 seeds of two arms), so that a real
    arm's differences repeat (``results/studies/noise``).
    """

    name: ClassVar[str] = "deit3_dense_cpu"
    recipe: Literal["deit3_dense_cpu"] = "deit3_dense_cpu"  # type: ignore[assignment]

    steps: PositiveInt = 200
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    dense_weight: NonNegativeFloat = 0.5
