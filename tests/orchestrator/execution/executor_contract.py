"""What holds for every executor, whatever runs the trials: ``test_local``, ``test_simulated`` and Ray's inherit it.

Trials are played: a ``SHORT`` one reports two rungs and finishes, a ``LONG`` one runs until it is stopped, and one that
``RAISES`` does so. One that ``POISONS`` raises, and so does whatever its process runs after it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from orchestrator.execution.executor import Executor, Job
from orchestrator.trials.events import END_STATES, Event, Failed, Finished, Pruned, Reported, Started
from orchestrator.trials.resources import WHOLE_CORE, ResourceRequest
from orchestrator.trials.trial import Trial

from ...waiting import wait_for


def is_end(event: Event) -> bool:
    return type(event) in END_STATES


def events_until(executor: Executor, found: Callable[[Event], bool]) -> list[Event]:
    """Return the events up to those that come along with one that is looked for."""
    events: list[Event] = []

    def has_come() -> bool:
        events.extend(executor.poll(1.0))
        return any(map(found, events))

    wait_for(has_come)
    return events


def end_of(executor: Executor, job: Job) -> Event:
    """Run a job to its end."""
    executor.submit(job)
    return events_until(executor, is_end)[-1]


@dataclass
class Result:
    """What ``specvit.trial.TrialResult`` holds, without the seconds that a worker takes to import that."""

    metrics: dict[str, float]
    stopped_at: int | None = None
    diagnostics: tuple[Any, ...] = ()
    cost: None = None
    weights: tuple[Any, ...] = ()


def play(config: Any, dataset: object, observer: Any, **_: object) -> Result:
    """Stand in for a trial; what it is follows from its number of steps."""
    steps = config.objective.steps
    if steps == RAISES:
        raise ArithmeticError("as it was told")
    if steps == POISONS or POISONED in os.environ:
        os.environ[POISONED] = "yes"
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    for step in range(1, steps + 1):
        if observer.should_stop():
            return Result({}, stopped_at=step)
        observer.progress(step=step, steps=steps, images_per_s=1.0)
        if step in (1, 3) or steps == LONG:
            observer.rung(step=step, metrics={"knn_top1": float(step)})
        if steps == LONG:
            time.sleep(0.01)
    return Result({"knn_top1": 1.0, "loss": 2.0})


def play_or_run(config: Any, dataset: Any, observer: Any, **given: Any) -> Any:
    """Play a trial that a test has made up; run any other."""
    if config.objective.steps in (RAISES, POISONS, SHORT, LONG):
        return play(config, dataset, observer)
    from specvit.trial import run_trial

    return run_trial(config, dataset, observer, **given)


RAISES, POISONS, SHORT, LONG = 1, 2, 5, 1_000_000
"""Numbers of steps that say how a trial is played; no real one has them."""

POISONED = "SPECSWEEP_TEST_POISONED"
"""Set in a process that is of no use any more: whatever runs there from then on raises."""


def job_of(trial: Trial, steps: int, *, name: str = "", attempt: int = 1, share: ResourceRequest = WHOLE_CORE) -> Job:
    config = replace(trial.config, objective=replace(trial.config.objective, steps=steps))
    return Job(name or trial.trial_id, attempt, name or trial.label, config, share=share)


class ExecutorContract:
    """Tests of an executor with room for ``num_slots`` jobs of ``share``; a class that inherits it has ``executor``."""

    share = WHOLE_CORE
    num_slots = 1
    reports = True
    """Whether trials report before they end; simulated ones do not."""

    @pytest.fixture
    def job(self, trials: tuple[Trial, ...]) -> Callable[..., Job]:
        return lambda steps, **changes: job_of(trials[0], steps, share=self.share, **changes)

    def test_it_has_the_slots_that_it_was_given(self, executor: Executor) -> None:
        assert executor.num_slots == self.num_slots
        assert executor.machine(self.share).num_trials >= 1

    def test_an_idle_executor_has_nothing_to_tell_to_prune_or_to_kill(self, executor: Executor) -> None:
        executor.prune("nothing")
        executor.kill("nothing")
        assert list(executor.poll(0.0)) == []

    def test_events_are_of_the_attempt_in_order_and_end_with_its_end(
        self, executor: Executor, job: Callable[..., Job]
    ) -> None:
        executor.submit(job(SHORT, name="a", attempt=7))
        events = events_until(executor, is_end)
        assert {(event.trial_id, event.attempt) for event in events} == {("a", 7)}
        assert isinstance(events[-1], Finished)
        assert [event.step for event in events if isinstance(event, Reported)] == ([1, 3] if self.reports else [])
        assert [isinstance(event, Started) for event in events] == [self.reports] + [False] * (len(events) - 1)
        assert list(executor.poll(0.0)) == []

    def test_there_is_room_for_as_many_jobs_as_there_are_slots(
        self, executor: Executor, job: Callable[..., Job]
    ) -> None:
        names = [f"trial {number}" for number in range(self.num_slots)]
        for name in names:
            assert executor.has_room(self.share)
            executor.submit(job(LONG, name=name))
        assert not executor.has_room(self.share)
        for name in names:
            executor.prune(name)
        pruned: set[str] = set()
        while len(pruned) < self.num_slots:
            ends = [event for event in events_until(executor, is_end) if is_end(event)]
            assert all(isinstance(event, Pruned) for event in ends)
            pruned |= {event.trial_id for event in ends}
        assert pruned == set(names)
        assert executor.has_room(self.share)

    def test_a_prune_reaches_the_trial_that_runs_and_no_other(
        self, executor: Executor, job: Callable[..., Job]
    ) -> None:
        executor.submit(job(LONG, name="a"))
        if self.reports:
            events_until(executor, lambda event: isinstance(event, Reported))
        executor.prune("another trial")
        executor.prune("a")
        end = events_until(executor, is_end)[-1]
        assert isinstance(end, Pruned)
        assert 0 <= end.step < LONG

    def test_nothing_more_is_heard_of_a_trial_that_is_killed_and_the_next_one_runs(
        self, executor: Executor, job: Callable[..., Job]
    ) -> None:
        executor.submit(job(LONG, name="a"))
        if self.reports:
            events_until(executor, lambda event: isinstance(event, Reported))
        executor.kill("another trial")
        executor.kill("a")
        assert executor.has_room(self.share)
        executor.submit(job(SHORT, name="a", attempt=2))
        events = events_until(executor, is_end)
        assert {(event.trial_id, event.attempt) for event in events} == {("a", 2)}
        assert isinstance(events[-1], Finished)
        executor.kill("a")


class WorkerContract(ExecutorContract):
    """What holds besides where trials are code that runs."""

    ends_processes = True
    """Whether a process runs no more trials after one that failed."""

    def test_a_trial_that_raises_fails_with_its_traceback_and_the_next_one_has_another_process(
        self, executor: Executor, job: Callable[..., Job]
    ) -> None:
        executor.submit(job(RAISES))
        first, *_, failed = events_until(executor, is_end)
        assert isinstance(failed, Failed)
        assert failed.error == "ArithmeticError: as it was told"
        assert "Traceback" in failed.traceback
        executor.submit(job(SHORT))
        again, *_, finished = events_until(executor, is_end)
        assert isinstance(finished, Finished)
        assert isinstance(first, Started)
        assert isinstance(again, Started)
        assert (again.worker != first.worker) is self.ends_processes
