"""Mixing the images of a batch by mixup or cutmix, and everything that lies on their pixels along with them.

Each image is mixed with its mirror in the batch (the first with the last, and so on); one choice and one share
hold for the whole batch. Shapes: B images of H x W pixels, P patches.

Source: Zhang et al. 2018 (mixup), Yun et al. 2019 (cutmix), timm's ``Mixup`` in batch mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PatchLabels:
    """The classes of the patches of B mixed images.

    Attributes:
        own: ``(B,)`` int64 classes of the images.
        other: ``(B,)`` int64 classes of the images that were mixed in.
        share: ``(P,)`` float32 in [0, 1], the share of ``own`` in each patch, row by row.
    """

    own: Tensor
    other: Tensor
    share: Tensor


@dataclass(frozen=True)
class Mixing:
    """How a batch is mixed: by cutmix if there is a box, by mixup if the share is below 1 without one.

    Attributes:
        share: The share of the image itself in the mix, in [0, 1].
        box: What the mirror's pixels replace: top, bottom, left, right in pixels, half open; None = nothing.
    """

    share: float = 1.0
    box: tuple[int, int, int, int] | None = None

    def images(self, images: Tensor) -> Tensor:
        """Mix images ``(B, 3, H, W)``."""
        return self.blend(images) if self.box is None else self.paste(images)

    def paste(self, pixels: Tensor) -> Tensor:
        """Put the mirror's pixels into the box: images or masks, ``(B, ..., H, W)``; a copy, if there is a box."""
        if self.box is None:
            return pixels
        top, bottom, left, right = self.box
        pasted = pixels.clone()
        pasted[..., top:bottom, left:right] = pixels.flip(0)[..., top:bottom, left:right]
        return pasted

    def blend(self, values: Tensor) -> Tensor:
        """Weigh each row of ``(B, ...)`` values, e.g. one-hot targets, and its mirror by their shares."""
        if self.share == 1:
            return values
        return self.share * values + (1 - self.share) * values.flip(0)

    def patch_labels(self, labels: Tensor, *, size: tuple[int, int], patch_size: tuple[int, int]) -> PatchLabels:
        """Return the classes of the patches.

        Args:
            labels: ``(B,)`` int64 classes of the images before mixing.
            size: H and W.
            patch_size: Height and width of a patch in pixels.

        Returns:
            Both classes of each patch. By cutmix their shares are those of its pixels: 1 or 0, but for a patch
            that the box cuts through. By mixup they are those of the images.
        """
        own = torch.full(size, self.share if self.box is None else 1.0)
        if self.box is not None:
            top, bottom, left, right = self.box
            own[top:bottom, left:right] = 0.0
        (height, width), (patch_height, patch_width) = size, patch_size
        tiles = own.view(height // patch_height, patch_height, width // patch_width, patch_width)
        return PatchLabels(labels, labels.flip(0), tiles.mean(dim=(1, 3)).flatten().to(labels.device))


def sample_mixing(size: tuple[int, int], *, mixup: float, cutmix: float, rng: np.random.Generator) -> Mixing:
    """Draw how a batch is mixed.

    Args:
        size: H and W.
        mixup: Alpha of mixup; 0 = off.
        cutmix: Alpha of cutmix; 0 = off. If both are on, a fair coin chooses.
        rng: Where the randomness comes from.

    Returns:
        The mix; nothing is mixed if both are off. A cutmix box is cut off at the border, and the share is that
        of the pixels which are left.
    """
    if mixup == 0 and cutmix == 0:
        return Mixing()
    use_cutmix = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    alpha = cutmix if use_cutmix else mixup
    share = float(rng.beta(alpha, alpha))
    if not use_cutmix:
        return Mixing(share)
    height, width = size
    side = math.sqrt(1 - share)
    centre_y, centre_x = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = _limits(centre_y, int(height * side), height)
    left, right = _limits(centre_x, int(width * side), width)
    return Mixing(1 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right))


def _limits(centre: int, length: int, size: int) -> tuple[int, int]:
    return max(0, centre - length // 2), min(size, centre + length // 2)
