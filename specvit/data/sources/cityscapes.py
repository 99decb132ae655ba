"""Cityscapes (Cordts et al. 2016), its 19 evaluated classes, as its archives unpack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from specvit.data.reading.image_files import existing_folder, list_images, visible_entries
from specvit.data.reading.name_forms import existing
from specvit.data.sources.masks import Masks
from specvit.errors import DataError
from specvit.settings import settings

_LAYOUT = (
    "cityscapes reads ROOT/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png "
    "with ROOT/gtFine/{train,val}/CITY/*_gtFine_labelIds.png"
)
_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"

_CLASSES: Mapping[int, str] = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
    27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""Source: cityscapesScripts, helpers/labels.py: ids of the classes that have a trainId."""


@settings
class Cityscapes(Masks):
    """Read ``root/leftImg8bit`` with the label ids of ``root/gtFine``; the 19 train classes, the rest ignored."""

    name: ClassVar[str] = "cityscapes"
    source: Literal["cityscapes"] = "cityscapes"  # type: ignore[assignment]
    label_map: ClassVar[Mapping[int, int] | None] = {label: index for index, label in enumerate(_CLASSES)}
    class_names: tuple[str, ...] = tuple(_CLASSES.values())
    """Names of the 19 classes."""

    @property
    def split_sizes(self) -> tuple[int, int] | None:
        """Return the sizes of the published splits."""
        return 2_975, 500

    def pairs(self, root: Path, split: str) -> list[tuple[Path, Path]]:
        """List the images of a split, each with its mask."""
        images = existing_folder(root / "leftImg8bit" / split, rule=_LAYOUT)
        masks = existing_folder(root / "gtFine" / split, rule=_LAYOUT)
        found = []
        for city in (entry for entry in visible_entries(images) if entry.is_dir()):
            for image in list_images(city, (".png",)):
                if not image.name.endswith(_IMAGE):
                    continue
                mask = existing(masks / city.name / (image.name.removesuffix(_IMAGE) + _MASK))
                if not mask.is_file():
                    raise DataError(f"the image {str(image)!r} has no mask {str(mask)!r}")
                found.append((image, mask))
        if not found:
            raise DataError(f"no images in {str(images)!r}: {_LAYOUT}")
        return found
