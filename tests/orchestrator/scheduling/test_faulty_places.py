from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.execution.capacity import Node
from orchestrator.execution.executor import Place
from orchestrator.execution.simulated import Conditions, Fault
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.faulty_places import FIRST_PAUSE_S, FaultyPlaces
from orchestrator.scheduling.simulation import Simulated, simulate
from orchestrator.sweep.resolved import Limits
from orchestrator.sweep.resource_settings import Resources
from orchestrator.trials.records import Cause
from orchestrator.trials.trial import Trial

from ..conftest import Clock

HERE, THERE = Place("slot 1", frozenset({"a"})), Place("slot 2", frozenset({"a"}))


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def places(clock: Clock, warnings: list[str]) -> FaultyPlaces:
    return FaultyPlaces(clock, warn=warnings.append)


def fail(places: FaultyPlaces, trial_id: str, place: Place, attempt: int = 1) -> set[str]:
    """Record a failure; return the trials whose failures were not their own."""
    return {one for one, _ in places.add_failure((trial_id, attempt), place, error="CUDA error")}


def test_a_slot_is_closed_after_two_trials_and_its_node_after_three(
    places: FaultyPlaces, warnings: list[str]
) -> None:
    assert fail(places, "x", HERE) == set()
    assert places.closed() == set()
    assert fail(places, "y", HERE) == {"x", "y"}
    assert places.closed() == {"slot 1"}
    assert fail(places, "z", THERE) == {"x", "y", "z"}
    assert places.closed() == {"slot 1", "a"}
    assert warnings == [
        "slot 1 is not used for 10 s: the last 2 trials failed there, at last by CUDA error",
        "node a is not used for 10 s: the last 3 trials failed there, at last by CUDA error",
    ]


def test_one_trial_that_fails_again_and_again_closes_nothing(places: FaultyPlaces) -> None:
    assert all(fail(places, "x", HERE, attempt) == set() for attempt in range(1, 20))
    assert places.closed() == set()


def test_a_trial_that_ends_well_breaks_the_row(places: FaultyPlaces) -> None:
    for trial_id in "xyz":
        fail(places, trial_id, HERE)
        places.add_success(THERE)
        places.add_success(HERE)
    assert places.closed() == set()


def test_a_place_that_is_used_again_is_closed_for_twice_the_time_by_one_more_failure(
    places: FaultyPlaces, clock: Clock
) -> None:
    fail(places, "x", HERE)
    fail(places, "y", HERE)
    begun_s = clock.now_s
    for pause_s in (FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S):
        assert places.next_s() == clock.now_s + pause_s
        clock.now_s += pause_s
        assert "slot 1" not in places.closed()
        assert fail(places, "x", HERE, attempt=int(clock.now_s)) == {"x"}
    assert clock.now_s == begun_s + 7 * FIRST_PAUSE_S


ONE_EACH = tuple(Node(name, {"CPU": 1.0}) for name in "ab")


def run(trials: tuple[Trial, ...], *faults: Fault, max_retries: int = 2) -> Simulated:
    """Simulate 40 trials of a minute on two nodes of a core each."""
    forty = [replace(trials[0], trial_id=f"{number:02}") for number in range(40)]
    return simulate(
        forty,
        {trial.trial_id: 60.0 for trial in forty},
        allocator=Allocator(Resources()),
        nodes=ONE_EACH,
        conditions=Conditions(faults=faults),
        limits=Limits(max_retries=max_retries),
    )


@pytest.mark.parametrize("cause", [Cause.WORKER, Cause.RAISED])
@pytest.mark.parametrize("max_retries", [1, 2])
def test_on_a_node_that_is_broken_few_attempts_fail_and_all_trials_are_done_on_the_other(
    max_retries: int, cause: Cause, trials: tuple[Trial, ...]
) -> None:
    ran = run(trials, Fault("b", cause=cause), max_retries=max_retries)
    assert (len(ran.ended_s), ran.given_up) == (40, frozenset())
    # 2 close the slot, a third the node; then one each time that it gets another chance, after 10, 20, 40, .. 600 s.
    assert ran.num_attempts - 40 <= 3 + 10
    assert ran.makespan_s == pytest.approx(40 * 60, rel=0.01)


@pytest.mark.parametrize("from_s", [0.0, 110.0])
@pytest.mark.parametrize("cause", [Cause.WORKER, Cause.RAISED])
@pytest.mark.parametrize("max_retries", [1, 2])
def test_an_outage_of_everything_for_seconds_costs_no_trial(
    max_retries: int, cause: Cause, from_s: float, trials: tuple[Trial, ...]
) -> None:
    ran = run(trials, Fault(from_s=from_s, until_s=from_s + 20, cause=cause), max_retries=max_retries)
    assert (len(ran.ended_s), ran.given_up) == (40, frozenset())
    assert ran.num_attempts - 40 <= 12
    assert ran.makespan_s <= 40 / 2 * 60 + 100


def test_a_run_in_which_nothing_works_is_stopped_after_minutes(trials: tuple[Trial, ...]) -> None:
    ran = run(trials, Fault())
    assert (ran.ended_s, ran.num_attempts < 40) == ({}, True)
    assert 300 <= ran.makespan_s < 700
