"""Arrays that stay on disk: files mapped into memory, whose pages all processes of a machine share."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specvit.errors import DataError
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class MappedFile:
    """A file of one array, in place of the array itself."""

    path: str
    shape: tuple[int, ...]
    dtype: str


def mapped_file(array: NDArray[Any] | None) -> MappedFile | None:
    """Return the file that ``array`` is the whole of; None for an array in memory, and for part of a file."""
    if not isinstance(array, np.memmap) or not isinstance(array.base, mmap.mmap) or array.filename is None:
        return None
    return MappedFile(path=str(array.filename), shape=array.shape, dtype=array.dtype.str)


def open_mapped(file: MappedFile) -> NDArray[Any]:
    """Map a ``.npy`` file, for reading only.

    Raises:
        DataError: If it cannot be opened, or does not hold an array of that shape and type.
    """
    try:
        array = open_array(Path(file.path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"cannot open the decoded images {file.path!r}: {reason}; data.cache_folder must be the same folder on "
            "every machine that runs trials"
        ) from error
    if (array.shape, array.dtype.str) != (file.shape, file.dtype):
        raise DataError(f"the decoded images {file.path!r} have changed while they were in use")
    return array


def open_array(path: Path) -> NDArray[Any]:
    """Map a ``.npy`` file, for reading only.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is not such a file, holds Python objects, or is shorter than its header says.
    """
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
