"""Boxes on a grid of cells, one cell a patch: how a cell says where a box lies, and how boxes overlap.

Boxes are ``x0, y0, x1, y1`` in pixels, half open: ``x1 - x0`` is the width.

Legend: N images, P cells, row by row from the top left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_LOG_SIZE = 8.0
"""Largest logarithm of a decoded side in cells, beyond every image: exp of more could overflow."""


@dataclass(frozen=True)
class Cells:
    """The division of an image into cells.

    Attributes:
        grid: Cells per column and per row.
        image_size: Height and width of the image in pixels.
    """

    grid: tuple[int, int]
    image_size: tuple[int, int]

    @property
    def sides(self) -> tuple[float, float]:
        """Return width and height of a cell in pixels."""
        return self.image_size[1] / self.grid[1], self.image_size[0] / self.grid[0]

    def centres(self) -> Tensor:
        """Return the ``(P, 2)`` float32 centres ``x, y`` of the cells in pixels."""
        width, height = self.sides
        y, x = torch.meshgrid(torch.arange(self.grid[0]), torch.arange(self.grid[1]), indexing="ij")
        return torch.stack([(x.flatten() + 0.5) * width, (y.flatten() + 0.5) * height], dim=1)

    def encode(self, boxes: Tensor) -> Tensor:
        """Express boxes by the cells that they are assigned to.

        Args:
            boxes: ``(..., P, 4)`` float32 boxes in pixels, each side above 0.

        Returns:
            ``(..., P, 4)``: offset of the box's centre from the cell's along x and y, and the logarithms of
            width and height; all in sides of a cell.
        """
        sides = boxes.new_tensor(self.sides)
        low, high = boxes[..., :2], boxes[..., 2:]
        offsets = ((low + high) / 2 - self.centres().to(boxes)) / sides
        return torch.cat([offsets, ((high - low) / sides).log()], dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Undo ``encode``.

        Args:
            codes: ``(..., P, 4)`` float32.

        Returns:
            ``(..., P, 4)`` boxes in pixels, not clipped to the image.
        """
        sides = codes.new_tensor(self.sides)
        centres = self.centres().to(codes) + codes[..., :2] * sides
        halves = codes[..., 2:].clamp(max=LARGEST_LOG_SIZE).exp() * sides / 2
        return torch.cat([centres - halves, centres + halves], dim=-1)

    def clip(self, boxes: Tensor) -> Tensor:
        """Cut ``(..., 4)`` boxes off at the edges of the image."""
        height, width = self.image_size
        return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Compute intersection over union box by box.

    Args:
        first: ``(..., 4)`` boxes.
        second: ``(..., 4)`` boxes of the same shape.

    Returns:
        ``(...)`` values in [0, 1]; 0 for two boxes without area.
    """
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    union = area(first) + area(second) - intersection
    return intersection / union.where(union > 0, 1.0)


def area(boxes: Tensor) -> Tensor:
    """Return the ``(...)`` areas of ``(..., 4)`` boxes."""
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)
