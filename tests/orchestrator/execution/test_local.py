from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import pytest
import torch

from orchestrator.execution.executor import Job, Machine
from orchestrator.execution.local import LocalExecutor
from orchestrator.run import load_datasets
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import END_STATES, Event, Failed, Finished, Progressed, Pruned, Reported, Started
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial
from specvit.trial import TrialResult

from ...waiting import LIMIT_S


@pytest.fixture
def executor(trials: tuple[Trial, ...]) -> Iterator[LocalExecutor]:
    executor = LocalExecutor(load_datasets(trials))
    yield executor
    executor.close()


def job_of(trial: Trial, attempt: int = 1) -> Job:
    return Job(trial.trial_id, attempt, trial.label, trial.config)


def events_to_the_end(executor: LocalExecutor) -> list[Event]:
    events: list[Event] = []
    while not (events and type(events[-1]) in END_STATES):
        polled = executor.poll(30.0)
        assert polled, f"no event after {events}"
        events += polled
    return events


def test_a_trial_starts_progresses_reports_and_finishes(
    executor: LocalExecutor, trials: tuple[Trial, ...]
) -> None:
    assert executor.num_slots == 1
    executor.submit(job_of(trials[0], attempt=2))
    events = events_to_the_end(executor)
    assert {(event.trial_id, event.attempt) for event in events} == {(trials[0].trial_id, 2)}
    kinds = [kind for kind, _ in groupby(map(type, events))]
    assert kinds[:2] == [Started, Progressed]
    assert kinds[-1] is Finished
    # 2 rungs in 4 steps stand at 4/3 and 8/3, rounded.
    assert [event.step for event in events if isinstance(event, Reported)] == [1, 3]
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert set(finished.metrics) == {"knn_top1", "loss"}
    assert list(executor.poll(0.0)) == []


def test_a_trial_that_is_ordered_to_stop_is_pruned_before_its_end(make_sweep: Callable[..., Sweep]) -> None:
    objective = {"recipe": "dinov2_cpu", "steps": 1000, "batch_size": 8}
    trial = expand(make_sweep(objective=objective, rungs={"count": 999, "num_images": 8}))[0]
    executor = LocalExecutor(load_datasets([trial]))
    executor.submit(job_of(trial))
    events: list[Event] = []
    while not any(isinstance(event, Reported) for event in events):
        events += executor.poll(30.0)
    executor.prune("another trial")
    executor.prune(trial.trial_id)
    end = events_to_the_end(executor)[-1]
    assert isinstance(end, Pruned)
    assert 1 <= end.step < 1000


def test_a_trial_whose_loss_explodes_fails_and_the_next_one_runs(make_sweep: Callable[..., Sweep]) -> None:
    objective = {"recipe": "dinov2_cpu", "steps": 4, "batch_size": 8, "lr": 1e30, "clip_norm": 0}
    baseline, floor, *_ = expand(make_sweep(objective=objective))
    executor = LocalExecutor(load_datasets([baseline]))
    executor.submit(job_of(baseline))
    failed = events_to_the_end(executor)[-1]
    assert isinstance(failed, Failed)
    assert failed.error.startswith("DivergenceError: ")
    assert "Traceback" in failed.traceback
    executor.submit(job_of(floor))
    assert isinstance(events_to_the_end(executor)[-1], Finished)


def test_closing_waits_for_the_thread_of_the_running_trial(
    executor: LocalExecutor, trials: tuple[Trial, ...]
) -> None:
    executor.submit(job_of(trials[0]))
    assert isinstance(executor.poll(30.0)[0], Started)
    executor.close()
    assert trials[0].label not in [thread.name for thread in threading.enumerate()]
    executor.close()


def test_an_idle_executor_has_nothing_to_tell_and_nothing_to_prune(executor: LocalExecutor) -> None:
    executor.prune("nothing")
    assert list(executor.poll(0.0)) == []


def test_computations_are_kept_to_the_given_number_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        LocalExecutor({}, num_threads=2)
        assert torch.get_num_threads() == 2
        LocalExecutor({})
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_there_is_room_for_one_job_whatever_it_occupies(executor: LocalExecutor, trials: tuple[Trial, ...]) -> None:
    large = ResourceRequest(cpus=1000.0, gpus=8.0)
    assert executor.has_room(large)
    executor.submit(job_of(trials[2]))
    assert not executor.has_room(ResourceRequest())
    events_to_the_end(executor)
    assert executor.has_room(large)
    assert executor.machine(large) == Machine()


def test_nothing_more_is_heard_of_a_trial_that_was_killed_and_the_next_one_runs(
    executor: LocalExecutor, trials: tuple[Trial, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def deaf(config: object, dataset: object, observer: Any, **_: object) -> TrialResult:
        while not released.wait(0.01):
            observer.progress(step=1, steps=4, images_per_s=1.0)
        ended.set()
        return TrialResult({"loss": 1.0})

    released = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr("specvit.trial.run_trial", deaf)
        executor.submit(job_of(trials[0]))
        assert isinstance(executor.poll(30.0)[0], Started)
    executor.kill("another trial")
    assert not executor.has_room(ResourceRequest())
    executor.kill(trials[0].trial_id)
    assert executor.has_room(ResourceRequest())
    assert list(executor.poll(0.0)) == []
    executor.submit(job_of(trials[2], attempt=2))
    events = events_to_the_end(executor)
    assert {(event.trial_id, event.attempt) for event in events} == {(trials[2].trial_id, 2)}
    released.set()
    assert ended.wait(LIMIT_S)
    executor.kill(trials[0].trial_id)
