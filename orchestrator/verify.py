"""What ``verify`` does: check a bundle, or a folder of results, by its manifest and its trials.

Every number of the tables is computed again from ``trials.csv`` and ``sweep.json``, and what differs is named. Tables
may differ from those computed here by ``TOLERANCE``, for versions of NumPy and SciPy round and iterate unlike; what was
measured, by nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from orchestrator.bundle import FILES, MADE, MANIFEST_NAME, NEEDED, read_bundle
from orchestrator.reports.per_trial import curves_csv, metrics_csv, trials_csv
from orchestrator.reports.per_trial.csv_rows import Row, read_rows
from orchestrator.reports.per_trial.sweep_data import SweepData, read_files
from orchestrator.reports.result_files import table_texts, trial_texts
from specvit.errors import SpecsweepError
from specvit.messages import one_line
from specvit.probes import METRICS

TOLERANCE = 1e-6
"""Of a number of a table, relative to its size; critical values are found to as much."""

_SHOWN = 100
_PLACES = ("group", "arm", "seed", "step", "metric")
_MOST_ROWS = 2_000_000


@dataclass(frozen=True)
class Difference:
    """What is not as it should be.

    Attributes:
        file: Name of the file.
        what: Where in it and what, human-readable: line, row and column, the value and what it should be.
    """

    file: str
    what: str

    def __str__(self) -> str:
        return one_line(f"{self.file}{self.what}")


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        files: Names of the files.
        num_trials: Trials that the tables were made of; 0 if they could not be.
        has_manifest: Whether the files were held against a manifest.
        differences: What is not as it should be; empty = all is.
    """

    files: tuple[str, ...]
    num_trials: int
    has_manifest: bool
    differences: tuple[Difference, ...]


def verify(path: Path) -> Verification:
    """Check a bundle by its manifest and its trials; a folder, which has no manifest, by its trials alone.

    Raises:
        SpecsweepError: If it is neither, or what it holds cannot be read though the manifest says that it is whole; or
            if probes of its table are not installed.
    """
    if path.is_dir():
        return _verify_files(read_files(path, FILES), f"{path}/", None)
    files, digests = read_bundle(path)
    return _verify_files(files, f"{path}: ", digests)


def _verify_files(files: Mapping[str, bytes], place: str, digests: Mapping[str, str] | None) -> Verification:
    differences = [] if digests is None else list(_against_manifest(files, digests))
    num_trials = 0
    try:
        data = SweepData.of_files(files, place)
        num_trials = len(data.records)
        unknown = [name for name in data.info.metrics if name not in METRICS]
        if unknown:
            names = ", ".join(one_line(name[:_SHOWN]) for name in unknown)
            raise SpecsweepError(f"{place}its table has {names}, of no probe that is installed here")
        differences += _against_trials(files, data)
    except SpecsweepError as error:
        if not differences:
            raise
        differences.append(Difference("", f"nothing can be computed again: {error}"))
    return Verification(tuple(sorted(files)), num_trials, digests is not None, tuple(differences))


def _against_manifest(files: Mapping[str, bytes], digests: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted({*files, *digests, *NEEDED}):
        if name not in digests and name not in files:
            yield Difference(name, ": is missing")
        elif name not in digests:
            yield Difference(name, f": is not in {MANIFEST_NAME}")
        elif name not in files:
            yield Difference(name, f": is in {MANIFEST_NAME} alone")
        elif (found := hashlib.sha256(files[name]).hexdigest()) != digests[name]:
            yield Difference(name, f": its SHA-256 is {found}, in {MANIFEST_NAME} {digests[name]}")


def _against_trials(files: Mapping[str, bytes], data: SweepData) -> Iterator[Difference]:
    """Yield what differs from what the trials give."""
    of_trials = trial_texts(data)
    texts = table_texts(data) | {name: of_trials[name] for name in (trials_csv.CSV_NAME, metrics_csv.CSV_NAME)}
    if curves_csv.CSV_NAME in files:
        texts[curves_csv.CSV_NAME] = curves_csv.render_curves(data.records)
    for name in MADE:
        if name in files and name not in texts:
            yield Difference(name, ": does not follow from the trials")
        elif name in texts and name not in files:
            yield Difference(name, ": is missing, and follows from the trials")
    for name, text in texts.items():
        if name in files and files[name] != text.encode():
            compare = _compare_lines if name.endswith(".md") else _compare_cells
            yield from compare(name, files[name], text)


def _compare_cells(name: str, content: bytes, text: str) -> Iterator[Difference]:
    """Yield the cells of a CSV that differ, by row and column."""
    tolerance = TOLERANCE if name in MADE else 0.0
    columns, rows = read_rows(content, name, required=(), most_rows=_MOST_ROWS)
    wanted_columns, wanted_rows = read_rows(text.encode(), name, required=(), most_rows=_MOST_ROWS)
    if columns != wanted_columns:
        lacking = [column for column in wanted_columns if column not in columns]
        more = [column for column in columns if column not in wanted_columns]
        yield Difference(name, f":1: columns: {_shown(','.join(more))} too many, {_shown(','.join(lacking))} missing")
    for row, wanted in zip_longest(rows, wanted_rows):
        if row is None or wanted is None:
            rule = "this row does not follow from the trials" if wanted is None else "this row is missing"
            yield Difference("", f"{(row or wanted).place}{_place_of(row or wanted)}: {rule}")
            continue
        for column in columns:
            value, computed = row.cells[column], wanted.cells.get(column)
            if computed is not None and not _is_same(value, computed, tolerance):
                what = f"{_shown(column)} is {_shown(value)}, computed again {_shown(computed)}"
                yield Difference("", f"{row.place}{_place_of(row)}: {what}")


def _compare_lines(name: str, content: bytes, text: str) -> Iterator[Difference]:
    """Yield the lines of a Markdown file that differ; of a table, the cells."""
    header: list[str] = []
    found, wanted = content.decode("utf-8", errors="replace").split("\n"), text.split("\n")
    for number, (line, computed) in enumerate(zip_longest(found, wanted, fillvalue=""), start=1):
        cells, computed_cells = line.split(" | "), computed.split(" | ")
        if computed.startswith("| ") and not header:
            header = computed_cells
        elif not computed.startswith("|"):
            header = []
        if line == computed:
            continue
        if len(cells) == len(computed_cells) == len(header):
            for title, cell, computed_cell in zip(header, cells, computed_cells, strict=True):
                if cell != computed_cell:
                    what = f"{_shown(title)} is {_shown(cell)}, computed again {_shown(computed_cell)}"
                    yield Difference(name, f":{number} ({_shown(computed_cells[0])}): {what}")
        else:
            yield Difference(name, f":{number}: is {_shown(line)}, computed again {_shown(computed)}")


def _is_same(value: str, computed: str, tolerance: float) -> bool:
    if value == computed:
        return True
    try:
        return math.isclose(float(value), float(computed), rel_tol=tolerance, abs_tol=tolerance * 1e-3)
    except ValueError:
        return False


def _place_of(row: Row) -> str:
    """Return which row it is, by what names it."""
    known = [f"{name} {_shown(row.cells[name])}" for name in _PLACES if row.cells.get(name)]
    return f" ({', '.join(known)})" if known else ""


def _shown(text: str) -> str:
    text = one_line(text[: _SHOWN + 1]).strip("| ")
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..")
