"""Counting images before they are read, for plans: by listing, for a second or two at most."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from specvit.data.reading.image_files import IMAGE_SUFFIXES
from specvit.files.regular import open_regular

WITHIN_S = 2.0
"""Seconds that a listing may take; what takes longer is not counted."""

_STEP = 1000
"""Entries after which the clock is looked at."""
_PART_BYTES = 1 << 24
"""Likewise bytes."""


class Deadline:
    """The time by which a count must have ended."""

    def __init__(self, within_s: float = WITHIN_S, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the time.

        Args:
            within_s: Seconds.
            clock: Seconds, monotonic.
        """
        self._clock, self._within_s = clock, within_s
        self.restart()

    def restart(self) -> None:
        """Start the time anew, after what is no counting, such as the import of a package."""
        self._ends_s = self._clock() + self._within_s

    def check(self, place: Path | str) -> None:
        """Check that there is time left to look at a place.

        Raises:
            TimeoutError: If not.
        """
        if self._clock() > self._ends_s:
            raise TimeoutError(f"counting what is in {place} takes too long")

    def entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        """Yield the visible entries of a folder.

        Raises:
            OSError: If it cannot be listed; a ``TimeoutError`` if that takes too long.
        """
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number % _STEP == 0:
                    self.check(folder)
                if not entry.name.startswith("."):
                    yield entry

    def tree(self, folder: Path) -> Iterator[Path]:
        """Yield what is not hidden below a folder and is no folder, likewise; links to folders are not followed."""
        for entry in self.entries(folder):
            if entry.is_dir(follow_symlinks=False):
                yield from self.tree(Path(entry.path))
            else:
                yield Path(entry.path)

    def folders(self, folder: Path) -> list[Path]:
        """List the folders in a folder, likewise."""
        return [Path(entry.path) for entry in self.entries(folder) if entry.is_dir()]

    def count(self, folders: Iterable[Path], suffixes: Sequence[str] = IMAGE_SUFFIXES) -> int:
        """Count the entries of folders whose names end as those of images do, likewise."""
        endings = tuple(suffixes)
        return sum(
            entry.name.lower().endswith(endings) for folder in folders for entry in self.entries(folder)
        )

    def count_text(self, path: Path, text: bytes) -> int:
        """Count how often a text, of which no two overlap, occurs in a file, likewise."""
        found, before = 0, b""
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            while part := file.read(_PART_BYTES):
                self.check(path)
                part = before + part
                found += part.count(text)
                before = part[1 - len(text) :]
        return found
