"""Reading the images of a source: in threads, once, and with all that is wrong with them reported together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

from PIL import Image

from specvit.data.reading.image_decoding import (
    FORMATS,
    MAX_PIXELS,
    TURNS,
    Header,
    check_mask,
    decode,
    limit_pixels,
    look,
    look_at_file,
    orientation_of,
    read_content,
    to_rgb,
)
from specvit.data.reading.progress import Progress
from specvit.errors import DataError

T = TypeVar("T")

Orientation = Literal["stored", "shown"] | None
"""Whether an EXIF orientation is applied (``shown``); None = it is not, and refused where a target may need it."""

MOST_REPORTED = 20
"""Files that are reported at once, if so many cannot be used."""

BLOCK = 1024
"""Items that are given to the threads at once."""

_SWAPPING = (5, 6, 7, 8)
"""Orientations that exchange width and height."""


class ImageReader:
    """The reading of the images of one source.

    What is wrong with a file is kept until ``check``, so that a user mends many files at a time.
    """

    def __init__(self, *, orientation: Orientation = None, max_pixels: int = MAX_PIXELS) -> None:
        """Store what the source says of its images.

        Args:
            orientation: What is done about an EXIF orientation.
            max_pixels: Pixels that an image may have.
        """
        self._orientation = orientation
        self._max_pixels = max_pixels
        self._faults: list[DataError] = []

    def map(
        self, read: Callable[[T], bytes], items: Iterable[T], *, what: str = "images", total: int | None = None
    ) -> list[bytes]:
        """Apply ``read`` to all items in parallel threads: Pillow decodes outside of Python's global lock.

        Items are taken as they are needed, so that they may be many, or come from a stream. A run of more than a few
        seconds is told of in the log ``specvit.data``.

        Args:
            read: What to do with an item; its ``DataError`` is kept until ``check``, and its result is empty.
            items: The items.
            what: What the items are, for the log.
            total: How many there are, for the log; None = as many as ``len`` says, if it says.

        Raises:
            DataError: Once so many items were refused that ``check`` reports no more.
        """

        def attempt(item: T) -> bytes | DataError:
            try:
                return read(item)
            except DataError as error:
                return error

        num_threads = min(8, os.cpu_count() or 1)
        if total is None and isinstance(items, Sized):
            total = len(items)
        progress = Progress(what, total)
        results: list[bytes] = []
        stream = iter(items)
        with limit_pixels(self._max_pixels), ThreadPoolExecutor(num_threads) as threads:
            while block := list(islice(stream, BLOCK)):
                for result in threads.map(attempt, block):
                    if isinstance(result, DataError):
                        self._faults.append(result)
                        result = b""
                    results.append(result)
                    progress.update(len(results))
                if len(self._faults) >= MOST_REPORTED:
                    self.check()
        return results

    def check(self) -> None:
        """Check that every item was read.

        Raises:
            DataError: If not; the text is that of the first, or lists those of the first ``MOST_REPORTED``.
        """
        if len(self._faults) == 1:
            raise self._faults[0]
        if self._faults:
            least = "at least " if len(self._faults) >= MOST_REPORTED else ""
            texts = [f"\n  {fault}" for fault in self._faults[:MOST_REPORTED]]
            raise DataError(f"{least}{len(texts)} images cannot be used:{''.join(texts)}")

    def read(self, path: Path, *, mask: bool = False) -> tuple[Image.Image, bytes]:
        """Read and decode one file.

        Args:
            path: The file.
            mask: See ``decode``.

        Returns:
            The image, and the SHA-256 of the file.

        Raises:
            DataError: If the file cannot be read, or as ``decode``.
        """
        content = read_content(path)
        return self.decode(content, str(path), mask=mask), hashlib.sha256(content).digest()

    def read_header(self, path: Path) -> tuple[Header, bytes]:
        """Read one file, and decode no more of it than its header.

        Returns:
            What ``look`` returns, and the SHA-256 of the file.

        Raises:
            DataError: If the file cannot be read, or as ``look``.
        """
        content = read_content(path)
        return self.look(content, str(path)), hashlib.sha256(content).digest()

    def decode(self, content: bytes, name: str, *, mask: bool = False) -> Image.Image:
        """Decode one image, turned as it is shown where the source says so.

        Args:
            content: The encoded image.
            name: What to call it in messages.
            mask: Whether it must be a PNG of class indices (8-bit greyscale, or a palette) and stays one;
                other images become RGB.

        Raises:
            DataError: If it cannot be decoded, has too many pixels, more than 8 bits a channel, or is not such a mask.
        """
        image = decode(content, name, ("PNG",) if mask else FORMATS, max_pixels=self._max_pixels)
        if mask:
            check_mask(image, content, name)
        else:
            image = to_rgb(image, name)
        return self.turn(image)

    def look_at_file(self, path: Path) -> Header:
        """Return what the header of a file says, as ``look``; of most JPEGs the rest is not read.

        Args:
            path: The file.

        Raises:
            DataError: If the file cannot be read, or as ``look``.
        """
        return self._turned(look_at_file(path, max_pixels=self._max_pixels))

    def look(self, content: bytes, name: str) -> Header:
        """Return what the header of an image says, which is as ``decode`` returns it: size and orientation.

        Args:
            content: The encoded image.
            name: What to call it in messages.

        Raises:
            DataError: As ``decode``, as far as it is known without decoding all of it.
        """
        return self._turned(look(content, name, max_pixels=self._max_pixels))

    def _turned(self, header: Header) -> Header:
        if self._orientation == "shown" and header.orientation in _SWAPPING:
            width, height = header.size
            return Header((height, width), header.orientation)
        return header

    def turn(self, image: Image.Image) -> Image.Image:
        """Return an image as it is shown, if the source says so, else as it is stored."""
        if self._orientation != "shown" or (orientation := orientation_of(image)) == 1:
            return image
        return image.transpose(TURNS[orientation])

    def check_place(
        self,
        image: Image.Image | Header,
        name: str,
        *,
        target: str,
        size: tuple[int, int] | None = None,
        orientation: int = 1,
    ) -> None:
        """Check that a target which has positions lies as its image does.

        Args:
            image: The image, as ``decode``, ``look`` or ``look_at_file`` returned it.
            name: What to call it in messages.
            target: What to call the target in messages.
            size: Width and height that the target has or gives; None = it gives none.
            orientation: The EXIF orientation of the target.

        Raises:
            DataError: If the sizes differ, or if the image has an EXIF orientation, both ways fit the size, and the
                source does not say which is right.
        """
        stored = image.orientation if isinstance(image, Header) else orientation_of(image)
        says = f"the image {name!r} has the EXIF orientation {stored}"
        if size is not None and size != image.size:
            width, height = size
            hint = ""
            if stored in _SWAPPING and (height, width) == image.size:
                was = "which was applied" if self._orientation == "shown" else "which was not applied"
                hint = f"; {says}, {was}: see data.orientation, stored or shown"
            raise DataError(
                f"{target} must have the size of its image, {image.size[0]}x{image.size[1]}, not {width}x{height}{hint}"
            )
        is_certain = stored in _SWAPPING and size is not None and image.size[0] != image.size[1]
        if self._orientation is None and stored != orientation and not is_certain:
            raise DataError(
                f"{says}, so that {target} may lie as it is stored or as it is shown: set data.orientation to stored, "
                "or to shown, which turns the images"
            )
