from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from orchestrator.execution.executor import Job
from orchestrator.execution.simulated import Conditions, FinishEvent, SimulatedExecutor
from orchestrator.trials.events import Finished, Pruned
from orchestrator.trials.resources import WHOLE_CORE
from orchestrator.trials.trial import Trial

from .executor_contract import ExecutorContract


@pytest.fixture
def job_of(trials: tuple[Trial, ...]) -> Callable[..., Job]:
    return lambda trial_id, attempt=1: Job(trial_id, attempt, trial_id, trials[0].config)


class TestContract(ExecutorContract):
    """The contract of all executors; a simulated trial lasts as long as is said here, whatever its steps."""

    num_slots = 2
    reports = False

    @pytest.fixture
    def executor(self) -> SimulatedExecutor:
        lengths = {"a": 5.0} | {f"trial {number}": 1e6 for number in range(2)}
        return SimulatedExecutor(lengths, draw=random.Random(0), num_slots=2)


def test_what_is_to_happen_can_be_read_in_a_failing_test() -> None:
    assert repr(FinishEvent("a", 2)) == "FinishEvent(trial_id='a', attempt=2)"


def on_slots(num_slots: int, every_s: float = 60.0, **lengths: float) -> SimulatedExecutor:
    conditions = Conditions(checkpoint_every_s=every_s)
    return SimulatedExecutor(lengths, draw=random.Random(0), num_slots=num_slots, conditions=conditions)


def test_the_clock_jumps_to_what_happens_next_and_tells_all_of_that_time(job_of: Callable[..., Job]) -> None:
    executor = on_slots(3, a=7, b=5, c=7)
    for name in "abc":
        assert executor.has_room(WHOLE_CORE)
        executor.submit(job_of(name))
    assert not executor.has_room(WHOLE_CORE)
    assert [event.trial_id for event in executor.poll(0.25)] == ["b"]
    assert (executor.clock(), executor.has_room(WHOLE_CORE)) == (5, True)
    assert executor.poll(0.25) == [
        Finished(name, 1, metrics={}, seconds=7, core_seconds=7) for name in "ac"
    ]
    assert (executor.clock(), executor.busy_s) == (7, pytest.approx((7 + 5 + 7) / 3))
    assert executor.poll(0.25) == []
    assert executor.clock() == 7


def test_the_clock_moves_no_further_at_once_than_it_may(job_of: Callable[..., Job]) -> None:
    executor = on_slots(1, a=10)
    executor.clock.max_step_s = 4
    executor.submit(job_of("a"))
    assert [(len(executor.poll(0.25)), executor.clock()) for _ in range(3)] == [(0, 4), (0, 8), (1, 10)]


def test_a_trial_that_is_pruned_makes_room_at_once_and_tells_so_at_the_same_time(job_of: Callable[..., Job]) -> None:
    executor = on_slots(1, a=10, b=3)
    executor.clock.max_step_s = 4
    executor.submit(job_of("a"))
    executor.poll(0.25)
    executor.prune("a")
    executor.prune("nobody")
    assert executor.has_room(WHOLE_CORE)
    assert executor.poll(0.25) == [Pruned("a", 1, step=0, seconds=4)]
    executor.submit(job_of("b"))
    assert [(event.trial_id, executor.clock()) for event in executor.poll(0.25)] == [("b", 7)]


def test_nothing_more_is_heard_of_an_attempt_that_is_killed_and_the_next_goes_on_from_its_state(
    job_of: Callable[..., Job],
) -> None:
    executor = on_slots(1, every_s=3, a=10)
    executor.clock.max_step_s = 4
    executor.submit(job_of("a"))
    executor.poll(0.25)
    executor.kill("a")
    executor.submit(job_of("a", attempt=2))
    executor.clock.max_step_s = 100
    heard = [(event.attempt, executor.clock()) for _ in range(3) for event in executor.poll(0.25)]
    assert heard == [(2, 4 + (10 - 3))]


def test_neither_slots_nor_nodes_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="either num_slots or nodes"):
        SimulatedExecutor({}, draw=random.Random(0))
