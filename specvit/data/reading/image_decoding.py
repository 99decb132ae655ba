"""Decoding one image: which formats, modes and sizes are taken, and how an image says that it is to be turned."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from specvit.errors import DataError
from specvit.files.regular import open_regular, read_regular

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 89_478_485
"""Pixels that an image may have, unless a source says otherwise. Source: Pillow, ``Image.MAX_IMAGE_PIXELS``."""
_DECODING_ERRORS = (
    OSError,  # also what Pillow raises for unknown and truncated files
    SyntaxError,  # Pillow's word for a broken PNG
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
)

TURNS: Mapping[int, Image.Transpose] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
"""What shows a stored image as it was taken, by its EXIF orientation; 1 = it is stored so.

Source: Exif 2.32, tag 0x0112; the turns are those of Pillow's ``ImageOps.exif_transpose``."""


_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"
_ENDS = (b"\xff\xd9", b"IEND\xaeB`\x82")
"""What a whole JPEG and a whole PNG end with, unless a program has added something."""
_TURNED_PNG = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp", b"tiff:Orientation")
"""One of these is in a PNG that says how it is to be turned."""


@dataclass(frozen=True)
class Header:
    """What is known of an image before it is decoded.

    Attributes:
        size: Width and height, as it is stored.
        orientation: Its EXIF orientation, 1 to 8; 1 where it says none.
    """

    size: tuple[int, int]
    orientation: int


def read_content(path: Path) -> bytes:
    """Return the content of an image file.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return read_regular(path)
    except OSError as error:
        raise DataError(f"cannot read the image {str(path)!r}: {_reason(error, FORMATS)}") from error


def decode(
    content: bytes, name: str, formats: tuple[str, ...] = FORMATS, *, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode one image and leave its pixels as they are, and where they are.

    Args:
        content: The encoded image.
        name: What to call it in messages.
        formats: Pillow's names of the formats that it may have.
        max_pixels: Pixels that it may have; where these are more than Pillow's own limit, see ``limit_pixels``.

    Raises:
        DataError: If it cannot be decoded, or has more pixels.
    """
    return _opened(io.BytesIO(content), name, formats, max_pixels=max_pixels, wholly=True)


def look(content: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Return what the header of an image says; one that does not end as a whole image does is decoded, to be sure.

    What is damaged between header and end is found by whoever decodes it.

    Args:
        content: The encoded image.
        name: What to call it in messages.
        max_pixels: As of ``decode``.

    Raises:
        DataError: As ``decode`` and ``to_rgb``, as far as it is known then.
    """
    late = content.startswith(_PNG) and any(sign in content for sign in _TURNED_PNG)
    wholly = late or not content.endswith(_ENDS)
    image = _opened(io.BytesIO(content), name, FORMATS, max_pixels=max_pixels, wholly=wholly)
    _check_channels(image, name)
    # Pillow decodes a PNG to look for an orientation behind its pixels.
    orientation = 1 if content.startswith(_PNG) and not late else orientation_of(image)
    return Header(image.size, orientation)


def look_at_file(path: Path, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Return what ``look`` says of a file; of a JPEG that ends as a whole one does, its header alone is read.

    Args:
        path: The file.
        max_pixels: As of ``decode``.

    Raises:
        DataError: If it cannot be read, or as ``look``.
    """
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            ends = [os.pread(file.fileno(), 2, max(0, start)) for start in (0, size - 2)]
            if ends != [_JPEG, _ENDS[0]]:
                return look(file.read(), str(path), max_pixels=max_pixels)
            image = _opened(file, str(path), FORMATS, max_pixels=max_pixels, wholly=False)
            _check_channels(image, str(path))
            return Header(image.size, orientation_of(image))
    except OSError as error:
        raise DataError(f"cannot read the image {str(path)!r}: {_reason(error, FORMATS)}") from error


def _opened(
    content: BinaryIO, name: str, formats: tuple[str, ...], *, max_pixels: int, wholly: bool
) -> Image.Image:
    try:
        image: Image.Image = Image.open(content, formats=formats)
        if image.width * image.height > max_pixels:
            raise Image.DecompressionBombError
        if wholly:
            image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        rule = f"it has more than {max_pixels} pixels, the limit that data.max_pixels raises"
        raise DataError(f"cannot read the image {name!r}: {rule}") from error
    except _DECODING_ERRORS as error:
        raise DataError(f"cannot read the image {name!r}: {_reason(error, formats)}") from error
    return image


@contextmanager
def limit_pixels(max_pixels: int) -> Iterator[None]:
    """Let Pillow open images of so many pixels, in all threads; ``decode`` refuses larger ones.

    Pillow's limit and its filters belong to the whole process, where threads may be decoding images of several sources:
    it is raised, never lowered, and whose images are smaller says so to ``decode``.
    """
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation that an image was stored with, 1 to 8; 1 where it says none."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODING_ERRORS:  # metadata that are damaged say nothing
        return 1
    return orientation if orientation in TURNS else 1


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Return an image as RGB.

    Raises:
        DataError: If it has more than 8 bits a channel.
    """
    _check_channels(image, name)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _check_channels(image: Image.Image, name: str) -> None:
    if image.mode.startswith(("I", "F")):
        raise DataError(f"the image {name!r} must have 8 bits a channel, not mode {image.mode!r}")


def check_mask(mask: Image.Image, content: bytes, name: str) -> None:
    """Check that a PNG holds class indices: 8-bit greyscale, or a palette.

    Args:
        mask: The image.
        content: Its file.
        name: What to call it in messages.

    Raises:
        DataError: If it does not.
    """
    # Pillow stretches greyscale of fewer bits to 0..255, which would change the indices; palettes it leaves.
    bit_depth = content[24]
    if mask.mode != "P" and (mask.mode != "L" or bit_depth != 8):
        raise DataError(
            f"the mask {name!r} must be an 8-bit PNG with one channel (greyscale or palette), "
            f"not mode {mask.mode!r} with {bit_depth} bits"
        )


def _reason(error: BaseException, formats: Sequence[str]) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"its content is not {' or '.join(formats)}"
    return getattr(error, "strerror", None) or str(error)
