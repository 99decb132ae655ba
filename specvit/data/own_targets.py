"""Targets at the resolution of their files, of images that stay encoded: probes are scored on them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from specvit.data.places import Places
from specvit.data.reading.image_decoding import MAX_PIXELS, limit_pixels
from specvit.data.reading.image_reader import ImageReader, Orientation
from specvit.data.reading.label_names import IGNORE_INDEX
from specvit.errors import DataError
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)

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
        skipped: Where it is noted, by name, why one cannot be read, which is ignored then; None = that is an error.
    """

    places: Places
    orientation: Orientation = None
    max_pixels: int = MAX_PIXELS
    classes: NDArray[np.uint8] | None = None
    skipped: dict[str, str] | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, image: int) -> NDArray[np.uint8]:
        """Return ``(m, m)`` class indices, m the shorter side of the mask; a pixel to ignore where it is skipped.

        Raises:
            DataError: If it cannot be read.
        """
        reader = ImageReader(orientation=self.orientation, max_pixels=self.max_pixels)
        try:
            with limit_pixels(self.max_pixels):
                mask = reader.decode(self.places.read(image), self.places.name(image), mask=True)
        except DataError as error:
            _note(self.skipped, self.places.name(image), error)
            return np.full((1, 1), IGNORE_INDEX, np.uint8)
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
        skipped: Where it is noted, by name, why one cannot be read, which counts as not measured then; None = that is
            an error.
    """

    files: NDArray[np.bytes_]
    read: Callable[[Path], NDArray[np.float32]]
    max_pixels: int = MAX_PIXELS
    skipped: dict[str, str] | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, image: int) -> NDArray[np.float32]:
        """Return ``(m, m)`` metres, m the shorter side of the depth map; a pixel not measured where it is skipped.

        Raises:
            DataError: If it cannot be read.
        """
        path = Path(os.fsdecode(self.files[image]))
        try:
            with limit_pixels(self.max_pixels):
                return central_square(self.read(path))
        except DataError as error:
            _note(self.skipped, str(path), error)
            return np.zeros((1, 1), np.float32)

    def take(self, images: NDArray[np.int64]) -> OwnDepth:
        """Return the depth maps of some images."""
        return replace(self, files=self.files[images])


def _note(skipped: dict[str, str] | None, name: str, error: DataError) -> None:
    """Note why a target is skipped; raise the error where none is."""
    if skipped is None:
        raise error
    if name not in skipped:
        skipped[name] = str(error)
        _LOG.warning("skipped, and nothing is compared with it: %s", error)


def central_square(target: NDArray[Value]) -> NDArray[Value]:
    """Return the middle of ``(h, w)`` pixels: ``(m, m)``, m the shorter side."""
    side = min(target.shape)
    top, left = ((length - side) // 2 for length in target.shape)
    return target[top : top + side, left : left + side]
