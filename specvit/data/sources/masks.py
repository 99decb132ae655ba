"""Images with segmentation masks: two parallel trees of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from PIL import Image
from pydantic import model_validator

from specvit.data.base import IGNORE_INDEX, Dataset, Split
from specvit.data.cache.array_storage import Rows, Storage
from specvit.data.encoded import left_out
from specvit.data.own_targets import OwnMasks, OwnTargets, central_square
from specvit.data.pair_source import Pairs, PairSource, match_by_name
from specvit.data.places import Places
from specvit.data.reading.image_decoding import orientation_of
from specvit.data.reading.image_files import SPLITS, fingerprint, squash_mask, squash_to_square
from specvit.data.reading.image_reader import ImageReader
from specvit.data.reading.label_names import check_names, largest_class
from specvit.errors import DataError
from specvit.lazy_numpy import np
from specvit.settings import Flag, settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LAYOUT = "masks reads ROOT/images/{train,val}/NAME.* with ROOT/masks/{train,val}/NAME.png"


@settings
class Masks(PairSource):
    """Read ``root/images/{train,val}/NAME.*`` with ``root/masks/{train,val}/NAME.png``.

    Masks are PNGs of class indices, 8-bit greyscale or palette; 255 = ignore. Images become RGB. Image and
    mask are resized to ``image_size`` x ``image_size`` whatever their aspect (squashed, so that nothing is
    cut off): images antialiased bilinear, masks by nearest neighbour. With ``keep: encoded`` they keep their aspect:
    the shorter side is resized to ``probe_size``, the centre is kept, and metrics are those of the pixels that the
    mask's file has there. Other files, hidden entries and subfolders are passed over.
    """

    name: ClassVar[str] = "masks"
    targets: ClassVar[frozenset[str]] = frozenset({"masks"})
    can_keep_encoded: ClassVar[bool] = True
    source: Literal["masks"] = "masks"
    label_map: ClassVar[Mapping[int, int] | None] = None
    """What indices in the files become; those not named are ignored. None = they stay what they are."""

    class_names: tuple[str, ...] = ()
    """Name of each class index; empty = "class 0" up to the largest index in the masks."""

    ignore_zero: Flag = False
    """Whether index 0 is ignored as 255 is, and 1, 2, .. become the classes 0, 1, .."""

    @model_validator(mode="after")
    def _check_class_names(self) -> Masks:
        if self.ignore_zero and self.label_map is not None:
            raise ValueError(f"ignore_zero must be false for {self.name!r}, whose indices are known")
        check_names(self.class_names, field="class_names", most=IGNORE_INDEX)
        return self

    def pairs(self, root: Path, split: str) -> list[tuple[Path, Path]]:
        """List the images of a split, each with its mask."""
        return match_by_name(root / "images" / split, root / "masks" / split, rule=_LAYOUT)

    def _read(self, root: Path, pairs: Mapping[str, Pairs], storage: Storage) -> Dataset:
        encoded = self.keep == "encoded"
        size = self.probed_size
        shapes = {"masks": (size, size)} if encoded else {"images": (3, size, size), "masks": (size, size)}
        rows = {
            split: {name: storage.rows(f"{split}_{name}", len(pairs[split]), shapes[name], np.uint8) for name in shapes}
            for split in SPLITS
        }
        reader = self.reader()
        bad: dict[str, dict[int, str]] = {split: {} for split in SPLITS}
        decoded = {split: self._decode(reader, pairs[split], rows[split], split, bad[split]) for split in SPLITS}
        reader.check()
        splits: dict[str, Split] = {}
        for split in SPLITS:
            arrays = {name: storage.finish(rows[split][name]) for name in shapes}
            if encoded:
                splits[split] = Split(images=self.encoded_pairs(pairs[split], bad[split]), masks=arrays["masks"])
            else:
                splits[split] = Split(**arrays)
            if decoded[split][1] < 0:
                folder = pairs[split][0][1].parent
                raise DataError(
                    f"the masks in {str(folder)!r} must hold a class; all pixels are ignored ({IGNORE_INDEX})"
                    f"{left_out(bad[split], total=len(pairs[split]))}"
                )
        largest = max(largest for _, largest in decoded.values())
        return Dataset(
            train=splits["train"],
            val=splits["val"],
            class_names=(),
            mask_names=self.class_names or tuple(f"class {index}" for index in range(largest + 1)),
            fingerprint=fingerprint(root, [pair for hashes, _ in decoded.values() for pair in hashes]),
        )

    def own_targets(self, places: Places, skipped: dict[str, str] | None = None) -> dict[str, OwnTargets]:
        """Return the masks at their own size."""
        return {"masks": OwnMasks(places, self.orientation, self.max_pixels, self._lookup(), skipped)}

    def _lookup(self) -> NDArray[np.uint8] | None:
        """Return what the indices in files become, ``(256,)``; None = they stay."""
        label_map = {index: index - 1 for index in range(1, IGNORE_INDEX)} if self.ignore_zero else self.label_map
        if label_map is None:
            return None
        lookup = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        lookup[list(label_map)] = list(label_map.values())
        return lookup

    def _decode(
        self, reader: ImageReader, pairs: Pairs, rows: Mapping[str, Rows], split: str, bad: dict[int, str]
    ) -> tuple[list[tuple[Path, bytes]], int]:
        """Decode one split: return the digests of its files, and the largest class index (-1 = none).

        Where bad images are skipped, a pair that cannot be read is noted in ``bad`` and has no digest.
        """
        size = self.probed_size
        largest = np.full(len(pairs), -1)
        lookup = self._lookup()
        read_image = reader.read_header if self.keep == "encoded" else reader.read

        def read(index: int) -> bytes:
            image_path, mask_path = pairs[index]
            try:
                image, image_digest = read_image(image_path)
                mask, mask_digest = reader.read(mask_path, mask=True)
            except DataError as error:
                if self.on_bad_image == "fail":
                    raise
                rows["masks"][index], bad[index] = np.full((size, size), IGNORE_INDEX, np.uint8), str(error)
                return b""
            reader.check_place(
                image,
                str(image_path),
                target=f"the mask {str(mask_path)!r}",
                size=mask.size,
                orientation=orientation_of(mask),
            )
            if lookup is not None:
                mask = Image.fromarray(lookup[np.asarray(mask)])
            largest[index] = largest_class(
                np.asarray(mask), self.class_names, name=f"the mask {str(mask_path)!r}", field="data.class_names"
            )
            if isinstance(image, Image.Image):
                rows["images"][index] = squash_to_square(image, size)
            else:
                mask = Image.fromarray(central_square(np.asarray(mask)))
            rows["masks"][index] = squash_mask(mask, size)
            return image_digest + mask_digest

        digests = reader.map(read, range(len(pairs)), what=f"images of {split}, with masks")
        hashes = [(image_path, digest) for (image_path, _), digest in zip(pairs, digests, strict=True)]
        return hashes, int(largest.max())
