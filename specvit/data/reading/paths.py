"""Paths that a setting or a file of the data names: whether they stay in their folder, and differ between splits."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from specvit.errors import DataError


def is_inside(path: str) -> bool:
    """Return whether a path, written with slashes, is relative and stays within the folder that it starts at."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # JSON may hold halves of characters, which no file is named by
        return False
    parts = PurePosixPath(path).parts
    return bool(parts) and "\0" not in path and not path.startswith("/") and ".." not in parts


def check_disjoint(train: Iterable[Path], val: Iterable[Path], *, what: str, place: str) -> None:
    """Check that no file is in both splits, under whatever name: metrics would be reported on training images.

    Args:
        train: Files to train on.
        val: Files to report on.
        what: What such a file is, for messages.
        place: The settings or files that name them, for messages.

    Raises:
        DataError: If there is one; the text names the first.
    """
    known = {os.path.realpath(path) for path in train}
    shared = [path for path in val if os.path.realpath(path) in known]
    if shared:
        more = f", and {len(shared) - 1} more" if len(shared) > 1 else ""
        raise DataError(f"{place} must not share {what}, as they do {str(shared[0])!r}{more}")
