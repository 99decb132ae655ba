"""Where decoded rows go as they are made: an array in memory, or a file that is written row by row."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from specvit.data.mapped import open_array
from specvit.errors import DataError
from specvit.lazy_numpy import np
from specvit.memory import usable_memory

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

MEMORY_SHARE = 0.5
"""Largest share of the machine's memory that decoded arrays may take; workers' copies need the rest."""


class Rows(Protocol):
    """The rows of one array, set in any order and from any thread."""

    def __setitem__(self, index: int, row: NDArray[Any], /) -> None:
        """Set row ``index``; each is set once."""


class Storage(ABC):
    """A maker of arrays of rows: all are asked for before the first row is set, so that there is room for them."""

    def __init__(self) -> None:
        self._num_bytes = 0

    def rows(self, name: str, num_rows: int, row_shape: tuple[int, ...], dtype: DTypeLike) -> Rows:
        """Return the rows of a new array, to be set.

        Args:
            name: Its name: the split and the attribute of ``Split``, as in ``train_images``.
            num_rows: Rows it will have, or the most it can have.
            row_shape: Shape of a row.
            dtype: Type of its elements.

        Raises:
            DataError: If there is not enough room, together with the arrays that were asked for before.
        """
        row_bytes = int(np.prod(row_shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        self._num_bytes += num_rows * row_bytes
        self._check_room(self._num_bytes)
        return self._make(name, num_rows, row_shape, np.dtype(dtype))

    @abstractmethod
    def finish(self, rows: Rows, num_rows: int | None = None) -> NDArray[Any]:
        """Return the array of the rows that were set; ``num_rows`` of them, where that is less than asked for."""

    @abstractmethod
    def _check_room(self, num_bytes: int) -> None: ...

    @abstractmethod
    def _make(self, name: str, num_rows: int, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> Rows: ...


class MemoryStorage(Storage):
    """Arrays in memory."""

    def __init__(self, *, keeps_encoded: bool = False) -> None:
        """Start with no arrays.

        Args:
            keeps_encoded: Whether they are targets alone, of images that stay encoded.
        """
        super().__init__()
        self._what, self._advice = "the decoded images", "data.cache: disk"
        if keeps_encoded:
            self._what, self._advice = "the targets at the size of probes", "a smaller data.probe_size"

    def finish(self, rows: Rows, num_rows: int | None = None) -> NDArray[Any]:
        """Return the array."""
        assert isinstance(rows, np.ndarray)
        return rows if num_rows is None else rows[:num_rows]

    def _check_room(self, num_bytes: int) -> None:
        memory = usable_memory()
        if num_bytes > MEMORY_SHARE * memory:
            raise DataError(
                f"{self._what} take {num_bytes / 1e9:.1f} GB, more than {MEMORY_SHARE:.0%} of this machine's "
                f"memory, {memory / 1e9:.1f} GB: set {self._advice}"
            )

    def _make(self, name: str, num_rows: int, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> Rows:  # noqa: ARG002
        return np.empty((num_rows, *row_shape), dtype)


class DiskStorage(Storage):
    """Arrays in ``.npy`` files of a folder.

    Rows are written by ``pwrite``, not through a mapping: a full disk is then an error, where a mapping would end
    the process.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def finish(self, rows: Rows, num_rows: int | None = None) -> NDArray[Any]:
        """Close the file and return the array, mapped."""
        assert isinstance(rows, _FileRows)
        rows.close(num_rows)
        return open_array(rows.path)

    def _check_room(self, num_bytes: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if num_bytes > free:
            raise DataError(
                f"the decoded images take {num_bytes / 1e9:.1f} GB, but {str(self._folder.parent)!r} has "
                f"{free / 1e9:.1f} GB free: make room, or set data.cache_folder"
            )

    def _make(self, name: str, num_rows: int, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> Rows:
        return _FileRows(self._folder / f"{name}.npy", num_rows, row_shape, dtype)


class _FileRows:
    """Write one ``.npy`` file. Its header is written last, when the number of rows is known."""

    def __init__(self, path: Path, num_rows: int, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path = path
        self._num_rows = num_rows
        self._row_shape = row_shape
        self._dtype = dtype
        self._row_bytes = int(np.prod(row_shape, dtype=np.int64)) * dtype.itemsize
        self._file = path.open("xb", buffering=0)
        self._start = self._write_header(num_rows)

    def __setitem__(self, index: int, row: NDArray[Any], /) -> None:
        if not 0 <= index < self._num_rows:
            raise IndexError(f"row {index} of {self._num_rows}")
        content = memoryview(np.broadcast_to(row, self._row_shape).astype(self._dtype).tobytes())
        offset = self._start + index * self._row_bytes
        while content:
            written = os.pwrite(self._file.fileno(), content, offset)
            content, offset = content[written:], offset + written

    def close(self, num_rows: int | None) -> None:
        kept = self._num_rows if num_rows is None else num_rows
        if self._write_header(kept) != self._start:
            raise AssertionError("the header has grown")
        self._file.truncate(self._start + kept * self._row_bytes)
        os.fsync(self._file.fileno())
        self._file.close()

    def _write_header(self, num_rows: int) -> int:
        # NumPy leaves room in the header for any number of rows, so its length does not depend on it.
        self._file.seek(0)
        shape = (num_rows, *self._row_shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()
