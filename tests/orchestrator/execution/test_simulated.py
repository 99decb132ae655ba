from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from orchestrator.execution.capacity import Node
from orchestrator.execution.executor import Job
from orchestrator.execution.simulated import Conditions, SimulatedExecutor
from orchestrator.trials.events import Finished, Pruned
from orchestrator.trials.resources import WHOLE_CORE
from orchestrator.trials.trial import Trial


@pytest.fixture
def job_of(trials: tuple[Trial, ...]) -> Callable[..., Job]:
    return lambda trial_id, attempt=1: Job(trial_id, attempt, trial_id, trials[0].config)


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
    assert executor.poll(0.25) == ()
    assert executor.clock() == 7


def test_the_clock_moves_no_further_at_once_than_it_may(job_of: Callable[..., Job]) -> None:
    executor = on_slots(1, a=10)
    executor.max_step_s = 4
    executor.submit(job_of("a"))
    assert [(len(executor.poll(0.25)), executor.clock()) for _ in range(3)] == [(0, 4), (0, 8), (1, 10)]


def test_a_trial_that_is_pruned_makes_room_at_once_and_tells_so_at_the_same_time(job_of: Callable[..., Job]) -> None:
    executor = on_slots(1, a=10, b=3)
    executor.max_step_s = 4
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
    executor.max_step_s = 4
    executor.submit(job_of("a"))
    executor.poll(0.25)
    executor.kill("a")
    executor.submit(job_of("a", attempt=2))
    executor.max_step_s = 100
    heard = [(event.attempt, executor.clock()) for _ in range(3) for event in executor.poll(0.25)]
    assert heard == [(2, 4 + (10 - 3))]


def test_slots_are_counted_anew_when_a_node_is_gone_and_when_it_is_back(job_of: Callable[..., Job]) -> None:
    conditions = Conditions(node_life_s=1, node_absence_s=1e-6)
    nodes = [Node(name, {"CPU": 2.0}) for name in "ab"]
    executor = SimulatedExecutor(
        dict.fromkeys("vwxyz", 1e9), draw=random.Random(0), nodes=nodes, shares=[WHOLE_CORE], conditions=conditions
    )
    assert executor.num_slots == 4
    executor.submit(job_of("v"))
    counts = []
    for _ in range(2):
        executor.poll(0.25)
        counts.append(executor.num_slots)
    assert counts == [2, 4]


def test_neither_slots_nor_nodes_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="either num_slots or nodes"):
        SimulatedExecutor({}, draw=random.Random(0))
