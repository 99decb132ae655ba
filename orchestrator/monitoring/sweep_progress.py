"""What is known of a running sweep: counts, the running trials, the time that is left. No output here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.monitoring.time_left import Running, TimeLeft, seconds_left, time_left
from orchestrator.reports.rendering.formatting import format_metric
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.trials.events import Event, Failed, Finished, Progressed, Pruned, Reported
from orchestrator.trials.records import Cause, State, TrialRecord
from orchestrator.trials.trial import Role, Trial


@dataclass
class RunningTrial:
    """A trial that runs since ``started``, or is pending (None), as far as it is known."""

    label: str
    group_id: str
    role: Role
    started: float | None = None
    step: int = 0
    steps: int | None = None
    images_per_s: float = 0.0
    last_metric: str = ""


class SweepProgress(SweepCallback):
    """The state of a running sweep, from its records and its events; first of the callbacks, since others read it.

    Attributes:
        running: What runs or is pending, by trial id.
    """

    def __init__(
        self,
        records: Sequence[TrialRecord],
        *,
        num_slots: Callable[[], int],
        shown_metric: str,
        least_s: Callable[[Mapping[str, float]], float] | None = None,
        guess: Callable[[str, Role], float | None] = lambda _group_id, _role: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start from what the ledger knows.

        Args:
            records: All trials of the sweep; those that have failed count as waiting, they are tried again.
            num_slots: Returns how many trials run at once, as things are now.
            shown_metric: Name of the rung metric to show of running trials.
            least_s: Returns how long work takes at least, given as seconds of all trials of each group by its id;
                None = as long as the slots take for it, each trial on one of them.
            guess: Returns the seconds of a trial by group and role where nothing was measured; None if unknown.
            clock: Seconds, monotonic.
        """
        self._clock = clock
        self._records = {record.trial.trial_id: record for record in records}
        self._shown_metric = shown_metric
        self._num_slots, self._least_s, self._guess = num_slots, least_s, guess
        self.running: dict[str, RunningTrial] = {}
        self.states: dict[str, State] = {}
        self._counts: Counter[State] = Counter()
        self._waiting: Counter[tuple[str, Role]] = Counter()
        self._durations = TrialDurations(records)
        self.retries: Counter[Cause] = Counter()
        for record in records:
            has_result = record.state in (State.DONE, State.PRUNED)
            self._set(record.trial.trial_id, record.state if has_result else State.WAITING)

    @property
    def num_slots(self) -> int:
        """Return how many trials run at once, as things are now."""
        return self._num_slots()

    @property
    def counts(self) -> Mapping[State, int]:
        """Return the number of trials by state."""
        return self._counts

    def record(self, trial_id: str) -> TrialRecord:
        """Return what the ledger knew of a trial when the run began."""
        return self._records[trial_id]

    def on_submit(self, trial: Trial) -> None:
        """Record that a trial was given to a slot."""
        self._set(trial.trial_id, State.PENDING)
        self.running[trial.trial_id] = RunningTrial(label=trial.label, group_id=trial.group_id, role=trial.role)

    def on_event(self, event: Event) -> None:
        """Record an event."""
        trial = self.running.get(event.trial_id)
        if trial is None:
            return
        if trial.started is None:
            trial.started = self._clock()
            self._set(event.trial_id, State.RUNNING)
        match event:
            case Progressed():
                trial.step, trial.steps, trial.images_per_s = event.step, event.steps, event.images_per_s
            case Reported():
                trial.step = event.step
                if self._shown_metric in event.metrics:
                    trial.last_metric = format_metric(self._shown_metric, event.metrics[self._shown_metric])
            case Finished():
                self._end(event.trial_id, State.DONE)
                self._durations.add(trial.group_id, trial.role, event.seconds)
            case Pruned():
                self._end(event.trial_id, State.PRUNED)
            case Failed():
                self._end(event.trial_id, State.FAILED)

    def on_retry(self, event: Failed, why: str) -> None:  # noqa: ARG002
        """Record that an attempt failed and its trial will be tried again."""
        self.retries[event.cause] += 1
        self._end(event.trial_id, State.WAITING)

    def on_skip(self, trials: Sequence[Trial], reason: str) -> None:  # noqa: ARG002
        """Record that there is no room for trials."""
        for trial in trials:
            self.running.pop(trial.trial_id, None)
            self._set(trial.trial_id, State.SKIPPED)

    def label(self, trial_id: str) -> str:
        """Return what people see of a trial."""
        return self._records[trial_id].trial.label

    def seconds_left(self) -> float | None:
        """Return the wall time that is left by estimate, or None as long as nothing has been measured."""
        running, slots = self._running_now(), self.num_slots
        return seconds_left(self._waiting, running, self._durations, num_slots=slots, least_s=self._least_s)

    def time_left(self) -> TimeLeft | None:
        """Return the wall time that is left, by guess as long as nothing has been measured; None without a guess."""
        return time_left(
            self._waiting,
            self._running_now(),
            self._durations,
            num_slots=self.num_slots,
            guess=self._guess,
            least_s=self._least_s,
        )

    def _running_now(self) -> list[Running]:
        now_s = self._clock()
        return [
            Running(
                group_id=trial.group_id,
                role=trial.role,
                elapsed_s=0.0 if trial.started is None else now_s - trial.started,
                step=trial.step,
                steps=trial.steps,
            )
            for trial in self.running.values()
        ]

    def _end(self, trial_id: str, state: State) -> None:
        self._set(trial_id, state)
        del self.running[trial_id]

    def _set(self, trial_id: str, state: State) -> None:
        """Record a trial's state: it moves from one count to another, since to count ten thousand each time is slow."""
        record, before = self._records[trial_id], self.states.get(trial_id)
        for one, by in ((before, -1), (state, 1)):
            if one is not None:
                self._counts[one] += by
            if one is State.WAITING:
                self._waiting[record.trial.group_id, record.trial.role] += by
        self.states[trial_id] = state
