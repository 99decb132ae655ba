"""What Prometheus gets to know of a running sweep, through Ray's own metrics, which prefixes names with ``ray_``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from orchestrator.execution.metrics import Sample
from orchestrator.monitoring.live_view import LiveView
from orchestrator.monitoring.sweep_progress import SweepProgress
from orchestrator.trials.events import Event, Failed, Finished, Reported
from orchestrator.trials.records import Cause, State
from orchestrator.trials.trial import Trial

PERIOD_S = 5.0
"""Time between two publications."""


class Telemetry:
    """Pass on to a view what happens, and publish it; a context manager, as the view is."""

    def __init__(
        self,
        view: LiveView,
        board: SweepProgress,
        publish: Callable[[Sequence[Sample]], None],
        *,
        sweep: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take whom to tell.

        Args:
            view: Who shows what goes on.
            board: What is known of the sweep; the view keeps it up to date.
            publish: Called with samples every few seconds.
            sweep: Name of the sweep.
            clock: Seconds, monotonic.
        """
        self._view = view
        self._board = board
        self._publish = publish
        self._sweep = sweep
        self._clock = clock
        self._published_s = -math.inf
        self._counted: dict[Cause, int] = {}
        self._metrics: dict[tuple[str, str], float] = {}

    def __enter__(self) -> Self:
        self._view.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._publish(tuple(self.samples()))
        self._view.__exit__(kind, error, trace)

    def submitted(self, trial: Trial) -> None:
        """Hear that a trial was given to a slot."""
        self._view.submitted(trial)

    def happened(self, event: Event) -> None:
        """Hear of an event."""
        if isinstance(event, Reported | Finished):
            self._metrics |= {(event.trial_id, name): value for name, value in event.metrics.items()}
        self._view.happened(event)

    def on_retry(self, event: Failed, why: str) -> None:
        """Hear that an attempt failed and its trial will be tried again."""
        self._view.on_retry(event, why)

    def left_out(self, trials: Sequence[Trial], reason: str) -> None:
        """Hear that the budget has no room for trials."""
        self._view.left_out(trials, reason)

    def tick(self) -> None:
        """Hear that time has passed."""
        self._view.tick()
        if self._clock() - self._published_s >= PERIOD_S:
            self._published_s = self._clock()
            self._publish(tuple(self.samples()))

    def samples(self) -> Iterator[Sample]:
        """Return what there is to publish; counters grow by what came since the last call."""
        board, sweep = self._board, {"sweep": self._sweep}
        for state in State:
            yield Sample("specsweep_trials", board.counts.get(state, 0), {**sweep, "state": state.name.lower()})
        for (trial_id, name), value in self._metrics.items():
            trial = board.record(trial_id).trial
            tags = {"group": trial.group, "arm": trial.arm, "seed": str(trial.seed), "metric": name}
            if math.isfinite(value):
                yield Sample("specsweep_rung_metric", value, sweep | tags)
        self._metrics.clear()
        rate = sum(trial.images_per_s for trial in board.running.values())
        yield Sample("specsweep_images_per_second", rate, sweep)
        for cause, count in board.retries.items():
            if (more := count - self._counted.get(cause, 0)) > 0:
                yield Sample("specsweep_retries", more, {**sweep, "cause": str(cause)}, is_counter=True)
            self._counted[cause] = count
        yield Sample("specsweep_slots", board.num_slots, sweep)
        yield Sample("specsweep_slots_busy", len(board.running), sweep)
        left = board.seconds_left()
        if left is not None:
            yield Sample("specsweep_seconds_left", left, sweep)
