"""ImageNet-1k (Russakovsky et al. 2015): folders or the official archives, all 1,000 classes of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from specvit.data.base import Dataset, Split
from specvit.data.cache.array_storage import Storage
from specvit.data.file_source import Prepared
from specvit.data.places import Places
from specvit.data.reading.image_files import existing_folder, existing_root, fingerprint_samples, visible_entries
from specvit.data.reading.imagenet_archives import KIT, TRAIN, VAL, has_archives, index_train, index_val
from specvit.data.sources.image_folder import ImageFolder, check_same_classes, class_indices
from specvit.errors import DataError
from specvit.settings import PositiveInt, settings

NUM_CLASSES = 1000
_LAYOUT = (
    "imagenet reads ROOT/{train,val}/WNID/*.JPEG, the validation images sorted into folders as well, "
    f"or the archives {TRAIN}, {VAL} and {KIT}"
)


@settings
class ImageNet(ImageFolder):
    """Read ``root/{train,val}/WNID/*.JPEG``, or in ``root`` the official archives, without unpacking them.

    A subset of fewer classes is an ``image_folder``. Images stay encoded; those of folders may be decoded beforehand
    (``keep: arrays``), which takes 200 GB at 224 pixels and so ``cache: disk``.
    """

    name: ClassVar[str] = "imagenet"
    source: Literal["imagenet"] = "imagenet"  # type: ignore[assignment]
    image_size: PositiveInt = 224
    keep: Literal["arrays", "encoded"] = "encoded"

    @property
    def split_sizes(self) -> tuple[int, int] | None:
        """Return the sizes of the published splits."""
        return 1_281_167, 50_000

    @property
    def num_labels(self) -> int | None:
        """Return 1,000."""
        return NUM_CLASSES

    def prepare(self) -> Prepared:
        """Find the classes and images of both splits; those in archives are found when they are read.

        Raises:
            DataError: If there are not 1,000 class folders in either split, or as ``ImageFolder.prepare``; of archives,
                if one is missing.
        """
        root = existing_root(self.root)
        if has_archives(root):
            return self._prepare_archives(root)
        for split in ("train", "val"):
            folder = existing_folder(root / split, rule=_LAYOUT)
            count = sum(entry.is_dir() for entry in visible_entries(folder))
            if count != NUM_CLASSES:
                raise DataError(f"{str(folder)!r} must hold {NUM_CLASSES} class folders, not {count}: {_LAYOUT}")
        return super().prepare()

    def _prepare_archives(self, root: Path) -> Prepared:
        files = [root / name for name in (TRAIN, VAL, KIT)]
        for file in files:
            if not file.is_file():
                raise DataError(f"no file {str(file)!r}: {_LAYOUT}")
        if self.keep == "arrays":
            raise DataError(f"data.keep must be 'encoded' for the archives in {str(root)!r}, not 'arrays'")

        def read(storage: Storage) -> Dataset:
            raise NotImplementedError(f"archives stay encoded, {storage}")

        return Prepared(files=files, read=read, encoded=partial(self._read_archives, root))

    def _read_archives(self, root: Path) -> Dataset:
        found = {"train": index_train(root), "val": index_val(root)}
        check_same_classes(root, set(found["train"]), set(found["val"]))
        if len(found["train"]) != NUM_CLASSES:
            raise DataError(f"{str(root / TRAIN)!r} must hold {NUM_CLASSES} classes, not {len(found['train'])}")
        images = {split: [image for one in classes.values() for image in one] for split, classes in found.items()}
        self.check_unshared(images["train"], images["val"])
        train, val = (
            Split(images=self.encoded_images(Places.of_entries(images[split])), labels=class_indices(found[split]))
            for split in ("train", "val")
        )
        return Dataset(
            train=train,
            val=val,
            class_names=tuple(found["train"]),
            mask_names=(),
            fingerprint=fingerprint_samples(
                f"{Path(image.name).name} {image.size}".encode(errors="surrogateescape")
                for of_split in images.values()
                for image in of_split
            ),
        )
