"""Files that rows of a data set name: a row is data, so it may name none but the files of its own data set."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import datasets
import fsspec
from huggingface_hub import constants

from specvit.errors import DataError
from specvit.files.regular import read_regular

_ERRORS = (OSError, ValueError, RuntimeError, KeyError, NotImplementedError, zipfile.BadZipFile)


@dataclass(frozen=True)
class RowFiles:
    """The files that the rows of a data set may name.

    Attributes:
        folders: Resolved folders; a file must lie in one when links are followed.
        listed_in: Folders whose files the builder lists itself, so that links may lead elsewhere.
        remote: What addresses of files in a stream begin with, up to the slash or ``@`` after the data set's name.
    """

    folders: tuple[Path, ...] = ()
    listed_in: tuple[Path, ...] = ()
    remote: tuple[str, ...] = ()

    def read(self, path: str, name: str) -> bytes:
        """Read the file that a row names.

        Args:
            path: What the row says: a path, an address on the hub, or ``zip://MEMBER::`` before one of them.
            name: What to call the row in messages.

        Raises:
            DataError: If it is no file of the data set, or cannot be read.
        """
        *members, container = path.split("::") if path.startswith("zip://") else [path]
        place = self._place(container)
        if place is None or len(members) > 1 or (members and "::" in str(place)):
            raise DataError(f"{name} must hold an encoded image, or name a file of its own data set, not {path!r}")
        try:
            if isinstance(place, Path) and not members:
                return read_regular(place)
            with fsspec.open("::".join([*members, str(place)]), "rb") as file:
                content: bytes = file.read()
        except _ERRORS as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(f"cannot read the image {path!r} of {name}: {reason}") from error
        return content

    def _place(self, path: str) -> Path | str | None:
        """Return where a file of the data set lies, None if ``path`` names no such file."""
        if "\0" in path or not path:
            return None
        if path.startswith(self.remote):
            # What follows :: would be an address of its own.
            return None if ".." in path.split("/") or "::" in path else path
        if "://" in path or not (self.folders or self.listed_in):
            return None
        full = os.path.normpath(Path((self.folders or self.listed_in)[0], path))
        is_listed = any(Path(full).is_relative_to(folder) for folder in self.listed_in)
        real = os.path.realpath(full)
        if is_listed or any(Path(real).is_relative_to(folder) for folder in self.folders):
            return Path(real)
        return None


def files_of_folder(folder: Path, *, lists_images: bool) -> RowFiles:
    """Return what the rows of a local folder may name.

    Args:
        folder: The folder.
        lists_images: Whether its builder makes a row of every file.
    """
    listed_in = (folder, folder.resolve()) if lists_images else ()
    return RowFiles(folders=(folder.resolve(),), listed_in=listed_in)


def files_of_hub(repository: str, *, lists_images: bool) -> RowFiles:
    """Return what the rows of a data set on the hub may name: what the builder fetched, nothing where rows are read.

    Args:
        repository: Its name on the hub.
        lists_images: Whether its builder makes a row of every file.
    """
    if not lists_images:
        return RowFiles()
    fetched = Path(constants.HF_HUB_CACHE, f"datasets--{repository.replace('/', '--')}")
    folders = (fetched, Path(datasets.config.HF_DATASETS_CACHE, "downloads"))
    remote = f"hf://datasets/{repository}"
    return RowFiles(folders=tuple(folder.resolve() for folder in folders), remote=(f"{remote}@", f"{remote}/"))
