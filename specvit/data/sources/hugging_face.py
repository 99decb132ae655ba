"""Data sets of the Hugging Face libraries: a local folder, or a name on the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from PIL import Image
from pydantic import model_validator

from specvit.data.base import IGNORE_INDEX, Counts, Dataset, Split
from specvit.data.cache.array_storage import MemoryStorage, Rows, Storage
from specvit.data.encoded import EncodedImages, left_out
from specvit.data.file_source import FileSource, Prepared
from specvit.data.own_targets import OwnMasks, central_square
from specvit.data.places import Places
from specvit.data.reading.counting import Deadline
from specvit.data.reading.image_decoding import Header, limit_pixels, orientation_of
from specvit.data.reading.image_files import crop_to_square, fingerprint_samples, squash_mask, squash_to_square
from specvit.data.reading.image_reader import ImageReader
from specvit.data.reading.label_names import check_names, encode_labels, largest_class
from specvit.data.reading.shared_images import report_shared
from specvit.errors import DataError
from specvit.lazy_numpy import np
from specvit.settings import Flag, PositiveInt, settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specvit.data.extras.hugging_face_tables import Row, Table

_IMAGE_DIGEST = hashlib.sha256().digest_size


@settings
class HuggingFace(FileSource):
    """Read images, classes and masks from the columns of a data set that the package ``datasets`` opens.

    ``path`` is a folder that ``save_to_disk`` wrote, a folder of Parquet, Arrow or image files, or else the name
    of a data set on the hub. Images become RGB. Without masks their shorter side is resized to ``image_size``
    (antialiased) and the centre is kept, as in ``image_folder``; with masks both are squashed, as in ``masks``. With
    ``keep: encoded`` images and masks stay encoded, all in memory, and both keep their aspect, as in ``masks``. No code
    of a data set is run.
    """

    name: ClassVar[str] = "hugging_face"
    # ``streaming`` says how images are fetched, not which. ``targets`` is a property here: it follows from the columns.
    path_fields: ClassVar[frozenset[str]] = FileSource.path_fields | {"path", "streaming"}
    extra: ClassVar[tuple[str, str] | None] = ("datasets", "huggingface")
    can_keep_encoded: ClassVar[bool] = True
    source: Literal["hugging_face"] = "hugging_face"

    path: str
    """A folder (``~`` is expanded, a relative path starts at the current folder), or a name on the hub."""
    config: str | None = None
    """Name of the data set's configuration, where it has several."""
    revision: str | None = None
    """Branch, tag or commit on the hub; a commit makes sure that the data stay what they are."""
    train_split: str = "train"
    """Name of the split to train on."""
    val_split: str = "validation"
    """Name of the split to report on."""
    image_column: str = "image"
    """Column of the images."""
    label_column: str | None = "label"
    """Column of the classes: indices, or names; None = the images have none."""
    mask_column: str | None = None
    """Column of the masks, PNGs of class indices with 255 = ignore; None = the images have none."""
    mask_names: tuple[str, ...] = ()
    """Name of each class index of the masks; empty = "class 0" up to the largest index."""
    num_train: PositiveInt | None = None
    """Images to train on, at most, the first ones; None = all."""
    num_val: PositiveInt | None = None
    """Images to report on, at most, the first ones; None = all."""
    streaming: Flag = False
    """Whether images are fetched as they are read, instead of the whole data set first; needs both numbers."""

    @model_validator(mode="after")
    def _check(self) -> HuggingFace:
        if self.streaming and (self.num_train is None or self.num_val is None):
            raise ValueError("streaming needs num_train and num_val, the images to fetch")
        if self.train_split == self.val_split:
            raise ValueError(
                f"val_split must differ from train_split, not be {self.val_split!r} too: "
                "metrics would be reported on training images"
            )
        check_names(self.mask_names, field="mask_names", most=IGNORE_INDEX)
        return self

    @property
    def targets(self) -> frozenset[str]:  # type: ignore[override]
        """Return what the chosen columns hold."""
        columns = {"labels": self.label_column, "masks": self.mask_column}
        return frozenset(target for target, column in columns.items() if column is not None)

    def _count(self, deadline: Deadline) -> Counts | None:
        """Count the rows of a folder; of others it is only known how many are read at most."""
        self.check_installed()
        from specvit.data.extras.hugging_face_tables import count_rows

        deadline.restart()
        most = {"train": (self.train_split, self.num_train), "val": (self.val_split, self.num_val)}
        splits = {name: split for name, (split, _) in most.items()}
        rows = count_rows(self.path, splits, config=self.config, deadline=deadline)
        if rows is None:
            return None if self.num_train is None or self.num_val is None else Counts(self.num_train, self.num_val)
        train, val = (min(rows[name], limit or rows[name]) for name, (_, limit) in most.items())
        return Counts(train, val)

    def prepare(self) -> Prepared:
        """Open both splits.

        Raises:
            DataError: If the data set cannot be opened, a split or a column is missing, or the splits share rows.
        """
        from specvit.data.extras.hugging_face_tables import open_tables

        columns = {"image": self.image_column, "label": self.label_column, "mask": self.mask_column}
        opened = open_tables(
            self.path,
            {"train": (self.train_split, self.num_train), "val": (self.val_split, self.num_val)},
            {role: column for role, column in columns.items() if column is not None},
            config=self.config,
            revision=self.revision,
            streaming=self.streaming,
        )
        return Prepared(
            files=opened.files,
            read=partial(self._read, opened.tables),
            version=opened.version,
            encoded=partial(self._read, opened.tables, MemoryStorage(keeps_encoded=True)),
        )

    def _read(self, tables: Mapping[str, Table], storage: Storage) -> Dataset:
        encoded = self.keep == "encoded"
        shapes: dict[str, tuple[int, ...]] = {} if encoded else {"images": (3, self.image_size, self.image_size)}
        if self.mask_column is not None:
            shapes["masks"] = (self.probed_size, self.probed_size)
        rows = {
            split: {name: storage.rows(f"{split}_{name}", table.num_rows, shapes[name], np.uint8) for name in shapes}
            for split, table in tables.items()
        }
        reader = self.reader()
        read: dict[str, _Decoded] = {}
        for split, table in tables.items():
            decoded = read[split] = _Decoded(self, reader, rows[split], table.num_rows)
            decoded.digests = reader.map(
                decoded.add, table.rows(), what=f"images of {split}", total=table.num_rows
            )
            if not decoded.digests:
                raise DataError(f"{table.name} has no images")
        reader.check()
        of_train = {digest[:_IMAGE_DIGEST]: row for row, digest in enumerate(read["train"].digests)}
        val = enumerate(digest[:_IMAGE_DIGEST] for digest in read["val"].digests)
        shared = {
            f"{tables['val'].name}, row {row}": f"{tables['train'].name}, row {of_train[digest]}"
            for row, digest in val
            if digest in of_train and read["val"].may_be_used(row)
        }
        report_shared(shared, total=len(read["val"].digests), most=self.max_shared)
        class_names: tuple[str, ...] = ()
        labels: dict[str, NDArray[np.int64]] = {}
        if self.label_column is not None:
            class_names, labels = encode_labels(
                {split: decoded.labels[: len(decoded.digests)] for split, decoded in read.items()},
                names={split: table.class_names for split, table in tables.items()},
                places={split: table.name for split, table in tables.items()},
            )
        splits: dict[str, Split] = {}
        for split, decoded in read.items():
            arrays: dict[str, Any] = {
                name: storage.finish(rows[split][name], len(decoded.digests)) for name in shapes
            }
            if encoded:
                arrays["images"] = decoded.encoded(tables[split].name)
            splits[split] = Split(labels=labels.get(split), **arrays)
        largest_mask = max(decoded.largest_mask for decoded in read.values())
        mask_names = self.mask_names or tuple(f"class {index}" for index in range(largest_mask + 1))
        if self.mask_column is not None and largest_mask < 0:
            bad, total = read["train"].bad, len(read["train"].digests)
            rule = f"must hold a class; all pixels are ignored ({IGNORE_INDEX})"
            raise DataError(f"the masks of {self.path!r} {rule}{left_out(bad, total=total)}")
        about = [json.dumps([class_names, *(labels[split].tolist() for split in labels)]).encode()]
        return Dataset(
            train=splits["train"],
            val=splits["val"],
            class_names=class_names,
            mask_names=mask_names if self.mask_column is not None else (),
            fingerprint=fingerprint_samples([*about, *(d for decoded in read.values() for d in decoded.digests)]),
        )


class _Decoded:
    """Decode the rows of one split into its arrays, or keep them encoded, from any thread."""

    def __init__(self, source: HuggingFace, reader: ImageReader, rows: Mapping[str, Rows], num_rows: int) -> None:
        self._source = source
        self._reader = reader
        self._rows = rows
        self.labels: list[object] = [None] * num_rows
        self._contents: list[bytes] = [b""] * num_rows
        self._masks: list[bytes] = [b""] * num_rows
        self._largest = np.full(num_rows, -1)
        self.digests: list[bytes] = []
        self.bad: dict[int, str] = {}

    @property
    def largest_mask(self) -> int:
        """Return the largest class index in the masks; -1 = none."""
        return int(self._largest.max(initial=-1))

    def may_be_used(self, row: int) -> bool:
        """Return whether a row is reported on: not where its image turns out to be bad, and such are skipped."""
        if self._source.on_bad_image == "fail":
            return True
        try:
            with limit_pixels(self._source.max_pixels):
                self._reader.decode(self._contents[row], "")
        except DataError:
            return False
        return True

    def encoded(self, table: str) -> EncodedImages:
        """Return the images that were kept encoded, in memory, with their masks."""
        source, names = self._source, [f"{table}, row {row}" for row in range(len(self.digests))]
        own = {}
        if source.mask_column is not None:
            masks = Places.of_contents(self._masks[: len(names)], [f"{name}, mask" for name in names])
            own["masks"] = OwnMasks(masks, source.orientation, source.max_pixels)
        return source.encoded_images(Places.of_contents(self._contents[: len(names)], names), own, self.bad)

    def add(self, row: Row) -> bytes:
        """Decode one row and return what tells it from others."""
        from specvit.data.extras.hugging_face_tables import read_encoded

        source, size = self._source, self._source.probed_size
        self.labels[row.index] = row.label
        try:
            content = read_encoded(row.image, row.name, row.files)
            image = self._image(content, row.name)
            mask_content, mask = self._mask(row)
        except DataError as error:
            if source.on_bad_image == "fail":
                raise
            self.bad[row.index] = str(error)
            if source.mask_column is not None:
                self._rows["masks"][row.index] = np.full((size, size), IGNORE_INDEX, np.uint8)
            return hashlib.sha256(row.name.encode()).digest()
        digest = hashlib.sha256(content).digest()
        if source.keep == "encoded":
            self._contents[row.index], self._masks[row.index] = content, mask_content
        if mask is None:
            if isinstance(image, Image.Image):
                self._rows["images"][row.index] = crop_to_square(image, size)
            return digest
        assert image is not None
        self._reader.check_place(
            image, row.name, target=f"the mask of {row.name}", size=mask.size, orientation=orientation_of(mask)
        )
        self._largest[row.index] = largest_class(
            np.asarray(mask), source.mask_names, name=f"the mask of {row.name}", field="data.mask_names"
        )
        if isinstance(image, Image.Image):
            self._rows["images"][row.index] = squash_to_square(image, size)
        else:
            mask = Image.fromarray(central_square(np.asarray(mask)))
        self._rows["masks"][row.index] = squash_mask(mask, size)
        return digest + hashlib.sha256(mask_content).digest()

    def _image(self, content: bytes, name: str) -> Image.Image | Header | None:
        """Decode an image, or where it stays encoded say how large it is, if it has a mask."""
        if self._source.keep == "arrays":
            return self._reader.decode(content, name)
        return None if self._source.mask_column is None else self._reader.look(content, name)

    def _mask(self, row: Row) -> tuple[bytes, Image.Image | None]:
        """Read and decode the mask of a row, if there is one."""
        from specvit.data.extras.hugging_face_tables import read_encoded

        if self._source.mask_column is None:
            return b"", None
        name = f"{row.name}, mask"
        content = read_encoded(row.mask, name, row.files)
        return content, self._reader.decode(content, name, mask=True)
