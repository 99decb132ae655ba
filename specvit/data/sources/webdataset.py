"""WebDataset shards: tar files of images with their classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from specvit.data.base import Counts, Dataset, Split
from specvit.data.cache.array_storage import Storage
from specvit.data.file_source import FileSource, Prepared
from specvit.data.places import Places
from specvit.data.reading.counting import Deadline
from specvit.data.reading.image_files import (
    SPLITS,
    crop_to_square,
    existing_root,
    fingerprint_samples,
)
from specvit.data.reading.label_names import MAX_CLASSES, check_names, name_classes
from specvit.data.reading.name_forms import composed
from specvit.data.reading.paths import check_disjoint, is_inside
from specvit.data.reading.shared_images import Encoded
from specvit.data.reading.tar_shards import Sample, expand_pattern, index_shards
from specvit.errors import DataError
from specvit.lazy_numpy import np
from specvit.settings import settings

IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")


@settings
class WebDatasetShards(FileSource):
    """Read tar shards: each sample one image (jpg, jpeg, png or webp) and its class index.

    The class is the text of the ``cls`` entry, or a field of the ``json`` entry. Images become RGB; their shorter
    side is resized to ``image_size`` (antialiased), and the centre is kept (see ``keep``). Samples stay in the
    order of the shards. Other entries are passed over; nothing is unpickled. The package ``webdataset`` is not needed.
    """

    name: ClassVar[str] = "webdataset"
    targets: ClassVar[frozenset[str]] = frozenset({"labels"})
    path_fields: ClassVar[frozenset[str]] = FileSource.path_fields | {"root"}
    can_keep_encoded: ClassVar[bool] = True
    source: Literal["webdataset"] = "webdataset"

    root: str = "."
    """The folder that ``train`` and ``val`` start at; a relative path starts at the current folder."""
    train: str = "train-*.tar"
    """Shards to train on, with a range such as ``shards/train-{000000..000012}.tar``, or with ``*``."""
    val: str = "val-*.tar"
    """Shards to report on, likewise."""
    json_field: str | None = None
    """The field of each sample's ``json`` entry that holds its class index; without it, the ``cls`` entry does."""
    class_names: tuple[str, ...] = ()
    """Name of each class index; empty = "class 0" up to the largest index."""

    @model_validator(mode="after")
    def _check(self) -> WebDatasetShards:
        check_names(self.class_names, field="class_names")
        for field in SPLITS:
            if not is_inside(getattr(self, field)):
                raise ValueError(f"{field} must start at data.root and stay within it, not {getattr(self, field)!r}")
        if PurePosixPath(self.train) == PurePosixPath(self.val):
            raise ValueError(
                f"val must differ from train, not be {self.val!r} too: metrics would be reported on training images"
            )
        return self

    @property
    def label_kind(self) -> str:
        """Return the kind of the entry that holds the class."""
        return "cls" if self.json_field is None else "json"

    @property
    def num_labels(self) -> int | None:
        """Return the number of ``class_names``, where they are given."""
        return len(self.class_names) or None

    def _count(self, deadline: Deadline) -> Counts:
        """Count the samples of the shards."""
        root, found = existing_root(self.root), dict.fromkeys(SPLITS, 0)
        for split in SPLITS:
            for shard in expand_pattern(root, getattr(self, split), field=f"data.{split}"):
                samples = index_shards([shard], kinds=frozenset(IMAGE_KINDS), what=split, check=deadline.check)
                found[split] += len(samples)
        return Counts(found["train"], found["val"], self.num_labels)

    def prepare(self) -> Prepared:
        """Find the shards of both splits; their samples are found when they are read.

        Raises:
            DataError: If the folder or a shard is missing, or both splits have a shard.
        """
        root = existing_root(self.root)
        shards = {split: expand_pattern(root, getattr(self, split), field=f"data.{split}") for split in SPLITS}
        check_disjoint(shards["train"], shards["val"], what="a shard", place="data.train and data.val")
        files = [shard for split in SPLITS for shard in shards[split]]
        return Prepared(files=files, read=partial(self._read, shards), encoded=partial(self._encoded, shards))

    def _read(self, shards: Mapping[str, Sequence[Path]], storage: Storage) -> Dataset:
        samples = self._samples(shards)
        shape = (3, self.image_size, self.image_size)
        rows = {split: storage.rows(f"{split}_images", len(samples[split]), shape, np.uint8) for split in SPLITS}
        labels = {split: np.empty(len(samples[split]), np.int64) for split in SPLITS}

        reader = self.reader()

        def read(split: str, index: int) -> bytes:
            sample = samples[split][index]
            kind = _image_kind(sample)
            content, label = sample.read(kind), self._label(sample)
            rows[split][index] = crop_to_square(reader.decode(content, f"{sample}.{kind}"), self.image_size)
            labels[split][index] = label
            return sample.key.encode() + b"\0" + hashlib.sha256(content).digest() + label.to_bytes(8, "big")

        digests: list[bytes] = []
        splits = {}
        for split in SPLITS:
            digests += reader.map(partial(read, split), range(len(samples[split])), what=f"images of {split}")
        reader.check()
        for split in SPLITS:
            splits[split] = Split(images=storage.finish(rows[split]), labels=labels[split])
        return Dataset(
            train=splits["train"],
            val=splits["val"],
            class_names=name_classes(self.class_names, labels.values()),
            mask_names=(),
            fingerprint=fingerprint_samples(digests),
        )

    def _samples(self, shards: Mapping[str, Sequence[Path]]) -> dict[str, list[Sample]]:
        """Find the samples of both splits, which must not share any."""
        kinds = frozenset({*IMAGE_KINDS, self.label_kind})
        samples = {split: index_shards(shards[split], kinds=kinds, what=split) for split in SPLITS}
        for split in SPLITS:
            if not samples[split]:
                raise DataError(f"data.{split}: no sample in {str(shards[split][0])!r}")
        self.check_unshared(*([_encoded(sample) for sample in samples[split]] for split in SPLITS))
        return samples

    def _encoded(self, shards: Mapping[str, Sequence[Path]]) -> Dataset:
        samples = self._samples(shards)
        labels = {split: np.empty(len(samples[split]), np.int64) for split in SPLITS}
        reader = self.reader()

        def read(split: str, index: int) -> bytes:
            sample = samples[split][index]
            labels[split][index] = label = self._label(sample)
            size = sample.entries[_image_kind(sample)][1]
            return sample.key.encode() + b"\0" + size.to_bytes(8, "big") + label.to_bytes(8, "big")

        digests: list[bytes] = []
        for split in SPLITS:
            digests += reader.map(partial(read, split), range(len(samples[split])), what=f"classes of {split}")
        reader.check()
        train, val = (
            Split(
                images=self.encoded_images(Places.of_entries(list(map(_encoded, samples[split])))), labels=labels[split]
            )
            for split in SPLITS
        )
        return Dataset(
            train=train,
            val=val,
            class_names=name_classes(self.class_names, labels.values()),
            mask_names=(),
            fingerprint=fingerprint_samples(digests),
        )

    def _label(self, sample: Sample) -> int:
        """Return the class index of a sample."""
        kind = self.label_kind
        if kind not in sample.entries:
            raise DataError(f"the sample {str(sample)!r} must have an entry {kind!r}, the class")
        content = sample.read(kind)
        try:
            value = int(content) if self.json_field is None else _field(json.loads(content), self.json_field)
        except (ValueError, KeyError, TypeError, RecursionError):
            value = None
        limit = len(self.class_names) or MAX_CLASSES
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
            place = kind if self.json_field is None else f"{kind}, field {self.json_field!r},"
            rule = f"from 0 to {limit - 1}" + (", as data.class_names has" if self.class_names else "")
            raise DataError(
                f"the sample {str(sample)!r} must have in {place} a class index {rule}, not {content[:80]!r}"
            )
        return value


def _field(document: dict[str, Any], name: str) -> Any:
    """Return a field of a JSON object, by its name in any Unicode form."""
    return document[name] if name in document else {composed(key): document[key] for key in document}[composed(name)]


def _encoded(sample: Sample) -> Encoded:
    kind = _image_kind(sample)
    return Encoded(sample.shard, *sample.entries[kind], name=f"{sample}.{kind}")


def _image_kind(sample: Sample) -> str:
    kinds = [kind for kind in IMAGE_KINDS if kind in sample.entries]
    if len(kinds) != 1:
        given = f"has {', '.join(kinds)}" if kinds else "has none"
        raise DataError(f"the sample {str(sample)!r} must have one image ({', '.join(IMAGE_KINDS)}), but {given}")
    return kinds[0]
