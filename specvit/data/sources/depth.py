"""Images with depth maps: two parallel trees of files."""

from __future__ import annotations

import hashlib
import io
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from PIL import Image

from specvit.data.base import Dataset, Split
from specvit.data.cache.array_storage import Rows, Storage
from specvit.data.pair_source import PairSource, match_by_name
from specvit.data.reading.image_decoding import MAX_PIXELS, decode, read_content
from specvit.data.reading.image_files import SPLITS, fingerprint, squash_to_square
from specvit.data.reading.image_reader import ImageReader
from specvit.errors import DataError
from specvit.files.regular import read_regular
from specvit.lazy_numpy import np
from specvit.settings import PositiveFloat, settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LAYOUT = "depth reads ROOT/images/{train,val}/NAME.* with ROOT/depth/{train,val}/NAME.png or NAME.npy"
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


@settings
class DepthMaps(PairSource):
    """Read ``root/images/{train,val}/NAME.*`` with ``root/depth/{train,val}/NAME.png`` or ``NAME.npy``.

    A depth map has the size of its image. As a PNG it is 16-bit greyscale of ``units_per_m`` a metre, as an
    NPY file it holds floats in metres. 0, negative values, NaN and infinity mean that a pixel was not measured. Images
    become RGB. Image and depth are resized to ``image_size`` x ``image_size`` whatever their aspect (squashed,
    so that nothing is cut off): images antialiased bilinear, depth by nearest neighbour, so that no depth is
    made up between two surfaces. Depth is held as float16: to a millimetre below 2 m, to 8 mm at 10 m. Other
    files, hidden entries and subfolders are passed over.
    """

    name: ClassVar[str] = "depth"
    targets: ClassVar[frozenset[str]] = frozenset({"depth"})
    source: Literal["depth"] = "depth"

    max_depth_m: PositiveFloat | None = None
    """Largest depth that counts, in metres: a pixel farther away is taken as not measured. None = any depth."""
    units_per_m: PositiveFloat = 1000.0
    """What a PNG holds for a metre: 1000 = millimetres, 256 = KITTI's."""

    def pairs(self, root: Path, split: str) -> list[tuple[Path, Path]]:
        """List the images of a split, each with its depth map."""
        return match_by_name(
            root / "images" / split,
            root / "depth" / split,
            rule=_LAYOUT,
            kind="depth map",
            suffixes=(".png", ".npy"),
        )

    def counted(self, depth: NDArray[np.float32], path: Path) -> NDArray[np.float32]:  # noqa: ARG002
        """Set to 0 what does not count as measured.

        Args:
            depth: ``(H, W)`` metres as read; not changed.
            path: Its file, for messages.

        Returns:
            ``(H, W)`` metres, finite, 0 = not measured.
        """
        with np.errstate(invalid="ignore"):
            counts = (depth > 0) & (depth <= (np.inf if self.max_depth_m is None else self.max_depth_m))
        return np.where(counts & np.isfinite(depth), depth, np.float32(0))

    def _rule(self) -> str:
        most = "" if self.max_depth_m is None else f" and at most data.max_depth_m = {self.max_depth_m:g} m"
        return f"a measured depth is above 0{most}, and finite"

    def _read(self, root: Path, pairs: Mapping[str, list[tuple[Path, Path]]], storage: Storage) -> Dataset:
        size = self.image_size
        shapes = {"images": ((3, size, size), np.uint8), "depth": ((size, size), np.float16)}
        rows = {
            split: {
                name: storage.rows(f"{split}_{name}", len(pairs[split]), shape, dtype)
                for name, (shape, dtype) in shapes.items()
            }
            for split in SPLITS
        }
        reader = self.reader()
        hashes = [pair for split in SPLITS for pair in self._decode(reader, pairs[split], rows[split], split)]
        reader.check()
        splits: dict[str, Split] = {}
        for split in SPLITS:
            splits[split] = Split(**{name: storage.finish(rows[split][name]) for name in shapes})
            if not np.any(splits[split].depth):
                raise DataError(
                    f"the depth maps of {split} in {str(root)!r}, such as {str(pairs[split][0][1])!r}, must hold a "
                    f"measured pixel; {self._rule()}"
                )
        return Dataset(
            train=splits["train"],
            val=splits["val"],
            class_names=(),
            mask_names=(),
            fingerprint=fingerprint(root, hashes),
        )

    def _decode(
        self, reader: ImageReader, pairs: list[tuple[Path, Path]], rows: Mapping[str, Rows], split: str
    ) -> list[tuple[Path, bytes]]:
        """Decode one split: return the digests of its files."""

        def read(index: int) -> bytes:
            image_path, depth_path = pairs[index]
            image, image_digest = reader.read(image_path)
            depth, depth_digest = read_depth(depth_path, units_per_m=self.units_per_m, max_pixels=self.max_pixels)
            height, width = depth.shape
            reader.check_place(
                image, str(image_path), target=f"the depth map {str(depth_path)!r}", size=(width, height)
            )
            rows["images"][index] = squash_to_square(image, self.image_size)
            rows["depth"][index] = squash_depth(self.counted(depth, depth_path), self.image_size)
            return image_digest + depth_digest

        digests = reader.map(read, range(len(pairs)), what=f"images of {split}, with depth")
        return [(image_path, digest) for (image_path, _), digest in zip(pairs, digests, strict=True)]


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
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    content = read_content(path)
    image = decode(content, str(path), ("PNG",), max_pixels=max_pixels)
    bit_depth, is_grey = content[24], content[25] == 0
    if bit_depth != 16 or not is_grey:
        raise DataError(
            f"the depth map {str(path)!r} must be a 16-bit greyscale PNG, in millimetres or as data.units_per_m says, "
            f"not mode {image.mode!r} with {bit_depth} bits"
        )
    depth: NDArray[np.float32] = np.asarray(image).astype(np.float32) / np.float32(units_per_m)
    return depth, hashlib.sha256(content).digest()


def squash_depth(depth: NDArray[np.float32], size: int) -> NDArray[np.float16]:
    """Resize a depth map by nearest neighbour: ``(H, W)`` to ``(size, size)`` metres; beyond 65 504 m becomes 0."""
    resized = np.asarray(Image.fromarray(depth).resize((size, size), Image.Resampling.NEAREST))
    with np.errstate(over="ignore"):
        held = resized.astype(np.float16)
    return np.where(np.isfinite(held), held, np.float16(0))


def _read_npy(path: Path) -> tuple[NDArray[np.float32], bytes]:
    try:
        content = read_regular(path)
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except _NPY_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"cannot read the depth map {str(path)!r}: {reason}") from error
    if array.dtype.kind != "f" or array.ndim != 2 or not array.size:
        shape = "x".join(map(str, array.shape)) or "a scalar"
        raise DataError(
            f"the depth map {str(path)!r} must hold a height x width array of floats in metres, "
            f"not {shape} of {array.dtype}"
        )
    with np.errstate(over="ignore"):
        depth = np.ascontiguousarray(array, dtype=np.float32)
    return depth, hashlib.sha256(content).digest()
