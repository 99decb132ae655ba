"""Targets at the resolution of their files, of images that stay encoded: probes are scored on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from specvit.data.places import Places
from specvit.data.reading.image_decoding import MAX_PIXELS, limit_pixels
from specvit.data.reading.image_reader import ImageReader, Orientation
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Value = TypeVar("Value", bound="np.generic")


class OwnTargets(Protocol):
    """One kind of target of N images, at the resolution of their files, of the central squares that probes see."""

    def __len__(self) -> int: ...

    def __getitem__(self, image: int) -> NDArray[Any]:
        """Return the target of an image.

        Raises:
            DataError: If it cannot be read.
        """

    def take(self, images: NDArray[np.int64]) -> OwnTargets:
        """Return the targets of some images."""


@dataclass(frozen=True)
class OwnMasks:
    """N masks at the resolution of their files, of the central squares that probes see; decoded when they are taken.

    Attributes:
        places: Where they lie, PNGs of class indices.
        orientation: What is done about an EXIF orientation.
        max_pixels: Pixels that a mask may have.
        classes: ``(256,)`` uint8 what indices become; None = they stay.
    """

    places: Places
    orientation: Orientation = None
    max_pixels: int = MAX_PIXELS
    classes: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, image: int) -> NDArray[np.uint8]:
        """Return ``(m, m)`` class indices, m the shorter side of the mask.

        Raises:
            DataError: If it cannot be read.
        """
        reader = ImageReader(orientation=self.orientation, max_pixels=self.max_pixels)
        with limit_pixels(self.max_pixels):
            mask = reader.decode(self.places.read(image), self.places.name(image), mask=True)
        square = central_square(np.asarray(mask))
        return square if self.classes is None else self.classes[square]

    def take(self, images: NDArray[np.int64]) -> OwnMasks:
        """Return the masks of some images."""
        return replace(self, places=self.places.take(images))


@dataclass(frozen=True)
class OwnDepth:
    """N depth maps at the resolution of their files, of the central squares that probes see; read when they are taken.

    Attributes:
        files: ``(N,)`` their paths as bytes.
        read: Reads one: ``(H, W)`` float32 metres, 0 = not measured.
        max_pixels: Pixels that a depth map may have.
    """

    files: NDArray[np.bytes_]
    read: Callable[[Path], NDArray[np.float32]]
    max_pixels: int = MAX_PIXELS

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, image: int) -> NDArray[np.float32]:
        """Return ``(m, m)`` metres, m the shorter side of the depth map.

        Raises:
            DataError: If it cannot be read.
        """
        with limit_pixels(self.max_pixels):
            return central_square(self.read(Path(os.fsdecode(self.files[image]))))

    def take(self, images: NDArray[np.int64]) -> OwnDepth:
        """Return the depth maps of some images."""
        return replace(self, files=self.files[images])


def central_square(target: NDArray[Value]) -> NDArray[Value]:
    """Return the middle of ``(h, w)`` pixels: ``(m, m)``, m the shorter side."""
    side = min(target.shape)
    top, left = ((length - side) // 2 for length in target.shape)
    return target[top : top + side, left : left + side]
