"""What a data source delivers: whole splits as arrays, decoded once and shared by all trials of a node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from specvit.data.encoded import EncodedImages
from specvit.data.mapped import MappedFile, mapped_file, open_mapped
from specvit.data.reading.label_names import IGNORE_INDEX as IGNORE_INDEX
from specvit.errors import DataError
from specvit.lazy_numpy import np
from specvit.settings import PositiveInt, settings

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Split:
    """One split. N images of H x W pixels; a target that the source does not have is None.

    Arrays may be files mapped into memory. Such a split is sent to another process as the names of its files.

    Attributes:
        images: ``(N, 3, H, W)`` uint8, RGB; or encoded ones, which are decoded to that when rows are taken.
        labels: ``(N,)`` int64 class indices.
        masks: ``(N, H, W)`` uint8 class indices, 255 = ignore.
        depth: ``(N, H, W)`` float16 distances in metres; not positive or not finite = not measured.
        boxes: ``(N, M, 5)`` int16 rows ``x0, y0, x1, y1, class`` (half open), class -1 = no object.
    """

    images: NDArray[np.uint8] | EncodedImages
    labels: NDArray[np.int64] | None = None
    masks: NDArray[np.uint8] | None = None
    depth: NDArray[np.float16] | None = None
    boxes: NDArray[np.int16] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> int:
        """Return the side of what a model is trained on, in pixels."""
        return self.images.crop_size if isinstance(self.images, EncodedImages) else int(self.images.shape[-1])

    @property
    def targets(self) -> frozenset[str]:
        """Return the names of the targets that this split has."""
        return frozenset(name for name in _TARGETS if getattr(self, name) is not None)

    def distinct(self, target: str, *, most: int = 2) -> tuple[float, ...]:
        """Return distinct values of a target; what is ignored or not measured is none.

        Args:
            target: ``labels``, ``masks`` or ``boxes`` for class indices, ``depth`` for metres.
            most: How many to look for; images are looked at until so many are found.
        """
        array = getattr(self, target)
        found: list[float] = []
        for start in range(0, 0 if array is None else len(array), _IMAGES_AT_ONCE):
            values = _valid(array[start : start + _IMAGES_AT_ONCE], target)
            for known in found:
                values = values[values != known]
            while values.size and len(found) < most:
                found.append(values[0].item())
                values = values[values != values[0]]
            if len(found) == most:
                break
        return tuple(found)

    def read(
        self, images: slice | NDArray[np.int64], *, size: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the pixels of some images, decoded if they are encoded.

        Args:
            images: Which.
            size: Side of encoded images in pixels; None = as probes see them.

        Returns:
            ``(n, 3, H, W)``, and ``(n,)`` which images these are, for their targets: a bad image may have been left out
            for the one that follows.

        Raises:
            DataError: If an image cannot be used.
        """
        if isinstance(self.images, EncodedImages):
            return self.images.squares(images, size=size)
        return self.images[images], np.arange(len(self))[images] if isinstance(images, slice) else images

    def without_substitutes(self, images: NDArray[np.int64]) -> Split:
        """Return the split, of which bad images are never left out for one of ``images``."""
        own = self.images
        return self if not isinstance(own, EncodedImages) else replace(self, images=own.without_substitutes(images))

    def take(self, images: NDArray[np.int64]) -> Split:
        """Return some images with their targets, encoded if they are."""
        own = self.images
        taken = own.take(images) if isinstance(own, EncodedImages) else own[images]
        return Split(images=taken, **{name: getattr(self, name)[images] for name in self.targets})

    def __reduce__(self) -> tuple[Callable[..., Split], tuple[dict[str, Any]]]:
        arrays = {name: getattr(self, name) for name in ("images", *_TARGETS)}
        return _restore, ({name: mapped_file(array) or array for name, array in arrays.items()},)


_TARGETS = ("labels", "masks", "depth", "boxes")
_IMAGES_AT_ONCE = 256


def _valid(values: NDArray[Any], target: str) -> NDArray[Any]:
    """Return what counts of the values of a target, flat: class indices, or metres."""
    valid: NDArray[Any] = values[..., 4] if target == "boxes" else values.reshape(-1)
    match target:
        case "masks":
            valid = valid[valid != IGNORE_INDEX]
        case "depth":
            valid = valid[(valid > 0) & (valid < float("inf"))]
        case "boxes":
            valid = valid[valid >= 0]
    return valid


def _restore(arrays: dict[str, Any]) -> Split:
    return Split(
        **{name: open_mapped(array) if isinstance(array, MappedFile) else array for name, array in arrays.items()}
    )


@dataclass(frozen=True)
class Dataset:
    """The two splits of a source: probes fit on ``train`` and are reported on ``val``.

    Attributes:
        train: Images for pretraining and for fitting probes.
        val: Images that metrics are reported on; never used to choose anything.
        class_names: Name of every class index in ``labels``; empty without labels.
        mask_names: Name of every class index in ``masks``; empty without masks.
        fingerprint: Short hash of what was read, so that a ledger can refuse to mix two versions of the data.
        box_names: Name of every class index in ``boxes``; empty without boxes.
        passed_over: Number of files that lay among the images and were not read, by ending; "folder" of folders.
    """

    train: Split
    val: Split
    class_names: tuple[str, ...]
    mask_names: tuple[str, ...]
    fingerprint: str
    box_names: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_classes(self) -> dict[str, int]:
        """Return the number of classes by target; 0 for one that has none, such as depth."""
        return {
            "labels": len(self.class_names),
            "masks": len(self.mask_names),
            "depth": 0,
            "boxes": len(self.box_names),
        }


@dataclass(frozen=True)
class Counts:
    """What is known of a source before it is read.

    Attributes:
        train: Images to train on.
        val: Images to report on.
        classes: Classes of labels; None = not known.
    """

    train: int
    val: int
    classes: int | None = None


@settings
class DataSource(ABC):
    """The settings of a source of images. Each source is one file of ``sources``.

    A subclass adds ``source: Literal["its_name"] = "its_name"`` and its fields, sets ``name`` to the same
    text, and lists in ``targets`` what its splits can carry.
    """

    name: ClassVar[str]
    targets: ClassVar[frozenset[str]]
    path_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where data lies or how it is fetched, not what it is: they take no part in a trial's identity."""
    extra: ClassVar[tuple[str, str] | None] = None
    """The module that the source needs beyond the core, and the extra of this package that installs it."""

    image_size: PositiveInt = 32
    """Side of the square images, in pixels."""

    @property
    def probed_size(self) -> int:
        """Return the side of the images that probes see, in pixels."""
        return self.image_size

    @property
    def split_sizes(self) -> tuple[int, int] | None:
        """Return how many images there are to train on and to report on, if that is known before they are read."""
        return None

    @property
    def num_labels(self) -> int | None:
        """Return how many classes labels have, if that is known before they are read."""
        return None

    def known_counts(self) -> Counts | None:
        """Return how many images there are, if that is known whatever lies on the disk."""
        return None if self.split_sizes is None else Counts(*self.split_sizes, self.num_labels)

    def count_images(self) -> Counts | None:
        """Return how many images there are, also if it takes a second or two to list or to count them.

        Nothing is decoded or fetched. What is not there, or takes longer, is not known.
        """
        return self.known_counts()

    def check_installed(self) -> None:
        """Check that what the source needs beyond the core is installed; nothing is imported or read.

        Raises:
            DataError: If it is not; the text says how to install it.
        """
        if self.extra is not None and find_spec(self.extra[0]) is None:
            module, extra = self.extra
            raise DataError(
                f"data.source {self.name!r} needs the package {module!r}, which is not installed: "
                f'pip install "specsweep[{extra}]"'
            )

    @abstractmethod
    def load(self) -> Dataset:
        """Read or make both splits.

        Raises:
            DataError: If a folder, a file or an image cannot be used; the text names it.
        """
