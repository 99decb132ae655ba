"""Decoded images on disk: made once, found by every later run, and mapped by all workers of a machine.

A cache is one folder, named by a hash of the source's settings and of its files' names, sizes and times. It holds
a ``.npy`` file for every array and ``dataset.json``, which says what belongs together. It is made under another
name and renamed when it is whole; a lock keeps two processes from making the same one twice. Nothing is ever
deleted but what is damaged: caches of data that have changed stay until their owner removes them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL

from specvit.data.base import Dataset, DataSource, Split
from specvit.data.cache.array_storage import DiskStorage, Storage
from specvit.data.mapped import open_array
from specvit.data.reading.progress import LOGGER
from specvit.errors import DataError
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CACHE_VERSION = 1
"""Takes part in every cache's name: raise it when the same files and settings are decoded to other arrays."""

_OF_ENCODED = frozenset({"keep", "probe_size", "on_bad_image"})
"""Fields that say nothing of images that are decoded: caches have the names that they had before these were there."""

_DESCRIPTION = "dataset.json"
_SPLITS = ("train", "val")
_ARRAYS = ("images", "labels", "masks", "depth", "boxes")
_NAMES = ("class_names", "mask_names", "box_names")


def load_cached(
    source: DataSource,
    files: Sequence[Path],
    read: Callable[[Storage], Dataset],
    *,
    cache_folder: str,
    version: str = "",
) -> Dataset:
    """Return the data of ``source``, mapped from its cache, which is made if there is none.

    Args:
        source: The source, whose settings are part of the cache's name.
        files: The files that decide what is read.
        read: Decodes them.
        cache_folder: Where caches are; ``~`` is expanded.
        version: What else decides what is read.

    Raises:
        DataError: If a file cannot be decoded, or the cache cannot be written.
    """
    name = f"{source.name}-{source.image_size}-{_key(source, files, version)}"
    parent = _expand(cache_folder)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = parent / name
        dataset = _open(folder)
        if dataset is None:
            with _lock(parent / f"{name}.lock"):
                # Another process may have made it in the meantime.
                dataset = _open(folder) or _make(folder, read)
    except OSError as error:
        raise DataError(f"data.cache_folder: {str(parent)!r} cannot be used ({error.strerror or error})") from error
    LOGGER.info("decoded images: %s", folder)
    return dataset


def _expand(folder: str) -> Path:
    try:
        return Path(folder).expanduser().absolute()
    except RuntimeError as error:
        raise DataError(f"data.cache_folder: {folder!r} has no meaning here: {error}") from error


def _key(source: DataSource, files: Sequence[Path], version: str) -> str:
    fields = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    settings = {name: value for name, value in fields.items() if name not in source.path_fields | _OF_ENCODED}
    # Pillow decodes and resizes; its versions may differ in a pixel's last bit.
    about = [CACHE_VERSION, PIL.__version__, type(source).__name__, settings, version]
    return hash_files(about, files, state=_state_of)


def hash_files(about: object, files: Sequence[Path], *, state: Callable[[Path], str]) -> str:
    """Hash what decides the content of a cache.

    Args:
        about: What else decides it, beside files.
        files: The files that do.
        state: Returns what of a file changes when it is written to.

    Returns:
        16 hex digits.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for file in files:
        digest.update(f"\n{file}\0{state(file)}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _state_of(file: Path) -> str:
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"cannot read {str(file)!r}: {error.strerror}") from error
    return f"{status.st_size}\0{status.st_mtime_ns}"


def _open(folder: Path) -> Dataset | None:
    """Map a cache; None if there is none that is whole."""
    try:
        about = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        splits = {
            split: Split(**{name: _open_array(folder, split, name, known) for name, known in arrays.items()})
            for split, arrays in about["splits"].items()
        }
        names: dict[str, Any] = {name: tuple(about[name]) for name in _NAMES}
        return Dataset(train=splits["train"], val=splits["val"], fingerprint=about["fingerprint"], **names)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        LOGGER.info("the decoded images in %s are damaged (%s)", folder, error)
        return None


def _open_array(folder: Path, split: str, name: str, known: object) -> NDArray[Any]:
    path = _array_path(folder, split, name)
    if _state(path) != known:
        raise ValueError(f"{path.name} is not as it was written")
    return open_array(path)


def _state(path: Path) -> list[int]:
    """Return what changes when a file is written to: its size and its time."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _array_path(folder: Path, split: str, name: str) -> Path:
    return folder / f"{split}_{name}.npy"


def _make(folder: Path, read: Callable[[Storage], Dataset]) -> Dataset:
    """Decode into a new folder, which then takes the place of ``folder``."""
    building = folder.with_name(f".{folder.name}")
    # What a process that was killed left; the lock says that none is at work on it.
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    LOGGER.info("decoding once into %s", folder)
    try:
        dataset = read(DiskStorage(building))
        about = {
            "fingerprint": dataset.fingerprint,
            **{name: getattr(dataset, name) for name in _NAMES},
            "splits": {split: _write_split(building, split, getattr(dataset, split)) for split in _SPLITS},
        }
        description = building / _DESCRIPTION
        with description.open("w", encoding="utf-8") as file:
            json.dump(about, file)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    made = _open(folder)
    if made is None:
        raise DataError(f"the decoded images in {str(folder)!r} changed while they were written")
    return made


def _write_split(folder: Path, split: str, arrays: Split) -> dict[str, list[int]]:
    """Write the arrays that are not yet files, and return the state of each."""
    states = {}
    for name in _ARRAYS:
        array = getattr(arrays, name)
        if array is None:
            continue
        path = _array_path(folder, split, name)
        if not path.exists():
            with path.open("xb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        states[name] = _state(path)
    return states


def _lock(path: Path) -> AbstractContextManager[object]:
    """Acquire the lock of a file, waiting for another holder; it is released however its holder ends."""
    from filelock import FileLock, Timeout  # which settings do not need: they load this module too

    lock = FileLock(path)
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        LOGGER.info("waiting for another process that decodes the same images")
        return lock.acquire()
