from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from orchestrator.execution.executor import Job
from orchestrator.execution.ray_cluster.actor import FailedAttemptError, TrialActor
from orchestrator.trials.events import END_STATES, Event, Failed, Finished, Pruned, Started
from orchestrator.trials.records import Cause
from orchestrator.trials.trial import Trial
from specvit.data import Dataset
from specvit.errors import DataError
from specvit.trial import TrialResult

from ....waiting import LIMIT_S
from ..worker.bodies import NO_DATA


@pytest.fixture
def job(trials: tuple[Trial, ...]) -> Job:
    return Job(trials[0].trial_id, 1, trials[0].label, trials[0].config)


@pytest.fixture
def make_worker(job: Job) -> Iterator[Callable[..., TrialActor]]:
    """Make a worker in this process, on one thread, which gets back its threads and its sight of GPUs."""
    before, visible = torch.get_num_threads(), os.environ.get("CUDA_VISIBLE_DEVICES")

    def make(runner: Any = None, fetch: Callable[[Any], Dataset] = lambda _: NO_DATA) -> TrialActor:
        references = {job.config.data: "reference"}
        return TrialActor(references, fetch=fetch, host=lambda: "10.0.0.1", num_threads=1, runner=runner)

    yield make
    torch.set_num_threads(before)
    if visible is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible


def all_of(batches: Iterator[list[Event]]) -> list[Event]:
    """Return all events; the last one of an attempt that failed comes with the error that fails its task."""
    events: list[Event] = []
    try:
        for batch in batches:
            events += batch
    except FailedAttemptError as error:
        events.append(error.event)
    return events


def finish(*_: object, **__: object) -> TrialResult:
    return TrialResult({"loss": 1.0})


def test_a_worker_takes_the_data_once_and_runs_job_after_job(make_worker: Callable[..., TrialActor], job: Job) -> None:
    fetched: list[Any] = []
    given: list[Dataset] = []

    def fetch(reference: Any) -> Dataset:
        fetched.append(reference)
        return NO_DATA

    def run(config: object, dataset: Dataset, *_: object, **__: object) -> TrialResult:
        given.append(dataset)
        return TrialResult({})

    worker = make_worker(run, fetch)
    for attempt in (1, 2):
        events = all_of(worker.run(replace(job, attempt=attempt)))
        assert [type(event) for event in events] == [Started, Finished]
        assert {event.attempt for event in events} == {attempt}
    assert fetched == ["reference"]
    assert all(dataset is NO_DATA for dataset in given)
    assert worker.host() == "10.0.0.1"


def test_a_job_whose_data_this_machine_cannot_read_fails_with_the_reason(
    make_worker: Callable[..., TrialActor], job: Job
) -> None:
    def fetch(_: Any) -> Dataset:
        raise DataError("photos: no such folder")

    worker = make_worker(finish, fetch)
    (failed,) = all_of(worker.run(job))
    assert isinstance(failed, Failed)
    assert (failed.error, failed.cause) == ("DataError: photos: no such folder", Cause.IO)
    with pytest.raises(DataError, match="photos"):
        worker.assist(job, None, 1, 2)


@pytest.mark.parametrize(("order", "end"), [("stop", Pruned), ("interrupt", Failed)])
def test_orders_reach_the_trial_that_runs_and_no_other(
    order: str, end: type[Event], make_worker: Callable[..., TrialActor], job: Job
) -> None:
    asked: list[bool] = []

    def run(config: object, dataset: object, observer: Any, **_: object) -> TrialResult:
        running.set()
        first.wait(LIMIT_S)
        asked.append(observer.should_stop())
        looked.set()
        second.wait(LIMIT_S)
        return TrialResult({}, stopped_at=3 if observer.should_stop() else None)

    running, first, looked, second = (threading.Event() for _ in range(4))
    worker = make_worker(run)
    getattr(worker, order)(job.trial_id)  # nothing runs
    batches = worker.run(job)
    events = list(next(batches))
    assert running.wait(LIMIT_S)
    getattr(worker, order)("another trial")
    first.set()
    assert looked.wait(LIMIT_S)
    getattr(worker, order)(job.trial_id)
    second.set()
    events += all_of(batches)
    assert asked == [False]
    assert type(events[-1]) is end
    if isinstance(events[-1], Failed):
        assert events[-1].cause is Cause.NODE


def test_events_are_told_up_to_the_end_and_the_end_once(make_worker: Callable[..., TrialActor], job: Job) -> None:
    def run(config: object, dataset: object, observer: Any, **_: object) -> TrialResult:
        for step in range(100):
            observer.progress(step=step, steps=100, images_per_s=1.0)
        raise MemoryError

    events = all_of(make_worker(run).run(job))
    assert [type(event) in END_STATES for event in events] == [False] * 101 + [True]
    assert isinstance(events[-1], Failed)
    assert events[-1].cause is Cause.HOST_MEMORY


def test_the_others_of_a_job_assist_with_the_same_data(
    make_worker: Callable[..., TrialActor], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[object, ...]] = []

    def run(config: object, dataset: object, *_: object, **__: object) -> TrialResult:
        given.append((config, dataset))
        return TrialResult({})

    worker = make_worker()
    monkeypatch.setattr("specvit.trial.run_trial", run)
    monkeypatch.setattr(worker, "_process_group", lambda *_: nullcontext())
    assert worker.assist(job, "rendezvous", 1, 2) >= 0.0
    assert given == [(job.config, NO_DATA)]


@pytest.mark.parametrize(("hosts", "expected"), [(("a", "a"), "127.0.0.1"), (("a", "b"), "10.0.0.1")])
def test_workers_of_one_machine_meet_on_it_alone(
    hosts: tuple[str, ...], expected: str, make_worker: Callable[..., TrialActor], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    opening = "specvit.training.process_group.open_rendezvous"
    monkeypatch.setattr(opening, lambda host: (opened.append(host), ("store", "rendezvous"))[1])
    assert make_worker().open_rendezvous(*hosts) == "rendezvous"
    assert opened == [expected]
