"""Names in any Unicode form: macOS writes an accent as a character of its own (NFD), most else does not (NFC).

Names that look the same are the same here, and two that differ by their form alone are never two.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from specvit.errors import DataError


def composed(name: str) -> str:
    """Return a name in the form NFC."""
    return unicodedata.normalize("NFC", name)


def decomposed(name: str) -> str:
    """Return a name in the form NFD."""
    return unicodedata.normalize("NFD", name)


def check_forms(names: Iterable[str], *, what: str) -> None:
    """Check that no two names differ by their Unicode form alone.

    Args:
        names: The names.
        what: What they are, for messages.

    Raises:
        DataError: If two do; the text writes out the characters in which they differ.
    """
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(composed(name), name)
        if other != name:
            raise DataError(f"{what} {other!a} and {name!a} differ by their Unicode form alone: rename one")


def existing(path: Path) -> Path:
    """Return a path as the disk spells it: a part that does not exist gives way to one of another Unicode form.

    Args:
        path: A path, absolute or relative.

    Returns:
        The path itself if it exists, or if no other spelling does.
    """
    if str(path).isascii() or path.exists() or path.parent == path:
        return path
    parent = existing(path.parent)
    wanted = composed(path.name)
    try:
        return next((entry for entry in parent.iterdir() if composed(entry.name) == wanted), parent / path.name)
    except OSError:
        return parent / path.name
