"""What became of every attempt at a trial, read from the ledger; and which trial it is that a person means.

Functions of a connection inside the caller's transaction (``Ledger.snapshot``). Nothing is written.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.ledger.encoding import decode_config, decode_metrics
from orchestrator.trials.records import Cause, Report
from specvit.errors import SpecsweepError
from specvit.messages import one_line

MIN_ID_DIGITS = 4
"""Hex digits that the beginning of an id must have at least to be taken for one."""

MAX_CANDIDATES = 10
"""Trials that a message lists where a text fits several."""

_NAMES = "SELECT trial_id, label, position IS NOT NULL AS in_sweep FROM trials ORDER BY position IS NULL, position"
_ATTEMPTS = "SELECT * FROM attempts WHERE trial_id = ? ORDER BY attempt"
_REPORTS = "SELECT attempt, step, metrics FROM reports WHERE trial_id = ? ORDER BY attempt, step"
_LOGS = "SELECT attempt, logged_at, level, text FROM logs WHERE trial_id = ? ORDER BY attempt, position"
_FAILURES = """
SELECT a.trial_id, t.label, a.attempt, a.cause, a.error,
       (SELECT COUNT(*) FROM attempts AS b WHERE b.trial_id = a.trial_id AND b.state = 'failed') AS num_failed,
       (SELECT b.state FROM attempts AS b WHERE b.trial_id = a.trial_id ORDER BY b.attempt DESC LIMIT 1) AS state,
       (SELECT MAX(b.attempt) FROM attempts AS b WHERE b.trial_id = a.trial_id) AS num_attempts
FROM attempts AS a JOIN trials AS t USING (trial_id)
WHERE t.position IS NOT NULL AND a.state = 'failed' AND a.attempt = (
    SELECT MAX(b.attempt) FROM attempts AS b WHERE b.trial_id = a.trial_id AND b.state = 'failed')
ORDER BY t.position
"""
_RUNNING = """
SELECT a.trial_id, COALESCE(a.started_at, a.submitted_at) AS began_at, a.images_per_s, r.step AS rung, r.metrics
FROM attempts AS a LEFT JOIN reports AS r ON r.trial_id = a.trial_id AND r.attempt = a.attempt AND r.step = (
    SELECT MAX(b.step) FROM reports AS b WHERE b.trial_id = a.trial_id AND b.attempt = a.attempt)
WHERE a.state = 'running'
"""


@dataclass(frozen=True)
class TrialName:
    """What a trial can be named by.

    Attributes:
        trial_id: Its id.
        label: What people see of it.
        in_sweep: Whether the sweep file, as it was run last, still has it.
    """

    trial_id: str
    label: str
    in_sweep: bool = True


@dataclass(frozen=True)
class LogLine:
    """A line of an attempt's log: ``level`` as ``logging`` names it, and the ``text``."""

    logged_at: str
    level: str
    text: str


@dataclass(frozen=True)
class Attempt:
    """One attempt, with all that is known of it.

    Attributes:
        number: From 1.
        state: ``pending`` until a worker has started, ``running``, ``done``, ``pruned``, ``failed``; ``lost``: its
            driver ended before it did; ``superseded``: it was done, and its trial is to be done again.
        worker: Who took it up, or None.
        submitted_at: When it was handed to an executor; ISO time in UTC, as all times here.
        started_at: When a worker took it up, or None.
        ended_at: When it ended, or None.
        step: The last optimizer step heard of.
        steps: Optimizer steps of the whole trial, or None before the first sign of progress.
        gpus: GPUs that it occupied, in all.
        metrics: Final metrics; empty unless it is or was done.
        reports: Its rungs, by step.
        logs: What it logged, in order.
        seconds: Wall time, with that of the attempts before whose states it went on from, or None.
        error: One line on why it failed or was pruned, or None.
        traceback: The whole traceback, or None.
        cause: Why it failed, or None.
        device: On which it was computed, kind and name, or None.
    """

    number: int
    state: str
    worker: str | None
    submitted_at: str
    started_at: str | None
    ended_at: str | None
    step: int
    steps: int | None
    gpus: float
    metrics: dict[str, float]
    reports: tuple[Report, ...]
    logs: tuple[LogLine, ...]
    seconds: float | None
    error: str | None
    traceback: str | None
    cause: Cause | None
    device: str | None = None


@dataclass(frozen=True)
class RunningTrial:
    """How far the running attempt at a trial is.

    Attributes:
        began_at: When a worker took it up, or else when it was handed out; ISO time in UTC.
        images_per_s: Images that it trains on in a second, or None.
        rung: Its last rung, or None.
    """

    began_at: str
    images_per_s: float | None
    rung: Report | None


@dataclass(frozen=True)
class FailedTrial:
    """The last failure of a trial, which may have got a result since.

    Attributes:
        trial_id: Its id.
        label: What people see of it.
        state: State of its newest attempt.
        num_attempts: How often it was attempted.
        num_failed: How many of the attempts failed.
        attempt: The newest attempt that failed.
        cause: Why that one failed, or None where that was not recorded.
        error: The same in a line.
    """

    trial_id: str
    label: str
    state: str
    num_attempts: int
    num_failed: int
    attempt: int
    cause: Cause | None
    error: str


def select_names(connection: sqlite3.Connection) -> tuple[TrialName, ...]:
    """Return the names of all trials, in the sweep's order; those that have left the sweep file come last."""
    return tuple(TrialName(row[0], row[1], bool(row[2])) for row in connection.execute(_NAMES))


def find_trial(names: Sequence[TrialName], text: str) -> TrialName:
    """Find the trial that ``text`` names.

    Args:
        names: The trials to look among.
        text: A label; or the beginning of an id, of 4 hex digits or more, which finds also a trial that the sweep
            file no longer has; or whole words of a label, such as an arm, that no other trial of the sweep has; or
            any part of one.

    Raises:
        SpecsweepError: If it fits no trial, or several; the text lists them, up to 10.
    """
    in_sweep = [name for name in names if name.in_sweep]
    found = [name for name in in_sweep if name.label == text]
    if not found and re.fullmatch(rf"[0-9a-f]{{{MIN_ID_DIGITS},64}}", text):
        found = [name for name in names if name.trial_id.startswith(text)]
    if not found and text.strip():
        found = [name for name in in_sweep if f" {text.strip()} " in f" {name.label} "]
    if not found and text:
        found = [name for name in in_sweep if text in name.label]
    if len(found) == 1:
        return found[0]
    if not found:
        raise SpecsweepError(
            f"{text!r}: no trial has this label, a label with this in it, or an id that begins so "
            f"(with at least {MIN_ID_DIGITS} hex digits)"
        )
    lines = [f"  {name.trial_id[:12]}  {one_line(name.label)}" for name in found[:MAX_CANDIDATES]]
    if len(found) > MAX_CANDIDATES:
        lines.append(f"  and {len(found) - MAX_CANDIDATES} more")
    raise SpecsweepError("\n".join([f"{text!r} fits {len(found)} trials; give one of these labels or ids:", *lines]))


def select_attempts(connection: sqlite3.Connection, trial_id: str) -> tuple[Attempt, ...]:
    """Return every attempt at a trial, the first one first.

    Args:
        connection: To the ledger, with rows by name.
        trial_id: The trial.
    """
    reports: dict[int, list[Report]] = {}
    for attempt, step, metrics in connection.execute(_REPORTS, (trial_id,)):
        reports.setdefault(attempt, []).append(Report(step, decode_metrics(metrics)))
    logs: dict[int, list[LogLine]] = {}
    for attempt, *line in connection.execute(_LOGS, (trial_id,)):
        logs.setdefault(attempt, []).append(LogLine(*line))
    kept = ("worker", "device", "submitted_at", "started_at", "ended_at", "step", "steps", "gpus")
    return tuple(
        Attempt(
            number=row["attempt"],
            state="pending" if row["state"] == "running" and row["started_at"] is None else row["state"],
            metrics=decode_metrics(row["metrics"]),
            reports=tuple(reports.get(row["attempt"], ())),
            logs=tuple(logs.get(row["attempt"], ())),
            cause=_cause(row),
            **{name: row[name] for name in (*kept, "seconds", "error", "traceback")},
        )
        for row in connection.execute(_ATTEMPTS, (trial_id,))
    )


def select_failed(connection: sqlite3.Connection) -> tuple[FailedTrial, ...]:
    """Return the last failure of every trial of the sweep that failed in some attempt, in the sweep's order."""
    return tuple(
        FailedTrial(
            cause=_cause(row),
            error=row["error"] or "",
            **{name: row[name] for name in ("trial_id", "label", "state", "num_attempts", "num_failed", "attempt")},
        )
        for row in connection.execute(_FAILURES)
    )


def select_running(connection: sqlite3.Connection) -> dict[str, RunningTrial]:
    """Return how far the attempts are that run, by the ids of their trials."""
    return {
        row["trial_id"]: RunningTrial(
            began_at=row["began_at"],
            images_per_s=row["images_per_s"],
            rung=None if row["rung"] is None else Report(row["rung"], decode_metrics(row["metrics"])),
        )
        for row in connection.execute(_RUNNING)
    }


def select_configs(connection: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """Return the configuration of every trial, by its id, as JSON."""
    rows = connection.execute("SELECT trial_id, config FROM trials")
    return {trial_id: decode_config(text) for trial_id, text in rows}


def select_times(connection: sqlite3.Connection) -> dict[str, tuple[str, str | None]]:
    """Return when the newest attempt at each trial began, by a worker if one took it up, and when it ended."""
    rows = connection.execute("SELECT trial_id, COALESCE(started_at, submitted_at), ended_at FROM newest_attempts")
    return {trial_id: (began, ended) for trial_id, began, ended in rows}


def _cause(row: sqlite3.Row) -> Cause | None:
    return None if row["cause"] is None else Cause(row["cause"])
