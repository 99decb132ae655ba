from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from orchestrator.execution.executor import Job
from orchestrator.execution.worker import RunningJob, assist
from orchestrator.ledger.provenance import cpu_name
from orchestrator.storage.checkpoint_store import StateFile
from orchestrator.trials.events import (
    END_STATES,
    Event,
    Failed,
    Finished,
    Logged,
    Progressed,
    Pruned,
    Reported,
    Started,
)
from orchestrator.trials.records import Cause
from orchestrator.trials.trial import Trial
from specvit.config import TrialConfig
from specvit.data import Dataset, Split
from specvit.training.checkpoint import Checkpoint
from specvit.trial import Observer, TrialResult

from ...waiting import LIMIT_S

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


def until(attempt: RunningJob, kind: type[Event]) -> list[Event]:
    """Return the events of an attempt up to one of a kind."""
    events: list[Event] = []
    while not (events and type(events[-1]) is kind):
        more = attempt.next_events(10.0)
        assert more, f"no event after {events}"
        events += more
    return events


@pytest.fixture
def job(trials: tuple[Trial, ...]) -> Job:
    return Job(trials[0].trial_id, 3, trials[0].label, trials[0].config)


@pytest.fixture
def events_of(job: Job, monkeypatch: pytest.MonkeyPatch) -> Callable[[Body], list[Event]]:
    """Run an attempt whose trial is a given function; return its events."""

    def run(body: Body) -> list[Event]:
        monkeypatch.setattr("specvit.trial.run_trial", _trial(body))
        attempt = RunningJob(job, {job.config.data: NO_DATA})
        events: list[Event] = []
        while not (events and type(events[-1]) in END_STATES):
            more = attempt.next_events(10.0)
            assert more, f"no event after {events}"
            events += more
        attempt.join()
        assert attempt.next_events(0.0) == []
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
        Started(*key, worker=f"{socket.gethostname()}:{os.getpid()}", device=f"cpu {cpu_name()}"),
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
        ordered.wait(LIMIT_S)
        return TrialResult({}, stopped_at=3) if observer.should_stop() else TrialResult({"knn_top1": 2.0})

    ordered = threading.Event()
    monkeypatch.setattr("specvit.trial.run_trial", _trial(body))
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

    monkeypatch.setattr("specvit.trial.run_trial", _trial(body))
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


def checkpoint_of(job: Job, monkeypatch: pytest.MonkeyPatch, data: Dataset = NO_DATA) -> Checkpoint | None:
    """Return the checkpoint that the trial of a job is given."""
    given: list[Checkpoint | None] = []

    def body(*_: object, checkpoint: Checkpoint | None, **__: object) -> TrialResult:
        given.append(checkpoint)
        return TrialResult({})

    with monkeypatch.context() as patch:
        patch.setattr("specvit.trial.run_trial", body)
        RunningJob(job, {job.config.data: data}).join()
        assist(job, {job.config.data: data}, nullcontext())
    attempt, assisting = given
    assert (attempt and attempt.identity) == (assisting and assisting.identity)
    return attempt


def test_a_trial_keeps_its_state_where_the_job_says_and_nowhere_else(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checkpoint_of(job, monkeypatch) is None
    given = checkpoint_of(replace(job, state=StateFile(Path("state"), 5.0)), monkeypatch)
    assert given is not None
    assert (given.path, given.every_s, given.every_steps) == (Path("state"), 5.0, None)


def test_a_state_is_that_of_its_trial_its_data_and_its_software(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = replace(job, state=StateFile(Path("state"), 5.0))

    def identity(job: Job = kept, data: Dataset = NO_DATA) -> str:
        given = checkpoint_of(job, monkeypatch, data)
        assert given is not None
        return given.identity

    others = [identity(replace(kept, trial_id="other")), identity(data=replace(NO_DATA, fingerprint="other"))]
    for name in ("torch.__version__", "orchestrator.execution.worker_files.PROTOCOL_VERSION"):
        with monkeypatch.context() as patch:
            patch.setattr(name, "other")
            others.append(identity())
    version = metadata.version
    for package in ("timm", "specsweep"):
        with monkeypatch.context() as patch:
            patch.setattr(metadata, "version", lambda name, other=package: "0" if name == other else version(name))
            others.append(identity())
    assert json.loads(identity())["timm"] == timm.__version__
    assert identity(replace(kept, attempt=9, label="other")) == identity()
    assert len({identity(), *others}) == 7


def test_an_interruption_is_an_order_to_stop_that_saves_the_state(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def body(*given: object, checkpoint: Checkpoint, **_: object) -> TrialResult:
        observer = given[2]
        assert isinstance(observer, RunningJob)
        ordered.wait(LIMIT_S)
        asked.extend((observer.should_stop(), checkpoint.at_stop()))
        return TrialResult({}, stopped_at=1)

    monkeypatch.setattr("specvit.trial.run_trial", body)
    kept = replace(job, state=StateFile(Path("state"), 5.0))
    for order in (RunningJob.stop, RunningJob.interrupt):
        ordered = threading.Event()
        attempt = RunningJob(kept, {job.config.data: NO_DATA})
        order(attempt)
        ordered.set()
        attempt.join()
    assert asked == [True, False, True, True]


def test_the_seconds_of_a_trial_that_went_on_count_the_attempts_before(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(*given: object, checkpoint: Checkpoint, **_: object) -> TrialResult:
        observer = given[2]
        assert isinstance(observer, RunningJob)
        checkpoint.notes["spent"] = [100.0, 50.0]  # as a saved state has it
        for step in (3, 4):
            observer.progress(step=step, steps=4, images_per_s=1.0)
            notes.append(checkpoint.notes["spent"])
        time.sleep(0.2)
        return TrialResult({})

    notes: list[list[float]] = []
    monkeypatch.setattr("specvit.trial.run_trial", body)
    attempt = RunningJob(replace(job, state=StateFile(Path("state"), 5.0)), {job.config.data: NO_DATA})
    attempt.join()
    *_, end = until(attempt, Finished)
    assert isinstance(end, Finished)
    assert 100.2 <= end.seconds < 110.0
    assert 50.0 <= end.core_seconds < 60.0
    assert all(100.0 <= wall < 110.0 and 50.0 <= cpu < 60.0 for wall, cpu in notes)


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

    monkeypatch.setattr("specvit.trial.run_trial", _trial(body))
    assert 0 < assist(job, {job.config.data: NO_DATA}, group()) < 5
    assert seen == ["joined", "stop False", "left"]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("out of luck"), Cause.RAISED),
        (ValueError("out of memory"), Cause.RAISED),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Cause.DEVICE),
        (SystemExit(1), Cause.RAISED),
        (MemoryError(), Cause.HOST_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), Cause.HOST_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), Cause.GPU_MEMORY),
        (torch.OutOfMemoryError(), Cause.GPU_MEMORY),
        (RuntimeError("CUDA error: out of memory"), Cause.GPU_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), Cause.GPU_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), Cause.GPU_MEMORY),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"), Cause.GPU_MEMORY),
    ],
    ids=repr,
)
def test_the_cause_of_a_failure_tells_which_memory_ran_out(
    error: BaseException, cause: Cause, events_of: Callable[[Body], list[Event]]
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer) -> TrialResult:
        raise error

    end = events_of(body)[-1]
    assert isinstance(end, Failed)
    assert end.cause is cause
    assert "in body" in end.traceback


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
