"""What was found in images that stay encoded and in their targets, so that a second start decodes none of them.

It is one ``.npz`` file, named by a hash of the source's settings and of its files' names, sizes and times, with the
targets at the size of probes, each compressed, what cannot be used, and the fingerprint. Times are those of the content
and of the file itself: who copies another file of the same size into its place may keep the first, but not the second.
It appears under its name when it is whole; two processes that start at once both make it. Nothing is ever deleted: what
was found in data that have changed stays until its owner removes it.
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL

from specvit.data.base import Dataset, DataSource, Split
from specvit.data.cache.array_archive import DamagedError, read_archive, write_archive
from specvit.data.cache.array_storage import Rows, Storage
from specvit.data.cache.decoded_cache import hash_files
from specvit.data.cache.folder_index import LEAST_FILES
from specvit.data.encoded import EncodedImages
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOUND_VERSION = 2
"""Takes part in every name: raise it when something else is found in the same files."""

_TARGETS = {"masks": "uint8", "depth": "float16"}
"""What may be kept: a number a pixel. A source of another package that has more than these finds all at every start."""
_FASTEST = 1
"""Level of compression."""


@dataclass(frozen=True)
class FoundTargets:
    """What a start finds, apart from where the images lie.

    Attributes:
        targets: Targets at the size of probes, by split and by name, as in ``Split``.
        bad: Why images cannot be used, by split and by image.
        mask_names: As of a ``Dataset``.
        fingerprint: Likewise.
    """

    targets: Mapping[str, Mapping[str, NDArray[Any]]]
    bad: Mapping[str, Mapping[int, str]]
    mask_names: tuple[str, ...]
    fingerprint: str

    @classmethod
    def of(cls, dataset: Dataset) -> FoundTargets:
        """Return what was found of a data set."""
        splits: dict[str, Split] = {"train": dataset.train, "val": dataset.val}
        bad: dict[str, Mapping[int, str]] = {}
        for name, split in splits.items():
            assert isinstance(split.images, EncodedImages)
            bad[name] = split.images.known_bad
        targets = {
            name: {target: getattr(split, target) for target in sorted(_TARGETS.keys() & split.targets)}
            for name, split in splits.items()
        }
        return cls(targets, bad, dataset.mask_names, dataset.fingerprint)


def found_path(source: DataSource, files: Sequence[Path], *, cache_folder: str) -> Path | None:
    """Return where what is found is kept; None where files are few, or the folder has no meaning here.

    Args:
        source: The source, whose settings decide what is found.
        files: All files that are read.
        cache_folder: The folder of caches; ``~`` is expanded.
    """
    if len(files) < LEAST_FILES:
        return None
    try:
        parent = Path(cache_folder).expanduser().absolute()
    except RuntimeError:
        return None
    fields = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    # Of images that are larger than allowed it is known that they are bad.
    passed = source.path_fields - {"max_pixels"} | {"image_size", "probe_size"}
    settings = {name: value for name, value in fields.items() if name not in passed}
    fixed = [type(source).__name__, getattr(source, "label_map", None)]
    about = ["found", FOUND_VERSION, PIL.__version__, *fixed, settings, source.probed_size]
    # That a file is gone, or may not be read, is known too, until it is back, or may be.
    digest = hash_files(about, files, state=_state_of)
    return parent / f"targets-{source.name}-{source.probed_size}-{digest}.npz"


def _state_of(file: Path) -> str:
    try:
        status = file.stat()
    except OSError as error:
        return f"{error.errno}"
    readable = os.access(file, os.R_OK)
    return f"{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{readable:d}"


def read_found(path: Path, num_images: Mapping[str, int], *, size: int, storage: Storage) -> FoundTargets | None:
    """Return what an earlier start found, None if none did or it is not whole.

    Args:
        path: Where it is kept.
        num_images: By split.
        size: Side of targets.
        storage: Where targets go.

    Raises:
        DataError: If there is not enough room.
    """
    try:
        with read_archive(path) as (about, stored):
            targets: dict[str, dict[str, NDArray[Any]]] = {split: {} for split in num_images}
            for split, number in num_images.items():
                for name in about["targets"][split]:
                    kind = np.dtype(_TARGETS[name])
                    rows = storage.rows(f"{split}_{name}", number, (size, size), kind)
                    _expand(stored[f"{split}_{name}"], stored[f"{split}_{name}_ends"], rows, (number, size, kind))
                    targets[split][name] = storage.finish(rows)
            bad = {split: {int(image): str(why) for image, why in about["bad"][split].items()} for split in num_images}
            return FoundTargets(targets, bad, tuple(map(str, about["mask_names"])), str(about["fingerprint"]))
    except DamagedError:
        return None


def write_found(path: Path, dataset: Dataset) -> None:
    """Keep what was found for the next start; where that cannot be, it finds it again.

    Args:
        path: Where.
        dataset: What was found.
    """
    if not dataset.train.targets | dataset.val.targets <= _TARGETS.keys():
        return
    found = FoundTargets.of(dataset)
    about = {
        "targets": {split: list(targets) for split, targets in found.targets.items()},
        "bad": {split: {str(image): why for image, why in bad.items()} for split, bad in found.bad.items()},
        "mask_names": found.mask_names,
        "fingerprint": found.fingerprint,
    }
    arrays: dict[str, NDArray[Any]] = {}
    for split, targets in found.targets.items():
        for name, array in targets.items():
            arrays[f"{split}_{name}"], arrays[f"{split}_{name}_ends"] = _compressed(array)
    write_archive(path, about, arrays)


def _compressed(array: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the rows of an array, compressed and one after the other, and where each ends."""
    with _threads() as threads:
        rows = list(threads.map(lambda row: zlib.compress(row.tobytes(), _FASTEST), array))
    return np.frombuffer(b"".join(rows), np.uint8), np.cumsum([len(row) for row in rows], dtype=np.int64)


def _expand(
    content: NDArray[np.uint8], ends: NDArray[np.int64], rows: Rows, wanted: tuple[int, int, np.dtype[Any]]
) -> None:
    """Set rows, of which the number, the side and the kind are known, from what they are compressed.

    Raises:
        ValueError: If there are not so many, or others.
        zlib.error: If one is damaged.
    """
    number, size, kind = wanted
    kinds = f"{content.dtype}{content.ndim} {ends.dtype}"
    if ends.shape != (number,) or kinds != "uint81 int64":
        raise ValueError(f"targets of {ends.shape} images are stored, not of {number}")
    num_bytes = size * size * kind.itemsize

    def expand(row: int) -> None:
        stream = zlib.decompressobj()
        # One more than there should be, so that a row that is larger shows, but is not expanded.
        expanded = stream.decompress(content[ends[row - 1] if row else 0 : ends[row]].tobytes(), num_bytes + 1)
        if not stream.eof:
            raise ValueError(f"target {row} is another")
        rows[row] = np.frombuffer(expanded, kind).reshape(size, size)

    with _threads() as threads:
        for _ in threads.map(expand, range(number)):
            pass


def _threads() -> ThreadPoolExecutor:
    """Return threads for what is done outside of Python's global lock."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))
