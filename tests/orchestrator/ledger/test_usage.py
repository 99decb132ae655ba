"""What all attempts at a trial took."""

from __future__ import annotations

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.trials.events import Failed, Finished, Started
from orchestrator.trials.records import Cause, TrialUsage
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial


def test_every_attempt_counts_and_those_that_came_to_nothing_are_told_by_their_cause(
    ledger: Ledger, trials: tuple[Trial, ...]
) -> None:
    first, second, third, *_ = (trial.trial_id for trial in trials)
    for cause in (Cause.IO, Cause.IO, Cause.WORKER):
        ledger.record(Failed(first, ledger.begin_attempt(first), "no", "Traceback", cause=cause))
    ledger.record(Finished(first, ledger.begin_attempt(first), {"knn_top1": 1.0}, 1.0, 1.0))
    ledger.begin_attempt(second)
    ledger.release_running()
    ledger.begin_attempt(second)
    found = ledger.usage()
    assert found == {
        first: TrialUsage(4, found[first].held_s, 0.0, {"io": 2, "worker": 1}),
        second: TrialUsage(2, found[second].held_s, 0.0, {"lost": 1}),
    }
    assert third not in found


def test_what_was_done_again_is_no_trouble(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    key = trials[0].trial_id
    ledger.record(Finished(key, ledger.begin_attempt(key), {"knn_top1": 1.0}, 1.0, 1.0))
    ledger.supersede([key])
    assert ledger.usage()[key].troubles == {}


def test_the_gpu_seconds_of_all_attempts_are_what_the_budget_counts(
    ledger: Ledger, trials: tuple[Trial, ...]
) -> None:
    key = trials[0].trial_id
    for _ in range(2):
        attempt = ledger.begin_attempt(key, ResourceRequest(cpus=1, gpus=0.5))
        ledger.record(Started(key, attempt, worker="w"))
        ledger.record(Failed(key, attempt, "no", "Traceback"))
    usage = ledger.usage()[key]
    assert usage.held_s > 0
    assert usage.gpu_s == pytest.approx(0.5 * usage.held_s)
    assert usage.gpu_s / 3600 == pytest.approx(ledger.gpu_hours())
