"""Images that stay encoded: files, or entries of shards, each decoded when it is asked for.

To whoever asks for rows such images are an array of squares, those that a source would have kept decoded, bit for bit;
who trains cuts crops from an image at its own resolution (``specvit.training.loading``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from specvit.data.reading.image_decoding import MAX_PIXELS, limit_pixels, read_content
from specvit.data.reading.image_files import crop_to_square
from specvit.data.reading.image_reader import ImageReader, Orientation
from specvit.data.reading.pixels import decode_pixels
from specvit.data.reading.shared_images import Encoded
from specvit.errors import DataError
from specvit.files.regular import open_regular
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

BadImages = Literal["fail", "skip"]

MOST_SKIPPED = 100
"""Images in a row that may be bad; more are no accident."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoding:
    """How images are decoded.

    Attributes:
        orientation: What is done about an EXIF orientation.
        max_pixels: Pixels that an image may have.
        on_bad_image: What happens where an image cannot be read.
        workers: Threads that decode; None = as many as this process computes with.
    """

    orientation: Orientation = None
    max_pixels: int = MAX_PIXELS
    on_bad_image: BadImages = "fail"
    workers: int | None = None


@dataclass(frozen=True)
class Places:
    """Where N encoded images lie.

    Attributes:
        files: Paths as bytes: of every image, or of shards that hold many.
        entries: ``(N, 3)`` int64 rows ``number of the file, offset, bytes``; -1 bytes = all of the file.
        names: What images are called in messages, as bytes; None = as their files.
        content: Bytes in memory that all entries are of, in place of files.
    """

    files: NDArray[np.bytes_]
    entries: NDArray[np.int64]
    names: NDArray[np.bytes_] | None = None
    content: NDArray[np.uint8] | None = None

    @classmethod
    def of_contents(cls, contents: Sequence[bytes], names: Sequence[str]) -> Places:
        """Return the places of images in memory, where they are one after the other."""
        sizes = np.array([len(content) for content in contents], np.int64)
        entries = np.stack((np.zeros_like(sizes), np.cumsum(sizes) - sizes, sizes), axis=1)
        joined = np.frombuffer(b"".join(contents), np.uint8)
        return cls(np.array([b""]), entries, np.array([os.fsencode(name) for name in names]), joined)

    @classmethod
    def of_files(cls, paths: Sequence[Path]) -> Places:
        """Return the places of whole files."""
        return cls.of_names(np.array([os.fsencode(path) for path in paths]))

    @classmethod
    def of_names(cls, files: NDArray[np.bytes_]) -> Places:
        """Return the places of whole files, whose paths are given as bytes."""
        entries = np.zeros((len(files), 3), np.int64)
        entries[:, 0], entries[:, 2] = np.arange(len(files)), -1
        return cls(files, entries)

    @classmethod
    def of_entries(cls, images: Sequence[Encoded]) -> Places:
        """Return the places of entries of shards."""
        numbers = {path: number for number, path in enumerate(dict.fromkeys(image.path for image in images))}
        return cls(
            files=np.array([os.fsencode(path) for path in numbers]),
            entries=np.array([(numbers[image.path], image.offset, image.size) for image in images], np.int64),
            names=np.array([os.fsencode(image.name) for image in images]),
        )

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, image: int) -> str:
        """Return what to call an image in messages."""
        return os.fsdecode(self.files[self.entries[image, 0]] if self.names is None else self.names[image])

    def read(self, image: int) -> bytes:
        """Return the content of an image's file or entry.

        Raises:
            DataError: If it cannot be read.
        """
        file, offset, size = self.entries[image].tolist()
        if self.content is not None:
            return self.content[offset : offset + size].tobytes()
        path = Path(os.fsdecode(self.files[file]))
        if size < 0:
            return read_content(path)
        try:
            descriptor = open_regular(path, os.O_RDONLY)
            try:
                content = os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DataError(f"cannot read {self.name(image)!r}: {error.strerror}") from error
        if len(content) != size:
            raise DataError(f"cannot read {self.name(image)!r}: the shard is cut off")
        return content

    def take(self, images: NDArray[np.int64]) -> Places:
        """Return the places of some images."""
        return replace(self, entries=self.entries[images], names=None if self.names is None else self.names[images])


@dataclass(frozen=True)
class OwnMasks:
    """N masks at the resolution of their files, of the central squares that probes see; decoded when they are taken.

    Attributes:
        places: Where they lie, PNGs of class indices.
        orientation: What is done about an EXIF orientation.
        max_pixels: Pixels that a mask may have.
        classes: ``(256,)`` uint8 what indices become; None = they stay.
    """

    places: Places
    orientation: Orientation = None
    max_pixels: int = MAX_PIXELS
    classes: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, image: int) -> NDArray[np.uint8]:
        """Return ``(m, m)`` class indices, m the shorter side of the mask.

        Raises:
            DataError: If it cannot be read.
        """
        reader = ImageReader(orientation=self.orientation, max_pixels=self.max_pixels)
        with limit_pixels(self.max_pixels):
            mask = reader.decode(self.places.read(image), self.places.name(image), mask=True)
        square = central_square(np.asarray(mask))
        return square if self.classes is None else self.classes[square]

    def take(self, images: NDArray[np.int64]) -> OwnMasks:
        """Return the masks of some images."""
        return replace(self, places=self.places.take(images))


@dataclass(frozen=True)
class EncodedImages:
    """N encoded images, as an array of squares ``(N, 3, S, S)`` uint8 whose rows are decoded when they are taken.

    Attributes:
        places: Where they lie.
        crop_size: Side of what a model is trained on, in pixels.
        decoding: How they are decoded.
        probe_size: S, the side of the squares in pixels: the shorter side is resized to it, and the centre is kept.
            None = as ``crop_size``.
        masks: Their masks at the resolution of the files, beside those of a ``Split``; None = there are none.
        known_bad: Why some cannot be used, by image, as far as it is known beforehand: their masks cannot be read.
        no_substitutes: Images that are not taken in the place of others.
        skipped: Why images were left out, by name, by this process since it was emptied last.
    """

    places: Places
    crop_size: int
    decoding: Decoding = Decoding()
    probe_size: int | None = None
    masks: OwnMasks | None = None
    known_bad: Mapping[int, str] = field(default_factory=dict)
    no_substitutes: frozenset[int] = frozenset()
    skipped: dict[str, str] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return N, 3, S, S."""
        size = self.probe_size or self.crop_size
        return len(self), 3, size, size

    @property
    def may_skip(self) -> bool:
        """Return whether bad images are left out."""
        return self.decoding.on_bad_image == "skip"

    def __getitem__(self, images: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.squares(images)[0]

    def squares(
        self, images: slice | NDArray[np.int64], *, size: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Decode some images.

        Args:
            images: Which.
            size: S; None = the one that probes see.

        Returns:
            ``(n, 3, S, S)``, and ``(n,)`` which images these are: bad ones are left out for those that follow.

        Raises:
            DataError: If an image cannot be used; the text names it.
        """
        wanted, side = np.arange(len(self))[images], size or self.shape[-1]
        squares, used = np.empty((len(wanted), 3, side, side), np.uint8), wanted.copy()
        reader = ImageReader(orientation=self.decoding.orientation, max_pixels=self.decoding.max_pixels)

        def decode(content: bytes, name: str) -> NDArray[np.uint8]:
            return crop_to_square(reader.decode(content, name), side)

        def fill(row: int) -> None:
            squares[row], used[row] = self.use(int(wanted[row]), decode)

        with self.threads() as threads:
            for _ in threads.map(fill, range(len(wanted))):
                pass
        return squares, used

    def use(self, image: int, decode: Callable[[bytes, str], T]) -> tuple[T, int]:
        """Return what is made of an image, or where it is bad and may be skipped of the one that follows, and which.

        Args:
            image: The image.
            decode: Called with its content and its name.

        Raises:
            DataError: If it cannot be used.
        """
        first: DataError | None = None
        for number in range(min(MOST_SKIPPED, len(self))):
            tried = (image + number) % len(self)
            if number and tried in self.no_substitutes:
                continue
            try:
                if tried in self.known_bad:
                    raise DataError(self.known_bad[tried])
                return decode(self.places.read(tried), self.places.name(tried)), tried
            except DataError as error:
                if not self.may_skip:
                    raise DataError(f"{error} (data.on_bad_image: skip leaves such images out)") from error
                self._note(tried, error)
                first = first or error
        raise DataError(f"{first}; so it is with the {min(MOST_SKIPPED, len(self))} images from there on")

    def pixels(self, content: bytes, name: str) -> NDArray[np.uint8]:
        """Decode one image at its own resolution: ``(H, W, 3)``.

        Raises:
            DataError: If it cannot be used.
        """
        shown, max_pixels = self.decoding.orientation == "shown", self.decoding.max_pixels
        return decode_pixels(content, name, shown=shown, max_pixels=max_pixels)

    def take(self, images: NDArray[np.int64]) -> EncodedImages:
        """Return some images, still encoded."""
        own, bad = self.places.take(images), self.known_bad
        masks = None if self.masks is None else self.masks.take(images)
        bad = {row: bad[image] for row, image in enumerate(images.tolist()) if image in bad}
        return replace(self, places=own, masks=masks, known_bad=bad, no_substitutes=frozenset())

    def without_substitutes(self, images: NDArray[np.int64]) -> EncodedImages:
        """Return the images, of which bad ones are never left out for one of ``images``."""
        return replace(self, no_substitutes=frozenset(images.tolist()))

    @contextmanager
    def threads(self) -> Iterator[ThreadPoolExecutor]:
        """Return threads that decode; what has not begun when the context ends is dropped."""
        with limit_pixels(self.decoding.max_pixels):
            threads = ThreadPoolExecutor(self.decoding.workers or usable_threads(), "decoding")
            try:
                yield threads
            finally:
                threads.shutdown(cancel_futures=True)

    def _note(self, image: int, error: DataError) -> None:
        name = self.places.name(image)
        if name not in self.skipped:
            self.skipped[name] = str(error)
            _LOG.warning("skipped, and the image that follows taken in its place: %s", error)


def central_square(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the middle of ``(h, w)`` pixels: ``(m, m)``, m the shorter side."""
    side = min(mask.shape)
    top, left = ((length - side) // 2 for length in mask.shape)
    return mask[top : top + side, left : left + side]


def usable_threads() -> int:
    """Return the threads that this process computes with: the CPUs of a trial, where one runs."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else len(os.sched_getaffinity(0))
