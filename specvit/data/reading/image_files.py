"""Finding, reading and resizing image files: what the folder sources have in common.

Files are read once, in parallel: Pillow decodes outside of Python's global lock. Images are taken as they are
stored (an EXIF orientation is not applied, as in torchvision's ImageFolder).
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from PIL import Image, ImageOps, UnidentifiedImageError

from specvit.data.reading.progress import Progress
from specvit.errors import DataError
from specvit.files.regular import read_regular
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Endings, in any case, that make a file an image; others are passed over."""
SPLITS = ("train", "val")
"""Names of the two splits' folders."""

BLOCK = 1024
"""Items that are given to the threads at once."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_DECODING_ERRORS = (
    OSError,  # also what Pillow raises for unknown and truncated files
    SyntaxError,  # Pillow's word for a broken PNG
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def existing_root(root: str) -> Path:
    """Resolve the ``root`` field of a source: expand ``~``, and start relative paths at the current folder.

    Raises:
        DataError: If there is no such folder.
    """
    try:
        path = Path(root).expanduser()
    except RuntimeError as error:
        raise DataError(f"data.root: {root!r} has no meaning here: {error}") from error
    if not root.strip() or not path.is_dir():
        raise DataError(f"data.root: no folder {str(path.absolute() if root.strip() else root)!r}")
    return path.absolute()


def existing_folder(folder: Path, *, rule: str) -> Path:
    """Return ``folder``.

    Raises:
        DataError: If it is missing; ``rule`` tells what the layout asks for.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {str(folder)!r}: {rule}")
    return folder


def visible_entries(folder: Path) -> list[Path]:
    """List a folder by name, without hidden entries.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {str(folder)!r}: {error.strerror}") from error
    return [entry for entry in entries if not entry.name.startswith(".")]


def list_images(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List the images that lie in a folder itself, by name; folders below it are not searched."""
    entries = visible_entries(folder)
    return [entry for entry in entries if entry.suffix.lower() in suffixes and not entry.is_dir()]


def map_files(
    read: Callable[[T], bytes], items: Iterable[T], *, what: str = "images", total: int | None = None
) -> list[bytes]:
    """Apply ``read`` to all items in parallel threads; the first item that fails decides the error.

    Items are taken as they are needed, so that they may be many, or come from a stream. A run of more than a few
    seconds is told of in the log ``specvit.data``.

    Args:
        read: What to do with an item.
        items: The items.
        what: What the items are, for the log.
        total: How many there are, for the log; None = as many as ``len`` says, if it says.
    """
    num_threads = min(8, os.cpu_count() or 1)
    if total is None and isinstance(items, Sized):
        total = len(items)
    progress = Progress(what, total)
    results: list[bytes] = []
    stream = iter(items)
    with warnings.catch_warnings():
        # Set here, not in the threads: the filters belong to the whole process.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with ThreadPoolExecutor(num_threads) as threads:
            while block := list(islice(stream, BLOCK)):
                for result in threads.map(read, block):
                    results.append(result)
                    progress.update(len(results))
    return results


def read_image(path: Path, *, mask: bool = False) -> tuple[Image.Image, bytes]:
    """Read and decode one file.

    Args:
        path: The file.
        mask: See ``decode_image``.

    Returns:
        The image, and the SHA-256 of the file.

    Raises:
        DataError: If the file cannot be read, or as ``decode_image``.
    """
    content = read_content(path)
    return decode_image(content, str(path), mask=mask), hashlib.sha256(content).digest()


def read_content(path: Path) -> bytes:
    """Return the content of an image file.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return read_regular(path)
    except OSError as error:
        raise DataError(f"cannot read the image {str(path)!r}: {_reason(error, _FORMATS)}") from error


def decode_image(content: bytes, name: str, *, mask: bool = False) -> Image.Image:
    """Decode one image.

    Args:
        content: The encoded image.
        name: What to call it in messages.
        mask: Whether it must be a PNG of class indices (8-bit greyscale, or a palette) and stays one;
            other images become RGB.

    Raises:
        DataError: As ``decode``, or if it has more than 8 bits a channel, or is not such a mask.
    """
    image = decode(content, name, ("PNG",) if mask else _FORMATS)
    if mask:
        _check_mask(name, image, content)
        return image
    return _to_rgb(name, image)


def decode(content: bytes, name: str, formats: tuple[str, ...]) -> Image.Image:
    """Decode one image and leave its pixels as they are.

    Args:
        content: The encoded image.
        name: What to call it in messages.
        formats: Pillow's names of the formats that it may have.

    Raises:
        DataError: If it cannot be decoded, or has more pixels than Pillow takes for safe.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=formats)
        image.load()
    except _DECODING_ERRORS as error:
        raise DataError(f"cannot read the image {name!r}: {_reason(error, formats)}") from error
    return image


def crop_to_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize the shorter side to ``size`` and keep the centre: ``(3, size, size)``, antialiased bilinear."""
    return _channels_first(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))


def squash_to_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize both sides to ``size``, whatever the aspect: ``(3, size, size)``, antialiased bilinear."""
    return _channels_first(image.resize((size, size), Image.Resampling.BILINEAR))


def squash_mask(mask: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize a mask as ``squash_to_square`` does, by nearest neighbour: ``(size, size)`` class indices."""
    return np.asarray(mask.resize((size, size), Image.Resampling.NEAREST))


def fingerprint(root: Path, files: Iterable[tuple[Path, bytes]]) -> str:
    """Hash the relative names and the contents of files.

    Args:
        root: The folder that names are relative to.
        files: Each file with the SHA-256 of its content, in a fixed order.

    Returns:
        16 hex digits.
    """
    digest = hashlib.sha256()
    for path, content in files:
        digest.update(path.relative_to(root).as_posix().encode(errors="surrogateescape") + b"\0" + content)
    return digest.hexdigest()[:16]


def fingerprint_samples(samples: Iterable[bytes]) -> str:
    """Hash samples that are no files of their own.

    Args:
        samples: What each sample is, in a fixed order.

    Returns:
        16 hex digits.
    """
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(len(sample).to_bytes(8, "big") + sample)
    return digest.hexdigest()[:16]


def _channels_first(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image).transpose(2, 0, 1)


def _to_rgb(name: str, image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        raise DataError(f"the image {name!r} must have 8 bits a channel, not mode {image.mode!r}")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _check_mask(name: str, mask: Image.Image, content: bytes) -> None:
    # Pillow stretches greyscale of fewer bits to 0..255, which would change the indices; palettes it leaves.
    bit_depth = content[24]
    if mask.mode != "P" and (mask.mode != "L" or bit_depth != 8):
        raise DataError(
            f"the mask {name!r} must be an 8-bit PNG with one channel (greyscale or palette), "
            f"not mode {mask.mode!r} with {bit_depth} bits"
        )


def _reason(error: BaseException, formats: Sequence[str]) -> str:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it has more than {Image.MAX_IMAGE_PIXELS} pixels"
    if isinstance(error, UnidentifiedImageError):
        return f"its content is not {' or '.join(formats)}"
    return getattr(error, "strerror", None) or str(error)
