from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import numpy as np
import pytest

from orchestrator.executor import END_STATES, Event, Failed, Finished, Job, Progressed, Pruned, Reported, Started
from orchestrator.trials import Trial
from orchestrator.worker import Attempt
from specvit.config import TrialConfig
from specvit.data import Dataset, Split
from specvit.trial import Observer, TrialResult

NO_DATA = Dataset(
    train=Split(images=np.zeros((0, 3, 4, 4), np.uint8)),
    val=Split(images=np.zeros((0, 3, 4, 4), np.uint8)),
    class_names=(),
    mask_names=(),
    fingerprint="",
)
Body = Callable[[TrialConfig, Dataset, Observer], TrialResult]


def _trial(body: Body) -> Callable[..., TrialResult]:
    """Make a body stand in for ``run_trial``, with no images for its probes."""
    return lambda config, dataset, observer, **_: body(config, dataset, observer)


@pytest.fixture
def job(trials: tuple[Trial, ...]) -> Job:
    return Job(trials[0].trial_id, 3, trials[0].label, trials[0].config)


@pytest.fixture
def events_of(job: Job, monkeypatch: pytest.MonkeyPatch) -> Callable[[Body], list[Event]]:
    """Run an attempt whose trial is a given function; return its events."""

    def run(body: Body) -> list[Event]:
        monkeypatch.setattr("specvit.trial.run_trial", _trial(body))
        attempt = Attempt(job, {job.config.data: NO_DATA})
        events: list[Event] = []
        while not (events and type(events[-1]) in END_STATES):
            event = attempt.next_event(10.0)
            assert event is not None, f"no event after {events}"
            events.append(event)
        attempt.join()
        assert attempt.next_event(0.0) is None
        return events

    return run


def test_a_trial_that_ends_well_tells_of_itself_in_order(
    job: Job, events_of: Callable[[Body], list[Event]]
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        assert config is job.config
        assert dataset is NO_DATA
        observer.progress(step=1, steps=4, images_per_s=20.0)
        observer.rung(step=2, metrics={"knn_top1": 12.5})
        observer.progress(step=4, steps=4, images_per_s=21.0)
        return TrialResult({"knn_top1": 25.0, "loss": 3.0})

    key = (job.trial_id, 3)
    *before, end = events_of(body)
    assert before == [
        Started(*key, worker=f"{socket.gethostname()}:{os.getpid()}"),
        Progressed(*key, step=1, steps=4, images_per_s=20.0),
        Reported(*key, step=2, metrics={"knn_top1": 12.5}),
        Progressed(*key, step=4, steps=4, images_per_s=21.0),
    ]
    assert isinstance(end, Finished)
    assert end.metrics == {"knn_top1": 25.0, "loss": 3.0}
    assert 0 <= end.seconds < 5
    assert 0 <= end.core_seconds < 5


def test_a_trial_that_raises_fails_with_one_line_and_the_whole_traceback(
    events_of: Callable[[Body], list[Event]],
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        raise ValueError("first line\nsecond line")

    started, end = events_of(body)
    assert isinstance(started, Started)
    assert isinstance(end, Failed)
    assert end.error == "ValueError: first line"
    assert end.traceback.startswith("Traceback (most recent call last):")
    assert "second line" in end.traceback
    assert "in body" in end.traceback


@pytest.mark.parametrize("error", [SystemExit(1), MemoryError(), KeyError("x")])
def test_no_kind_of_exception_leaves_an_attempt_without_an_end(
    error: BaseException, events_of: Callable[[Body], list[Event]]
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        raise error

    end = events_of(body)[-1]
    assert isinstance(end, Failed)
    assert end.error.startswith(f"{type(error).__name__}:")


def test_a_trial_that_is_told_to_stop_is_pruned_at_its_step(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        observer.rung(step=2, metrics={"knn_top1": 1.0})
        ordered.wait(10.0)
        return TrialResult({}, stopped_at=3) if observer.should_stop() else TrialResult({"knn_top1": 2.0})

    ordered = threading.Event()
    monkeypatch.setattr("specvit.trial.run_trial", _trial(body))
    attempt = Attempt(job, {job.config.data: NO_DATA})
    assert isinstance(attempt.next_event(10.0), Started)
    assert isinstance(attempt.next_event(10.0), Reported)
    attempt.stop()
    ordered.set()
    end = attempt.next_event(10.0)
    assert isinstance(end, Pruned)
    assert (end.trial_id, end.attempt, end.step) == (job.trial_id, 3, 3)


def test_a_trial_is_not_kept_waiting_by_events_that_nobody_takes(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        for step in range(1000):
            observer.progress(step=step, steps=1000, images_per_s=1.0)
        return TrialResult({})

    monkeypatch.setattr("specvit.trial.run_trial", _trial(body))
    attempt = Attempt(job, {job.config.data: NO_DATA})
    attempt.join()
    kinds = [type(attempt.next_event(0.0)) for _ in range(1002)]
    assert kinds == [Started, *[Progressed] * 1000, Finished]


def test_metrics_that_the_trial_changes_after_reporting_them_stay_as_they_were(
    events_of: Callable[[Body], list[Event]],
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        metrics = {"knn_top1": 1.0}
        observer.rung(step=2, metrics=metrics)
        metrics["knn_top1"] = 2.0
        return TrialResult(metrics)

    reported = events_of(body)[1]
    assert isinstance(reported, Reported)
    assert reported.metrics == {"knn_top1": 1.0}
