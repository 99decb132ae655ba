"""Whether images to report on are training images too, under whatever name: a link, a copy, a shard packed twice.

Only images of one size in bytes are compared, first by their ends, and where these agree by all of their content: of
most sets few are ever opened.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from specvit.errors import DataError
from specvit.files.regular import open_regular

_END_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Encoded:
    """The place of an encoded image: a file, or a part of one.

    Attributes:
        path: The file.
        offset: Where it begins, in bytes.
        size: How long it is, in bytes.
        name: What to call it in messages.
    """

    path: Path
    offset: int
    size: int
    name: str

    @classmethod
    def of_file(cls, path: Path) -> Encoded:
        """Return the place of a whole file; one that cannot be found is empty, for whoever reads it names it."""
        try:
            return cls(path, 0, path.stat().st_size, str(path))
        except OSError:
            return cls(path, 0, 0, str(path))


_Keyed = list[tuple[Encoded, Hashable]]


def check_unshared(
    train: Iterable[Encoded],
    val: Iterable[Encoded],
    *,
    most: int,
    decode: Callable[[bytes, str], object] | None = None,
) -> None:
    """Check that images to report on are no training images, byte for byte.

    Args:
        train: Images to train on.
        val: Images to report on.
        most: How many may be training images all the same, ``data.max_shared``.
        decode: Where bad images are left out, what decodes one by its content and name: of what it refuses with a
            ``DataError``, such as a page that says "not found", nothing is reported on. None = all count.

    Raises:
        DataError: If more are; the text counts them and names the first with the training image that it is.
    """
    splits: list[_Keyed] = [[(image, image.size) for image in split if image.size] for split in (train, val)]
    total = len(splits[1])
    splits = _in_both(splits)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for key in (_end, _whole):
            images = [[image for image, _ in split] for split in splits]
            splits = _in_both([list(zip(split, threads.map(key, split), strict=True)) for split in images])
        if decode is not None:
            are_used = threads.map(lambda shared: _is_used(shared[0], decode), splits[1])
            splits[1] = [shared for shared, is_used in zip(splits[1], are_used, strict=True) if is_used]
    first = {key: image.name for image, key in reversed(splits[0])}
    report_shared({image.name: first[key] for image, key in splits[1]}, total=total, most=most)


def report_shared(shared: Mapping[str, str], *, total: int, most: int) -> None:
    """Raise if too many images to report on are training images.

    Args:
        shared: The name of each such image, with that of the training image that it is.
        total: Number of images to report on.
        most: How many may be.

    Raises:
        DataError: If there are more.
    """
    if len(shared) > most:
        val, train = next(iter(shared.items()))
        raise DataError(
            f"train and val must not share images, but {len(shared)} of {total} images to report on are training "
            f"images too, byte for byte, the first {val!r}, which is {train!r}: metrics would be reported on training "
            f"images (at most {most} may be, by data.max_shared)"
        )


def _in_both(splits: Sequence[_Keyed]) -> list[_Keyed]:
    """Return of each split the images whose key the other one has too."""
    common = set.intersection(*({key for _, key in split} for split in splits))
    return [[(image, key) for image, key in split if key in common] for split in splits]


def _end(image: Encoded) -> Hashable:
    length = min(image.size, _END_BYTES)
    return image.size, _read(image, image.offset + image.size - length, length)


def _whole(image: Encoded) -> Hashable:
    return _read(image, image.offset, image.size)


def _read(image: Encoded, offset: int, length: int) -> Hashable:
    """Return the hash of a part of a file; of one that cannot be read its name, for whoever decodes it tells why."""
    try:
        return hashlib.sha256(_content(image, offset, length)).digest()
    except OSError:
        return image.name


def _is_used(image: Encoded, decode: Callable[[bytes, str], object]) -> bool:
    try:
        decode(_content(image, image.offset, image.size), image.name)
    except (OSError, DataError):
        return False
    return True


def _content(image: Encoded, offset: int, length: int) -> bytes:
    descriptor = open_regular(image.path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
