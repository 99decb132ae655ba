"""An attempt whose trial is a given function."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.execution.executor import Job
from orchestrator.execution.worker import RunningJob
from orchestrator.trials.events import END_STATES, Event
from orchestrator.trials.trial import Trial

from .bodies import NO_DATA, Body, trial_of


@pytest.fixture
def job(trials: tuple[Trial, ...]) -> Job:
    return Job(trials[0].trial_id, 3, trials[0].label, trials[0].config)


@pytest.fixture
def events_of(job: Job, monkeypatch: pytest.MonkeyPatch) -> Callable[[Body], list[Event]]:
    """Run an attempt whose trial is a given function; return its events."""

    def run(body: Body) -> list[Event]:
        monkeypatch.setattr("specvit.trial.run_trial", trial_of(body))
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
