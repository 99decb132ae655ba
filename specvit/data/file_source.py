"""Sources that read files: decoded once, into memory or a cache on disk, or kept encoded until images are needed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from specvit.data.base import Counts, Dataset, DataSource
from specvit.data.cache.array_storage import MemoryStorage, Storage
from specvit.data.cache.decoded_cache import load_cached
from specvit.data.encoded import BadImages, Decoding, EncodedImages
from specvit.data.own_targets import OwnTargets
from specvit.data.places import Places
from specvit.data.reading.counting import Deadline
from specvit.data.reading.image_decoding import MAX_PIXELS, limit_pixels
from specvit.data.reading.image_files import count_others
from specvit.data.reading.image_reader import ImageReader, Orientation
from specvit.data.reading.shared_images import Encoded, check_unshared
from specvit.errors import DataError
from specvit.settings import NonNegativeInt, PositiveInt, settings

_QUICK_FILES = 2000


@dataclass(frozen=True)
class Prepared:
    """The files and settings that were found, before anything is decoded.

    Attributes:
        files: All files that decide what is read, in a fixed order.
        read: Decodes both splits into a storage.
        version: What else decides what is read, beside the files and the settings that are no paths.
        images: The files of images of ``train`` and ``val``, which are compared before any is decoded; empty where
            images are no files of their own, and ``read`` compares them.
        folders: The folders that were searched for files, with the endings that were looked for.
        encoded: Makes both splits of images that stay encoded; None where the source cannot.
    """

    files: Sequence[Path]
    read: Callable[[Storage], Dataset]
    version: str = ""
    images: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    folders: Mapping[Path, Sequence[str]] = field(default_factory=dict)
    encoded: Callable[[], Dataset] | None = None


@settings
class FileSource(DataSource):
    """Decode images from files. A subclass says how in ``prepare``, and extends ``path_fields``."""

    path_fields: ClassVar[frozenset[str]] = frozenset(
        {"cache", "cache_folder", "max_pixels", "max_shared", "workers"}
    )
    can_keep_encoded: ClassVar[bool] = False
    """Whether the source knows ``keep: encoded``."""

    keep: Literal["arrays", "encoded"] = "arrays"
    """``arrays``: images are decoded once and resized to ``image_size``; crops are cut from these. ``encoded``: files
    stay what they are; training crops, of ``image_size`` in the end, are cut from an image at its own resolution and
    decoded a step ahead, and probes see what they see with ``arrays``; but images with masks, depth or boxes, which
    that squashes, keep their aspect."""
    probe_size: PositiveInt | None = None
    """With ``keep: encoded``, side in pixels of the squares that probes see: the shorter side is resized to it and the
    centre kept. None given = ``image_size``, whose position embeddings are resampled for any other."""
    on_bad_image: BadImages = "fail"
    """With ``keep: encoded``, what happens where an image turns out to be damaged or gone: ``fail``, or ``skip``: the
    image that follows takes its place, with its targets, also where a mask or a depth map cannot be read at the start;
    of one that vanishes later, no pixel counts. The log names what was skipped, ``skipped_images`` counts."""
    workers: PositiveInt | None = None
    """With ``keep: encoded``, threads that decode; none given = as many as the trial has CPUs. No number changes."""
    cache: Literal["memory", "disk"] = "memory"
    """Where decoded images are kept: ``memory``, or ``disk`` for those that are larger; the numbers are the same."""
    cache_folder: str = "~/.cache/specsweep"
    """With ``cache: disk``, the folder that keeps them from run to run; on a cluster, one that all machines share. With
    ``keep: encoded`` it holds an index of the files, so that a tree of many is not listed at every start, and what was
    found in masks and depth maps of many, so that they are not decoded at every start."""

    orientation: Orientation = None
    """What is done about an EXIF orientation: ``stored``, nothing, or ``shown``, images are turned as
    viewers show them. None given = nothing; but an image that masks, depth or boxes fit both ways is refused."""
    max_pixels: PositiveInt = MAX_PIXELS
    """Most pixels that an image may have as it is stored; larger ones are refused, for they may be made to fill
    memory."""

    max_shared: NonNegativeInt = 0
    """Most images to report on that may be training images too, byte for byte; more are refused."""

    @model_validator(mode="after")
    def _check_keep(self) -> Self:
        if self.keep == "arrays":
            for name, default in (("probe_size", None), ("on_bad_image", "fail"), ("workers", None)):
                if (value := getattr(self, name)) != default:
                    raise ValueError(f"{name} must not be given without keep: encoded, not {value!r}")
        elif not self.can_keep_encoded:
            raise ValueError(f"keep must be 'arrays' for {self.name!r}, not {self.keep!r}")
        elif self.cache == "disk":
            raise ValueError(
                "cache must be 'memory' with keep: encoded, which decodes nothing beforehand, not 'disk': give "
                "keep: arrays to have it"
            )
        return self

    @property
    def probed_size(self) -> int:
        """Return ``probe_size``, or where none is given ``image_size``."""
        return self.probe_size or self.image_size

    def encoded_images(
        self,
        places: Places,
        own: Mapping[str, OwnTargets] = MappingProxyType({}),
        known_bad: Mapping[int, str] = MappingProxyType({}),
        skipped: dict[str, str] | None = None,
    ) -> EncodedImages:
        """Return images that stay encoded, to be decoded as the fields say."""
        decoding = Decoding(self.orientation, self.max_pixels, self.on_bad_image, self.workers)
        images = EncodedImages(places, self.image_size, decoding, self.probe_size, dict(own), dict(known_bad))
        return images if skipped is None else replace(images, skipped=skipped)

    def reader(self) -> ImageReader:
        """Return what reads the images, as the fields say."""
        return ImageReader(orientation=self.orientation, max_pixels=self.max_pixels)

    def check_unshared(self, train: Iterable[Encoded], val: Iterable[Encoded]) -> None:
        """Check that images to report on are no training images; bad ones that are skipped are none.

        Raises:
            DataError: If more are than the fields allow.
        """
        decode = self.reader().decode if self.on_bad_image == "skip" else None
        with limit_pixels(self.max_pixels):
            check_unshared(train, val, most=self.max_shared, decode=decode)

    def load(self) -> Dataset:
        """Decode both splits, or with ``cache: disk`` find them decoded.

        Raises:
            DataError: If a package is missing, a folder or a file cannot be used, images to report on are training
                images, or there is no room.
        """
        self.check_installed()
        prepared = self.prepare()

        def compare() -> None:
            if prepared.images:
                self.check_unshared(*(map(Encoded.of_file, prepared.images[split]) for split in ("train", "val")))

        def read(storage: Storage) -> Dataset:
            # Where decoding takes hours, what needs no decoding comes first; else what is wrong with single images.
            is_large = len(prepared.files) > _QUICK_FILES
            if is_large:
                compare()
            dataset = prepared.read(storage)
            if not is_large:
                compare()
            return dataset

        if self.keep == "encoded":
            assert prepared.encoded is not None
            compare()
            dataset = prepared.encoded()
        elif self.cache == "memory":
            dataset = read(MemoryStorage())
        else:
            dataset = load_cached(
                self, prepared.files, read, cache_folder=self.cache_folder, version=prepared.version
            )
        return replace(dataset, passed_over=count_others(prepared.folders))

    def count_images(self) -> Counts | None:
        """Return how many images there are, if that is known, or soon counted."""
        known = self.known_counts()
        if known is not None:
            return known
        try:
            counts = self._count(Deadline())
        except (OSError, DataError):
            return None
        return counts if counts is not None and counts.train and counts.val else None

    def _count(self, deadline: Deadline) -> Counts | None:  # noqa: ARG002
        """Count images; None where that takes long.

        Raises:
            OSError: If something cannot be read, or not in time.
            DataError: Likewise.
        """
        return None

    @abstractmethod
    def prepare(self) -> Prepared:
        """Find what there is to read, without decoding any of it.

        Raises:
            DataError: If a folder is missing or empty, or its layout is not the one that the source reads.
        """
