"""Images as patches, and patches by their number.

Shapes: B images of H x W pixels, P patches of h x w pixels row by row, M of them, D channels, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def patchify(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Cut images into patches: ``(B, 3, H, W)`` -> ``(B, P, 3 h w)``.

    Args:
        images: Any values.
        patch_size: Height h and width w of a patch in pixels, which divide H and W.

    Returns:
        Patches row by row, the pixels of each in the order of the weights of timm's patch embedding: channels
        outermost, then rows, then columns.
    """
    num_images, channels, height, width = images.shape
    h, w = patch_size
    tiles = images.view(num_images, channels, height // h, h, width // w, w)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(num_images, (height // h) * (width // w), -1)


def take(tokens: Tensor, positions: Tensor) -> Tensor:
    """Return tokens by position, image by image: ``(B, P, D)``, ``(B, M)`` int64 -> ``(B, M, D)``."""
    return tokens.gather(1, positions.unsqueeze(2).expand(-1, -1, tokens.shape[2]))


def count_pixels(masks: Tensor, patch_size: tuple[int, int], *, num_classes: int) -> Tensor:
    """Count the pixels of every class in every patch.

    Args:
        masks: ``(B, H, W)`` classes in [0, K), any larger number = ignore.
        patch_size: Height h and width w of a patch in pixels, which divide H and W.
        num_classes: K.

    Returns:
        ``(B, P, K)`` int64; ignored pixels are left out.
    """
    (num_images, height, width), (h, w) = masks.shape, patch_size
    rows, columns = height // h, width // w
    # Ignored pixels are counted as one more class, which is cheaper than to take them out.
    bins = num_classes + 1
    patches = torch.arange(num_images * rows * columns, device=masks.device).view(-1, rows, 1, columns, 1)
    tiles = masks.reshape(num_images, rows, h, columns, w).clamp(max=num_classes)
    counts = (patches * bins + tiles).flatten().bincount(minlength=patches.numel() * bins)
    return counts.view(num_images, -1, bins)[..., :num_classes]
