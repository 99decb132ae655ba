"""Which cell learns which object.

Legend: N images, M rows of boxes an image, P cells, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from specvit.probes.detection.boxes import Cells, area

CENTRE_RADIUS = 1.5
"""Half the side of the square around an object's centre whose cells learn it, in sides of a cell."""

_CHUNK_VALUES = 1 << 22


@dataclass(frozen=True)
class Targets:
    """The class and box that every cell is to predict.

    Attributes:
        classes: ``(N, P)`` int64 class of the object that the cell learns; -1 = none.
        boxes: ``(N, P, 4)`` float32 its box in pixels; the whole image where there is none.
    """

    classes: Tensor
    boxes: Tensor

    def subset(self, images: Tensor) -> Targets:
        """Return the targets of some images, by index."""
        return Targets(classes=self.classes[images], boxes=self.boxes[images])


def assign(boxes: Tensor, cells: Cells) -> Targets:
    """Assign objects to cells.

    A cell learns an object if the cell's centre lies within the object's box and within ``CENTRE_RADIUS`` of
    the box's centre along both axes, or if the cell holds the box's centre. Where several objects claim a
    cell the smallest has it; of equals, the first row.

    Source: FCOS with centre sampling (Tian et al., arXiv 2006.09214, section 3); that the cell of the centre
    always learns is CenterNet's (Zhou et al., arXiv 1904.07850). With one stride, no object is turned away
    for its size, and one that is smaller than a cell needs the second rule.

    Args:
        boxes: ``(N, M, 5)`` int16 rows ``x0, y0, x1, y1, class``, class -1 = no object.
        cells: The cells of the images.

    Returns:
        The targets of every cell.
    """
    num_images, num_rows = boxes.shape[:2]
    num_cells = cells.grid[0] * cells.grid[1]
    step = max(1, _CHUNK_VALUES // max(1, num_rows * num_cells))
    chunks = [_assign(chunk, cells) for chunk in torch.split(boxes, step)] if num_images and num_rows else []
    if not chunks:
        height, width = cells.image_size
        whole = torch.tensor([0.0, 0.0, width, height], device=boxes.device).expand(num_images, num_cells, 4)
        return Targets(classes=torch.full((num_images, num_cells), -1, device=boxes.device), boxes=whole)
    return Targets(
        classes=torch.cat([chunk.classes for chunk in chunks]), boxes=torch.cat([chunk.boxes for chunk in chunks])
    )


def _assign(boxes: Tensor, cells: Cells) -> Targets:
    height, width = cells.image_size
    corners, classes = boxes[..., :4].float(), boxes[..., 4].long()
    sides = corners.new_tensor(cells.sides)
    middles = (corners[..., :2] + corners[..., 2:]) / 2
    at = cells.centres().to(corners)
    offsets = (at - middles[:, :, None]).abs()
    near = (offsets <= CENTRE_RADIUS * sides).all(-1)
    inside = ((at >= corners[:, :, None, :2]) & (at < corners[:, :, None, 2:])).all(-1)
    last = sides.new_tensor([cells.grid[1] - 1, cells.grid[0] - 1])
    column, row = (middles / sides).floor().clamp(min=0).minimum(last).long().unbind(-1)
    holds_centre = (row * cells.grid[1] + column)[..., None] == torch.arange(len(at), device=at.device)
    claimed = ((near & inside) | holds_centre) & (classes >= 0)[..., None]
    cost = area(corners)[..., None].where(claimed, torch.inf)
    smallest, row_of = cost.min(1)
    taken = smallest.isfinite()
    whole = corners.new_tensor([0, 0, width, height])
    return Targets(
        classes=classes.gather(1, row_of).where(taken, -1),
        boxes=corners.gather(1, row_of[..., None].expand(-1, -1, 4)).where(taken[..., None], whole),
    )
