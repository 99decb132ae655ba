"""The one durable record of a sweep: its trials, every attempt at them, what they reported, how they ended.

One process writes, the one that runs the scheduler; any other may read at the same time. An event changes
the ledger only if its attempt is the newest of its trial and has not ended: a worker that was given up and
comes back cannot write over its successor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from orchestrator.ledger.connection import connect_reader, connect_writer
from orchestrator.ledger.diagnostics import insert_measurements
from orchestrator.ledger.encoding import encode_cost, encode_metrics, encode_weights, storable
from orchestrator.ledger.errors import LedgerError, LedgerWriteError, translate_sqlite_errors
from orchestrator.ledger.provenance import Provenance
from orchestrator.ledger.registration import SweepInfo, write_registration
from orchestrator.ledger.reuse import add_training, copy_result, supersede_results
from orchestrator.ledger.transactions import LedgerTransactions
from orchestrator.trials.events import Event, Failed, Finished, Logged, Progressed, Pruned, Reported, Started
from orchestrator.trials.records import State
from orchestrator.trials.resources import WHOLE_CORE, ResourceFloor, ResourceRequest
from orchestrator.trials.trial import Trial

__all__ = ["LEDGER_NAME", "Ledger", "LedgerError", "LedgerWriteError", "SweepInfo"]

LEDGER_NAME = "ledger.sqlite"
"""Name of the file, in the folder of a sweep's results."""


class Ledger(LedgerTransactions):
    """The record of one sweep in an SQLite file. Made by ``Ledger.open`` or ``Ledger.read``."""

    _run: int | None = None
    """The run of the driver that this process has registered."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the ledger at ``path`` for writing, making it if it is not there.

        The caller sees to it that no other process writes (``orchestrator.storage.folder_lock``).

        Raises:
            LedgerError: If the file is damaged, of a newer version, or not a ledger.
            LedgerWriteError: If there is no room, or no right to write.
        """
        return cls(connect_writer(path), path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open the ledger at ``path`` for reading, also while a sweep runs or from a read-only folder.

        Raises:
            LedgerError: If the file is absent, damaged, of another version, or not a ledger.
        """
        return cls(connect_reader(path), path, follows=True)

    def register(self, sweep: SweepInfo, trials: Sequence[Trial], provenance: Provenance) -> None:
        """Record what is to be run, and that a run of the driver begins. Safe to repeat.

        Trials that the ledger knows keep their results. Trials of it that are not in ``trials`` keep them
        too, and are left out of ``records`` until they come back.

        Args:
            sweep: The sweep; its name must be that of the ledger.
            trials: Its trials, in their order.
            provenance: What this run of the driver runs on.

        Raises:
            LedgerError: If the ledger belongs to another sweep, or a group's data have changed.
        """
        with self.transaction():
            write_registration(self._connection, sweep, trials, path=self._path)
            cursor = self._connection.execute(
                "INSERT INTO runs (started_at, provenance) VALUES (?, ?)",
                (provenance.started_at, json.dumps(asdict(provenance))),
            )
            self._run = cursor.lastrowid

    def begin_attempt(
        self, trial_id: str, share: ResourceRequest = WHOLE_CORE, *, trained_by: str | None = None
    ) -> int:
        """Record that ``trial_id`` is handed to an executor; an attempt still running is lost by that.

        Args:
            trial_id: The trial.
            share: What the attempt occupies.
            trained_by: The trial whose training its result will rest on; None = its own.

        Returns:
            The number of the attempt, from 1.

        Raises:
            LedgerError: If the trial is unknown, or done already.
        """
        with self.transaction():
            newest = self._connection.execute(
                "SELECT t.trial_id, a.attempt, a.state FROM trials AS t LEFT JOIN newest_attempts AS a "
                "USING (trial_id) WHERE t.trial_id = ?",
                (trial_id,),
            ).fetchone()
            if newest is None:
                raise LedgerError(f"{self._path}: trial {trial_id!r} is not registered")
            if newest["state"] == State.DONE:
                raise LedgerError(f"{self._path}: trial {trial_id!r} is done; it cannot be attempted again")
            self._lose_running("AND trial_id = ?", trial_id)
            attempt = int(newest["attempt"] or 0) + 1
            self._connection.execute(
                "INSERT INTO attempts (trial_id, attempt, run, state, submitted_at, share, gpus, trained_by) "
                "VALUES (?, ?, ?, 'running', ?, ?, ?, ?)",
                (
                    *(trial_id, attempt, self._run, _now(), json.dumps(asdict(share))),
                    *(share.gpus * share.processes, trained_by),
                ),
            )
        self._progress.forget(trial_id)
        return attempt

    def supersede(self, trial_ids: Iterable[str]) -> int:
        """Have trials that are done be done again; see ``orchestrator.ledger.reuse``."""
        with self.transaction():
            return supersede_results(self._connection, trial_ids)

    def copy_result(self, source: str, target: str) -> bool:
        """Give the trial ``target`` the result of ``source``, which computes the same; likewise."""
        with self.transaction():
            return copy_result(self._connection, source, target, now=_now())

    def record(self, event: Event) -> bool:
        """Write down what an executor told. On record when it returns; progress within a second.

        Returns:
            Whether it counted; False, and nothing is changed, if the attempt is not the newest of its trial,
            or has ended, or has reported this rung before.
        """
        match event:
            case Progressed():
                return self._note_progress(event)
            case Reported(step=step, metrics=metrics):
                return self._write_report(event, step, metrics)
            case Started(worker=worker, device=device):
                has_started = self._update(event, worker=worker, device=device or None, started_at=_now())
                if has_started:
                    self._progress.begin(event.trial_id)
                return has_started
            case Finished():
                return self._finish(event)
            case Pruned(step=step, seconds=seconds, why=why):
                return self._end(event, State.PRUNED, step=step, seconds=seconds, error=storable(why) or None)
            case Failed(error=error, traceback=traceback, seconds=seconds, cause=cause):
                texts = {"error": storable(error), "traceback": storable(traceback), "cause": str(cause)}
                return self._end(event, State.FAILED, **texts, seconds=seconds)
            case Logged():
                return self._write_log(event)
        raise TypeError(f"the ledger does not know events of {type(event)}")

    def record_all(self, events: Sequence[Event]) -> list[Event]:
        """Write down events, all at once; return those that counted (see ``record``)."""
        if not events:
            return []
        with self.transaction():
            return [event for event in events if self.record(event)]

    def skip(self, trial_ids: Iterable[str], reason: str) -> None:
        """Record that the sweep's budget has no room for trials; they still wait, for a run that has more."""
        with self.transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO skipped (trial_id, reason) VALUES (?, ?)", [(i, reason) for i in trial_ids]
            )

    def clear_skipped(self) -> None:
        """Forget what was left out: a run begins with all that waits."""
        with self.transaction():
            self._connection.execute("DELETE FROM skipped")

    def write_resource_floor(self, scale: str, larger: ResourceFloor) -> None:
        """Record what trials of a scale get from now on, in this run and those to come."""
        with self.transaction():
            self._connection.execute(
                "INSERT OR REPLACE INTO resource_floors (scale, gpus, memory_gib, micro_batch) VALUES (?, ?, ?, ?)",
                (scale, larger.gpus, larger.memory_gib, larger.micro_batch),
            )

    def clear_resource_floors(self) -> None:
        """Forget what trials get since memory ran out: they get what the sweep file says again."""
        with self.transaction():
            self._connection.execute("DELETE FROM resource_floors")

    def release_running(self) -> int:
        """Mark the attempts that a dead driver left running as lost, so that their trials wait again.

        Returns:
            Their number.
        """
        with self.transaction():
            return self._lose_running()

    def _note_progress(self, event: Progressed) -> bool:
        with translate_sqlite_errors(self._path):
            running = self._connection.execute(
                "SELECT 1 FROM attempts WHERE trial_id = ? AND attempt = ? AND state = 'running'",
                (event.trial_id, event.attempt),
            ).fetchone()
        if running is None:
            return False
        if self._progress.note(event):
            self._flush_progress()
        return True

    def _write_report(self, event: Event, step: int, metrics: Mapping[str, float]) -> bool:
        text = encode_metrics(metrics)
        with self.transaction():
            cursor = self._connection.execute(
                "INSERT OR IGNORE INTO reports (trial_id, attempt, step, reported_at, metrics) "
                "SELECT trial_id, attempt, ?, ?, ? FROM attempts "
                "WHERE trial_id = ? AND attempt = ? AND state = 'running'",
                (step, _now(), text, event.trial_id, event.attempt),
            )
            if cursor.rowcount != 1:
                return False
            self._connection.execute(
                "UPDATE attempts SET step = MAX(step, ?) WHERE trial_id = ? AND attempt = ?",
                (step, event.trial_id, event.attempt),
            )
        return True

    def _write_log(self, event: Logged) -> bool:
        with self.transaction():
            cursor = self._connection.execute(
                "INSERT INTO logs (trial_id, attempt, position, logged_at, level, text) "
                "SELECT a.trial_id, a.attempt, COALESCE((SELECT MAX(position) FROM logs AS l "
                "WHERE l.trial_id = a.trial_id AND l.attempt = a.attempt), 0) + 1, ?, ?, ? FROM attempts AS a "
                "WHERE a.trial_id = ? AND a.attempt = ? AND a.state = 'running'",
                (_now(), event.level, storable(event.text), event.trial_id, event.attempt),
            )
        return cursor.rowcount == 1

    def _finish(self, event: Finished) -> bool:
        columns = {"metrics": encode_metrics(event.metrics), "ended_at": _now(), **encode_cost(event.cost)}
        columns |= {"weights": encode_weights(event.weights)}
        columns |= {"state": str(State.DONE), "seconds": event.seconds, "core_seconds": event.core_seconds}
        with self.transaction():
            if not self._set(event, **columns):
                return False
            insert_measurements(self._connection, event)
            add_training(self._connection, event.trial_id, event.attempt)
        return True

    def _end(self, event: Event, state: State, **columns: Any) -> bool:
        return self._update(event, state=str(state), ended_at=_now(), **columns)

    def _update(self, event: Event, **columns: Any) -> bool:
        with self.transaction():
            return self._set(event, **columns)

    def _set(self, event: Event, **columns: Any) -> bool:
        """Set ``columns`` of a running attempt; every older attempt has ended, so this is the fence."""
        if "state" in columns:
            self._progress.write(self._connection)
            columns["held_s"] = self._progress.held_s(event.trial_id)
        assignments = ", ".join(f"{name} = ?" for name in columns)
        if columns.get("state") == State.DONE:
            assignments += ", step = COALESCE(steps, step)"
        cursor = self._connection.execute(
            f"UPDATE attempts SET {assignments} WHERE trial_id = ? AND attempt = ? AND state = 'running'",
            (*columns.values(), event.trial_id, event.attempt),
        )
        return cursor.rowcount == 1

    def _lose_running(self, where: str = "", *values: str) -> int:
        query = f"SELECT trial_id, attempt FROM attempts WHERE state = 'running' {where}"
        rows = self._connection.execute(query, values).fetchall()
        # What another process began is known up to its last progress only.
        self._connection.executemany(
            "UPDATE attempts SET state = 'lost', ended_at = ?, held_s = MAX(held_s, ?) "
            "WHERE trial_id = ? AND attempt = ?",
            [(_now(), self._progress.held_s(row["trial_id"]), row["trial_id"], row["attempt"]) for row in rows],
        )
        return len(rows)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
