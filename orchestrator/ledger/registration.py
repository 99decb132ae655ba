"""What a ledger is told before anything runs: the sweep, its trials, the data they see."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from orchestrator.ledger.encoding import decode_metrics, decode_names, decode_plain, decode_seeds, encode_metrics
from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.schema import TRIAL_COLUMNS
from orchestrator.trials.trial import Trial

_WRITE_SWEEP = """
INSERT OR REPLACE INTO sweep (
    only_row, name, question, text, metrics, seeds, primary_metric, smallest_effects, growth, comparison
) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# Names are no part of a trial's identity: a new axis renames the trials that the ledger knows.
_NAMES = (*TRIAL_COLUMNS.values(), "position")
_WRITE_TRIAL = f"""
INSERT INTO trials ({", ".join(_NAMES)}, config) VALUES ({"?, " * len(_NAMES)}?)
ON CONFLICT (trial_id) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in _NAMES if name != "trial_id")}
"""


@dataclass(frozen=True)
class SweepInfo:
    """What a table needs to know of the sweep beside its trials.

    Attributes:
        name: Name of the sweep; a ledger belongs to one.
        question: What the sweep asks, in a sentence.
        text: The sweep file as it was read.
        metrics: Names of the final metrics, in the order of the table's columns.
        seeds: Seeds that every arm is run with.
        data_fingerprints: Group id to the fingerprint of the data that the group's trials see.
        primary_metric: Name of the metric whose verdicts the sweep claims; empty = not said.
        smallest_effects: Name of a metric to the smallest difference of interest.
        growth: How its seeds grow, as its file says; empty if they are fixed.
        comparison: How its tables compare arms, as its file says; empty if it says nothing.
    """

    name: str
    question: str
    text: str
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    data_fingerprints: Mapping[str, str] = field(default_factory=dict)
    primary_metric: str = ""
    smallest_effects: Mapping[str, float] = field(default_factory=dict)
    growth: Mapping[str, Any] = field(default_factory=dict)
    comparison: Mapping[str, Any] = field(default_factory=dict)


def write_registration(
    connection: sqlite3.Connection, sweep: SweepInfo, trials: Sequence[Trial], *, path: Path
) -> None:
    """Record the sweep and its trials, inside the caller's transaction.

    Args:
        connection: The ledger, open for writing.
        sweep: The sweep.
        trials: Its trials, in their order. Known trials that are not among them lose their place only.
        path: Where the ledger lies, for messages.

    Raises:
        LedgerError: If the ledger belongs to another sweep, or a group's data have changed.
    """
    _refuse_other_sweep(connection, sweep, path)
    _refuse_other_data(connection, sweep, trials, path)
    lists = (json.dumps(sweep.metrics), json.dumps(sweep.seeds))
    rules = (json.dumps(dict(sweep.growth)), json.dumps(dict(sweep.comparison)))
    claims = (sweep.primary_metric, encode_metrics(sweep.smallest_effects), *rules)
    connection.execute(_WRITE_SWEEP, (sweep.name, sweep.question, sweep.text, *lists, *claims))
    connection.executemany(
        "INSERT OR REPLACE INTO groups (group_id, data_fingerprint) VALUES (?, ?)",
        sweep.data_fingerprints.items(),
    )
    connection.execute("UPDATE trials SET position = NULL")
    connection.executemany(_WRITE_TRIAL, (_to_row(position, trial) for position, trial in enumerate(trials)))


def read_registration(connection: sqlite3.Connection, *, path: Path) -> SweepInfo:
    """Return the sweep that was registered.

    Raises:
        LedgerError: If none was.
    """
    columns = "name, question, text, metrics, seeds, primary_metric, smallest_effects, growth, comparison"
    row = connection.execute(f"SELECT {columns} FROM sweep").fetchone()
    if row is None:
        raise LedgerError(f"{path}: no sweep is registered yet; run the sweep first")
    name, question, text, metrics, seeds, primary, effects, growth, comparison = row
    groups = connection.execute("SELECT group_id, data_fingerprint FROM groups").fetchall()
    return SweepInfo(
        name=name,
        question=question,
        text=text,
        metrics=decode_names(metrics),
        seeds=decode_seeds(seeds),
        data_fingerprints=dict(map(tuple, groups)),
        primary_metric=primary,
        smallest_effects=decode_metrics(effects),
        growth=decode_plain(growth),
        comparison=decode_plain(comparison),
    )


def _refuse_other_sweep(connection: sqlite3.Connection, sweep: SweepInfo, path: Path) -> None:
    row = connection.execute("SELECT name FROM sweep").fetchone()
    if row is not None and row[0] != sweep.name:
        raise LedgerError(
            f"{path}: the ledger is of the sweep {row[0]!r}, not of {sweep.name!r}; "
            "rename the sweep or use another results folder"
        )


def _refuse_other_data(
    connection: sqlite3.Connection, sweep: SweepInfo, trials: Sequence[Trial], path: Path
) -> None:
    groups = {trial.group_id: trial.group for trial in trials}
    for group_id, recorded in connection.execute("SELECT group_id, data_fingerprint FROM groups"):
        given = sweep.data_fingerprints.get(group_id, recorded)
        if group_id in groups and given != recorded:
            group = f" of group {groups[group_id]!r}" if groups[group_id] else ""
            raise LedgerError(
                f"{path}: the data{group} have changed since they were recorded here "
                f"(fingerprint {recorded}, now {given}); bring them back or use another results folder"
            )


def _to_row(position: int, trial: Trial) -> tuple[str | int | float, ...]:
    return (*(getattr(trial, name) for name in TRIAL_COLUMNS), position, to_json(trial.config).decode())
