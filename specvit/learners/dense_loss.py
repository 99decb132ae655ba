"""The dense loss: patches name the classes of their own pixels.

Shapes: B images of H x W pixels, P patches, K classes of the masks.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specvit.data import IGNORE_INDEX
from specvit.errors import ConfigError, DataError
from specvit.mixing import Mixing


def check_masks(masks: NDArray[np.uint8] | None, *, num_classes: int, field: str) -> None:
    """Check the masks of a training split before they are used as indices.

    Args:
        masks: ``(N, H, W)`` uint8, or None.
        num_classes: K.
        field: The setting that asks for them, for the message.

    Raises:
        ConfigError: If there are none.
        DataError: If one holds a value that is neither in [0, K) nor 255.
    """
    if masks is None:
        raise ConfigError(f"{field}: must be 0 for a training split without masks")
    largest = int(np.where(masks == IGNORE_INDEX, 0, masks).max(initial=0))
    if largest >= num_classes:
        raise DataError(
            f"{field}: train masks must hold classes in [0, {num_classes}) or {IGNORE_INDEX} = ignore, "
            f"but a pixel is {largest}"
        )


def class_counts(masks: Tensor, *, num_classes: int, patch_size: tuple[int, int]) -> Tensor:
    """Count the pixels of each class in each patch.

    Args:
        masks: ``(B, H, W)`` class indices in [0, K), 255 = ignore.
        num_classes: K.
        patch_size: Height and width of a patch in pixels, which divide H and W.

    Returns:
        ``(B, P, K)`` float32, patches row by row; ignored pixels are not counted.
    """
    (num_images, height, width), (patch_height, patch_width) = masks.shape, patch_size
    tiles = masks.reshape(num_images, height // patch_height, patch_height, width // patch_width, patch_width)
    pixels = tiles.transpose(2, 3).flatten(3).flatten(1, 2).long()
    pixels = torch.where(pixels == IGNORE_INDEX, num_classes, pixels)
    counts = torch.zeros((*pixels.shape[:2], num_classes + 1), device=masks.device)
    ones = torch.ones((), device=masks.device).expand(pixels.shape)
    return counts.scatter_add_(2, pixels, ones)[..., :num_classes]


def mixed_class_counts(masks: Tensor, mixing: Mixing, *, num_classes: int, patch_size: tuple[int, int]) -> Tensor:
    """Count as ``class_counts`` in masks that are mixed as their images are.

    Args:
        masks: ``(B, H, W)`` class indices before mixing, 255 = ignore.
        mixing: Cutmix pastes the mirror's mask into the box; mixup weighs the counts of both masks.
        num_classes: K.
        patch_size: Height and width of a patch in pixels.

    Returns:
        ``(B, P, K)`` float32.
    """
    counts = class_counts(mixing.paste(masks), num_classes=num_classes, patch_size=patch_size)
    return mixing.blend(counts) if mixing.box is None else counts


def dense_loss(logits: Tensor, counts: Tensor) -> Tensor:
    """Return the cross-entropy of the pixels' classes, all pixels of a patch sharing its logits.

    Args:
        logits: ``(B, P, K)``.
        counts: ``(B, P, K)`` number, or weight, of the pixels of each class.

    Returns:
        The mean over the counted pixels; 0 if there are none.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    total = counts.sum()
    loss = -(counts * wide.log_softmax(dim=-1)).sum()
    return loss / torch.where(total > 0, total, 1.0)
