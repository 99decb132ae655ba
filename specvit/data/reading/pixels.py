"""Pixels of an encoded image, by the fastest decoder that gives them bit for bit as Pillow does.

JPEGs are decoded by simplejpeg, which is libjpeg-turbo as Pillow has it: 1.2 ms of a core for 500 x 375 pixels, where
Pillow takes 1.8 and torchvision 1.3. What it refuses, or would convert in another way (CMYK), Pillow decodes; so does
Pillow everything where simplejpeg is not installed.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from specvit.data.reading.image_decoding import MAX_PIXELS, TURNS, decode, orientation_of, to_rgb
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_JPEG = b"\xff\xd8"
_AS_PILLOW = frozenset({"YCbCr", "Gray", "RGB"})
"""Colour spaces that both decoders turn into the same RGB."""
_TURNED = (b"Exif", b"tiff:Orientation")
"""One of these is in a file that says how it is to be turned, as Pillow finds it, in EXIF or in XMP."""


def decode_pixels(
    content: bytes, name: str, *, shown: bool = False, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Decode one image.

    Args:
        content: The encoded image.
        name: What to call it in messages.
        shown: Whether it is turned as its EXIF orientation says.
        max_pixels: As of ``decode``.

    Returns:
        ``(H, W, 3)``, RGB.

    Raises:
        DataError: If it cannot be decoded, has more than 8 bits a channel, or more pixels.
    """
    if content.startswith(_JPEG) and not (shown and any(sign in content for sign in _TURNED)):
        pixels = _decode_jpeg(content, max_pixels)
        if pixels is not None:
            return pixels
    image = decode(content, name, max_pixels=max_pixels)
    orientation = orientation_of(image) if shown else 1
    image = to_rgb(image, name)
    return np.array(image if orientation == 1 else image.transpose(TURNS[orientation]))


@cache
def faster_decoder() -> Any | None:
    """Return the package simplejpeg, None where it is not installed. It loads NumPy, so only an image loads it."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def _decode_jpeg(content: bytes, max_pixels: int) -> NDArray[np.uint8] | None:
    """Return the pixels of a JPEG that has nothing unusual about it, else None."""
    simplejpeg = faster_decoder()
    if simplejpeg is None:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in _AS_PILLOW or height * width > max_pixels:
            return None
        pixels: Any = simplejpeg.decode_jpeg(content)
    except ValueError:  # also of what is merely odd: Pillow decides, and says what is wrong
        return None
    result: NDArray[np.uint8] = pixels
    return result
