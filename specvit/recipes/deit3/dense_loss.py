"""The dense loss: patches name the classes of their own pixels.

Shapes: B images of H x W pixels, P patches, K classes of the masks.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specvit.data import IGNORE_INDEX
from specvit.device import at_least_float32
from specvit.errors import ConfigError, DataError
from specvit.models.patches import count_pixels
from specvit.training.mixing import Mixing


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


def mixed_class_counts(masks: Tensor, mixing: Mixing, *, num_classes: int, patch_size: tuple[int, int]) -> Tensor:
    """Count the pixels of each class in each patch of masks that are mixed as their images are.

    Args:
        masks: ``(B, H, W)`` class indices before mixing, 255 = ignore.
        mixing: Cutmix pastes the mirror's mask into the box; mixup weighs the counts of both masks.
        num_classes: K.
        patch_size: Height and width of a patch in pixels.

    Returns:
        ``(B, P, K)`` float32.
    """
    counts = count_pixels(mixing.paste(masks), patch_size, num_classes=num_classes).float()
    return mixing.blend(counts) if mixing.box is None else counts


def dense_loss(logits: Tensor, counts: Tensor, *, total: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of the pixels' classes, all pixels of a patch sharing its logits.

    Args:
        logits: ``(B, P, K)``.
        counts: ``(B, P, K)`` number, or weight, of the pixels of each class.
        total: Scalar to divide by in place of the number of the counted pixels, where these are a part of a batch.

    Returns:
        The mean over the counted pixels; 0 if there are none.
    """
    total = counts.sum() if total is None else total
    loss = -(counts * at_least_float32(logits).log_softmax(dim=-1)).sum()
    return loss / torch.where(total > 0, total, 1.0)
