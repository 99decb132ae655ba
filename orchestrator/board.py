"""What a view shows of a running sweep: counts, the running trials, the time that is left. No output here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.executor import Event, Failed, Finished, Progressed, Pruned, Reported
from orchestrator.forecast import mean_seconds, trial_seconds
from orchestrator.metric_text import brief
from orchestrator.records import State, TrialRecord
from orchestrator.trials import Trial


@dataclass
class RunningTrial:
    """Hold what is known of a trial that runs now."""

    label: str
    group_id: str
    is_floor: bool
    started: float
    step: int = 0
    steps: int | None = None
    images_per_s: float = 0.0
    last_metric: str = ""


class Board:
    """Follow a sweep from its records and its events."""

    def __init__(
        self,
        records: Sequence[TrialRecord],
        *,
        num_slots: int,
        shown_metric: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start from what the ledger knows.

        Args:
            records: All trials of the sweep; those that have failed count as waiting, they are tried again.
            num_slots: How many trials run at once.
            shown_metric: Name of the rung metric to show of running trials.
            clock: Seconds, monotonic.
        """
        self._clock = clock
        self._records = {record.trial_id: record for record in records}
        self._shown_metric = shown_metric
        self.num_slots = num_slots
        self.running: dict[str, RunningTrial] = {}
        self.states: dict[str, State] = {
            record.trial_id: record.state if record.state in (State.DONE, State.PRUNED) else State.WAITING
            for record in records
        }
        self._measured = mean_seconds(records)
        self._lengths: dict[tuple[str, bool], list[float]] = {
            key: [value] for key, value in self._measured.items()
        }

    @property
    def counts(self) -> Mapping[State, int]:
        """Return the number of trials by state."""
        return Counter(self.states.values())

    def submitted(self, trial: Trial) -> None:
        """Take note that a trial was given to a slot."""
        self.states[trial.trial_id] = State.RUNNING
        self.running[trial.trial_id] = RunningTrial(
            label=trial.label,
            group_id=trial.group_id,
            is_floor=trial.role == "floor",
            started=self._clock(),
        )

    def happened(self, event: Event) -> None:
        """Take note of an event."""
        trial = self.running.get(event.trial_id)
        if trial is None:
            return
        match event:
            case Progressed():
                trial.step, trial.steps, trial.images_per_s = event.step, event.steps, event.images_per_s
            case Reported():
                trial.step = event.step
                if self._shown_metric in event.metrics:
                    trial.last_metric = brief(self._shown_metric, event.metrics[self._shown_metric])
            case Finished():
                self._end(event.trial_id, State.DONE)
                self._lengths.setdefault((trial.group_id, trial.is_floor), []).append(event.seconds)
                self._measured = {key: sum(v) / len(v) for key, v in self._lengths.items()}
            case Pruned():
                self._end(event.trial_id, State.PRUNED)
            case Failed():
                self._end(event.trial_id, State.FAILED)

    def label(self, trial_id: str) -> str:
        """Return what people see of a trial."""
        return self._records[trial_id].label

    def seconds_left(self) -> float | None:
        """Estimate the wall time that is left, or None as long as nothing has been measured."""
        work = 0.0
        for trial_id, state in self.states.items():
            record = self._records[trial_id]
            length = trial_seconds(self._measured, record.group_id, floor=record.role == "floor")
            if state is State.WAITING:
                if length is None:
                    return None
                work += length
            elif state is State.RUNNING:
                left = self._running_seconds_left(self.running[trial_id], length)
                if left is None:
                    return None
                work += left
        num_left = self.counts.get(State.WAITING, 0) + self.counts.get(State.RUNNING, 0)
        return work / max(1, min(self.num_slots, num_left))

    def _running_seconds_left(self, trial: RunningTrial, length: float | None) -> float | None:
        elapsed = self._clock() - trial.started
        if length is not None:
            return max(0.0, length - elapsed)
        # No trial has ended yet: its own pace is all there is to go by.
        return elapsed * (trial.steps - trial.step) / trial.step if trial.steps and trial.step else None

    def _end(self, trial_id: str, state: State) -> None:
        self.states[trial_id] = state
        del self.running[trial_id]
