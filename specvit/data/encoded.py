"""Images that stay encoded: files, or entries of shards, each decoded when it is asked for.

To whoever asks for rows such images are an array of squares, those that a source would have kept decoded, bit for bit;
who trains cuts crops from an image at its own resolution (``specvit.training.loading``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from specvit.data.own_targets import OwnTargets
from specvit.data.places import Places
from specvit.data.reading.image_decoding import MAX_PIXELS, limit_pixels
from specvit.data.reading.image_files import crop_to_square
from specvit.data.reading.image_reader import ImageReader, Orientation
from specvit.data.reading.pixels import decode_pixels
from specvit.errors import DataError
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

BadImages = Literal["fail", "skip"]

MOST_SKIPPED = 100
"""Images in a row that may be bad; more are no accident."""

SKIPPED_METRIC = "skipped_images"
"""The metric of a trial that counts the files which were left out for others."""

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
class EncodedImages:
    """N encoded images, as an array of squares ``(N, 3, S, S)`` uint8 whose rows are decoded when they are taken.

    Attributes:
        places: Where they lie.
        crop_size: Side of what a model is trained on, in pixels.
        decoding: How they are decoded.
        probe_size: S, the side of the squares in pixels: the shorter side is resized to it, and the centre is kept.
            None = as ``crop_size``.
        own: Their targets at the resolution of the files, beside those of a ``Split``, by the names of these.
        known_bad: Why some cannot be used, by image, as far as it is known beforehand: their targets cannot be read.
        no_substitutes: Images that are not taken in the place of others.
        skipped: Why images were left out, by name, by this process since it was emptied last.
    """

    places: Places
    crop_size: int
    decoding: Decoding = Decoding()
    probe_size: int | None = None
    own: Mapping[str, OwnTargets] = field(default_factory=dict)
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
                    raise DataError(f"{error} (on_bad_image: skip leaves such images out)") from error
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
        places, bad = self.places.take(images), self.known_bad
        own = {name: targets.take(images) for name, targets in self.own.items()}
        bad = {row: bad[image] for row, image in enumerate(images.tolist()) if image in bad}
        return replace(self, places=places, own=own, known_bad=bad, no_substitutes=frozenset())

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


def left_out(bad: Mapping[int, str], *, total: int) -> str:
    """Return how a message ends on images that lack something: how many are left out, and why the first one is.

    Args:
        bad: Why some of them cannot be used; where it is empty, so is the text.
        total: How many images there are.
    """
    return f"; {len(bad)} of {total} images left out: {bad[min(bad)]}" if bad else ""


def usable_threads() -> int:
    """Return the threads that this process computes with: the CPUs of a trial, where one runs."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else len(os.sched_getaffinity(0))
