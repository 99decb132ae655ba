"""ImageNet-1k (Russakovsky et al. 2015): the folders of ``image_folder``, and a check that all 1,000 are there."""

from __future__ import annotations

from typing import ClassVar, Literal

from specvit.data.file_source import Prepared
from specvit.data.reading.image_files import existing_folder, existing_root, visible_entries
from specvit.data.sources.image_folder import ImageFolder
from specvit.errors import DataError
from specvit.settings import PositiveInt, settings

NUM_CLASSES = 1000
_LAYOUT = "imagenet reads ROOT/{train,val}/WNID/*.JPEG, the validation images sorted into folders as well"


@settings
class ImageNet(ImageFolder):
    """Read ``root/{train,val}/WNID/*.JPEG``. A subset of fewer classes is an ``image_folder``.

    Images stay encoded, unless ``keep: arrays`` is given: at 224 pixels they would take 200 GB decoded, which
    ``cache: disk`` keeps out of memory.
    """

    name: ClassVar[str] = "imagenet"
    source: Literal["imagenet"] = "imagenet"  # type: ignore[assignment]
    image_size: PositiveInt = 224
    keep: Literal["arrays", "encoded"] = "encoded"

    def prepare(self) -> Prepared:
        """Find the classes and images of both splits.

        Raises:
            DataError: If there are not 1,000 class folders in either split, or as ``ImageFolder.prepare``.
        """
        root = existing_root(self.root)
        for split in ("train", "val"):
            folder = existing_folder(root / split, rule=_LAYOUT)
            count = sum(entry.is_dir() for entry in visible_entries(folder))
            if count != NUM_CLASSES:
                raise DataError(f"{str(folder)!r} must hold {NUM_CLASSES} class folders, not {count}: {_LAYOUT}")
        return super().prepare()
