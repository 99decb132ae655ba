"""Where encoded images and targets lie: in files of their own, in shards, or in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from specvit.data.reading.image_decoding import read_content
from specvit.data.reading.shared_images import Encoded
from specvit.errors import DataError
from specvit.files.regular import open_regular
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
