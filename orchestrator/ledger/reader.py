"""What can be read from a ledger, by its writer and by others at the same time."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.ledger.connection import LAZY_TABLES, connect_reader, verify_tables
from orchestrator.ledger.diagnostics import select_measurements
from orchestrator.ledger.encoding import (
    decode_config,
    decode_cost,
    decode_metrics,
    decode_provenance,
    decode_weights,
)
from orchestrator.ledger.errors import translate_sqlite_errors
from orchestrator.ledger.private_copy import Signature, is_open_elsewhere, signature_of
from orchestrator.ledger.provenance import Provenance
from orchestrator.ledger.registration import SweepInfo, read_registration
from orchestrator.ledger.reuse import select_results
from orchestrator.ledger.schema import COST_COLUMNS, TRIAL_COLUMNS
from orchestrator.trials.computation import Computation
from orchestrator.trials.identity import training_id
from orchestrator.trials.records import UNKNOWN, Cause, Report, State, TrialRecord, TrialUsage
from orchestrator.trials.resources import ResourceFloor
from orchestrator.trials.stored import StoredResult, read_config
from orchestrator.trials.trial import Role, TrialInfo
from specvit.diagnostics.measurement import Measurement

_RECORDS = f"""
SELECT {", ".join(f"t.{column}" for column in TRIAL_COLUMNS.values())},
       a.attempt, a.state, a.started_at, a.steps, a.step, a.metrics, a.seconds, a.core_seconds, a.error, a.traceback,
       a.cause, a.run, a.device, a.weights, a.trained_by,
       {", ".join(f"a.{column}" for column in COST_COLUMNS.values())},
       o.reason AS skip_reason,
       (SELECT s.metrics FROM newest_attempts AS s WHERE s.trial_id = a.trained_by) AS metrics_of_training
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
_USAGE = """
SELECT trial_id, CASE state WHEN 'failed' THEN IFNULL(cause, 'raised') WHEN 'lost' THEN 'lost' END AS trouble,
       COUNT(*) AS num, TOTAL(held_s) AS held_s, TOTAL(gpus * held_s) AS gpu_s
FROM attempts GROUP BY trial_id, trouble ORDER BY trial_id, trouble
"""

_WAITING = ("lost", "superseded")
"""States of a newest attempt after which its trial waits."""


class LedgerReader:
    """Read the record of one sweep; see ``orchestrator.ledger.ledger``, which opens it."""

    def __init__(self, connection: sqlite3.Connection, path: Path, *, follows: bool = False) -> None:
        """Take a connection.

        Args:
            connection: To the ledger.
            path: Its file.
            follows: Whether the connection is a reader's, which is opened anew if it is one to a copy that is outdated,
                and where the rows of some tables are still to be checked.
        """
        self._path = path
        self._follows = follows
        self._num_opened = 0
        self._take(connection, signature_of(path))

    def _take(self, connection: sqlite3.Connection, signature: Signature) -> None:
        """Read through ``connection``, which was opened when the ledger had a signature."""
        connection.row_factory = sqlite3.Row
        self._connection = connection
        self._unverified = set(LAZY_TABLES if self._follows else ())
        is_copy = not connection.execute("PRAGMA database_list").fetchone()[2]
        self._copied = signature if self._follows and is_copy else None
        self._num_opened += 1

    def _catch_up(self) -> None:
        """Open the ledger anew if what is read is a copy, and it was written to since."""
        if self._copied is None or (self._copied == signature_of(self._path) and not is_open_elsewhere(self._path)):
            return
        signature = signature_of(self._path)
        connection = connect_reader(self._path)
        self._connection.close()
        self._take(connection, signature)

    @property
    def path(self) -> Path:
        """Return the file."""
        return self._path

    def records(self, *, with_reports: bool = True) -> tuple[TrialRecord, ...]:
        """Return every trial of the sweep as it stands, in the order of the sweep file.

        Args:
            with_reports: Whether their rungs are read too, which takes most of the time.
        """
        self._before_reading()
        # One transaction, so that reports and states are of the same moment.
        with self._reading():
            return _select_records(self._connection, with_reports=with_reports)

    def diagnostics(self) -> dict[str, tuple[Measurement, ...]]:
        """Return what was read off the backbones: trial id to readings by block, site and quantity.

        Only trials that have some are in it, in the order of the sweep file.
        """
        with self._reading("diagnostics"):
            return select_measurements(self._connection)

    def with_result(self) -> frozenset[str]:
        """Return the ids of the trials that are done or pruned, also of those that are not in the sweep now."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT trial_id FROM newest_attempts WHERE state IN (?, ?)", (State.DONE, State.PRUNED)
            ).fetchall()
        return frozenset(row["trial_id"] for row in rows)

    def is_done(self, trial_id: str) -> bool:
        """Return whether a trial has run to its end."""
        with self._reading():
            query = "SELECT 1 FROM newest_attempts WHERE trial_id = ? AND state = ?"
            return self._connection.execute(query, (trial_id, State.DONE)).fetchone() is not None

    def sweep(self) -> SweepInfo:
        """Return what was registered of the sweep.

        Raises:
            LedgerError: If nothing was registered yet.
        """
        with self._reading():
            return read_registration(self._connection, path=self._path)

    def group_configs(self) -> dict[str, Mapping[str, Any]]:
        """Return the configuration of one trial of each group, as it is stored, by the id of the group."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT group_id, config FROM trials WHERE rowid IN (SELECT MIN(rowid) FROM trials GROUP BY group_id)"
            ).fetchall()
            return {row["group_id"]: decode_config(row["config"]) for row in rows}

    def training_ids(self) -> dict[str, str]:
        """Return what decides the backbone of each trial of the sweep (``training_id``), by the trial's id.

        Trials whose configuration an older protocol has written are left out. It takes half a millisecond a trial.
        """
        with self._reading():
            rows = self._connection.execute(
                "SELECT trial_id, config FROM trials WHERE position IS NOT NULL ORDER BY position"
            ).fetchall()
            configs = {row["trial_id"]: read_config(decode_config(row["config"]), row["trial_id"]) for row in rows}
        return {trial_id: training_id(config) for trial_id, config in configs.items() if config is not None}

    def provenance(self) -> tuple[Provenance, ...]:
        """Return what the runs of the driver ran on, the oldest first."""
        with self._reading():
            rows = self._connection.execute("SELECT provenance FROM runs ORDER BY run").fetchall()
        return tuple(decode_provenance(row["provenance"]) for row in rows)

    def newest_provenance(self) -> Provenance | None:
        """Return what the run ran on that began the newest attempts; None if no run began one."""
        with self._reading():
            row = self._connection.execute(
                "SELECT provenance FROM runs WHERE run = (SELECT MAX(run) FROM attempts)"
            ).fetchone()
        return None if row is None else decode_provenance(row["provenance"])

    def computations(self) -> dict[str, Computation]:
        """Return what computed the trials that are done, by their ids, also of those that are not in the sweep now."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT trial_id, run, device FROM newest_attempts WHERE state = ?", (State.DONE,)
            ).fetchall()
            computation_of = _computations(self._connection)
        return {row["trial_id"]: computation_of(row["run"], row["device"]) for row in rows}

    def results(self) -> list[StoredResult]:
        """Return what all trials that are done ended with, see ``orchestrator.ledger.reuse``."""
        with self._reading("diagnostics"):
            return select_results(self._connection)

    @contextmanager
    def snapshot(self, *, reads_logs: bool = True) -> Iterator[sqlite3.Connection]:
        """Give the connection for reading, with rows by name; all that is read in this context is of one moment.

        Args:
            reads_logs: Whether the table ``logs`` is read, whose rows are checked before that is done first.
        """
        self._before_reading()
        with self._reading(*(["logs"] if reads_logs else [])):
            yield self._connection

    def version(self) -> int:
        """Return a number that changes whenever another process has written; asking costs next to nothing."""
        self._catch_up()
        with translate_sqlite_errors(self._path):
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return (self._num_opened << 32) + int(version)

    def resource_floors(self) -> dict[str, ResourceFloor]:
        """Return what trials get since one of their scale ran out of memory, by scale."""
        with self._reading():
            rows = self._connection.execute("SELECT * FROM resource_floors").fetchall()
        return {row["scale"]: ResourceFloor(row["gpus"], row["memory_gib"], row["micro_batch"]) for row in rows}

    def gpu_hours(self) -> float:
        """Return the GPU hours that the attempts of this sweep have taken since their workers started, so far."""
        self._before_reading()
        with self._reading():
            (total,) = self._connection.execute("SELECT TOTAL(gpus * held_s) FROM attempts").fetchone()
        return float(total) / 3600

    def usage(self) -> dict[str, TrialUsage]:
        """Return what all attempts at a trial took, by its id, also of trials that are not in the sweep now.

        An attempt that was replaced by ``redo`` came to its end: it is no trouble.
        """
        self._before_reading()
        with self._reading():
            rows = self._connection.execute(_USAGE).fetchall()
        found: dict[str, TrialUsage] = {}
        for row in rows:
            known = found.get(row["trial_id"], TrialUsage(0, 0.0, 0.0))
            troubles = {} if row["trouble"] is None else {row["trouble"]: row["num"]}
            found[row["trial_id"]] = TrialUsage(
                known.attempts + row["num"], known.held_s + row["held_s"], known.gpu_s + row["gpu_s"],
                {**known.troubles, **troubles},
            )
        return found

    def failure_rate(self) -> float:
        """Return the share of the attempts that failed among those that came to an end; 0 if none have.

        Lost ones are not counted: their run was stopped, which says nothing of those to come.
        """
        with self._reading():
            (rate,) = self._connection.execute(
                "SELECT AVG(state = 'failed') FROM attempts WHERE state NOT IN ('running', 'lost')"
            ).fetchone()
        return float(rate or 0.0)

    def _before_reading(self) -> None:
        """Put on record what a writer has not written yet."""

    @contextmanager
    def _reading(self, *tables: str) -> Iterator[None]:
        """Make the statements in this context see one moment, and check ``tables`` first if that is still to do."""
        self._catch_up()
        with translate_sqlite_errors(self._path):
            self._connection.execute("BEGIN")
            try:
                if unverified := self._unverified.intersection(tables):
                    verify_tables(self._connection, self._path, unverified)
                    self._unverified -= unverified
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


def _select_records(connection: sqlite3.Connection, *, with_reports: bool) -> tuple[TrialRecord, ...]:
    rows = connection.execute(_RECORDS).fetchall()
    reports: defaultdict[str, list[Report]] = defaultdict(list)
    for trial_id, step, metrics in connection.execute(_REPORTS) if with_reports else ():
        reports[trial_id].append(Report(step, decode_metrics(metrics)))
    computation_of = _computations(connection)
    return tuple(
        _to_record(row, reports.get(row["trial_id"], ()), computation_of(row["run"], row["device"])) for row in rows
    )


def _computations(connection: sqlite3.Connection) -> Callable[[int | None, str | None], Computation]:
    """Return a function from an attempt's run and device to what computed it; equal ones are one object."""
    runs = dict(map(tuple, connection.execute("SELECT run, provenance FROM runs")))

    @cache
    def computation_of(run: int | None, device: str | None) -> Computation:
        return UNKNOWN if run is None else decode_provenance(runs[run]).computation(device or "")

    return computation_of


def _to_record(row: sqlite3.Row, reports: Sequence[Report], computation: Computation) -> TrialRecord:
    known = {name: row[column] for name, column in TRIAL_COLUMNS.items()}
    trial = TrialInfo(**known | {"role": Role(known["role"])})
    if row["state"] in (None, *_WAITING):
        # What such an attempt reported says nothing of the trial that waits to be run again.
        state = State.WAITING if row["skip_reason"] is None else State.SKIPPED
        return TrialRecord(trial, state, num_attempts=row["attempt"] or 0, skip_reason=row["skip_reason"])
    ended = {name: row[name] for name in ("steps", "step", "seconds", "core_seconds", "error", "traceback")}
    is_pending = row["state"] == State.RUNNING and row["started_at"] is None
    return TrialRecord(
        trial,
        State.PENDING if is_pending else State(row["state"]),
        num_attempts=row["attempt"],
        reports=tuple(reports),
        metrics=decode_metrics(row["metrics"]),
        cause=None if row["cause"] is None else Cause(row["cause"]),
        computation=computation,
        cost=decode_cost(row),
        weights=decode_weights(row["weights"]),
        trained_by=row["trained_by"],
        added_later=_added_later(row),
        **ended,
    )


def _added_later(row: sqlite3.Row) -> frozenset[str]:
    """Return the metrics that the trial has, and the one whose training it rests on has not."""
    if row["metrics_of_training"] is None:
        return frozenset()
    return frozenset(decode_metrics(row["metrics"]).keys() - decode_metrics(row["metrics_of_training"]).keys())
