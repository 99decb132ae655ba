"""Opening a data set of the package ``datasets`` and walking its rows, with its images still encoded.

What decides the builder is checked before it reads anything: the formats that hold images, none of which runs code
or unpickles. Images are decoded by this package, so that they come out as from any other source.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from datasets.arrow_reader import ReadInstruction
from datasets.exceptions import DatasetsError
from datasets.features.features import require_decoding
from datasets.packaged_modules.parquet.parquet import Parquet
from pyarrow import parquet

from specvit.data.extras.hugging_face_files import RowFiles, files_of_folder, files_of_hub
from specvit.data.reading.counting import Deadline
from specvit.data.reading.name_forms import existing
from specvit.errors import DataError

FORMATS = ("parquet", "arrow", "imagefolder", "webdataset")
"""The builders of ``datasets`` that may read; that of WebDataset shards decodes without pickle there."""

_MOST_FILES = 500

_ERRORS = (DatasetsError, OSError, ValueError, RuntimeError, KeyError, NotImplementedError)
"""What ``datasets`` raises for data that do not exist, cannot be reached, or are not what they claim to be."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number, what to call it in messages, which files it may name, and what its columns hold."""

    index: int
    name: str
    files: RowFiles
    image: object
    label: object = None
    mask: object = None


@dataclass(frozen=True)
class Table:
    """One split.

    Attributes:
        name: What to call it in messages.
        num_rows: Number of its rows, or for a stream the most that are taken.
        class_names: Name of each class, where the label column has them.
        columns: The column of ``image``, ``label`` and ``mask``.
        data: The ``datasets.Dataset`` or ``IterableDataset``, its images not decoded.
        files: The files that its rows may name.
    """

    name: str
    num_rows: int
    class_names: tuple[str, ...]
    columns: Mapping[str, str]
    data: Any
    files: RowFiles

    def rows(self) -> Iterator[Row]:
        """Yield the rows, one after the other.

        Raises:
            DataError: If a file of the data set cannot be read.
        """
        try:
            for index, values in enumerate(islice(self.data, self.num_rows)):
                cells = {name: values[column] for name, column in self.columns.items()}
                yield Row(index=index, name=f"{self.name}, row {index}", files=self.files, **cells)
        except _ERRORS as error:
            raise DataError(f"cannot read {self.name}: {_reason(error)}") from error


@dataclass(frozen=True)
class Opened:
    """Both splits, and what decides their content: local files, or on the hub a version."""

    tables: dict[str, Table]
    files: tuple[Path, ...]
    version: str


def open_tables(
    path: str,
    wanted: Mapping[str, tuple[str, int | None]],
    columns: Mapping[str, str],
    *,
    config: str | None,
    revision: str | None,
    streaming: bool,
) -> Opened:
    """Open both splits.

    Args:
        path: A folder, or a name on the hub.
        wanted: For ``train`` and ``val`` the name of the split and the most rows to read; None = all.
        columns: The column of ``image`` and, where they are wanted, of ``label`` and ``mask``.
        config: Name of the configuration, where the data set has several.
        revision: Branch, tag or commit on the hub.
        streaming: Whether rows are fetched as they are read; both splits then have a most.

    Raises:
        DataError: If the data set cannot be opened, a split or a column is missing, or the splits share rows.
    """
    folder = _local_folder(path)
    try:
        if folder is not None and _was_saved(folder):
            saved: Any = datasets.load_from_disk(str(folder))
            splits = {name: _pick(saved, split, path) for name, (split, _) in wanted.items()}
            version, files = "", files_of_folder(folder, lists_images=False)
        else:
            place = path if folder is None else str(folder)
            version, lists_images = _check_builder(place, config, revision)
            files = (
                files_of_hub(place, lists_images=lists_images)
                if folder is None
                else files_of_folder(folder, lists_images=lists_images)
            )
            splits = {
                name: datasets.load_dataset(place, config, split=split, revision=revision, streaming=streaming)
                for name, (split, _) in wanted.items()
            }
            shared = _shared_split(splits, wanted)
            if shared:
                raise DataError(
                    f"data.train_split and data.val_split must not share rows, as {wanted['train'][0]!r} and "
                    f"{wanted['val'][0]!r} do those of {shared!r}: metrics would be reported on training images"
                )
    except (*_ERRORS, TypeError, AttributeError, IndexError) as error:  # the last three: a damaged description
        elsewhere = "" if folder is not None else ", which is no folder here"
        raise DataError(f"data.path: cannot open {path!r}{elsewhere}: {_reason(error)}") from error
    tables = {
        name: _table(splits[name], limit, columns, files, name=f"split {split!r} of {path!r}")
        for name, (split, limit) in wanted.items()
    }
    return Opened(tables=tables, files=() if folder is None else _files(folder), version=version)


def count_rows(
    path: str, splits: Mapping[str, str], *, config: str | None, deadline: Deadline
) -> dict[str, int] | None:
    """Count the rows of splits of a folder that is a saved data set, or holds Parquet files; None where it is another.

    The package ``datasets`` takes a millisecond for each file of a folder to find out what it holds: folders of many
    are not given to it.

    Args:
        path: A folder, or a name on the hub, which is not looked up.
        splits: Name of each split; None is known of a part of one, such as ``train[:10%]``.
        config: Name of the configuration.
        deadline: When it must have ended.

    Raises:
        DataError: If the folder cannot be read, or not in time.
    """
    folder = _local_folder(path)
    if folder is None:
        return None
    try:
        if _was_saved(folder):
            saved: Any = datasets.load_from_disk(str(folder))
            return {name: len(_pick(saved, split, path)) for name, split in splits.items()}
        if sum(1 for _ in islice(deadline.tree(folder), _MOST_FILES + 1)) > _MOST_FILES:
            return None
        builder = datasets.load_dataset_builder(str(folder), config)
        files = builder.config.data_files or {}
        if not isinstance(builder, Parquet) or not set(splits.values()) <= set(files):
            return None
        rows = dict.fromkeys(splits, 0)
        for name, split in splits.items():
            for file in files[split]:
                deadline.check(file)
                rows[name] += parquet.read_metadata(file).num_rows
        return rows
    except (*_ERRORS, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"data.path: cannot count the rows of {path!r}: {_reason(error)}") from error


def read_encoded(value: object, name: str, files: RowFiles) -> bytes:
    """Return the bytes of an encoded image: those in the row, or those of the file that it names.

    Args:
        value: What the row holds.
        name: What to call it in messages.
        files: The files that it may name.

    Raises:
        DataError: If there are none.
    """
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            value = value["bytes"]
        elif isinstance(path := value.get("path"), str):
            value = files.read(path, name)
    if not isinstance(value, bytes):
        raise DataError(f"{name} must hold an encoded image, not {type(value).__name__}")
    return value


def _local_folder(path: str) -> Path | None:
    """Return the folder that ``path`` names, or None where it reads as a name on the hub, OWNER/NAME or NAME."""
    try:
        folder = existing(Path(path).expanduser())
    except RuntimeError as error:
        raise DataError(f"data.path: {path!r} has no meaning here: {error}") from error
    if not path.strip():  # pathlib takes it for the current folder, all files of which would be listed
        raise DataError(f"data.path: no folder {path!r}")
    if folder.is_dir():
        return folder.absolute()
    if path.startswith((".", "~", "/")) or path.count("/") > 1 or folder.exists():
        raise DataError(f"data.path: no folder {str(folder.absolute())!r}")
    return None


def _was_saved(folder: Path) -> bool:
    """Return whether ``save_to_disk`` wrote the folder."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _pick(saved: Any, split: str, path: str) -> Any:
    if not isinstance(saved, datasets.DatasetDict):
        raise DataError(f"data.path: {path!r} must hold two splits, as a saved DatasetDict does, not one data set")
    if split not in saved:
        raise DataError(f"data.path: {path!r} has no split {split!r}, only {', '.join(saved)}")
    return saved[split]


def _shared_split(splits: Mapping[str, Any], wanted: Mapping[str, tuple[str, int | None]]) -> str | None:
    """Return the name of a split of which both take the same rows, where the package says how long it is."""
    known = splits["train"].info.splits or {}
    lengths = {name: about.num_examples for name, about in known.items()}
    taken: dict[str, list[tuple[str, int, int]]] = {}
    for name, (split, limit) in wanted.items():
        spec = "+".join(lengths) if split == "all" else split
        if not lengths or not isinstance(splits[name], datasets.Dataset):
            return None
        taken[name] = []
        left = sum(lengths.values()) if limit is None else limit
        for part in ReadInstruction.from_spec(spec).to_absolute(lengths):
            stop = min(part.to, part.from_ + left)
            left -= max(0, stop - part.from_)
            taken[name].append((part.splitname, part.from_, stop))
    for one, start, stop in taken["train"]:
        if any(one == other and max(start, first) < min(stop, last) for other, first, last in taken["val"]):
            return str(one)
    return None


def _check_builder(path: str, config: str | None, revision: str | None) -> tuple[str, bool]:
    """Raise if the format holds no images; return the version of the files as JSON, and whether each file is a row."""
    builder = datasets.load_dataset_builder(path, config, revision=revision)
    modules = {cls.__module__ for cls in type(builder).__mro__}
    if not any(f"datasets.packaged_modules.{name}.{name}" in modules for name in FORMATS):
        found = type(builder).__mro__[1].__module__.rpartition(".")[2]
        raise DataError(f"data.path: {path!r} must hold files of {', '.join(FORMATS)}, not {found}")
    # Of files on the hub: repository and commit.
    origins = {
        str(split): getattr(files, "origin_metadata", None)
        for split, files in (builder.config.data_files or {}).items()
    }
    version = json.dumps([path, revision, origins], default=str, sort_keys=True)
    return version, "datasets.packaged_modules.imagefolder.imagefolder" in modules


def _table(data: Any, limit: int | None, columns: Mapping[str, str], files: RowFiles, *, name: str) -> Table:
    features = data.features
    if features is None:
        raise DataError(f"{name} does not say which columns it has; data.streaming: false finds out")
    for role, column in columns.items():
        if column not in features:
            raise DataError(f"data.{role}_column: {name} has no column {column!r}, only {', '.join(features)}")
        if role != "label" and isinstance(features[column], datasets.Image):
            data = data.cast_column(column, datasets.Image(decode=False))
        elif require_decoding(features[column]):  # which the package would do itself, from any file that a row names
            rule = "class indices or names" if role == "label" else "images"
            raise DataError(
                f"data.{role}_column: {name} must hold {rule} in {column!r}, not {type(features[column]).__name__}"
            )
    data = data.select_columns(list(dict.fromkeys(columns.values())))
    label = features[columns["label"]] if "label" in columns else None
    names = tuple(label.names) if isinstance(label, datasets.ClassLabel) else ()
    if not isinstance(data, datasets.Dataset):  # a stream
        assert limit is not None
        return Table(name=name, num_rows=limit, class_names=names, columns=columns, data=data, files=files)
    num_rows = len(data) if limit is None else min(limit, len(data))
    data = data.with_format(None)
    return Table(name=name, num_rows=num_rows, class_names=names, columns=columns, data=data, files=files)


def _files(folder: Path) -> tuple[Path, ...]:
    """List all files below a folder, in a fixed order."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(parent, name) for name in sorted(names)]
    return tuple(found)


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
