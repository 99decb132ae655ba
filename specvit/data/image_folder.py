"""Image folders in the ImageFolder layout: one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from specvit.data.base import Dataset, DataSource, Split
from specvit.data.images import (
    IMAGE_SUFFIXES,
    SPLITS,
    crop_to_square,
    existing_folder,
    existing_root,
    fingerprint,
    list_images,
    map_files,
    read_image,
    visible_entries,
)
from specvit.errors import DataError
from specvit.settings import settings

_LAYOUT = "image_folder reads ROOT/{train,val}/CLASS/*"
_ENDINGS = f"endings {', '.join(IMAGE_SUFFIXES)}"


@settings
class ImageFolder(DataSource):
    """Read ``root/{train,val}/CLASS/*``: JPEG, PNG, WebP and BMP files in one folder per class.

    Classes are the folders' names, sorted, and the same in both splits. Images become RGB; their shorter side
    is resized to ``image_size`` (antialiased), and the centre is kept. Other files, hidden entries and
    folders within a class folder are passed over. Both splits are held in memory.
    """

    name: ClassVar[str] = "image_folder"
    targets: ClassVar[frozenset[str]] = frozenset({"labels"})
    path_fields: ClassVar[frozenset[str]] = frozenset({"root"})
    source: Literal["image_folder"] = "image_folder"

    root: str
    """The folder of train/ and val/; ``~`` is expanded, a relative path starts at the current folder."""

    def load(self) -> Dataset:
        """Read both splits.

        Raises:
            DataError: If a folder is missing or empty, the splits differ in their classes, or an image cannot
                be read.
        """
        root = existing_root(self.root)
        found = {split: _list_classes(existing_folder(root / split, rule=_LAYOUT)) for split in SPLITS}
        classes = tuple(found["train"])
        _check_same_classes(root, *(set(found[split]) for split in SPLITS))
        splits: list[Split] = []
        hashes: list[tuple[Path, bytes]] = []
        for split in SPLITS:
            paths = [path for name in classes for path in found[split][name]]
            labels = np.repeat(np.arange(len(classes)), [len(found[split][name]) for name in classes])
            images, digests = self._read(paths)
            splits.append(Split(images=images, labels=labels.astype(np.int64)))
            hashes += zip(paths, digests, strict=True)
        return Dataset(
            train=splits[0],
            val=splits[1],
            class_names=classes,
            mask_names=(),
            fingerprint=fingerprint(root, hashes),
        )

    def _read(self, paths: list[Path]) -> tuple[NDArray[np.uint8], list[bytes]]:
        size = self.image_size
        images = np.empty((len(paths), 3, size, size), dtype=np.uint8)

        def read(index: int) -> bytes:
            image, digest = read_image(paths[index])
            images[index] = crop_to_square(image, size)
            return digest

        return images, map_files(read, range(len(paths)))


def _list_classes(folder: Path) -> dict[str, list[Path]]:
    """Map each class of a split to its images, both sorted by name."""
    classes = {entry.name: list_images(entry) for entry in visible_entries(folder) if entry.is_dir()}
    if not classes:
        raise DataError(f"no class folders in {str(folder)!r}: {_LAYOUT}")
    if not any(classes.values()):
        raise DataError(f"no images in {str(folder)!r}: {_LAYOUT}, {_ENDINGS}")
    for name, images in classes.items():
        if not images:
            raise DataError(f"no images in the class folder {str(folder / name)!r}: {_LAYOUT}, {_ENDINGS}")
    return classes


def _check_same_classes(root: Path, train: set[str], val: set[str]) -> None:
    only = [
        f"only in {split}: {', '.join(sorted(names))}"
        for split, names in (("train", train - val), ("val", val - train))
        if names
    ]
    if only:
        raise DataError(f"train and val of {str(root)!r} must have the same classes; {'; '.join(only)}")
