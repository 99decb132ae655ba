"""Reading and resizing depth maps."""

from __future__ import annotations

import hashlib
import io
import tokenize
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from PIL import Image

from specvit.data.reading.image_decoding import MAX_PIXELS, decode
from specvit.errors import DataError
from specvit.files.regular import read_regular
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NPY_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,
    ArithmeticError,
    # The header is a literal of Python, which NumPy parses and takes a data type from.
    tokenize.TokenError,
    SyntaxError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)

_PARSING = Lock()
"""NumPy parses the header as Python. Python 3.11 counts how deep it is in a text for all threads together, so that of
two that parse at once one may raise SystemError (python/cpython#106905)."""


def read_depth(
    path: Path, *, units_per_m: float = 1000.0, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.float32], bytes]:
    """Read one depth map.

    Args:
        path: A PNG of 16-bit greyscale, or an NPY file of floats in metres, by its ending.
        units_per_m: What a PNG holds for a metre, above 0.
        max_pixels: Pixels that a PNG may have.

    Returns:
        ``(H, W)`` metres, and the SHA-256 of the file.

    Raises:
        DataError: If the file cannot be read or decoded, or is not such a map. Pickled arrays are not read.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if path.suffix.lower() == ".npy":
        depth = _decode_npy(content, path)
    else:
        depth = _decode_png(content, path, max_pixels=max_pixels) / np.float32(units_per_m)
    return depth, hashlib.sha256(content).digest()


def measured(depth: NDArray[np.float32], *, max_depth_m: float | None) -> NDArray[np.float32]:
    """Set to 0 what is not measured, or farther away than what counts.

    Args:
        depth: ``(H, W)`` metres; not changed. Those that float16, in which depth is held, makes 0 or infinite are not
            measured either, so that the same pixels count whether a map was resized or not.
        max_depth_m: Largest depth that counts; None = any.

    Returns:
        ``(H, W)`` metres, finite, 0 = not measured.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        held = depth.astype(np.float16)
        counts = (held > 0) & np.isfinite(held) & (depth <= (np.inf if max_depth_m is None else max_depth_m))
    return np.where(counts, depth, np.float32(0))


def squash_depth(depth: NDArray[np.float32], size: int) -> NDArray[np.float16]:
    """Resize what is ``measured`` by nearest neighbour: ``(H, W)`` to ``(size, size)`` metres."""
    return np.asarray(Image.fromarray(depth).resize((size, size), Image.Resampling.NEAREST)).astype(np.float16)


def _decode_png(content: bytes, path: Path, *, max_pixels: int) -> NDArray[np.float32]:
    image = decode(content, str(path), ("PNG",), max_pixels=max_pixels)
    bit_depth, is_grey = content[24], content[25] == 0
    if bit_depth != 16 or not is_grey:
        raise DataError(
            f"the depth map {str(path)!r} must be a 16-bit greyscale PNG, in millimetres or as data.units_per_m says, "
            f"not mode {image.mode!r} with {bit_depth} bits"
        )
    return np.asarray(image).astype(np.float32)


def _decode_npy(content: bytes, path: Path) -> NDArray[np.float32]:
    try:
        with _PARSING:
            array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except _NPY_ERRORS as error:
        raise _unreadable(path, error) from error
    if array.dtype.kind != "f" or array.ndim != 2 or not array.size:
        shape = "x".join(map(str, array.shape)) or "a scalar"
        raise DataError(
            f"the depth map {str(path)!r} must hold a height x width array of floats in metres, "
            f"not {shape} of {array.dtype}"
        )
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def _unreadable(path: Path, error: BaseException) -> DataError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DataError(f"cannot read the depth map {str(path)!r}: {reason}")
