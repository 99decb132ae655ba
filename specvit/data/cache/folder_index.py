"""What was found in a tree of folders, so that a second start lists no file of it.

An index is one ``.npz`` file, named by the source and its root, with the files, their classes, and the time at which
each folder was last changed. While no folder has changed, nothing was added, removed or renamed. That a file was
written over in its place is not noticed; whoever decodes it reads what it holds then.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specvit.data.cache.array_archive import DamagedError, read_archive, write_archive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INDEX_VERSION = 1
"""Takes part in every index's name: raise it when other files are found in the same folders."""

LEAST_FILES = 2000
"""Files from which a tree has an index; fewer are listed in no time."""

SETTLED_S = 2.0
"""Seconds after which a change of a folder shows in its time, however coarse the file system's clock."""


@dataclass(frozen=True)
class FolderIndex:
    """What a tree holds.

    Attributes:
        files: Paths as bytes by split.
        labels: ``(N,)`` int64 classes by split.
        class_names: Name of every class.
        fingerprint: Short hash of names and sizes of the files.
        passed_over: Number of files that are not read, by ending.
    """

    files: Mapping[str, NDArray[np.bytes_]]
    labels: Mapping[str, NDArray[np.int64]]
    class_names: tuple[str, ...]
    fingerprint: str
    passed_over: Mapping[str, int]


def index_path(cache_folder: str, *about: object) -> Path | None:
    """Return where the index of a tree is kept; None where the folder has no meaning here.

    Args:
        cache_folder: The folder of indices; ``~`` is expanded.
        about: What decides which files are found: the source, its root, and its settings.
    """
    text = json.dumps([INDEX_VERSION, *about], default=str)
    try:
        parent = Path(cache_folder).expanduser().absolute()
    except RuntimeError:
        return None
    return parent / f"index-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:16]}.npz"


def read_index(path: Path) -> FolderIndex | None:
    """Return an index, None if there is none or a folder has changed since."""
    try:
        with read_archive(path) as (about, stored):
            if any(Path(folder).stat().st_mtime_ns != changed for folder, changed in about["folders"].items()):
                return None
            files, labels = ({split: stored[f"{split}_{kind}"] for split in about["splits"]} for kind in _KINDS)
            return FolderIndex(files, labels, tuple(about["class_names"]), about["fingerprint"], about["passed_over"])
    except DamagedError:
        return None


def write_index(path: Path, index: FolderIndex, folders: Iterable[Path]) -> None:
    """Keep an index of many files, unless a folder was changed just now; without it the next start lists again.

    Args:
        path: Where.
        index: What was found.
        folders: All folders that were listed.
    """
    if sum(map(len, index.files.values())) < LEAST_FILES:
        return
    try:
        changed = {str(folder): folder.stat().st_mtime_ns for folder in folders}
    except OSError:  # one has gone
        return
    if max(changed.values()) > time.time_ns() - SETTLED_S * 1e9:
        return
    about = {
        "folders": changed,
        "splits": list(index.files),
        "class_names": index.class_names,
        "fingerprint": index.fingerprint,
        "passed_over": dict(index.passed_over),
    }
    arrays: dict[str, Any] = {f"{split}_files": files for split, files in index.files.items()}
    arrays |= {f"{split}_labels": labels for split, labels in index.labels.items()}
    write_archive(path, about, arrays)


_KINDS = ("files", "labels")
