"""Image folders in the ImageFolder layout: one folder per class."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from specvit.data.base import Counts, Dataset, Split
from specvit.data.cache.array_storage import Rows, Storage
from specvit.data.cache.folder_index import FolderIndex, index_path, read_index, write_index
from specvit.data.file_source import FileSource, Prepared
from specvit.data.places import Places
from specvit.data.reading.counting import Deadline
from specvit.data.reading.image_files import (
    IMAGE_SUFFIXES,
    SPLITS,
    crop_to_square,
    existing_folder,
    existing_root,
    fingerprint,
    fingerprint_sizes,
    list_images,
    visible_entries,
)
from specvit.data.reading.image_reader import ImageReader
from specvit.data.reading.name_forms import check_forms, composed
from specvit.data.reading.progress import LOGGER
from specvit.errors import DataError
from specvit.lazy_numpy import np
from specvit.settings import settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LAYOUT = "image_folder reads ROOT/{train,val}/CLASS/*"
_ENDINGS = f"endings {', '.join(IMAGE_SUFFIXES)}"


@settings
class ImageFolder(FileSource):
    """Read ``root/{train,val}/CLASS/*``: JPEG, PNG, WebP and BMP files in one folder per class.

    Classes are the folders' names, sorted, and the same in both splits, in whatever Unicode form. Images become RGB;
    their shorter side is resized to ``image_size`` (antialiased), and the centre is kept (see ``keep``). Other
    files, hidden entries and folders within a class folder are passed over.
    """

    name: ClassVar[str] = "image_folder"
    targets: ClassVar[frozenset[str]] = frozenset({"labels"})
    path_fields: ClassVar[frozenset[str]] = FileSource.path_fields | {"root"}
    can_keep_encoded: ClassVar[bool] = True
    source: Literal["image_folder"] = "image_folder"

    root: str
    """The folder of train/ and val/; ``~`` is expanded, a relative path starts at the current folder."""

    def load(self) -> Dataset:
        """Decode both splits or find them decoded, or where images stay encoded, find the files.

        Raises:
            DataError: As ``FileSource.load``.
        """
        root = existing_root(self.root)
        path = self._index_path(root)
        if self.keep == "arrays" or path is None or not (root / SPLITS[0]).is_dir():
            return super().load()
        index = read_index(path)
        if index is None:
            dataset = super().load()
            write_index(path, *_index_of(root, dataset))
            return dataset
        LOGGER.info("files as of the last start: %s", path)
        train, val = (
            Split(images=self.encoded_images(Places.of_names(index.files[split])), labels=index.labels[split])
            for split in SPLITS
        )
        return Dataset(
            train=train,
            val=val,
            class_names=index.class_names,
            mask_names=(),
            fingerprint=index.fingerprint,
            passed_over=index.passed_over,
        )

    def _index_path(self, root: Path) -> Path | None:
        return index_path(self.cache_folder, self.name, str(root), self.max_shared)

    def _count(self, deadline: Deadline) -> Counts:
        """Count the entries of the class folders, or of an index of them."""
        root = existing_root(self.root)
        path = self._index_path(root)
        index = None if self.keep == "arrays" or path is None else read_index(path)
        if index is not None:
            train, val = (len(index.files[split]) for split in SPLITS)
            return Counts(train, val, len(index.class_names))
        classes = {split: deadline.folders(root / split) for split in SPLITS}
        train, val = (deadline.count(classes[split]) for split in SPLITS)
        return Counts(train, val, len(classes["train"]))

    def prepare(self) -> Prepared:
        """Find the classes and images of both splits.

        Raises:
            DataError: If a folder is missing or empty, or the splits differ in their classes.
        """
        root = existing_root(self.root)
        found = {split: _list_classes(existing_folder(root / split, rule=_LAYOUT)) for split in SPLITS}
        check_same_classes(root, *(set(found[split]) for split in SPLITS))
        images = {split: [path for paths in found[split].values() for path in paths] for split in SPLITS}
        files = [path for split in SPLITS for path in images[split]]
        folders = {path.parent: IMAGE_SUFFIXES for path in files}
        return Prepared(
            files=files,
            read=partial(self._read, root, found),
            images=images,
            folders=folders,
            encoded=partial(self._encoded, root, found),
        )

    def _encoded(self, root: Path, found: Mapping[str, Mapping[str, list[Path]]]) -> Dataset:
        paths = {split: [path for images in found[split].values() for path in images] for split in SPLITS}
        files = (path for split in SPLITS for path in paths[split])
        train, val = (
            Split(
                images=self.encoded_images(Places.of_files(paths[split])), labels=class_indices(found[split])
            )
            for split in SPLITS
        )
        return Dataset(
            train=train,
            val=val,
            class_names=tuple(found["train"]),
            mask_names=(),
            fingerprint=fingerprint_sizes(root, files, may_be_gone=self.on_bad_image == "skip"),
        )

    def _read(self, root: Path, found: Mapping[str, Mapping[str, list[Path]]], storage: Storage) -> Dataset:
        classes = tuple(found["train"])
        paths = {split: [path for name in classes for path in found[split][name]] for split in SPLITS}
        shape = (3, self.image_size, self.image_size)
        rows = {split: storage.rows(f"{split}_images", len(paths[split]), shape, np.uint8) for split in SPLITS}
        reader = self.reader()
        digests = {split: self._decode(reader, paths[split], rows[split], split) for split in SPLITS}
        reader.check()
        splits: dict[str, Split] = {}
        hashes: list[tuple[Path, bytes]] = []
        for split in SPLITS:
            splits[split] = Split(images=storage.finish(rows[split]), labels=class_indices(found[split]))
            hashes += zip(paths[split], digests[split], strict=True)
        return Dataset(
            train=splits["train"],
            val=splits["val"],
            class_names=classes,
            mask_names=(),
            fingerprint=fingerprint(root, hashes),
        )

    def _decode(self, reader: ImageReader, paths: list[Path], rows: Rows, split: str) -> list[bytes]:
        def read(index: int) -> bytes:
            image, digest = reader.read(paths[index])
            rows[index] = crop_to_square(image, self.image_size)
            return digest

        return reader.map(read, range(len(paths)), what=f"images of {split}")


def _index_of(root: Path, dataset: Dataset) -> tuple[FolderIndex, list[Path]]:
    """Return what was found in a tree, and which folders decide it."""
    files: dict[str, NDArray[np.bytes_]] = {}
    labels: dict[str, NDArray[np.int64]] = {}
    folders: list[Path] = []
    for name in SPLITS:
        split = getattr(dataset, name)
        files[name], labels[name] = split.images.places.files, split.labels
        folders += [root / name, *(entry for entry in visible_entries(root / name) if entry.is_dir())]
    return FolderIndex(files, labels, dataset.class_names, dataset.fingerprint, dataset.passed_over), folders


def class_indices(found: Mapping[str, Sized]) -> NDArray[np.int64]:
    """Return the class of every image, class by class."""
    return np.repeat(np.arange(len(found), dtype=np.int64), [len(images) for images in found.values()])


def _list_classes(folder: Path) -> dict[str, list[Path]]:
    """Map each class of a split, by its name in the form NFC, to its images, both sorted by name."""
    folders = [entry for entry in visible_entries(folder) if entry.is_dir()]
    check_forms((entry.name for entry in folders), what=f"the class folders of {str(folder)!r},")
    classes = {composed(entry.name): list_images(entry) for entry in folders}
    if not classes:
        raise DataError(f"no class folders in {str(folder)!r}: {_LAYOUT}")
    if not any(classes.values()):
        raise DataError(f"no images in {str(folder)!r}: {_LAYOUT}, {_ENDINGS}")
    for entry, images in zip(folders, classes.values(), strict=True):
        if not images:
            raise DataError(f"no images in the class folder {str(entry)!r}: {_LAYOUT}, {_ENDINGS}")
    return classes


def check_same_classes(root: Path, train: set[str], val: set[str]) -> None:
    """Check that two splits have the same classes.

    Raises:
        DataError: If not; the text names those that only one has.
    """
    only = [
        f"only in {split}: {', '.join(sorted(names))}"
        for split, names in (("train", train - val), ("val", val - train))
        if names
    ]
    if only:
        raise DataError(f"train and val of {str(root)!r} must have the same classes; {'; '.join(only)}")
