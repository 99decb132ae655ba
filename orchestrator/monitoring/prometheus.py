"""The samples of a running sweep that Prometheus gets, through Ray's own metrics, which prefix names with ``ray_``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from orchestrator.execution.metrics import Sample
from orchestrator.monitoring.sweep_progress import SweepProgress
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.trials.events import Event, Finished, Reported
from orchestrator.trials.records import Cause, State

PERIOD_S = 5.0
"""Time between two publications."""


class PrometheusExporter(SweepCallback):
    """The publisher of a running sweep: every few seconds, and at the end of a run that was not broken off."""

    def __init__(
        self,
        progress: SweepProgress,
        publish: Callable[[Sequence[Sample]], None],
        *,
        sweep: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what to publish and where.

        Args:
            progress: What is known of the sweep; the scheduler keeps it up to date.
            publish: Called with samples every few seconds.
            sweep: Name of the sweep.
            clock: Seconds, monotonic.
        """
        self._progress = progress
        self._publish = publish
        self._sweep = sweep
        self._clock = clock
        self._published_s = -math.inf
        self._counted: dict[Cause, int] = {}
        self._metrics: dict[tuple[str, str], float] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._publish(tuple(self.samples()))

    def on_event(self, event: Event) -> None:
        """Record the metrics of a rung or of a result, to be published next."""
        if isinstance(event, Reported | Finished):
            self._metrics |= {(event.trial_id, name): value for name, value in event.metrics.items()}

    def on_tick(self) -> None:
        """Publish what is new, if it is time."""
        if self._clock() - self._published_s >= PERIOD_S:
            self._published_s = self._clock()
            self._publish(tuple(self.samples()))

    def samples(self) -> Iterator[Sample]:
        """Return what there is to publish; counters grow by what came since the last call."""
        progress, sweep = self._progress, {"sweep": self._sweep}
        for state in State:
            yield Sample("specsweep_trials", progress.counts.get(state, 0), {**sweep, "state": state.replace(" ", "_")})
        for (trial_id, name), value in self._metrics.items():
            trial = progress.record(trial_id).trial
            tags = {"group": trial.group, "arm": trial.arm, "seed": str(trial.seed), "metric": name}
            if math.isfinite(value):
                yield Sample("specsweep_rung_metric", value, sweep | tags)
        self._metrics.clear()
        rate = sum(trial.images_per_s for trial in progress.running.values())
        yield Sample("specsweep_images_per_second", rate, sweep)
        for cause, count in progress.retries.items():
            if (more := count - self._counted.get(cause, 0)) > 0:
                yield Sample("specsweep_retries", more, {**sweep, "cause": str(cause)}, is_counter=True)
            self._counted[cause] = count
        yield Sample("specsweep_slots", progress.num_slots, sweep)
        yield Sample("specsweep_slots_busy", progress.counts.get(State.RUNNING, 0), sweep)
        left = progress.seconds_left()
        if left is not None:
            yield Sample("specsweep_seconds_left", left, sweep)
