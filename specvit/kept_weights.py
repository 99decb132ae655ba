"""Trained weights that are kept in files: which there are, and the index by which people find them.

The folder of a sweep's weights holds a folder a trial, and an index (``INDEX_NAME``) with a row a file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from specvit.errors import DataError

FOLDER_NAME = "weights"
"""Folder of kept weights, in the folder of a sweep's results."""

INDEX_NAME = "index.csv"


@dataclass(frozen=True)
class WeightsFile:
    """A file of trained weights.

    Attributes:
        path: Where it lies, below the folder of the weights: ``none-seed-0-1a2b3c4d/teacher.safetensors``.
        sha256: SHA-256 of its bytes, 64 hex digits.
        is_probed: Whether the probes looked at this one; DINOv2 keeps a student and a teacher.
    """

    path: str
    sha256: str
    is_probed: bool


@dataclass(frozen=True)
class IndexRow:
    """A row of the index: a file, and the trial that it is of.

    Attributes:
        group: The trial's group, as the table calls it; empty if the sweep has one group only.
        arm: Its arm, likewise.
        seed: Its seed.
        name: Which of its backbones it is, e.g. ``teacher``.
        probed: ``yes`` if the probes looked at this one, else ``no``.
        path: Where it lies, below the folder of the weights.
        sha256: SHA-256 of its bytes.
        trial: Id of the trial.
    """

    group: str
    arm: str
    seed: int
    name: str
    probed: str
    path: str
    sha256: str
    trial: str


def render_index(rows: Iterable[IndexRow]) -> str:
    """Return the index as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(IndexRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, rows))
    return text.getvalue()


def find_file(
    results: Path, *, arm: str | None, seed: int | None, group: str | None, name: str | None
) -> tuple[Path, str]:
    """Return the one kept file that is asked for, and its SHA-256.

    Args:
        results: Folder of a sweep's results.
        arm: Its arm, as the table calls it; None = any.
        seed: Its seed; None = any.
        group: Its group, as the table calls it; None = any.
        name: Which backbone of the trial, e.g. ``student``; None = the one that was probed.

    Raises:
        DataError: If there is no index, or not exactly one such file; the text says what there is.
    """
    path = results / FOLDER_NAME / INDEX_NAME
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise DataError(f"{str(results)!r} keeps no weights: there is no {FOLDER_NAME}/{INDEX_NAME}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{str(path)!r} cannot be read as an index of weights: {error}") from error
    asked = {"arm": arm, "seed": None if seed is None else str(seed), "group": group, "name": name}
    wanted = {column: value for column, value in asked.items() if value is not None}
    found = [row for row in rows if all(row.get(column) == value for column, value in wanted.items())]
    if name is None:
        found = [row for row in found if row.get("probed") == "yes"]
    if len(found) != 1:
        text = ", ".join(f"{column}={value!r}" for column, value in wanted.items()) or "no condition"
        raise DataError(f"{str(path)!r} has {len(found)} files with {text}, not one; {_choices(found or rows)}")
    file_path, sha256 = Path(found[0].get("path") or ""), found[0].get("sha256") or ""
    if not file_path.parts or file_path.is_absolute() or ".." in file_path.parts:
        raise DataError(f"{str(path)!r} names a file outside of its folder: {str(file_path)!r}")
    return path.parent / file_path, sha256


def _choices(rows: list[dict[str, str]] | list[Mapping[str, str]]) -> str:
    """Return what there is, by column, human-readable."""
    texts = []
    for column in ("arm", "seed", "group"):
        values = list(dict.fromkeys(repr(row.get(column)) for row in rows))
        if len(values) > 1 or column != "group":
            texts.append(f"{column}: {', '.join(values[:20])}{' ..' if len(values) > 20 else ''}")
    return "there are " + "; ".join(texts) if rows else "it is empty"
