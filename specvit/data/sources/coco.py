"""Images with boxes in COCO's format: a JSON file and a folder of images for each split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, model_validator

from specvit.data.base import Counts, Dataset, Split
from specvit.data.boxes import OwnBoxes, crop_boxes, pad_boxes, squash_boxes
from specvit.data.cache.array_storage import Rows, Storage
from specvit.data.encoded import EncodedImages, left_out
from specvit.data.file_source import FileSource, Prepared
from specvit.data.places import Places
from specvit.data.reading.coco_annotations import Annotations, read_annotations
from specvit.data.reading.counting import Deadline
from specvit.data.reading.image_files import (
    SPLITS,
    existing_folder,
    existing_root,
    fingerprint,
    fingerprint_samples,
    fingerprint_sizes,
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
    from PIL import Image

    from specvit.data.reading.image_decoding import Header

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

    @cached_property
    def classes(self) -> Mapping[int, int]:
        """Return the class index of every category."""
        return {category: index for index, category in enumerate(self.annotations.categories)}

    @property
    def most_boxes(self) -> int:
        """Return the largest number of boxes that an image has."""
        return max((len(image.boxes) for image in self.annotations.images), default=0)

    def boxes(self, index: int) -> NDArray[np.float64]:
        """Return the boxes of an image, ``(M, 5)`` rows ``x0, y0, x1, y1, class`` in its pixels."""
        listed = self.annotations.images[index].boxes
        corners = [(x, y, x + width, y + height, self.classes[key]) for x, y, width, height, key in listed]
        return np.array(corners, dtype=np.float64).reshape(-1, 5)

    def check_place(self, reader: ImageReader, index: int, image: Image.Image | Header) -> None:
        """Raise if an image, or what its file says of it, has not the size of its entry."""
        path = str(self.paths[index])
        entry = f"the entry of {path!r} in {str(self.file)!r}"
        reader.check_place(image, path, target=entry, size=self.annotations.images[index].size)


PathInRoot = Annotated[str, AfterValidator(_check_inside)]


@settings
class Coco(FileSource):
    """Read images with boxes: COCO as its archives unpack, or any set in its format.

    Images become RGB and are resized to ``image_size`` x ``image_size`` whatever their aspect (squashed, so
    that nothing is cut off; antialiased bilinear); boxes move with them, are cut off at the edges of the image
    and rounded to whole pixels. Left out are crowds (``iscrowd``), and boxes that have no pixel left after
    rounding. Images without objects stay in. Classes are the categories by ascending id, whether they occur or
    not; both files must list the same. Images are in the order of their ids.

    With ``keep: encoded`` images keep their aspect: the shorter side is resized to ``probe_size`` and the centre kept.
    What remains there of a box counts, however little, and metrics are those of boxes in pixels of the image's file,
    which are not rounded. Left out are boxes that have no pixel of the file there, and from what a probe learns, those
    that have none at ``probe_size``. Of images only the headers are read at the start.
    """

    name: ClassVar[str] = "coco"
    targets: ClassVar[frozenset[str]] = frozenset({"boxes"})
    can_keep_encoded: ClassVar[bool] = True
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
        if self.probed_size > _MAX_SIZE:
            raise ValueError(f"{self._size_field} must be at most {_MAX_SIZE} for boxes, not {self.probed_size}")
        if PurePosixPath(self.train_annotations) == PurePosixPath(self.val_annotations):
            raise ValueError(
                f"val_annotations must differ from train_annotations, not be {self.val_annotations!r} too: "
                "metrics would be reported on training images"
            )
        return self

    @property
    def _size_field(self) -> str:
        return "image_size" if self.probe_size is None else "probe_size"

    def _count(self, deadline: Deadline) -> Counts:
        """Count the names of files in the annotations, which only their lists of images have."""
        root = existing_root(self.root)
        files = self.train_annotations, self.val_annotations
        return Counts(*(deadline.count_text(existing(root / file), b'"file_name"') for file in files))

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
        for found in listed.values() if self.on_bad_image == "fail" else ():
            _check_images_exist(found)
        paths = [path for found in listed.values() for path in (found.file, *found.paths)]
        images = {split: listed[split].paths for split in SPLITS}
        return Prepared(
            files=paths,
            read=partial(self._read, root, listed),
            images=images,
            encoded=partial(self._encoded, root, listed),
        )

    def _encoded(self, root: Path, listed: Mapping[str, _Listed]) -> Dataset:
        reader = self.reader()
        splits = {split: self._keep(reader, found, split) for split, found in listed.items()}
        reader.check()
        paths = [path for found in listed.values() for path in found.paths]
        sizes = fingerprint_sizes(root, paths, may_be_gone=self.on_bad_image == "skip")
        contents = [found.annotations.digest for found in listed.values()]
        return self._dataset(listed, splits, fingerprint_samples([*contents, sizes.encode()]))

    def _keep(self, reader: ImageReader, found: _Listed, split: str) -> Split:
        """Read the headers of one split, and move its boxes; where bad images are skipped, such images have none."""
        size, number = self.probed_size, len(found.paths)
        own, sides = [np.empty((0, 5))] * number, [1] * number
        boxes = np.zeros((number, found.most_boxes, 5), np.int16)
        boxes[..., 4] = -1
        bad: dict[int, str] = {}

        def read(index: int) -> bytes:
            try:
                header = reader.look_at_file(found.paths[index])
            except DataError as error:
                if self.on_bad_image == "fail":
                    raise
                bad[index] = str(error)
                return b""
            found.check_place(reader, index, header)
            sides[index] = side = min(header.size)
            own[index] = crop_boxes(found.boxes(index), header.size)
            boxes[index] = pad_boxes(squash_boxes(own[index], (side, side), size), found.most_boxes)
            return b""

        reader.map(read, range(number), what=f"headers of images of {split}, with boxes")
        if len(bad) == number:
            raise DataError(f"{bad[0]}; so it is with all {number} images of {split}")
        images = self.encoded_images(Places.of_files(found.paths), {"boxes": OwnBoxes.of(own, sides)}, bad)
        return Split(images=images, boxes=boxes)

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
        splits = {
            split: Split(**{name: storage.finish(array) for name, array in rows[split].items()}) for split in listed
        }
        hashes: list[tuple[Path, bytes]] = []
        for split, found in listed.items():
            hashes += [(found.file, found.annotations.digest), *zip(found.paths, digests[split], strict=True)]
        return self._dataset(listed, splits, fingerprint(root, hashes))

    def _dataset(self, listed: Mapping[str, _Listed], splits: Mapping[str, Split], digest: str) -> Dataset:
        """Return both splits.

        Raises:
            DataError: If one of them has no box.
        """
        where = "its image" if self.keep == "arrays" else "the centre of its image"
        for split, found in listed.items():
            boxes = splits[split].boxes
            assert boxes is not None
            if not (boxes[..., 4] >= 0).any():
                images = splits[split].images
                bad = images.known_bad if isinstance(images, EncodedImages) else {}
                raise DataError(
                    f"the annotations {str(found.file)!r} must hold at least 1 box that covers a pixel of {where}, "
                    f"crowds aside, at data.{self._size_field} {self.probed_size}{left_out(bad, total=len(boxes))}"
                )
        return Dataset(
            train=splits["train"],
            val=splits["val"],
            class_names=(),
            mask_names=(),
            fingerprint=digest,
            box_names=tuple(listed["train"].annotations.categories.values()),
        )

    def _decode(self, reader: ImageReader, found: _Listed, rows: Mapping[str, Rows], split: str) -> list[bytes]:
        """Decode one split: return the digests of its images."""

        def read(index: int) -> bytes:
            image, digest = reader.read(found.paths[index])
            found.check_place(reader, index, image)
            boxes = squash_boxes(found.boxes(index), image.size, self.image_size)
            rows["images"][index] = squash_to_square(image, self.image_size)
            rows["boxes"][index] = pad_boxes(boxes, found.most_boxes)
            return digest

        return reader.map(read, range(len(found.paths)), what=f"images of {split}, with boxes")


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
