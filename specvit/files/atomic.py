"""Writing a file so that a reader finds the old one or the new one, never half of one, also after a power cut."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from specvit.errors import SpecsweepError

_TEMPORARY = re.compile(r"\.\w+\.(md|csv|html|png|json|yaml|sqlite)\.(?P<process>[0-9]+)")
"""What the files are called that ``replacing`` gives for ledgers, tables, figures and their like."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file to write, which then takes the place of ``path``.

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


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that were killed while they wrote a table, a figure or their like have left in ``folder``.

    A file that cannot be deleted stays: it is in nobody's way.
    """
    for path in folder.iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match is not None and not _is_alive(int(match["process"])):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
