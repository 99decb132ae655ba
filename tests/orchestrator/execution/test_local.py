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
from orchestrator.trials.events import Failed, Finished, Logged, Progressed, Reported, Started
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial
from specvit.training.learnt import is_learning_metric
from specvit.trial import TrialResult

from ...waiting import LIMIT_S
from .executor_contract import LONG, SHORT, WorkerContract, end_of, events_until, is_end, job_of, play


@pytest.fixture
def executor(trials: tuple[Trial, ...], monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    monkeypatch.setattr("specvit.trial.run_trial", play)
    executor = LocalExecutor(dict.fromkeys(trials[0].config.sources))  # type: ignore[misc]
    yield executor
    executor.close()
    executor.close()


class TestContract(WorkerContract):
    """The contract of all executors; trials run in this process."""

    ends_processes = False


def test_a_real_trial_progresses_reports_and_finishes(trials: tuple[Trial, ...]) -> None:
    executor = LocalExecutor(load_datasets(trials))
    executor.submit(Job(trials[0].trial_id, 2, trials[0].label, trials[0].config))
    events = events_until(executor, is_end)
    assert {event.level for event in events if isinstance(event, Logged)} == {"INFO"}
    kinds = [kind for kind, _ in groupby(map(type, events)) if kind is not Logged]
    assert kinds[:2] == [Started, Progressed]
    # 2 rungs in 4 steps stand at 4/3 and 8/3, rounded.
    assert [event.step for event in events if isinstance(event, Reported)] == [1, 3]
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert {name for name in finished.metrics if not is_learning_metric(name)} == {"knn_top1", "loss"}


def test_a_trial_whose_loss_explodes_fails_and_the_next_one_runs(make_sweep: Callable[..., Sweep]) -> None:
    objective = {"recipe": "dinov2_cpu", "steps": 4, "batch_size": 8, "lr": 1e30, "clip_norm": 0}
    baseline, floor, *_ = expand(make_sweep(objective=objective))
    executor = LocalExecutor(load_datasets([baseline]))
    failed = end_of(executor, Job(baseline.trial_id, 1, baseline.label, baseline.config))
    assert isinstance(failed, Failed)
    assert failed.error.startswith("DivergenceError: ")
    assert "Traceback" in failed.traceback
    assert isinstance(end_of(executor, Job(floor.trial_id, 1, floor.label, floor.config)), Finished)


def test_closing_waits_for_the_thread_of_the_running_trial(
    executor: LocalExecutor, trials: tuple[Trial, ...]
) -> None:
    executor.submit(job_of(trials[0], LONG))
    assert isinstance(executor.poll(30.0)[0], Started)
    executor.close()
    assert trials[0].label not in [thread.name for thread in threading.enumerate()]


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
    executor.submit(job_of(trials[0], LONG))
    assert not executor.has_room(ResourceRequest())
    assert executor.machine(large) == Machine()


def test_a_trial_that_does_not_obey_is_heard_of_no_more_after_it_was_killed(
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
        executor.submit(job_of(trials[0], LONG))
        assert isinstance(executor.poll(30.0)[0], Started)
    executor.kill(trials[0].trial_id)
    assert list(executor.poll(0.0)) == []
    executor.submit(job_of(trials[2], SHORT, attempt=2))
    events = events_until(executor, is_end)
    assert {(event.trial_id, event.attempt) for event in events} == {(trials[2].trial_id, 2)}
    released.set()
    assert ended.wait(LIMIT_S)
