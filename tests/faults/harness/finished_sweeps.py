"""What must be true of a sweep at its end, whatever its drivers went through: read with SQLite alone."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...measured_columns import MEASURED, NUM_LAST

OWN = {"lock", "ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"}
PAGE, ROWS = "report.html", "trials.csv"
"""They tell of attempts, those too of drivers that died: of the first nothing is the same but that it is there, of the
second all but their number."""


@dataclass(frozen=True)
class Ended:
    """Hold what a sweep ended with, apart from times of day and from what became of its drivers.

    Attributes:
        results: Trial id to the final metrics, as they are stored.
        reports: Trial id to the step and metrics of each rung, as they are stored.
        seconds: Trial id to wall and CPU seconds.
        files: Name to content of the files beside the ledger: tables, curves, the sweep file, the environment.
    """

    results: dict[str, str]
    reports: dict[str, list[tuple[int, str]]]
    seconds: dict[str, tuple[float, float]]
    files: dict[str, bytes]


def read_end(folder: Path) -> Ended:
    """Read what a finished sweep has on record."""
    done = {row["trial_id"]: row for row in select(folder, "SELECT * FROM attempts WHERE state = 'done'")}
    reports: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in select(folder, "SELECT * FROM reports ORDER BY trial_id, attempt, step"):
        if row["attempt"] == done[row["trial_id"]]["attempt"]:
            reports[row["trial_id"]].append((row["step"], row["metrics"]))
    return Ended(
        results={trial_id: row["metrics"] for trial_id, row in done.items()},
        reports=dict(reports),
        seconds={trial_id: (row["seconds"], row["core_seconds"]) for trial_id, row in done.items()},
        files={
            path.name: _without_attempts(path)
            for path in folder.iterdir()
            if path.is_file() and path.name not in OWN
        },
    )


def _without_attempts(path: Path) -> bytes:
    if path.name == PAGE:
        return b""
    if path.name != ROWS:
        return path.read_bytes()
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    return repr([{name: text for name, text in row.items() if name != "attempts"} for row in rows]).encode()


def find_faults(folder: Path, *, num_trials: int, rungs: tuple[int, ...]) -> list[str]:
    """Return what is wrong with a finished sweep, each in a line.

    Args:
        folder: Its results.
        num_trials: How many trials it has.
        rungs: Steps at which a trial that trains reports.
    """
    faults = [f"integrity: {row[0]}" for row in select(folder, "PRAGMA integrity_check") if row[0] != "ok"]
    faults += [f"foreign key: {tuple(row)}" for row in select(folder, "PRAGMA foreign_key_check")]
    attempts: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in select(folder, "SELECT trial_id, attempt, state FROM attempts ORDER BY trial_id, attempt"):
        attempts[row["trial_id"]].append((row["attempt"], row["state"]))
    trials = {row["trial_id"]: row["label"] for row in select(folder, "SELECT trial_id, label, role FROM trials")}
    if len(trials) != num_trials:
        faults.append(f"{len(trials)} trials, not {num_trials}")
    steps: Counter[tuple[str, int, int]] = Counter()
    for row in select(folder, "SELECT trial_id, attempt, step FROM reports"):
        steps[row["trial_id"], row["attempt"], row["step"]] += 1
    trained = {
        row["trial_id"] for row in select(folder, "SELECT trial_id FROM trials WHERE role IN ('baseline', 'arm')")
    }
    for trial_id, label in trials.items():
        numbers, states = zip(*attempts[trial_id], strict=True) if attempts[trial_id] else ((), ())
        if numbers != tuple(range(1, len(numbers) + 1)):
            faults.append(f"{label}: attempts are numbered {numbers}")
        if states != (*["lost"] * (len(states) - 1), "done"):
            faults.append(f"{label}: attempts ended as {states}")
        newest = (trial_id, len(numbers))
        told = sorted((step, count) for (*attempt, step), count in steps.items() if tuple(attempt) == newest)
        wanted = [(step, 1) for step in rungs] if trial_id in trained else []
        if told != wanted:
            faults.append(f"{label}: rungs (step, times) {told}, not {wanted}")
    if (folder / "checkpoints").exists():
        faults.append(f"states are left: {sorted(path.name for path in (folder / 'checkpoints').iterdir())}")
    return faults


def without_times(files: Mapping[str, bytes]) -> dict[str, object]:
    """Return the tables without the columns of times and memory, in which real trials differ from run to run."""
    rows = list(csv.DictReader(io.StringIO(files["table.csv"].decode())))
    kept = [{name: text for name, text in row.items() if name not in MEASURED} for row in rows]
    lines = files["table.md"].decode().splitlines()
    cut = [line.rsplit("|", NUM_LAST + 1)[0] if line.startswith("|") else line for line in lines]
    return {"table.csv": kept, "table.md": cut}


def dump(folder: Path) -> dict[str, list[Any]]:
    """Return all that a ledger holds."""
    tables = [row[0] for row in select(folder, "SELECT name FROM sqlite_schema WHERE type = 'table'")]
    return {name: [tuple(row) for row in select(folder, f"SELECT * FROM {name}")] for name in tables}


def select(folder: Path, query: str) -> list[sqlite3.Row]:
    """Read from a sweep's ledger."""
    address = f"{(folder / 'ledger.sqlite').resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(query).fetchall()
