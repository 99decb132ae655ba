"""Orders that come before the job that they are for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from orchestrator.execution.executor import Job
from orchestrator.execution.ray_cluster.actor import FailedAttemptError, TrialActor
from orchestrator.trials.events import Event, Failed, Finished, Pruned, Started
from orchestrator.trials.trial import Trial
from specvit.data import Dataset
from specvit.trial import TrialResult


def run_steps(config: object, dataset: object, observer: Any, **_: object) -> TrialResult:
    for step in range(1, 51):
        if observer.should_stop():
            return TrialResult({}, stopped_at=step)
        time.sleep(0.01)
    return TrialResult({"loss": 1.0})


@pytest.fixture
def job(trials: tuple[Trial, ...]) -> Job:
    return Job(trials[0].trial_id, 2, trials[0].label, trials[0].config)


@pytest.fixture
def ends(job: Job) -> Callable[..., list[type[Event]]]:
    """Give a worker orders, then a job; return its events' types."""

    def run(*orders: Callable[[TrialActor], None]) -> list[type[Event]]:
        worker = TrialActor(
            {job.config.data: job.config.data},
            fetch=_load,
            host=lambda: "10.0.0.1",
            num_threads=torch.get_num_threads(),
            runner=run_steps,
        )
        for order in orders:
            order(worker)
        types: list[type[Event]] = []
        try:
            for batch in worker.run(job):
                types += map(type, batch)
        except FailedAttemptError as error:
            types.append(type(error.event))
        return types

    return run


def _load(source: Any) -> Dataset:
    dataset: Dataset = source.load()
    return dataset


def test_an_order_for_the_attempt_that_comes_next_is_obeyed(ends: Callable[..., list[type[Event]]], job: Job) -> None:
    assert ends(lambda worker: worker.stop(job.trial_id, 2)) == [Started, Pruned]
    assert ends(lambda worker: worker.interrupt(job.trial_id, 2)) == [Started, Failed]


def test_an_order_for_another_attempt_or_for_what_runs_now_is_not(
    ends: Callable[..., list[type[Event]]], job: Job
) -> None:
    other = replace(job, trial_id="another trial")
    assert ends(
        lambda worker: worker.stop(job.trial_id, 1),
        lambda worker: worker.stop(other.trial_id, 2),
        lambda worker: worker.stop(job.trial_id),
    ) == [Started, Finished]
