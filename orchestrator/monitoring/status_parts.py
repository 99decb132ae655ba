"""Parts of a status: how far running trials are, what was pruned and why, results so far; as lines, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.ledger.attempts import RunningTrial
from orchestrator.ledger.registration import SweepInfo
from orchestrator.monitoring.time_left import Running, seconds_left
from orchestrator.reports.ablation_table import tables_of
from orchestrator.reports.rendering.cell_text import mean_text
from orchestrator.reports.rendering.formatting import describe, format_metric, format_seconds
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.storage.driver import Driver
from orchestrator.trials.records import WHY_NOT_AGAIN, State, TrialRecord
from specvit.messages import one_line
from specvit.training.learnt import is_learning_metric


@dataclass(frozen=True)
class Progress:
    """How far a running trial is: since when it runs, its rate, and its last rung."""

    elapsed_s: float
    images_per_s: float | None
    rung: int | None
    metrics: Mapping[str, float]


def progress_of(running: Mapping[str, RunningTrial], *, now: datetime | None = None) -> dict[str, Progress]:
    """Return how far running trials are, by id, at a time (None = now)."""
    at = now or datetime.now(UTC)
    return {
        trial_id: Progress(
            elapsed_s=max(0.0, (at - datetime.fromisoformat(trial.began_at)).total_seconds()),
            images_per_s=trial.images_per_s,
            rung=None if trial.rung is None else trial.rung.step,
            metrics={} if trial.rung is None else trial.rung.metrics,
        )
        for trial_id, trial in running.items()
    }


def estimate_left(records: Sequence[TrialRecord], progress: Mapping[str, Progress]) -> float | None:
    """Return the seconds that are left by estimate, on as many slots as trials run now; None if that is not known."""
    waiting: dict[tuple[str, Any], int] = {}
    for record in records:
        if record.state in (State.WAITING, State.PENDING):
            key = record.trial.group_id, record.trial.role
            waiting[key] = waiting.get(key, 0) + 1
    running = [
        Running(record.trial.group_id, record.trial.role, far.elapsed_s, record.step, record.steps)
        for record in records
        if record.state is State.RUNNING and (far := progress.get(record.trial.trial_id)) is not None
    ]
    return seconds_left(waiting, running, TrialDurations(records), num_slots=len(running))


def left_text(seconds: float | None) -> str:
    """Return the time that is left in words."""
    return "time left not known yet" if seconds is None else f"about {format_seconds(seconds)} left"


def driver_text(driver: Driver) -> str:
    """Return what is known here of the driver of mirrored results, and what is not."""
    name = f"driver: {one_line(driver.name)}"
    if driver.is_certain:
        return f"{name}, on this machine{'' if driver.is_running else ': it was killed'}"
    if driver.silent_s is None:
        return f"{name}; the store does not say when it was last heard of: it runs, or was killed"
    heard = f"{name}, last heard of {format_seconds(driver.silent_s)} ago"
    return heard if driver.is_running else f"{heard}: it was killed, or cannot reach these results"


def progress_text(progress: Progress | None) -> str:
    """Return rate, time and last rung of a running trial, to follow its step; empty if nothing is known."""
    if progress is None:
        return ""
    parts = [f", {progress.images_per_s:.0f} images/s" if progress.images_per_s else ""]
    parts.append(f", {format_seconds(progress.elapsed_s)} so far")
    shown = [format_metric(name, value) for name, value in progress.metrics.items() if not is_learning_metric(name)]
    if progress.rung is not None:
        parts.append(f"; rung at step {progress.rung}: {', '.join(shown)}")
    return "".join(parts)


def pruned_text(record: TrialRecord) -> str:
    """Return a pruned trial in a line: where and why."""
    why = f": {one_line(record.error)}" if record.error else ""
    return f"{one_line(record.trial.label)} at step {record.step}{why}"


def result_lines(info: SweepInfo, records: Sequence[TrialRecord]) -> Iterator[str]:
    """Yield a line for each arm that has a result: how many seeds are done, and their means."""
    for group, table in tables_of(records, info).items():
        for row in table.rows:
            if row.done:
                means = ", ".join(f"{describe(name).title} {mean_text(row, name)}" for name in table.metrics)
                arm = one_line(f"{group} {row.arm}".strip())
                yield f"{arm}: {row.done}/{row.seeds} done, {means}"


def status_json(
    info: SweepInfo, records: Sequence[TrialRecord], progress: Mapping[str, Progress], **facts: Any
) -> dict[str, Any]:
    """Return a status as plain JSON values: numbers that are not finite are null.

    Args:
        info: The sweep.
        records: Its trials.
        progress: Of those that run.
        facts: What is known beside them, by name.
    """
    trials = []
    for record in records:
        trial, far = record.trial, progress.get(record.trial.trial_id)
        reason = None if record.cause is None else WHY_NOT_AGAIN.get(record.cause)
        trials.append(
            {
                **{name: getattr(trial, name) for name in ("trial_id", "label", "group", "arm", "seed")},
                "role": str(trial.role),
                "state": str(record.state),
                "attempts": record.num_attempts,
                "step": record.step,
                "steps": record.steps,
                "seconds": record.seconds,
                "images_per_s": None if far is None else far.images_per_s,
                "last_rung": None if far is None or far.rung is None else _rung(far.rung, far.metrics),
                "metrics": _finite(record.metrics),
                "why": record.error or record.skip_reason,
                "cause": None if record.cause is None else str(record.cause),
                "not_tried_again": reason,
            }
        )
    counts = {str(state): sum(record.state is state for record in records) for state in State}
    return {"sweep": info.name, "question": info.question, "counts": counts, **facts, "trials": trials}


def _rung(step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    return {"step": step, "metrics": _finite(metrics)}


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
