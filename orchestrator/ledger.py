"""The one durable record of a sweep: its trials, every attempt at them, what they reported, how they ended.

One process writes, the one that runs the scheduler; any other may read at the same time. An event changes
the ledger only if its attempt is the newest of its trial and has not ended: a worker that was given up and
comes back cannot write over its successor.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.diagnostics_table import insert_readings, select_readings
from orchestrator.executor import (
    WHOLE_CORE,
    Event,
    Failed,
    Finished,
    Logged,
    Progressed,
    Pruned,
    Reported,
    Share,
    Started,
)
from orchestrator.ledger_place import Place
from orchestrator.ledger_records import select_records
from orchestrator.ledger_schema import (
    LedgerError,
    LedgerWriteError,
    connect_reader,
    connect_writer,
    encode_metrics,
    naming,
)
from orchestrator.provenance import Provenance
from orchestrator.records import LargerShare, State, TrialRecord
from orchestrator.registration import SweepInfo, read_registration, write_registration
from orchestrator.trials import Trial
from specvit.readings import Reading

__all__ = ["LEDGER_NAME", "Ledger", "LedgerError", "LedgerWriteError", "SweepInfo"]

LEDGER_NAME = "ledger.sqlite"
"""Name of the file, in the folder of a sweep's results."""

_PROGRESS_PERIOD_S = 1.0


class Ledger:
    """Keep the record of one sweep in an SQLite file. Made by ``Ledger.open`` or ``Ledger.read``."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        connection.row_factory = sqlite3.Row
        self._connection = connection
        self._path = path
        self._place = Place(path)
        self._is_stopped = False
        self._run: int | None = None
        self._progress: dict[str, Progressed] = {}
        self._begun_s: dict[str, float] = {}
        self._progress_written_s = time.monotonic()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the ledger at ``path`` for writing, making it if it is not there.

        The caller sees to it that no other process writes (``orchestrator.lock``).

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
        return cls(connect_reader(path), path)

    @property
    def path(self) -> Path:
        """Return the file."""
        return self._path

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
        with self.together():
            write_registration(self._connection, sweep, trials, path=self._path)
            cursor = self._connection.execute(
                "INSERT INTO runs (started_at, provenance) VALUES (?, ?)",
                (provenance.started_at, json.dumps(asdict(provenance))),
            )
            self._run = cursor.lastrowid

    def begin_attempt(self, trial_id: str, share: Share = WHOLE_CORE) -> int:
        """Record that ``trial_id`` is handed to an executor; an attempt still running is lost by that.

        Args:
            trial_id: The trial.
            share: What the attempt occupies.

        Returns:
            The number of the attempt, from 1.

        Raises:
            LedgerError: If the trial is unknown, or done already.
        """
        with self.together():
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
                "INSERT INTO attempts (trial_id, attempt, run, state, begun_at, share, gpus) "
                "VALUES (?, ?, ?, 'running', ?, ?, ?)",
                (trial_id, attempt, self._run, _now(), json.dumps(asdict(share)), share.gpus * share.processes),
            )
        self._begun_s[trial_id] = time.monotonic()
        return attempt

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
            case Started(worker=worker):
                return self._update(event, worker=worker, started_at=_now())
            case Finished():
                return self._finish(event)
            case Pruned(step=step, seconds=seconds):
                return self._end(event, State.PRUNED, step=step, seconds=seconds)
            case Failed(error=error, traceback=traceback, seconds=seconds, cause=cause):
                texts = {"error": _storable(error), "traceback": _storable(traceback), "cause": str(cause)}
                return self._end(event, State.FAILED, **texts, seconds=seconds)
            case Logged():
                return self._write_log(event)
        raise TypeError(f"the ledger does not know events of {type(event)}")

    def record_all(self, events: Sequence[Event]) -> list[Event]:
        """Write down events, all at once; return those that counted (see ``record``)."""
        if not events:
            return []
        with self.together():
            return [event for event in events if self.record(event)]

    def leave_out(self, trial_ids: Iterable[str], reason: str) -> None:
        """Record that the sweep's budget has no room for trials; they still wait, for a run that has more."""
        with self.together():
            self._connection.executemany(
                "INSERT OR REPLACE INTO left_out (trial_id, reason) VALUES (?, ?)", [(i, reason) for i in trial_ids]
            )

    def take_in(self) -> None:
        """Forget what was left out: a run begins with all that waits."""
        with self.together():
            self._connection.execute("DELETE FROM left_out")

    def write_larger_share(self, scale: str, larger: LargerShare) -> None:
        """Record what trials of a scale get from now on, in this run and those to come."""
        with self.together():
            self._connection.execute(
                "INSERT OR REPLACE INTO larger_shares (scale, gpus, memory_gib, micro_batch) VALUES (?, ?, ?, ?)",
                (scale, larger.gpus, larger.memory_gib, larger.micro_batch),
            )

    def larger_shares(self) -> dict[str, LargerShare]:
        """Return what trials get since one of their scale ran out of memory, by scale."""
        with self._transaction(write=False):
            rows = self._connection.execute("SELECT scale, gpus, memory_gib, micro_batch FROM larger_shares").fetchall()
        return {row["scale"]: LargerShare(row["gpus"], row["memory_gib"], row["micro_batch"]) for row in rows}

    def gpu_hours(self) -> float:
        """Return the GPU hours that the attempts of this sweep have taken, of the running ones those so far."""
        self._flush_progress()
        with self._transaction(write=False):
            (total,) = self._connection.execute("SELECT TOTAL(gpus * held_s) FROM attempts").fetchone()
        return float(total) / 3600

    def failure_rate(self) -> float:
        """Return the share of the attempts that failed or were lost among those that have ended; 0 if none have."""
        with self._transaction(write=False):
            (rate,) = self._connection.execute(
                "SELECT AVG(state IN ('failed', 'lost')) FROM attempts WHERE state != 'running'"
            ).fetchone()
        return float(rate or 0.0)

    def release_running(self) -> int:
        """Mark the attempts that a dead driver left running as lost, so that their trials wait again.

        Returns:
            Their number.
        """
        with self.together():
            return self._lose_running()

    def records(self, *, with_reports: bool = True) -> tuple[TrialRecord, ...]:
        """Return every trial of the sweep as it stands, in the order of the sweep file.

        Args:
            with_reports: Whether their rungs are read too, which takes most of the time.
        """
        self._flush_progress()
        # One transaction, so that reports and states are of the same moment.
        with self._transaction(write=False):
            return select_records(self._connection, with_reports=with_reports)

    def diagnostics(self) -> dict[str, tuple[Reading, ...]]:
        """Return what was read off the backbones: trial id to readings by block, site and quantity.

        Only trials that have some are in it, in the order of the sweep file.
        """
        with self._transaction(write=False):
            return select_readings(self._connection)

    def with_result(self) -> frozenset[str]:
        """Return the ids of the trials that are done or pruned, also of those that are not in the sweep now."""
        with self._transaction(write=False):
            rows = self._connection.execute(
                "SELECT trial_id FROM newest_attempts WHERE state IN (?, ?)", (State.DONE, State.PRUNED)
            ).fetchall()
        return frozenset(row["trial_id"] for row in rows)

    def is_done(self, trial_id: str) -> bool:
        """Tell whether a trial has run to its end."""
        with self._transaction(write=False):
            query = "SELECT 1 FROM newest_attempts WHERE trial_id = ? AND state = ?"
            return self._connection.execute(query, (trial_id, State.DONE)).fetchone() is not None

    def sweep(self) -> SweepInfo:
        """Return what was registered of the sweep.

        Raises:
            LedgerError: If nothing was registered yet.
        """
        with self._transaction(write=False):
            return read_registration(self._connection, path=self._path)

    def provenance(self) -> tuple[Provenance, ...]:
        """Return what the runs of the driver ran on, the oldest first."""
        with self._transaction(write=False):
            rows = self._connection.execute("SELECT provenance FROM runs ORDER BY run").fetchall()
        return tuple(_to_provenance(row["provenance"]) for row in rows)

    def newest_provenance(self) -> Provenance | None:
        """Return what the run ran on that began the newest attempts; None if no run began one."""
        with self._transaction(write=False):
            row = self._connection.execute(
                "SELECT provenance FROM runs WHERE run = (SELECT MAX(run) FROM attempts)"
            ).fetchone()
        return None if row is None else _to_provenance(row["provenance"])

    @contextmanager
    def moment(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for reading, with rows by name; all that is read in this context is of one moment."""
        self._flush_progress()
        with self._transaction(write=False):
            yield self._connection

    def version(self) -> int:
        """Return a number that changes whenever another process has written; asking costs next to nothing."""
        with naming(self._path):
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Write what is pending and close the file. Safe to call twice."""
        try:
            if not self._is_stopped:  # what could not be written before is not tried again, to fail another time
                self._flush_progress()
        finally:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Put everything that is recorded in this context on record at its end, at once or not at all.

        Raises:
            LedgerWriteError: If the disk is full, the file is read-only or not the one that was opened, or the like.
            LedgerError: If it cannot be put on record for another reason.
        """
        if self._connection.in_transaction:
            yield
            return
        with self._transaction():
            yield

    @contextmanager
    def _transaction(self, *, write: bool = True) -> Iterator[None]:
        """Make the statements in this context one transaction; pending progress goes along with a write."""
        try:
            with naming(self._path, writing=write):
                if write:
                    self._place.check()
                self._connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    yield
                    if write:
                        self._write_progress()
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._roll_back()
                    raise
            if write:
                self._place.check()
        except LedgerWriteError:
            self._is_stopped = True
            raise

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            # A disk that did not take the transaction may refuse this too; nothing of it is on record either way.
            with suppress(sqlite3.OperationalError):
                self._connection.execute("ROLLBACK")

    def _note_progress(self, event: Progressed) -> bool:
        with naming(self._path):
            running = self._connection.execute(
                "SELECT 1 FROM attempts WHERE trial_id = ? AND attempt = ? AND state = 'running'",
                (event.trial_id, event.attempt),
            ).fetchone()
        if running is None:
            return False
        self._progress[event.trial_id] = event
        if time.monotonic() - self._progress_written_s >= _PROGRESS_PERIOD_S:
            self._flush_progress()
        return True

    def _flush_progress(self) -> None:
        if self._progress:
            with self.together():
                pass

    def _write_progress(self) -> None:
        self._connection.executemany(
            "UPDATE attempts SET step = ?, steps = ?, images_per_s = ?, held_s = ? "
            "WHERE trial_id = ? AND attempt = ? AND state = 'running'",
            [
                (e.step, e.steps, e.images_per_s, self._held_s(e.trial_id), e.trial_id, e.attempt)
                for e in self._progress.values()
            ],
        )
        self._progress.clear()
        self._progress_written_s = time.monotonic()

    def _held_s(self, trial_id: str) -> float:
        return time.monotonic() - self._begun_s.get(trial_id, time.monotonic())

    def _write_report(self, event: Event, step: int, metrics: Mapping[str, float]) -> bool:
        text = encode_metrics(metrics)
        with self.together():
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
        with self.together():
            cursor = self._connection.execute(
                "INSERT INTO logs (trial_id, attempt, position, logged_at, level, text) "
                "SELECT a.trial_id, a.attempt, COALESCE((SELECT MAX(position) FROM logs AS l "
                "WHERE l.trial_id = a.trial_id AND l.attempt = a.attempt), 0) + 1, ?, ?, ? FROM attempts AS a "
                "WHERE a.trial_id = ? AND a.attempt = ? AND a.state = 'running'",
                (_now(), event.level, _storable(event.text), event.trial_id, event.attempt),
            )
        return cursor.rowcount == 1

    def _finish(self, event: Finished) -> bool:
        columns = {"metrics": encode_metrics(event.metrics), "seconds": event.seconds, "ended_at": _now()}
        with self.together():
            if not self._set(event, state=str(State.DONE), core_seconds=event.core_seconds, **columns):
                return False
            insert_readings(self._connection, event)
        return True

    def _end(self, event: Event, state: State, **columns: Any) -> bool:
        return self._update(event, state=str(state), ended_at=_now(), **columns)

    def _update(self, event: Event, **columns: Any) -> bool:
        with self.together():
            return self._set(event, **columns)

    def _set(self, event: Event, **columns: Any) -> bool:
        """Set ``columns`` of a running attempt; every older attempt has ended, so this is the fence."""
        if "state" in columns:
            self._write_progress()
            columns["held_s"] = self._held_s(event.trial_id)
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
            [(_now(), self._held_s(row["trial_id"]), row["trial_id"], row["attempt"]) for row in rows],
        )
        return len(rows)


def _to_provenance(text: str) -> Provenance:
    fields = json.loads(text)
    return Provenance(**{**fields, "argv": tuple(fields["argv"]), "gpus": tuple(fields["gpus"])})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _storable(text: str) -> str:
    """Return ``text`` without lone surrogates, which file names bring into messages and SQLite refuses."""
    return text.encode(errors="replace").decode()
