"""Writing a text file so that a reader finds the old one or the new one, never half of one."""

from __future__ import annotations

import os
from pathlib import Path

from specvit.errors import SpecsweepError


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, making the folder if it does not exist.

    Raises:
        SpecsweepError: If the file cannot be written; the text names it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise SpecsweepError(f"{path}: cannot be written ({error})") from error
