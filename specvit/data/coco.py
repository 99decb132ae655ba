"""Images with boxes in COCO's format: a JSON file and a folder of images for each split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, model_validator

from specvit.data.base import Dataset, DataSource, Split
from specvit.data.coco_annotations import Annotations, ListedImage, is_inside, read_annotations
from specvit.data.images import existing_folder, existing_root, fingerprint, map_files, read_image, squash_to_square
from specvit.errors import DataError
from specvit.settings import settings

_MAX_SIZE = np.iinfo(np.int16).max


def _check_inside(path: str) -> str:
    if not is_inside(path):
        raise ValueError(f"must be a path within data.root, not {path!r}")
    return path


PathInRoot = Annotated[str, AfterValidator(_check_inside)]


@settings
class Coco(DataSource):
    """Read images with boxes: COCO as its archives unpack, or any set in its format.

    Images become RGB and are resized to ``image_size`` x ``image_size`` whatever their aspect (squashed, so
    that nothing is cut off; antialiased bilinear); boxes move with them, are cut off at the edges of the image
    and rounded to whole pixels. Left out are crowds (``iscrowd``), and boxes that have no pixel left after
    rounding. Images without objects stay in. Classes are the categories by ascending id, whether they occur or
    not; both files must list the same. Images are in the order of their ids. Both splits are held in memory.
    """

    name: ClassVar[str] = "coco"
    targets: ClassVar[frozenset[str]] = frozenset({"boxes"})
    path_fields: ClassVar[frozenset[str]] = frozenset({"root"})
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
    def _check_image_size(self) -> Coco:
        if self.image_size > _MAX_SIZE:
            raise ValueError(f"image_size must be at most {_MAX_SIZE} for boxes, not {self.image_size}")
        return self

    def load(self) -> Dataset:
        """Read both splits.

        Raises:
            DataError: If a folder, a file or a listed image is missing or cannot be read, an annotation is
                broken, an image has not the size that its entry gives, the splits differ in their categories,
                or a split has no box.
        """
        root = existing_root(self.root)
        folders = [root / self.train_images, root / self.val_images]
        files = [root / self.train_annotations, root / self.val_annotations]
        rule = "coco reads the images that a JSON file lists from a folder of ROOT"
        for folder in folders:
            existing_folder(folder, rule=rule)
        annotations = [read_annotations(path) for path in files]
        _check_same_categories(files, annotations)
        for folder, path, of in zip(folders, files, annotations, strict=True):
            _check_images_exist(folder, path, of)
        splits: list[Split] = []
        hashes: list[tuple[Path, bytes]] = []
        for folder, path, of in zip(folders, files, annotations, strict=True):
            split, digests = self._read(folder, path, of)
            splits.append(split)
            hashes += [(path, of.digest), *digests]
        return Dataset(
            train=splits[0],
            val=splits[1],
            class_names=(),
            mask_names=(),
            fingerprint=fingerprint(root, hashes),
            box_names=tuple(annotations[0].categories.values()),
        )

    def _read(self, folder: Path, path: Path, of: Annotations) -> tuple[Split, list[tuple[Path, bytes]]]:
        """Read one split: its arrays, and the digests of its images."""
        size = self.image_size
        images = np.empty((len(of.images), 3, size, size), dtype=np.uint8)
        index_of = {category: index for index, category in enumerate(of.categories)}
        boxes: list[NDArray[np.int16]] = [np.empty((0, 5), dtype=np.int16)] * len(of.images)

        def read(index: int) -> bytes:
            listed = of.images[index]
            image, digest = read_image(folder / listed.file_name)
            if listed.size not in (None, image.size):
                raise DataError(
                    f"the image {str(folder / listed.file_name)!r} must have the size that {str(path)!r} gives, "
                    f"{'x'.join(map(str, listed.size or ()))}, not {image.width}x{image.height}"
                )
            images[index] = squash_to_square(image, size)
            rows = [(x, y, x + width, y + height, index_of[key]) for x, y, width, height, key in listed.boxes]
            boxes[index] = squash_boxes(np.array(rows, dtype=np.float64).reshape(-1, 5), image.size, size)
            return digest

        digests = map_files(read, range(len(of.images)))
        padded = pad_boxes(boxes)
        if padded.shape[1] == 0:
            raise DataError(
                f"the annotations {str(path)!r} must hold at least 1 box that covers a pixel of its image, "
                f"crowds aside, at data.image_size {size}"
            )
        paths = [folder / listed.file_name for listed in of.images]
        return Split(images=images, boxes=padded), list(zip(paths, digests, strict=True))


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


def pad_boxes(boxes: list[NDArray[np.int16]]) -> NDArray[np.int16]:
    """Stack the boxes of N images: ``(N, M, 5)``, M = the most an image has, padded by ``0, 0, 0, 0, -1``."""
    padded = np.zeros((len(boxes), max(map(len, boxes), default=0), 5), dtype=np.int16)
    padded[..., 4] = -1
    for index, rows in enumerate(boxes):
        padded[index, : len(rows)] = rows
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


def _check_images_exist(folder: Path, path: Path, of: Annotations) -> None:
    """Look for every image before the first is decoded, which may take hours."""
    missing: list[ListedImage] = [image for image in of.images if not (folder / image.file_name).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(of.images)} images that {str(path)!r} lists are missing in "
            f"{str(folder)!r}; the first is {missing[0].file_name!r}"
        )
