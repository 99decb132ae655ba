"""What an attempt tells of itself, from its start to its end."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from orchestrator.execution.executor import Job
from orchestrator.execution.worker import RunningJob, assist
from orchestrator.ledger.provenance import cpu_name
from orchestrator.trials.events import Event, Failed, Finished, Logged, Progressed, Pruned, Reported, Started
from orchestrator.trials.records import Cause
from specvit.config import TrialConfig
from specvit.data import Dataset
from specvit.training.cost import TrainingCost
from specvit.trial import Observer, TrialResult

from ....waiting import LIMIT_S
from .bodies import NO_DATA, Body, trial_of, until


def test_a_trial_that_ends_well_tells_of_itself_in_order(
    job: Job, events_of: Callable[[Body], list[Event]]
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        assert config is job.config
        assert dataset is NO_DATA
        observer.progress(step=1, steps=4, images_per_s=20.0)
        observer.rung(step=2, metrics={"knn_top1": 12.5})
        observer.progress(step=4, steps=4, images_per_s=21.0)
        return TrialResult({"knn_top1": 25.0, "loss": 3.0}, cost=TrainingCost(1.0, 8.0, 0.5))

    key = (job.trial_id, 3)
    *before, end = events_of(body)
    assert before == [
        Started(*key, worker=f"{socket.gethostname()}:{os.getpid()}", device=f"cpu {cpu_name()}"),
        Progressed(*key, step=1, steps=4, images_per_s=20.0),
        Reported(*key, step=2, metrics={"knn_top1": 12.5}),
        Progressed(*key, step=4, steps=4, images_per_s=21.0),
    ]
    assert isinstance(end, Finished)
    assert end.metrics == {"knn_top1": 25.0, "loss": 3.0}
    assert end.cost == TrainingCost(1.0, 8.0, 0.5)
    assert 0 <= end.seconds < 5
    assert 0 <= end.core_seconds < 5


def test_a_trial_that_is_told_to_stop_is_pruned_at_its_step(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        observer.rung(step=2, metrics={"knn_top1": 1.0})
        ordered.wait(LIMIT_S)
        return TrialResult({}, stopped_at=3) if observer.should_stop() else TrialResult({"knn_top1": 2.0})

    ordered = threading.Event()
    monkeypatch.setattr("specvit.trial.run_trial", trial_of(body))
    attempt = RunningJob(job, {job.config.data: NO_DATA})
    before = until(attempt, Reported)
    assert [type(event) for event in before] == [Started, Reported]
    attempt.stop()
    ordered.set()
    (end,) = attempt.next_events(10.0)
    assert isinstance(end, Pruned)
    assert (end.trial_id, end.attempt, end.step) == (job.trial_id, 3, 3)


def test_a_trial_is_not_kept_waiting_by_events_that_nobody_takes(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        for step in range(1000):
            observer.progress(step=step, steps=1000, images_per_s=1.0)
        return TrialResult({})

    monkeypatch.setattr("specvit.trial.run_trial", trial_of(body))
    attempt = RunningJob(job, {job.config.data: NO_DATA})
    attempt.join()
    kinds = [type(event) for event in until(attempt, Finished)]
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


def test_who_assists_computes_the_trial_within_the_group_and_tells_nothing(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    @contextmanager
    def group() -> Iterator[None]:
        seen.append("joined")
        yield
        seen.append("left")

    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        observer.progress(step=1, steps=4, images_per_s=1.0)
        observer.rung(step=1, metrics={})
        seen.append(f"stop {observer.should_stop()}")
        sum(range(10**6))
        return TrialResult({"loss": 1.0})

    monkeypatch.setattr("specvit.trial.run_trial", trial_of(body))
    assert 0 < assist(job, {job.config.data: NO_DATA}, group()) < 5
    assert seen == ["joined", "stop False", "left"]


def test_what_a_trial_logs_becomes_events_of_its_attempt_and_what_others_log_does_not(
    job: Job, events_of: Callable[[Body], list[Event]]
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        logging.getLogger("specvit.training.learner").warning("going on with micro_batch %d", 4)
        logging.getLogger("elsewhere").error("not of a trial")
        logging.getLogger("specvit").error("and so on")
        return TrialResult({})

    logger = logging.getLogger("specvit")
    before = list(logger.handlers)
    logged = [event for event in events_of(body) if isinstance(event, Logged)]
    assert logged == [
        Logged(job.trial_id, 3, level="WARNING", text="going on with micro_batch 4"),
        Logged(job.trial_id, 3, level="ERROR", text="and so on"),
    ]
    assert logger.handlers == before


def test_warnings_are_told_of_where_they_are_captured(job: Job, events_of: Callable[[Body], list[Event]]) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        logging.getLogger("py.warnings").warning("UserWarning: careful")
        raise ValueError

    assert [event.text for event in events_of(body) if isinstance(event, Logged)] == ["UserWarning: careful"]
    assert logging.getLogger("py.warnings").handlers == []


@pytest.mark.parametrize("order", ["interrupt", "stop", "both"])
def test_an_interrupted_trial_fails_for_its_node_and_one_that_was_stopped_is_pruned(order: str, job: Job) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
        while not observer.should_stop():
            time.sleep(0.001)
        ordered.wait(LIMIT_S)
        return TrialResult({}, stopped_at=2)

    ordered = threading.Event()
    attempt = RunningJob(job, {job.config.data: NO_DATA}, runner=body)
    if order != "interrupt":
        attempt.stop()
    if order != "stop":
        attempt.interrupt()
    ordered.set()
    attempt.join()
    end = attempt.next_events(0.0)[-1]
    if order == "stop":
        assert isinstance(end, Pruned)
    else:
        assert isinstance(end, Failed)
        assert (end.cause, end.error) == (Cause.NODE, "it was asked to go on elsewhere, at step 2")


def test_a_trial_that_is_interrupted_after_its_last_step_is_finished(job: Job) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
        ordered.wait(LIMIT_S)
        return TrialResult({"loss": 1.0})

    ordered = threading.Event()
    attempt = RunningJob(job, {job.config.data: NO_DATA}, runner=body)
    attempt.interrupt()
    ordered.set()
    attempt.join()
    assert isinstance(attempt.next_events(0.0)[-1], Finished)


def test_events_that_come_at_once_come_together_up_to_the_end(job: Job) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
        for step in (1, 2, 3):
            observer.progress(step=step, steps=3, images_per_s=1.0)
        return TrialResult({})

    attempt = RunningJob(job, {job.config.data: NO_DATA}, runner=body)
    attempt.join()
    assert [type(event) for event in attempt.next_events(0.0)] == [Started, *[Progressed] * 3, Finished]
    assert attempt.next_events(0.0) == []
