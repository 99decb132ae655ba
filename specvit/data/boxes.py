"""Boxes that move with their images: to a square that an image is squashed to, or to the square in its middle.

Boxes are rows ``x0, y0, x1, y1, class`` in pixels, half open: ``x1 - x0`` is the width. What remains of a box that is
cut off counts, as long as it has a pixel: rounded to whole pixels, its sides are not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class OwnBoxes:
    """Boxes of N images at the resolution of their files, of the central squares that probes see.

    Attributes:
        rows: ``(B, 5)`` float64, the boxes of all images, in pixels of the squares, not rounded.
        spans: ``(N, 2)`` int64, of every image its first row and the one behind its last.
        sides: ``(N,)`` int64, of every square its side in pixels: the shorter side of the file.
    """

    rows: NDArray[np.float64]
    spans: NDArray[np.int64]
    sides: NDArray[np.int64]

    @classmethod
    def of(cls, boxes: Sequence[NDArray[np.float64]], sides: Sequence[int]) -> OwnBoxes:
        """Return the boxes of images, each ``(L, 5)``, in squares of so many pixels a side."""
        ends = np.cumsum([len(rows) for rows in boxes], dtype=np.int64)
        spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1).astype(np.int64)
        return cls(np.concatenate(boxes), spans, np.array(sides, np.int64))

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, image: int) -> NDArray[np.float64]:
        """Return the ``(L, 5)`` boxes of an image."""
        start, end = self.spans[image].tolist()
        return self.rows[start:end]

    def take(self, images: NDArray[np.int64]) -> OwnBoxes:
        """Return the boxes of some images."""
        return replace(self, spans=self.spans[images], sides=self.sides[images])


def squash_boxes(rows: NDArray[np.float64], image_size: tuple[int, int], size: int) -> NDArray[np.int16]:
    """Move boxes with an image that is squashed to a square.

    Args:
        rows: ``(M, 5)`` float64 in pixels of the image.
        image_size: Width and height of the image.
        size: Side of the square in pixels.

    Returns:
        ``(L, 5)`` int16 in pixels of the square, clipped to it and rounded; those without a pixel are left out.
    """
    width, height = image_size
    corners = rows[:, :4] * (size / np.array([width, height, width, height], dtype=np.float64))
    corners = np.rint(np.clip(corners, 0, size))
    return np.concatenate([corners, rows[:, 4:]], axis=1)[_have_pixels(corners)].astype(np.int16)


def crop_boxes(rows: NDArray[np.float64], image_size: tuple[int, int]) -> NDArray[np.float64]:
    """Move boxes with an image of which the central square is kept, at its own resolution.

    Args:
        rows: ``(M, 5)`` float64 in pixels of the image.
        image_size: Width and height of the image.

    Returns:
        ``(L, 5)`` float64 in pixels of the square, cut off at its edges and not rounded; those without a pixel are left
        out.

    Source: how detectors are trained on crops, in DETR (datasets/transforms.py, ``crop``) and torchvision
    (``v2.CenterCrop`` with ``v2.SanitizeBoundingBoxes``, a pixel at least): however little remains of an object counts.
    """
    side = min(image_size)
    left, top = ((length - side) / 2 for length in image_size)
    corners = np.clip(rows[:, :4] - np.array([left, top, left, top]), 0, side)
    return np.concatenate([corners, rows[:, 4:]], axis=1)[_have_pixels(np.rint(corners))]


def _have_pixels(corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which of ``(M, 4)`` rounded corners have a pixel between them."""
    return (corners[:, 0] < corners[:, 2]) & (corners[:, 1] < corners[:, 3])


def pad_boxes(boxes: NDArray[np.int16], num_rows: int) -> NDArray[np.int16]:
    """Append rows ``0, 0, 0, 0, -1`` to ``(M, 5)`` boxes, up to ``num_rows``."""
    padded = np.zeros((num_rows, 5), dtype=np.int16)
    padded[:, 4] = -1
    padded[: len(boxes)] = boxes
    return padded
