"""Images as patches, and patches by their number.

Shapes: B images of H x W pixels, P patches of h x w pixels row by row, M of them, D channels.
"""

from __future__ import annotations

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
    """Take tokens by position, image by image: ``(B, P, D)``, ``(B, M)`` int64 -> ``(B, M, D)``."""
    return tokens.gather(1, positions.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
