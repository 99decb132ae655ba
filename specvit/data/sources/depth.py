"""Images with depth maps: two parallel trees of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from PIL import Image

from specvit.data.base import Dataset, Split
from specvit.data.cache.array_storage import Rows, Storage
from specvit.data.encoded import left_out
from specvit.data.own_targets import OwnDepth, OwnTargets, central_square
from specvit.data.pair_source import Pairs, PairSource, match_by_name
from specvit.data.places import Places
from specvit.data.reading.depth_maps import measured, read_depth, squash_depth
from specvit.data.reading.image_files import SPLITS, fingerprint, squash_to_square
from specvit.data.reading.image_reader import ImageReader
from specvit.errors import DataError
from specvit.lazy_numpy import np
from specvit.settings import PositiveFloat, settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LAYOUT = "depth reads ROOT/images/{train,val}/NAME.* with ROOT/depth/{train,val}/NAME.png or NAME.npy"


@settings
class DepthMaps(PairSource):
    """Read ``root/images/{train,val}/NAME.*`` with ``root/depth/{train,val}/NAME.png`` or ``NAME.npy``.

    A depth map has the size of its image. As a PNG it is 16-bit greyscale of ``units_per_m`` a metre, as an
    NPY file it holds floats in metres. 0, negative values, NaN and infinity mean that a pixel was not measured. Images
    become RGB. Image and depth are resized to ``image_size`` x ``image_size`` whatever their aspect (squashed,
    so that nothing is cut off): images antialiased bilinear, depth by nearest neighbour, so that no depth is
    made up between two surfaces. Depth is held as float16: to a millimetre below 2 m, to 8 mm at 10 m. With
    ``keep: encoded`` they keep their aspect: the shorter side is resized to ``probe_size``, the centre is kept, and
    metrics are those of the pixels that the depth map's file has there, as precise as these are. Other files, hidden
    entries and subfolders are passed over.
    """

    name: ClassVar[str] = "depth"
    targets: ClassVar[frozenset[str]] = frozenset({"depth"})
    can_keep_encoded: ClassVar[bool] = True
    source: Literal["depth"] = "depth"

    max_depth_m: PositiveFloat | None = None
    """Largest depth that counts, in metres: a pixel farther away is taken as not measured. None = any depth."""
    units_per_m: PositiveFloat = 1000.0
    """What a PNG holds for a metre: 1000 = millimetres, 256 = KITTI's."""

    def pairs(self, root: Path, split: str) -> Pairs:
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
        return measured(depth, max_depth_m=self.max_depth_m)

    def own_targets(self, places: Places, skipped: dict[str, str] | None = None) -> dict[str, OwnTargets]:
        """Return the depth maps at their own size."""
        return {"depth": OwnDepth(places.files, self.own_depth, self.max_pixels, skipped)}

    def own_depth(self, path: Path) -> NDArray[np.float32]:
        """Return what counts of a depth map, ``(H, W)`` metres, 0 = not measured.

        Raises:
            DataError: If it cannot be read.
        """
        return self.counted(read_depth(path, units_per_m=self.units_per_m, max_pixels=self.max_pixels)[0], path)

    def _rule(self) -> str:
        most = "" if self.max_depth_m is None else f" and at most data.max_depth_m = {self.max_depth_m:g} m"
        return f"a measured depth is above 0{most}, and finite"

    def _read(self, root: Path, pairs: Mapping[str, Pairs], storage: Storage) -> Dataset:
        encoded = self.keep == "encoded"
        size = self.probed_size
        shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {"depth": ((size, size), np.float16)}
        if not encoded:
            shapes["images"] = (3, size, size), np.uint8
        rows = {
            split: {
                name: storage.rows(f"{split}_{name}", len(pairs[split]), shape, dtype)
                for name, (shape, dtype) in shapes.items()
            }
            for split in SPLITS
        }
        reader = self.reader()
        bad: dict[str, dict[int, str]] = {split: {} for split in SPLITS}
        decoded = [self._decode(reader, pairs[split], rows[split], split, bad[split]) for split in SPLITS]
        reader.check()
        splits: dict[str, Split] = {}
        for split in SPLITS:
            arrays = {name: storage.finish(rows[split][name]) for name in shapes}
            if encoded:
                splits[split] = Split(images=self.encoded_pairs(pairs[split], bad[split]), depth=arrays["depth"])
            else:
                splits[split] = Split(**arrays)
            self._check_measured(root, split, arrays["depth"], pairs[split], bad[split])
        return Dataset(
            train=splits["train"],
            val=splits["val"],
            class_names=(),
            mask_names=(),
            fingerprint=fingerprint(root, [pair for hashes in decoded for pair in hashes]),
        )

    def _check_measured(
        self, root: Path, split: str, depth: NDArray[np.float16], pairs: Pairs, bad: Mapping[int, str]
    ) -> None:
        if len(bad) == len(pairs):
            raise DataError(f"{bad[0]}; so it is with all {len(bad)} pairs of {split}")
        if np.any(depth):
            return
        size = self.probed_size
        where = f" in the centre of an image, as it is at {size}x{size}" if self.keep == "encoded" else ""
        raise DataError(
            f"the depth maps of {split} in {str(root)!r}, such as {str(pairs[0][1])!r}, must hold a measured "
            f"pixel{where}; {self._rule()}{left_out(bad, total=len(pairs))}"
        )

    def _decode(
        self, reader: ImageReader, pairs: Pairs, rows: Mapping[str, Rows], split: str, bad: dict[int, str]
    ) -> list[tuple[Path, bytes]]:
        """Decode one split: return the digests of its files.

        Where bad images are skipped, a pair that cannot be read is noted in ``bad`` and has no digest.
        """
        size = self.probed_size
        read_image = reader.read_header if self.keep == "encoded" else reader.read

        def read(index: int) -> bytes:
            image_path, depth_path = pairs[index]
            try:
                image, image_digest = read_image(image_path)
                depth, depth_digest = read_depth(depth_path, units_per_m=self.units_per_m, max_pixels=self.max_pixels)
            except DataError as error:
                if self.on_bad_image == "fail":
                    raise
                rows["depth"][index], bad[index] = np.zeros((size, size), np.float16), str(error)
                return b""
            height, width = depth.shape
            reader.check_place(
                image, str(image_path), target=f"the depth map {str(depth_path)!r}", size=(width, height)
            )
            depth = self.counted(depth, depth_path)
            if isinstance(image, Image.Image):
                rows["images"][index] = squash_to_square(image, size)
            else:
                depth = central_square(depth)
            rows["depth"][index] = squash_depth(depth, size)
            return image_digest + depth_digest

        digests = reader.map(read, range(len(pairs)), what=f"images of {split}, with depth")
        return [(image_path, digest) for (image_path, _), digest in zip(pairs, digests, strict=True)]
