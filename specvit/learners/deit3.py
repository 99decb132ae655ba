"""DeiT-III's classifier, augmentation and loss. Settings and sources: ``specvit.objectives.deit3``.

Shapes: B images of H x W pixels, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.augment import ColourSettings, normalise, random_blur, random_crops, recolour
from specvit.learners.base import Batch
from specvit.learners.parts import Part, PartedLearner
from specvit.objectives.deit3 import DeiT3
from specvit.seeding import derive_seed, numpy_stream
from specvit.vit import encode

PADDING = 4
"""Pixels of reflection around an image before a simple random crop."""


@dataclass(frozen=True)
class DeiT3Views:
    """Hold the mixed images of a batch and what is in them.

    Attributes:
        images: ``(B, 3, H, W)``, normalised.
        present: ``(B, C)`` 1 for the classes that have a share in the image, else 0.
    """

    images: Tensor
    present: Tensor


class DeiT3Learner(PartedLearner[DeiT3Views, None]):
    """Train a backbone to name the classes of mixed images."""

    def __init__(self, backbone: VisionTransformer, recipe: DeiT3, *, num_classes: int, seed: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.num_classes = num_classes
        self.backbone = backbone
        self.head = nn.Linear(backbone.embed_dim, num_classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "heads"))
            nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @property
    def probed(self) -> VisionTransformer:
        """Return the backbone."""
        return self.backbone

    def draw(self, batch: Batch) -> DeiT3Views:
        """Augment and mix the images of a batch."""
        if batch.labels is None:
            raise ValueError("DeiT-III learns from labels, and the batch has none")
        images = self._augment(batch)
        targets = F.one_hot(batch.labels, self.num_classes).float()
        images, targets = mix(
            images,
            targets,
            mixup=self.recipe.mixup,
            cutmix=self.recipe.cutmix,
            rng=numpy_stream(batch.seed, "mix", batch.step),
        )
        # Binarised after mixing: every class with a share in the image counts as present.
        return DeiT3Views(normalise(images), (targets > 0).to(targets.dtype))

    def targets(self, views: DeiT3Views, parts: Sequence[Part]) -> list[None]:  # noqa: ARG002
        """Return nothing: the loss of an image does not depend on the others."""
        return [None] * len(parts)

    def part_losses(self, views: DeiT3Views, part: Part, targets: None) -> dict[str, Tensor]:  # noqa: ARG002
        """Compute the binary cross-entropy of a part, a mean over images and classes."""
        tokens = encode(self.backbone, part.of(views.images))
        logits = self.head(tokens.cls)
        bce = F.binary_cross_entropy_with_logits(logits, part.of(views.present).to(logits.dtype))
        return {"bce": bce, **self.extra_losses(tokens.patches)}

    def _augment(self, batch: Batch) -> Tensor:
        """Crop, flip and recolour: ``(B, 3, H, W)`` in [0, 1]."""
        recipe = self.recipe
        size = batch.images.shape[-1]
        images, stream = batch.images, batch.stream("crops")
        if recipe.crop == "resized":
            crops = random_crops(images, size=size, scale=recipe.crop_scale, generator=stream)
        else:
            crops = simple_crops(images, padding=PADDING, generator=stream)
        jitter = recipe.colour_jitter
        colour = ColourSettings(
            brightness=jitter, contrast=jitter, saturation=jitter, jitter_probability=float(jitter > 0)
        )
        if recipe.three_augment:
            crops = three_augment(crops, generator=batch.stream("three-augment"))
        return recolour(crops, colour, generator=batch.stream("colour"))


def simple_crops(images: Tensor, *, padding: int, generator: torch.Generator) -> Tensor:
    """Shift by up to ``padding`` pixels, with reflection at the border, and flip half of the images.

    Args:
        images: ``(B, 3, H, W)``.
        padding: Largest shift in pixels, smaller than H and W.
        generator: CPU generator.

    Returns:
        ``(B, 3, H, W)``.
    """
    num_images, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4, mode="reflect")
    shift = torch.randint(0, 2 * padding + 1, (2, num_images, 1), generator=generator)
    rows = (shift[0] + torch.arange(height)).to(images.device)
    columns = shift[1] + torch.arange(width)
    flipped = torch.rand(num_images, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns).to(images.device)
    image = torch.arange(num_images, device=images.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[image, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


def three_augment(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Apply exactly one of grey, solarisation and blur to each image: ``(B, 3, H, W)`` in [0, 1]."""
    choice = torch.randint(0, 3, (len(images),), generator=generator).view(-1, 1, 1, 1).to(images.device)
    grey = recolour(images, ColourSettings(grey_probability=1.0), generator=generator)
    solarised = torch.where(images >= 0.5, 1 - images, images)
    blurred = random_blur(images, sigma=ColourSettings.blur_sigma, generator=generator)
    return torch.where(choice == 0, grey, torch.where(choice == 1, solarised, blurred))


def mix(
    images: Tensor, targets: Tensor, *, mixup: float, cutmix: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with its mirror in the batch, by mixup or by cutmix.

    Args:
        images: ``(B, 3, H, W)``.
        targets: ``(B, C)`` one-hot.
        mixup: Alpha of mixup; 0 = off.
        cutmix: Alpha of cutmix; 0 = off.
        rng: Where the randomness comes from.

    Returns:
        Mixed images, and targets weighted by the share of each image that is left.

    Source: Zhang et al. 2018, Yun et al. 2019; one choice and one share for the whole batch, as in timm's
    ``Mixup`` in batch mode.
    """
    if mixup == 0 and cutmix == 0:
        return images, targets
    use_cutmix = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    alpha = cutmix if use_cutmix else mixup
    share = float(rng.beta(alpha, alpha))
    other = images.flip(0)
    if use_cutmix:
        height, width = images.shape[-2:]
        side = math.sqrt(1 - share)
        centre_y, centre_x = int(rng.integers(height)), int(rng.integers(width))
        top, bottom = _limits(centre_y, int(height * side), height)
        left, right = _limits(centre_x, int(width * side), width)
        images = images.clone()
        images[..., top:bottom, left:right] = other[..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        images = share * images + (1 - share) * other
    return images, share * targets + (1 - share) * targets.flip(0)


def _limits(centre: int, length: int, size: int) -> tuple[int, int]:
    return max(0, centre - length // 2), min(size, centre + length // 2)
