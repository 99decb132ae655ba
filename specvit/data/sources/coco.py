"""Images with boxes in COCO's format: a JSON file and a folder of images for each split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, model_validator

from specvit.data.base import Dataset, Split
from specvit.data.cache.array_storage import Rows, Storage
from specvit.data.file_source import FileSource, Prepared
from specvit.data.reading.coco_annotations import Annotations, read_annotations
from specvit.data.reading.image_files import (
    SPLITS,
    existing_folder,
    existing_root,
    fingerprint,
    squash_to_square,
)
from specvit.data.reading.image_reader import ImageReader
from specvit.data.reading.name_forms import existing
from specvit.data.reading.paths import check_disjoint, is_inside
from specvit.errors import DataError
from specvit.lazy_numpy import np
from specvit.settings import settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_SIZE = 2**15 - 1  # of an int16


def _check_inside(path: str) -> str:
    if not is_inside(path):
        raise ValueError(f"must be a path within data.root, not {path!r}")
    return path


@dataclass(frozen=True)
class _Listed:
    """The folder of a split, and the content of its annotation file."""

    folder: Path
    file: Path
    annotations: Annotations

    @cached_property
    def paths(self) -> list[Path]:
        """Return the images, in the order of the file."""
        return [existing(self.folder / image.file_name) for image in self.annotations.images]

    @property
    def most_boxes(self) -> int:
        """Return the largest number of boxes that an image has."""
        return max((len(image.boxes) for image in self.annotations.images), default=0)


PathInRoot = Annotated[str, AfterValidator(_check_inside)]


@settings
class Coco(FileSource):
    """Read images with boxes: COCO as its archives unpack, or any set in its format.

    Images become RGB and are resized to ``image_size`` x ``image_size`` whatever their aspect (squashed, so
    that nothing is cut off; antialiased bilinear); boxes move with them, are cut off at the edges of the image
    and rounded to whole pixels. Left out are crowds (``iscrowd``), and boxes that have no pixel left after
    rounding. Images without objects stay in. Classes are the categories by ascending id, whether they occur or
    not; both files must list the same. Images are in the order of their ids.
    """

    name: ClassVar[str] = "coco"
    targets: ClassVar[frozenset[str]] = frozenset({"boxes"})
    path_fields: ClassVar[frozenset[str]] = FileSource.path_fields | {"root"}
    source: Literal["coco"] = "coco"

    root: str
    """The folder of the data; ``~`` is expanded, a relative path starts at the current folder."""
    train_images: PathInRoot = "train2017"
    """Folder of the training images, within ``root``."""
    val_images: PathInRoot = "val2017"
    """Folder of the images to report on, within ``root``."""
    train_annotations: PathInRoot = "annotations/instances_train2017.json"
    """The JSON file of the training images, within ``root``."""
    val_annotations: PathInRoot = "annotations/instances_val2017.json"
    """The JSON file of the images to report on, within ``root``."""

    @model_validator(mode="after")
    def _check(self) -> Coco:
        if self.image_size > _MAX_SIZE:
            raise ValueError(f"image_size must be at most {_MAX_SIZE} for boxes, not {self.image_size}")
        if PurePosixPath(self.train_annotations) == PurePosixPath(self.val_annotations):
            raise ValueError(
                f"val_annotations must differ from train_annotations, not be {self.val_annotations!r} too: "
                "metrics would be reported on training images"
            )
        return self

    def prepare(self) -> Prepared:
        """Read the annotations and find the images that they list.

        Raises:
            DataError: If a folder, a file or a listed image is missing, an annotation is broken, or the splits
                differ in their categories or share their annotations.
        """
        root = existing_root(self.root)
        folders = {"train": root / self.train_images, "val": root / self.val_images}
        files = {"train": root / self.train_annotations, "val": root / self.val_annotations}
        for split, folder in folders.items():
            rule = "coco reads the images that a JSON file lists from a folder of ROOT"
            folders[split], files[split] = existing_folder(folder, rule=rule), existing(files[split])
        check_disjoint(
            [files["train"]], [files["val"]], what="a file", place="data.train_annotations and data.val_annotations"
        )
        annotations = {split: read_annotations(files[split]) for split in SPLITS}
        _check_same_categories(list(files.values()), list(annotations.values()))
        listed = {split: _Listed(folders[split], files[split], annotations[split]) for split in SPLITS}
        for found in listed.values():
            _check_images_exist(found)
        paths = [path for found in listed.values() for path in (found.file, *found.paths)]
        images = {split: listed[split].paths for split in SPLITS}
        return Prepared(files=paths, read=partial(self._read, root, listed), images=images)

    def _read(self, root: Path, listed: Mapping[str, _Listed], storage: Storage) -> Dataset:
        size = self.image_size
        rows = {
            split: {
                "images": storage.rows(f"{split}_images", len(found.paths), (3, size, size), np.uint8),
                "boxes": storage.rows(f"{split}_boxes", len(found.paths), (found.most_boxes, 5), np.int16),
            }
            for split, found in listed.items()
        }
        reader = self.reader()
        digests = {split: self._decode(reader, found, rows[split], split) for split, found in listed.items()}
        reader.check()
        splits: dict[str, Split] = {}
        hashes: list[tuple[Path, bytes]] = []
        for split, found in listed.items():
            splits[split] = Split(**{name: storage.finish(array) for name, array in rows[split].items()})
            hashes += [(found.file, found.annotations.digest), *zip(found.paths, digests[split], strict=True)]
            boxes = splits[split].boxes
            assert boxes is not None
            if not (boxes[..., 4] >= 0).any():
                raise DataError(
                    f"the annotations {str(found.file)!r} must hold at least 1 box that covers a pixel of its image, "
                    f"crowds aside, at data.image_size {size}"
                )
        return Dataset(
            train=splits["train"],
            val=splits["val"],
            class_names=(),
            mask_names=(),
            fingerprint=fingerprint(root, hashes),
            box_names=tuple(listed["train"].annotations.categories.values()),
        )

    def _decode(self, reader: ImageReader, found: _Listed, rows: Mapping[str, Rows], split: str) -> list[bytes]:
        """Decode one split: return the digests of its images."""
        index_of = {category: index for index, category in enumerate(found.annotations.categories)}

        def read(index: int) -> bytes:
            listed = found.annotations.images[index]
            path = found.paths[index]
            image, digest = reader.read(path)
            reader.check_place(
                image, str(path), target=f"the entry of {str(path)!r} in {str(found.file)!r}", size=listed.size
            )
            corners = [(x, y, x + width, y + height, index_of[key]) for x, y, width, height, key in listed.boxes]
            boxes = squash_boxes(np.array(corners, dtype=np.float64).reshape(-1, 5), image.size, self.image_size)
            rows["images"][index] = squash_to_square(image, self.image_size)
            rows["boxes"][index] = pad_boxes(boxes, found.most_boxes)
            return digest

        return reader.map(read, range(len(found.paths)), what=f"images of {split}, with boxes")


def squash_boxes(rows: NDArray[np.float64], image_size: tuple[int, int], size: int) -> NDArray[np.int16]:
    """Move boxes with an image that is squashed to a square.

    Args:
        rows: ``(M, 5)`` float64 rows ``x0, y0, x1, y1, class`` in pixels of the image.
        image_size: Width and height of the image.
        size: Side of the square in pixels.

    Returns:
        ``(L, 5)`` int16 rows in pixels of the square, clipped to it and rounded; those without a pixel are
        left out.
    """
    width, height = image_size
    corners = rows[:, :4] * (size / np.array([width, height, width, height], dtype=np.float64))
    corners = np.rint(np.clip(corners, 0, size))
    has_pixels = (corners[:, 0] < corners[:, 2]) & (corners[:, 1] < corners[:, 3])
    return np.concatenate([corners, rows[:, 4:]], axis=1)[has_pixels].astype(np.int16)


def pad_boxes(boxes: NDArray[np.int16], num_rows: int) -> NDArray[np.int16]:
    """Append rows ``0, 0, 0, 0, -1`` to ``(M, 5)`` boxes, up to ``num_rows``."""
    padded = np.zeros((num_rows, 5), dtype=np.int16)
    padded[:, 4] = -1
    padded[: len(boxes)] = boxes
    return padded


def _check_same_categories(files: list[Path], annotations: list[Annotations]) -> None:
    train, val = (set(of.categories.items()) for of in annotations)
    if train != val:
        key, name = min(train ^ val)
        has, lacks = files if (key, name) in train else files[::-1]
        raise DataError(
            f"the annotations {str(has)!r} and {str(lacks)!r} must list the same categories, but {name!r} "
            f"(id {key}) is in the first alone"
        )
    if len(train) > _MAX_SIZE:
        raise DataError(f"the annotations {str(files[0])!r} must list at most {_MAX_SIZE} categories")


def _check_images_exist(found: _Listed) -> None:
    """Raise if an image is missing, before the first is decoded, which may take hours."""
    listed = found.annotations.images
    missing = [image for image, path in zip(listed, found.paths, strict=True) if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(listed)} images that {str(found.file)!r} lists are missing in "
            f"{str(found.folder)!r}; the first is {missing[0].file_name!r}"
        )
