"""From what happened in a sweep to a tracker's runs: each point once, however often it is told.

A run is a trial. Its points are those of the rungs, ``rung/NAME``, by step, each with the first value that was
reported, and what the trial ended with, ``final/NAME``. A trial that is done again, by ``redo``, is a run of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.trackers.base import TrackedRun, TrackerClient

_ENDS = {"done": "done", "pruned": "pruned", "failed": "failed", "lost": "interrupted"}
"""What becomes of a run by the event that ends an attempt."""
_COSTS = ("seconds", "training_s", "training_images_per_s", "peak_memory_gib", "peak_gpu_memory_gib")
_INTERRUPTED = "interrupted"
_KEY_DIGITS = 32


@dataclass
class _Point:
    step: int
    at: float
    metrics: dict[str, float]


@dataclass
class _Trial:
    """What was told of a trial since it was begun, or done again."""

    run: TrackedRun
    generation: int = 1
    points: list[_Point] = field(default_factory=list)
    attempt: int = 0
    state: str = _INTERRUPTED
    at: float = 0.0
    last: int | None = None
    """Last step that the tracker has; None while the run is not open."""


class SentRuns:
    """A file with the attempts up to which runs have been told whole, so that a later run of the driver leaves them."""

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        """Read what was told before.

        Args:
            path: The file; it need not exist.
            fresh: Whether to forget that, and tell all again.
        """
        self._path = path
        self._attempts: dict[str, int] = {}
        if fresh:
            path.unlink(missing_ok=True)
        text = path.read_text(encoding="ascii", errors="replace") if path.is_file() else ""
        for key, _, attempt in (line.partition(" ") for line in text.splitlines()):
            if attempt.isdecimal():  # not the end of a file that was cut off
                self._attempts[key] = int(attempt)

    def __getitem__(self, key: str) -> int:
        return self._attempts.get(key, 0)

    def add(self, key: str, attempt: int) -> None:
        """Record that a run has been told up to the end of an attempt."""
        self._attempts[key] = attempt
        with self._path.open("a", encoding="ascii") as file:
            file.write(f"{key} {attempt}\n")


class Feed:
    """Reports to a tracker what happened, as the ledger's events have it (``orchestrator.ledger.event_stream``)."""

    def __init__(
        self,
        connect: Callable[[], TrackerClient],
        *,
        sweep: str,
        namespace: str,
        settings: Mapping[str, Mapping[str, str | int | float | bool]],
        sent: SentRuns,
    ) -> None:
        """Take where to and what is known beforehand.

        Args:
            connect: Returns the tracker; called when there is something to tell, since that may take seconds.
            sweep: Name of the sweep.
            namespace: Tells this ledger from others of the same sweep.
            settings: What each trial is run with, by its id.
            sent: What has been told before.
        """
        self._connect, self._sweep, self._namespace = connect, sweep, namespace
        self._connected: TrackerClient | None = None
        self._settings, self._sent = settings, sent
        self._trials: dict[str, _Trial] = {}

    def take(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Report what is new."""
        for event in events:
            if event["attempt"] is not None:
                self._take(event)

    def close(self) -> None:
        """End what is open: trials that failed, and those that were interrupted."""
        for trial in self._trials.values():
            if trial.last is not None:
                self._end(trial)
        if self._connected is not None:
            self._connected.close()

    @property
    def _client(self) -> TrackerClient:
        if self._connected is None:
            self._connected = self._connect()
        return self._connected

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, trial = event["kind"], self._trial(event)
        trial.attempt, trial.at = event["attempt"], datetime.fromisoformat(event["at"]).timestamp()
        if kind == "begun":
            trial.state = _INTERRUPTED
            return
        if kind == "rung":
            self._add(trial, event["step"], "rung", event["metrics"])
        if kind == "done":
            step = max([event["step"], *(point.step + 1 for point in trial.points)])
            costs = {name: event[name] for name in _COSTS if event.get(name) is not None}
            self._add(trial, step, "final", {**event["metrics"], **costs})
        if kind in _ENDS:
            trial.state = _ENDS[kind]
        if trial.attempt > self._sent[trial.run.key]:
            self._tell(trial)
            if trial.state in ("done", "pruned"):
                self._end(trial)
        if trial.state == "done":
            trial.points = []  # they are not asked for again, and there are many trials

    def _trial(self, event: Mapping[str, Any]) -> _Trial:
        """Return the trial of an event; one that was done and is begun again is another run."""
        trial_id = event["trial_id"]
        known = self._trials.get(trial_id)
        if known is None:
            known = self._trials[trial_id] = _Trial(self._run(event, 1))
        elif known.state == "done" and event["kind"] == "begun":
            generation = known.generation + 1
            known = self._trials[trial_id] = _Trial(self._run(event, generation), generation)
        return known

    def _run(self, event: Mapping[str, Any], generation: int) -> TrackedRun:
        text = "\0".join((self._sweep, self._namespace, event["trial_id"], str(generation)))
        names = (event["group"], event["arm"], f"seed {event['seed']}", f"({generation})" if generation > 1 else "")
        return TrackedRun(
            key=hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS],
            name=" ".join(filter(None, names)),
            sweep=self._sweep,
            settings=self._settings.get(event["trial_id"], {}),
            **{name: event[name] for name in ("group", "arm", "role", "seed", "trial_id")},
        )

    def _add(self, trial: _Trial, step: int, prefix: str, metrics: Mapping[str, Any]) -> None:
        """Keep a point, unless an attempt before has reported this step."""
        if all(point.step < step for point in trial.points):
            # Numbers that JSON has not stand there as text.
            values = {f"{prefix}/{name}": float(value) for name, value in metrics.items()}
            trial.points.append(_Point(step, trial.at, values))

    def _tell(self, trial: _Trial) -> None:
        """Open the run if it is not, and log what it lacks."""
        if trial.last is None:
            trial.last = self._client.begin(trial.run, at=trial.at)
        for point in trial.points:
            if point.step > trial.last:
                self._client.log(trial.run, point.metrics, step=point.step, at=point.at)
                trial.last = point.step

    def _end(self, trial: _Trial) -> None:
        self._client.end(trial.run, trial.state, at=trial.at)
        self._sent.add(trial.run.key, trial.attempt)
        trial.last = None
