"""Where random crops are cut: what is drawn for a whole batch, and the boxes that follow from it and from an image.

What is drawn knows nothing of the images: shares of an area, aspect ratios, and corners as shares of what is left. So
it is drawn in the main process, from named streams, before any image has been opened; whoever opens one, in whatever
thread, finds the same boxes. They are computed by operations that round in one way only, so that how many images are
computed at once changes no bit.

Source: torchvision's ``RandomResizedCrop``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

ASPECT_RATIO = (3 / 4, 4 / 3)
NUM_CROP_TRIES = 10


Sqrt = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def torch_sqrt(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return roots as torch computes them, a last bit off here and there: those of crops of images in memory."""
    return torch.sqrt(torch.from_numpy(numbers)).numpy()


@dataclass(frozen=True)
class Crop:
    """A random resized crop that a recipe cuts of every image.

    Attributes:
        name: Of the random stream that it is drawn from first, before its flip and its colours.
        size: Side in pixels after resizing.
        scale: Least and largest share of the image's area.
    """

    name: str
    size: int
    scale: tuple[float, float]


@dataclass(frozen=True)
class HeldRows:
    """Which images of a batch a process has the pixels of; what is drawn, is drawn for all.

    Attributes:
        rows: ``(b,)`` int64 on the CPU, rising.
        batch_size: Images of the whole batch.
    """

    rows: Tensor
    batch_size: int

    def whole(self, x: Tensor) -> Tensor:
        """Return ``(B, ...)`` with the rows ``(b, ...)`` in their places, and zeros in the others."""
        placed = x.new_zeros(self.batch_size, *x.shape[1:])
        placed[self.rows.to(x.device)] = x
        return placed


@dataclass(frozen=True)
class CropDraws:
    """What is drawn for the boxes of B images, ten tries each.

    Attributes:
        share: ``(B, 10)`` float32 shares of the image's area.
        ratio: ``(B, 10)`` float32 width by height.
        corner: ``(B, 2)`` float32 in [0, 1), how far down and to the right of where the box may begin.
    """

    share: NDArray[np.float32]
    ratio: NDArray[np.float32]
    corner: NDArray[np.float32]

    def boxes(self, *, height: int, width: int, sqrt: Sqrt = np.sqrt) -> NDArray[np.int64]:
        """Return the boxes in images of one size.

        Args:
            height: Of the images in pixels.
            width: Likewise.
            sqrt: The root of float32 numbers, NumPy's correctly rounded one or ``torch_sqrt``.

        Returns:
            ``(B, 4)`` rows ``top, left, height, width``. The first of ten draws that fits into the image; the largest
            central box of an allowed aspect ratio if none does.
        """
        area = np.float32(height * width) * self.share
        widths = np.rint(sqrt(area * self.ratio)).astype(np.int64)
        heights = np.rint(sqrt(area / self.ratio)).astype(np.int64)
        fits = (widths >= 1) & (heights >= 1) & (widths <= width) & (heights <= height)
        first = fits.argmax(axis=1)
        image = np.arange(len(first))
        w, h = widths[image, first], heights[image, first]
        top = (self.corner[:, 0] * (height - h + 1).astype(np.float32)).astype(np.int64)
        left = (self.corner[:, 1] * (width - w + 1).astype(np.float32)).astype(np.int64)
        boxes = np.stack((top, left, h, w), axis=1)
        fitting = fits[image, first]
        if not fitting.all():
            boxes[~fitting] = _central_box(height, width)
        return boxes


def draw_crops(num_images: int, *, scale: tuple[float, float], generator: Generator) -> CropDraws:
    """Draw what the boxes of random resized crops follow from.

    Args:
        num_images: B.
        scale: Least and largest share of the image's area.
        generator: Where the randomness comes from.
    """
    tries = (num_images, NUM_CROP_TRIES)
    share = uniform(tries, scale, generator)
    ratio = torch.exp(uniform(tries, (math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1])), generator))
    corner = torch.rand((num_images, 2), generator=generator)
    return CropDraws(share.numpy(), ratio.numpy(), corner.numpy())


def sample_boxes(
    num_images: int, *, height: int, width: int, scale: tuple[float, float], generator: Generator
) -> Tensor:
    """Draw the boxes of random resized crops of images of one size.

    Args:
        num_images: B.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        scale: Least and largest share of the image's area.
        generator: Where the randomness comes from.

    Returns:
        ``(B, 4)`` int64 rows as of ``CropDraws.boxes``.
    """
    draws = draw_crops(num_images, scale=scale, generator=generator)
    return torch.from_numpy(draws.boxes(height=height, width=width, sqrt=torch_sqrt))


def sample_crops(
    num_images: int,
    *,
    height: int,
    width: int,
    scale: tuple[float, float],
    flip_probability: float,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Draw where to cut and whether to flip; ``random_crops`` draws this first.

    Args:
        num_images: B.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        scale: Least and largest share of the image's area.
        flip_probability: Chance of a horizontal flip.
        generator: Where the randomness comes from.

    Returns:
        ``(B, 4)`` boxes as of ``sample_boxes``, and ``(B,)`` bool, whether the crop is flipped.
    """
    boxes = sample_boxes(num_images, height=height, width=width, scale=scale, generator=generator)
    return boxes, torch.rand(num_images, generator=generator) < flip_probability


def uniform(shape: tuple[int, ...], limits: tuple[float, float], generator: Generator) -> Tensor:
    """Draw float32 numbers, evenly spread between the limits."""
    return limits[0] + (limits[1] - limits[0]) * torch.rand(shape, generator=generator)


def _central_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Return the largest central box of an allowed aspect ratio."""
    w = min(width, round(height * ASPECT_RATIO[1])) if width > height else width
    h = min(height, round(width / ASPECT_RATIO[0])) if height > width else height
    return (height - h) // 2, (width - w) // 2, h, w
