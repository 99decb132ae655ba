"""DINOv2: self-distillation of views ([CLS]) and of masked patches, spread by KoLeo.

Source: Oquab et al. 2023, and facebookresearch/dinov2 (README.md, configs/, train/, loss/, layers/, data/, utils/).

| preset | what it holds |
| --- | --- |
| ``dinov2`` | configs/ssl_default_config.yaml at the batch of 1,024 that its learning rate is for |
| ``dinov2_short`` | the same as it was run: ViT-L/16, ImageNet-1k, 32 GPUs of 64 (configs/train/vitl16_short.yaml) |
| ``dinov2_long`` | ViT-L/14, ImageNet-22k, 96 GPUs of 32 (configs/train/vitl14.yaml), without its SwiGLU |
| ``dinov2_cpu`` | some minutes on one core |

An epoch of theirs is 1,250 steps, whatever the data; shares of the run stand for their epochs.

Deviations, each in all presets:

* Blur happens with the chances that are published; their code takes 1 minus the chance (never for global 1).
* Blur comes before jitter, jitter in a fixed order, hue in YIQ (``specvit.training.augment``), all in floating point;
  there images are rounded to 8 bits after each change, here once at most, crops with ``data.keep: encoded``.
* Crops are cut from the file at its own resolution, as there, with ``data.keep: encoded``; with ``arrays`` from
  images of ``data.image_size``, the shorter side resized to it and the centre kept.
* Tokens, positions and the mask token do not decay; there all but biases, norms and layer scales do.
* The gain of the prototypes stays 1, as in DINO; there it starts at 1 and is trained.
* While prototypes are frozen they have no gradient, as in DINO; there it counts in their head's norm and moments.
* The warm-up ends a step earlier, and does not begin with a step at rate 0; the teacher's momentum is that of
  the end of a step, not of its start.
* Positions are resampled with antialiasing for local crops (timm); gradients are not scaled, since bfloat16 needs
  no scaling as their float16 does.
* KoLeo's neighbours are those of the whole batch, and masks are stratified over it; there over a GPU's share of it.
* With ``num_locals: 0`` the loss is the mean over its 2 pairs; there the sum is divided by 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import model_validator

from specvit.settings import (
    Flag,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ShareRange,
    settings,
)
from specvit.training.recipe import Recipe


@settings
class DinoV2(Recipe):
    """The constants of DINOv2, at their published defaults (ViT-L/16 on ImageNet-1k, 100 epochs)."""

    name: ClassVar[str] = "dinov2"
    recipe: Literal["dinov2"] = "dinov2"

    steps: PositiveInt = 125_000
    batch_size: PositiveInt = 1024
    lr: PositiveFloat = 4e-3
    lr_batch_size: PositiveInt | None = 1024
    """Batch size that ``lr`` is for; at another it is times sqrt(batch_size / lr_batch_size). None = any."""
    clip_separately: Flag = True
    """Whether the gradients of the backbone and of each head are clipped by their own norms, not by that of all."""
    weight_decay: NonNegativeFloat = 0.04
    weight_decay_end: NonNegativeFloat = 0.4
    drop_path: Fraction = 0.3
    drop_path_uniform: Flag = True
    drop_path_subset: Flag = True
    """Whether blocks compute only the images that are not dropped, a fixed number; else each image has its draw."""
    layer_scale: NonNegativeFloat = 1e-5

    layer_decay: Fraction = 0.9
    patch_embed_lr: Fraction = 0.2

    num_locals: NonNegativeInt = 8
    """Local crops an image."""
    global_size: PositiveInt | None = None
    """Side of the global crops in pixels, a multiple of the patch size; none given = the image's."""
    local_size: PositiveInt = 96
    """Side of the local crops in pixels, a multiple of the patch size."""
    global_scale: ShareRange = (0.32, 1.0)
    """Least and largest share of the image's area that a global crop covers."""
    local_scale: ShareRange = (0.05, 0.32)
    """Least and largest share of the image's area that a local crop covers."""
    colour: Flag = True
    """Whether views differ in colour: jitter, grey, blur and solarisation at the published strengths."""
    blur_scales: Flag = False
    """Whether the blur's sigma, 0.1 to 2 px, is that of crops of 224 px and shrinks with the crop."""

    num_prototypes: PositiveInt = 65_536
    """Width of the heads' outputs."""
    head_hidden: PositiveInt = 2048
    """Width of the heads' two hidden layers."""
    head_bottleneck: PositiveInt = 256
    """Width of the L2-normalised layer before the prototypes."""
    patch_bottleneck: PositiveInt | None = None
    """The same for the head of the patches, if they have their own; none given = as the other head's."""
    shared_head: Flag = True
    """Whether [CLS] and patches share one head (the short recipe) or have one each (the long recipe)."""

    dino_weight: NonNegativeFloat = 1.0
    ibot_weight: NonNegativeFloat = 1.0
    koleo_weight: NonNegativeFloat = 0.1
    koleo_radius: NonNegativeFloat = 0.0
    """Distance between L2-normalised [CLS] below which KoLeo's push no longer grows; 0 = as published: it grows
    without bound, and makes short runs at high rates chaotic (``specvit.recipes.dinov2.losses.koleo_loss``)."""

    student_temp: PositiveFloat = 0.1
    """Softmax temperature of the student."""
    teacher_temp: PositiveFloat = 0.07
    """The teacher's temperature after its warm-up."""
    teacher_temp_start: PositiveFloat = 0.04
    """The teacher's temperature at the start of its warm-up."""
    teacher_temp_warmup: Fraction = 0.3
    """Share of the steps over which the teacher's temperature rises linearly."""
    centering: Literal["softmax", "sinkhorn"] = "softmax"
    """``softmax``: subtract a running centre (momentum 0.9). ``sinkhorn``: 3 Sinkhorn-Knopp iterations."""
    ema: Fraction = 0.992
    """Momentum of the teacher at the start; it rises to 1 on a cosine."""
    ema_end: Fraction = 1.0
    """Momentum of the teacher at the end."""
    freeze_prototypes: Fraction = 0.01
    """Share of the steps during which the prototypes stay fixed."""

    mask_probability: Fraction = 0.5
    """Share of the global crops that are masked."""
    mask_ratio: ShareRange = (0.1, 0.5)
    """Least and largest share of a masked crop's patches that are masked, stratified over the batch."""

    probe: Literal["teacher", "student"] = "teacher"
    """Whose features the probes look at."""

    @model_validator(mode="after")
    def _check_bottleneck(self) -> DinoV2:
        if self.shared_head and self.patch_bottleneck is not None:
            raise ValueError(f"patch_bottleneck must not be given with shared_head, not {self.patch_bottleneck}")
        return self

    @property
    def peak_lr(self) -> float:
        """Return the learning rate after the warm-up, scaled to the batch size (utils/config.py)."""
        return self.lr * math.sqrt(self.batch_size / (self.lr_batch_size or self.batch_size))

    def drops_subsets(self) -> bool:
        """Return ``drop_path_subset``, where any block is left out at all."""
        return self.drop_path_subset and self.drop_path > 0

    def crop_sizes(self) -> Mapping[str, int]:
        """Return the sides of the global and the local crops, those that are cut and set."""
        sizes = {} if self.global_size is None else {"global_size": self.global_size}
        return {**sizes, "local_size": self.local_size} if self.num_locals > 0 else sizes


@settings
class DinoV2Short(DinoV2):
    """The published run of ViT-L/16 on ImageNet-1k: the defaults at its batch of 2,048."""

    name: ClassVar[str] = "dinov2_short"
    recipe: Literal["dinov2_short"] = "dinov2_short"  # type: ignore[assignment]

    batch_size: PositiveInt = 2048


@settings
class DinoV2Long(DinoV2):
    """The published run of ViT-L/14 on ImageNet-22k, 500 epochs of 1,250 steps."""

    name: ClassVar[str] = "dinov2_long"
    recipe: Literal["dinov2_long"] = "dinov2_long"  # type: ignore[assignment]

    steps: PositiveInt = 625_000
    batch_size: PositiveInt = 3072
    lr: PositiveFloat = 2e-4
    warmup: Fraction = 0.16
    weight_decay_end: NonNegativeFloat = 0.2
    drop_path: Fraction = 0.4
    layer_decay: Fraction = 1.0
    local_size: PositiveInt = 98
    num_prototypes: PositiveInt = 131_072
    head_bottleneck: PositiveInt = 384
    patch_bottleneck: PositiveInt | None = 256
    shared_head: Flag = False
    teacher_temp_warmup: Fraction = 0.06
    centering: Literal["softmax", "sinkhorn"] = "sinkhorn"
    ema: Fraction = 0.994
    freeze_prototypes: Fraction = 0.002


@settings
class DinoV2Cpu(DinoV2):
    """A preset for 1200 steps on a core, some minutes, with patches of 4 px in images of 32 px.

    What is changed for a run of this length:

    * 64 prototypes and small heads; with the thousands that are published the targets of a batch of 32 say little.
    * A teacher's temperature that stays at 0.03; the published one rises from 0.04 to 0.07, and at 0.04
      DINO learnt later (seed 903).
    * A teacher that keeps up: its momentum starts at 0.98.
    * A rate of 1e-3: at 2e-3 KoLeo's gradient makes a run chaotic from its first hundred steps on.
    * Four local crops. Global crops of 24 px show textures at about the scale at which the probes see them in 32 px
      images.
    * The student is probed: the average that the teacher is lags behind.

    KoLeo has its published weight and form; without it [CLS] of all images stay nearly equal, and DINO at uniform.
    Targets are centred by their mean, as in ``dinov2_short``; by Sinkhorn-Knopp, over the 64 views of a batch, one for
    each prototype, DINO is 4% below uniform after 800 steps and 12% after 1,400.

    What is learnt at the end (seeds 50 to 54, ``results/studies/learning``): DINO is 27 to 39% below the loss of
    uniform outputs, ln 64, and iBOT 53 to 80% below its own. Targets that are centred by their mean are not uniform, so
    a student that puts out one distribution for all images is below ln 64 as well; below its loss, which is what the
    table's bar is, DINO is 10 to 22% (14% on average) and iBOT 39 to 64% (52%). After 300 steps it is 5% and 24%, after
    600 9% and 43%.

    Runs are chaotic all the same: a perturbation of 1e-6 is 3% of the weights after 200 steps and 15% at the end, also
    with a ``koleo_radius`` of 0.3. Seeds differ much: of 900 to 905 one, 905, stays near the scores of a random init.
    Without iBOT kNN loses 8.2 points [2.9, 13.6] and the linear probe 13.4 [6.1, 20.7]; without DINO the linear probe
    7.2 [0.0, 14.4], kNN and mIoU nothing that six seeds show (``results/studies/noise``).
    """

    name: ClassVar[str] = "dinov2_cpu"
    recipe: Literal["dinov2_cpu"] = "dinov2_cpu"  # type: ignore[assignment]

    steps: PositiveInt = 1200
    batch_size: PositiveInt = 32
    lr: PositiveFloat = 1e-3
    lr_batch_size: PositiveInt | None = None
    clip_separately: Flag = False
    weight_decay_end: NonNegativeFloat = 0.04
    drop_path: Fraction = 0.0
    drop_path_uniform: Flag = False
    drop_path_subset: Flag = False
    layer_scale: NonNegativeFloat = 0.0
    layer_decay: Fraction = 1.0
    patch_embed_lr: Fraction = 1.0
    num_locals: NonNegativeInt = 4
    global_size: PositiveInt | None = 24
    local_size: PositiveInt = 12
    global_scale: ShareRange = (0.5, 1.0)
    blur_scales: Flag = True
    num_prototypes: PositiveInt = 64
    head_hidden: PositiveInt = 256
    head_bottleneck: PositiveInt = 64
    teacher_temp: PositiveFloat = 0.03
    teacher_temp_start: PositiveFloat = 0.03
    ema: Fraction = 0.98
    freeze_prototypes: Fraction = 0.0
    probe: Literal["teacher", "student"] = "student"
