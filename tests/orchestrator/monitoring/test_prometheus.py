from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from orchestrator.execution.metrics import TEXTS, Sample
from orchestrator.monitoring.prometheus import PERIOD_S, PrometheusExporter
from orchestrator.monitoring.sweep_progress import SweepProgress
from orchestrator.trials.events import Failed, Finished, Progressed, Reported, Started
from orchestrator.trials.records import Cause, State, TrialRecord
from orchestrator.trials.trial import Trial


class Published:
    """The publisher of the tiny sweep, and what it has published."""

    def __init__(self, records: Sequence[TrialRecord], clock: Any) -> None:
        self.clock = clock
        self.rounds: list[Sequence[Sample]] = []
        self.progress = SweepProgress(records, num_slots=lambda: 3, shown_metric="knn_top1", clock=clock)
        self.exporter = PrometheusExporter(self.progress, self.rounds.append, sweep="tiny", clock=clock)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return what calls both callbacks in their order, as the scheduler does."""

        def call(*arguments: object) -> None:
            for callback in (self.progress, self.exporter):
                getattr(callback, name)(*arguments)

        return call

    def samples(self, name: str) -> list[tuple[float, dict[str, str]]]:
        """Return the samples of a metric that are to be published now, without the sweep's name."""
        found = [sample for sample in self.exporter.samples() if sample.name == f"specsweep_{name}"]
        assert all(sample.tags["sweep"] == "tiny" for sample in found)
        return [(s.value, {key: value for key, value in s.tags.items() if key != "sweep"}) for s in found]


@pytest.fixture
def published(trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord], clock: Any) -> Published:
    return Published([record_of(trial) for trial in trials], clock)


def failed(trial: Trial, cause: Cause) -> Failed:
    return Failed(trial.trial_id, 1, error="x", traceback="", cause=cause)


def test_every_state_is_told_each_time_so_that_none_keeps_an_old_count(
    published: Published, trials: tuple[Trial, ...]
) -> None:
    names = {state.replace(" ", "_") for state in State}
    assert {tags["state"]: value for value, tags in published.samples("trials")} == {
        **dict.fromkeys(names, 0),
        "waiting": 8,
    }
    published.on_submit(trials[0])
    published.on_submit(trials[3])
    published.on_event(Started(trials[0].trial_id, 1, worker="node:1"))
    published.on_skip(trials[1:3], "the time budget of 1 h")
    assert published.samples("slots_busy") == [(1, {})]
    assert {tags["state"]: value for value, tags in published.samples("trials")} == {
        **dict.fromkeys(names, 0),
        "waiting": 4,
        "pending": 1,
        "running": 1,
        "left_out": 2,
    }


def test_retries_grow_by_what_came_since_by_cause(published: Published, trials: tuple[Trial, ...]) -> None:
    def retry(cause: Cause) -> None:
        published.on_submit(trials[0])
        published.on_retry(failed(trials[0], cause), "retry")

    assert published.samples("retries") == []
    for cause in (Cause.WORKER, Cause.WORKER, Cause.GPU_MEMORY):
        retry(cause)
    assert published.samples("retries") == [(2, {"cause": "worker"}), (1, {"cause": "gpu_memory"})]
    assert published.samples("retries") == []
    retry(Cause.WORKER)
    counters = [sample for sample in published.exporter.samples() if sample.is_counter]
    assert [(sample.name, sample.value) for sample in counters] == [("specsweep_retries", 1)]


def test_the_newest_metrics_of_a_trial_are_told_once_and_those_that_are_no_number_are_not(
    published: Published, trials: tuple[Trial, ...]
) -> None:
    trial = trials[3]
    published.on_submit(trial)
    published.on_event(Reported(trial.trial_id, 1, step=1, metrics={"knn_top1": 10.0, "loss": 3.0}))
    published.on_event(Reported(trial.trial_id, 1, step=2, metrics={"knn_top1": 12.0}))
    tags = {"group": trial.group, "arm": trial.arm, "seed": str(trial.seed)}
    assert published.samples("rung_metric") == [
        (12.0, {**tags, "metric": "knn_top1"}),
        (3.0, {**tags, "metric": "loss"}),
    ]
    assert published.samples("rung_metric") == []
    metrics = {"knn_top1": math.nan, "loss": math.inf, "miou": 20.0}
    published.on_event(Finished(trial.trial_id, 1, metrics=metrics, seconds=9.0, core_seconds=1.0))
    assert published.samples("rung_metric") == [(20.0, {**tags, "metric": "miou"})]


def test_rates_slots_and_the_time_that_is_left_follow_the_board(
    published: Published, trials: tuple[Trial, ...]
) -> None:
    assert published.samples("seconds_left") == []  # not known yet
    for trial, rate in zip(trials[:2], (10.0, 32.5), strict=True):
        published.on_submit(trial)
        published.on_event(Progressed(trial.trial_id, 1, step=1, steps=4, images_per_s=rate))
    assert published.samples("images_per_second") == [(42.5, {})]
    assert (published.samples("slots"), published.samples("slots_busy")) == ([(3, {})], [(2, {})])
    published.on_event(Finished(trials[0].trial_id, 1, metrics={}, seconds=9.0, core_seconds=1.0))
    ((left, _),) = published.samples("seconds_left")
    # 3 trainings and 4 floors at most as long, of which one has just begun, on 3 slots.
    assert left == pytest.approx(7 * 9.0 / 3)
    assert published.samples("images_per_second") == [(32.5, {})]


def test_samples_are_published_every_few_seconds_and_at_the_end(published: Published) -> None:
    with published.exporter as exporter:
        exporter.on_tick()
        exporter.on_tick()
        assert len(published.rounds) == 1
        published.clock.now_s += PERIOD_S - 0.1
        exporter.on_tick()
        assert len(published.rounds) == 1
        published.clock.now_s += 0.2
        exporter.on_tick()
        assert len(published.rounds) == 2
    assert len(published.rounds) == 3


def test_a_run_that_breaks_publishes_no_more(published: Published) -> None:
    def run() -> None:
        with published.exporter:
            raise OSError

    with pytest.raises(OSError):
        run()
    assert published.rounds == []


def test_every_metric_is_explained(published: Published, trials: tuple[Trial, ...]) -> None:
    published.on_submit(trials[0])
    published.on_event(Reported(trials[0].trial_id, 1, step=1, metrics={"knn_top1": 1.0}))
    published.on_retry(failed(trials[0], Cause.NODE), "retry")
    published.on_submit(trials[0])
    published.on_event(Finished(trials[0].trial_id, 1, metrics={}, seconds=1.0, core_seconds=1.0))
    samples = list(published.exporter.samples())
    assert {sample.name for sample in samples} == set(TEXTS)
    assert all(sample.text == TEXTS[sample.name] for sample in samples)
    # A metric's tags are the same each time: Prometheus takes nothing else.
    assert len({(sample.name, tuple(sorted(sample.tags))) for sample in samples}) == len(TEXTS)
