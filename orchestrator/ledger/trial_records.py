"""Reading trials back from a ledger: each with its newest attempt, and what that reported."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from orchestrator.ledger.encoding import decode_config, decode_metrics
from orchestrator.ledger.schema import TRIAL_COLUMNS
from orchestrator.trials.records import Cause, Report, State, TrialRecord
from orchestrator.trials.trial import Role, TrialInfo

_RECORDS = f"""
SELECT {", ".join(f"t.{column}" for column in TRIAL_COLUMNS.values())},
       a.attempt, a.state, a.steps, a.step, a.metrics, a.seconds, a.core_seconds, a.error, a.traceback, a.cause,
       o.reason AS left_out
FROM trials AS t LEFT JOIN attempts AS a
    ON a.trial_id = t.trial_id
    AND a.attempt = (SELECT MAX(b.attempt) FROM attempts AS b WHERE b.trial_id = t.trial_id)
LEFT JOIN skipped AS o ON o.trial_id = t.trial_id
WHERE t.position IS NOT NULL ORDER BY t.position
"""
_REPORTS = """
SELECT r.trial_id, r.step, r.metrics FROM reports AS r JOIN newest_attempts AS a USING (trial_id, attempt)
ORDER BY r.trial_id, r.step
"""


def select_records(connection: sqlite3.Connection, *, with_reports: bool = True) -> tuple[TrialRecord, ...]:
    """Return every trial of the sweep as it stands, in the sweep's order, inside the caller's transaction.

    Args:
        connection: To the ledger, with rows by name.
        with_reports: Whether the rungs are read too.
    """
    rows = connection.execute(_RECORDS).fetchall()
    reports: defaultdict[str, list[Report]] = defaultdict(list)
    for trial_id, step, metrics in connection.execute(_REPORTS) if with_reports else ():
        reports[trial_id].append(Report(step, decode_metrics(metrics)))
    return tuple(_to_record(row, reports.get(row["trial_id"], ())) for row in rows)


def select_configs(connection: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """Return the configuration of every trial as JSON values, by id, inside the caller's transaction."""
    return {row[0]: decode_config(row[1]) for row in connection.execute("SELECT trial_id, config FROM trials")}


def select_times(connection: sqlite3.Connection) -> dict[str, tuple[str, str | None]]:
    """Return when the newest attempt at every trial began and ended, by id; ISO times in UTC."""
    query = "SELECT trial_id, COALESCE(started_at, submitted_at), ended_at FROM newest_attempts"
    return {row[0]: (row[1], row[2]) for row in connection.execute(query)}


def _to_record(row: sqlite3.Row, reports: Sequence[Report]) -> TrialRecord:
    known = {name: row[column] for name, column in TRIAL_COLUMNS.items()}
    trial = TrialInfo(**known | {"role": Role(known["role"])})
    if row["state"] in (None, "lost"):
        # What a lost attempt reported says nothing of the trial that waits to be run again.
        state = State.WAITING if row["left_out"] is None else State.LEFT_OUT
        return TrialRecord(trial, state, num_attempts=row["attempt"] or 0, left_out=row["left_out"])
    ended = {name: row[name] for name in ("steps", "step", "seconds", "core_seconds", "error", "traceback")}
    return TrialRecord(
        trial,
        State(row["state"]),
        num_attempts=row["attempt"],
        reports=tuple(reports),
        metrics=decode_metrics(row["metrics"]),
        cause=None if row["cause"] is None else Cause(row["cause"]),
        **ended,
    )
