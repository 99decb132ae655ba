"""Finding image files, resizing images, hashing files: what the folder sources have in common."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from specvit.data.reading.name_forms import existing
from specvit.errors import DataError
from specvit.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Endings, in any case, that make a file an image; others are passed over."""
SPLITS = ("train", "val")
"""Names of the two splits' folders."""


def existing_root(root: str) -> Path:
    """Resolve the ``root`` field of a source: expand ``~``, and start relative paths at the current folder.

    Raises:
        DataError: If there is no such folder.
    """
    try:
        path = existing(Path(root).expanduser().absolute())
    except RuntimeError as error:
        raise DataError(f"data.root: {root!r} has no meaning here: {error}") from error
    if not root.strip() or not path.is_dir():
        raise DataError(f"data.root: no folder {str(path if root.strip() else root)!r}")
    return path


def existing_folder(folder: Path, *, rule: str) -> Path:
    """Return ``folder``, spelt as on the disk.

    Raises:
        DataError: If it is missing; ``rule`` tells what the layout asks for.
    """
    found = existing(folder)
    if not found.is_dir():
        raise DataError(f"no folder {str(folder)!r}: {rule}")
    return found


def visible_entries(folder: Path) -> list[Path]:
    """List a folder by name, without hidden entries.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {str(folder)!r}: {error.strerror}") from error
    return [entry for entry in entries if not entry.name.startswith(".")]


def list_images(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List the images that lie in a folder itself, by name; folders below it are not searched."""
    entries = visible_entries(folder)
    return [entry for entry in entries if entry.suffix.lower() in suffixes and not entry.is_dir()]


def count_others(folders: Mapping[Path, Sequence[str]]) -> dict[str, int]:
    """Count the visible entries of folders that are not read, the most frequent ones first.

    Args:
        folders: Each folder with the endings that are read, in lower case.

    Returns:
        Their number by ending; "folder" for folders, "no ending" for files without one.
    """
    counts: Counter[str] = Counter()
    for folder, suffixes in folders.items():
        for entry in visible_entries(folder):
            if entry.suffix.lower() not in suffixes or entry.is_dir():
                counts["folder" if entry.is_dir() else entry.suffix.lower() or "no ending"] += 1
    return dict(counts.most_common())


def crop_to_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize the shorter side to ``size`` and keep the centre: ``(3, size, size)``, antialiased bilinear."""
    return _channels_first(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))


def squash_to_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize both sides to ``size``, whatever the aspect: ``(3, size, size)``, antialiased bilinear."""
    return _channels_first(image.resize((size, size), Image.Resampling.BILINEAR))


def squash_mask(mask: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize a mask as ``squash_to_square`` does, by nearest neighbour: ``(size, size)`` class indices."""
    return np.asarray(mask.resize((size, size), Image.Resampling.NEAREST))


def fingerprint(root: Path, files: Iterable[tuple[Path, bytes]]) -> str:
    """Hash the relative names and the contents of files.

    Args:
        root: The folder that names are relative to.
        files: Each file with the SHA-256 of its content, in a fixed order.

    Returns:
        16 hex digits.
    """
    digest = hashlib.sha256()
    for path, content in files:
        digest.update(path.relative_to(root).as_posix().encode(errors="surrogateescape") + b"\0" + content)
    return digest.hexdigest()[:16]


def fingerprint_sizes(root: Path, files: Iterable[Path], *, may_be_gone: bool = False) -> str:
    """Hash the relative names and the sizes of files, which are too many to be read.

    Args:
        root: The folder that names are relative to.
        files: The files, in a fixed order.
        may_be_gone: Whether one that is not there counts as one of -1 bytes.

    Returns:
        16 hex digits.

    Raises:
        DataError: If one is not there that must be.
    """
    digest, start = hashlib.sha256(), len(os.fsencode(root)) + 1
    for path in files:
        try:
            size = path.stat().st_size
        except OSError as error:
            if not may_be_gone:
                raise DataError(f"cannot read the image {str(path)!r}: {error.strerror}") from error
            size = -1
        digest.update(os.fsencode(path)[start:] + b"\0%d\n" % size)
    return digest.hexdigest()[:16]


def fingerprint_samples(samples: Iterable[bytes]) -> str:
    """Hash samples that are no files of their own.

    Args:
        samples: What each sample is, in a fixed order.

    Returns:
        16 hex digits.
    """
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(len(sample).to_bytes(8, "big") + sample)
    return digest.hexdigest()[:16]


def _channels_first(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image).transpose(2, 0, 1)
