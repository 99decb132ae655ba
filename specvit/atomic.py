"""Writing a file so that a reader finds the old one or the new one, never half of one, also after a power cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from specvit.errors import SpecsweepError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a temporary file to write, which then takes the place of ``path``.

    Raises:
        SpecsweepError: If the file cannot be written; the text names it. Nothing is left behind then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            # Its name can be foreseen: a link that lies there would be followed, and what it leads to written over.
            temporary.unlink(missing_ok=True)
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise SpecsweepError(f"{path}: cannot be written ({error})") from error


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, making the folder if it does not exist.

    Raises:
        SpecsweepError: If the file cannot be written; the text names it.
    """
    with replacing(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
