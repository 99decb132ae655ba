"""Reading object annotations in COCO's JSON format: which images, which categories, which boxes.

Only what a detector needs is kept; segmentations, most of a file, are dropped while it is parsed.

Source: the format is described at https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from specvit.data.reading.name_forms import composed
from specvit.data.reading.paths import is_inside
from specvit.errors import DataError
from specvit.files.regular import read_regular

_DROPPED = frozenset({"segmentation", "keypoints", "coco_url", "flickr_url"})


@dataclass(frozen=True)
class ListedImage:
    """One image of an annotation file.

    Attributes:
        file_name: Its path relative to the folder of images.
        size: Width and height in pixels as the file gives them, or None.
        boxes: Rows ``x, y, width, height, category id`` in pixels of the image, in the order of the file.
    """

    file_name: str
    size: tuple[int, int] | None
    boxes: list[tuple[float, float, float, float, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Annotations:
    """The content of an annotation file.

    Attributes:
        images: The images, by ascending id; those without objects too.
        categories: Category id to name, in the Unicode form NFC, by ascending id.
        digest: SHA-256 of the file.
    """

    images: tuple[ListedImage, ...]
    categories: Mapping[int, str]
    digest: bytes


def read_annotations(path: Path) -> Annotations:
    """Read an annotation file. Crowds (``iscrowd: 1``) are left out.

    Args:
        path: The JSON file.

    Returns:
        Its content.

    Raises:
        DataError: If the file is missing, is no JSON of this format, contradicts itself, or holds a number
            that is none; the text names the file and the annotation.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise DataError(f"cannot read the annotations {str(path)!r}: {error.strerror}") from error
    digest = hashlib.sha256(content).digest()
    try:
        document = json.loads(content, object_pairs_hook=_kept)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the annotations {str(path)!r} must be JSON: {error}") from error
    del content
    reader = _Reader(path)
    categories = reader.categories(document)
    images = reader.images(document)
    reader.add_boxes(document, images, categories)
    if not images:
        reader.fail("must list at least 1 image, not 0")
    return Annotations(images=tuple(images[key] for key in sorted(images)), categories=categories, digest=digest)


def _kept(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key not in _DROPPED}


class _Reader:
    """Check a parsed file entry by entry; every message begins with the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, text: str) -> NoReturn:
        raise DataError(f"the annotations {str(self.path)!r}: {text}")

    def categories(self, document: object) -> dict[int, str]:
        names: dict[int, str] = {}
        for place, entry in self._entries(document, "categories"):
            key = self._id(entry, "id", place)
            if key in names:
                self.fail(f"{place}: id {key} is taken already")
            name = entry.get("name")
            if not isinstance(name, str) or not name:
                self.fail(f"{place}: name must be a text, not {name!r}")
            names[key] = composed(name)
        return dict(sorted(names.items()))

    def images(self, document: object) -> dict[int, ListedImage]:
        images: dict[int, ListedImage] = {}
        names: set[str] = set()
        for place, entry in self._entries(document, "images"):
            key = self._id(entry, "id", place)
            if key in images:
                self.fail(f"{place}: id {key} is taken already")
            name = entry.get("file_name")
            if not isinstance(name, str) or not is_inside(name):
                self.fail(f"{place}: file_name must be a path within the folder of images, not {name!r}")
            if name in names:
                self.fail(f"{place}: file_name {name!r} is listed already")
            names.add(name)
            images[key] = ListedImage(file_name=name, size=self._size(entry, place))
        return images

    def add_boxes(
        self, document: object, images: Mapping[int, ListedImage], categories: Mapping[int, str]
    ) -> None:
        for place, entry in self._entries(document, "annotations"):
            image_id, category_id = (self._id(entry, name, place) for name in ("image_id", "category_id"))
            if image_id not in images:
                self.fail(f"{place}: no image has the id {image_id}")
            if category_id not in categories:
                self.fail(f"{place}: no category has the id {category_id}")
            if entry.get("iscrowd", 0) not in (0, 1):
                self.fail(f"{place}: iscrowd must be 0 or 1, not {entry['iscrowd']!r}")
            x, y, width, height = self._box(entry, place)
            if not entry.get("iscrowd", 0):
                images[image_id].boxes.append((x, y, width, height, category_id))

    def _entries(self, document: object, section: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the entries of a list, each with its place for messages."""
        entries = document.get(section) if isinstance(document, dict) else None
        if not isinstance(entries, list):
            self.fail(f"must be an object with the lists images, annotations and categories; {section} is none")
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict):
                self.fail(f"{section}[{index}] must be an object, not {_short(entry)}")
            named = f" (id {entry['id']})" if _is_integer(entry.get("id")) else ""
            yield f"{section}[{index}]{named}", entry

    def _id(self, entry: Mapping[str, Any], name: str, place: str) -> int:
        value = entry.get(name)
        if not _is_integer(value):
            self.fail(f"{place}: {name} must be an integer, not {_short(value)}")
        return value

    def _size(self, entry: Mapping[str, Any], place: str) -> tuple[int, int] | None:
        width, height = entry.get("width"), entry.get("height")
        if width is None and height is None:
            return None
        if not (_is_integer(width) and _is_integer(height) and min(width, height) > 0):
            self.fail(f"{place}: width and height must be integers above 0, not {_short([width, height])}")
        return width, height

    def _box(self, entry: Mapping[str, Any], place: str) -> tuple[float, float, float, float]:
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(number) for number in box):
            self.fail(f"{place}: bbox must be 4 finite numbers [x, y, width, height], not {_short(box)}")
        x, y, width, height = map(float, box)
        if width < 0 or height < 0:
            self.fail(f"{place}: bbox must have a width and a height of at least 0, not {_short(box)}")
        return x, y, width, height


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
