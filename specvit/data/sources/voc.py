"""Pascal VOC 2012 segmentation (Everingham et al. 2010), 21 classes with the background, as its archive unpacks."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from specvit.data.reading.image_files import existing_folder
from specvit.data.reading.name_forms import existing
from specvit.data.reading.paths import is_inside
from specvit.data.sources.masks import Masks
from specvit.errors import DataError
from specvit.files.regular import read_regular
from specvit.settings import settings

_LAYOUT = "voc reads the names in ROOT/ImageSets/Segmentation/{train,val}.txt, JPEGImages and SegmentationClass"
_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@settings
class Voc(Masks):
    """Read VOCdevkit/VOC2012: the images that ``ImageSets/Segmentation`` names; 255, the outlines, is ignored."""

    name: ClassVar[str] = "voc"
    source: Literal["voc"] = "voc"  # type: ignore[assignment]
    class_names: tuple[str, ...] = _CLASSES
    """Names of the 21 classes."""

    @property
    def split_sizes(self) -> tuple[int, int] | None:
        """Return the sizes of the published splits."""
        return 1_464, 1_449

    def pairs(self, root: Path, split: str) -> list[tuple[Path, Path]]:
        """List the images of a split, each with its mask; where bad images are skipped, files may be gone."""
        images = existing_folder(root / "JPEGImages", rule=_LAYOUT)
        masks = existing_folder(root / "SegmentationClass", rule=_LAYOUT)
        listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        try:
            names = read_regular(listing).decode().split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {str(listing)!r}: {error}; {_LAYOUT}") from error
        if not names:
            raise DataError(f"{str(listing)!r} names no image: {_LAYOUT}")
        for name in names:
            if not is_inside(name):
                raise DataError(f"{str(listing)!r} must name images within {str(images)!r}, not {name!r}")
        found = [(existing(images / f"{name}.jpg"), existing(masks / f"{name}.png")) for name in names]
        for image, mask in found if self.on_bad_image == "fail" else ():
            for path, kind in ((image, "image"), (mask, "mask")):
                if not path.is_file():
                    raise DataError(f"{str(listing)!r} names {image.stem!r}, which has no {kind} {str(path)!r}")
        return found
