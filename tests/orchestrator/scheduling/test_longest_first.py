from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from orchestrator.execution.simulated import SimulatedExecutor
from orchestrator.ledger.in_memory import InMemoryLedger
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.budget import Budget
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.longest_first import LongestFirst
from orchestrator.scheduling.pruning import Judge
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.scheduling.simulation import _Recorder
from orchestrator.storage.command_inbox import Command, Retry
from orchestrator.sweep.pruning_settings import NoPruning
from orchestrator.sweep.resolved import Limits
from orchestrator.sweep.resource_settings import Resources
from orchestrator.trials.trial import Role, Trial


@pytest.fixture(autouse=True)
def _few_slots_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cases that can be worked out by hand show what happens from eight slots on."""
    monkeypatch.setattr("orchestrator.scheduling.longest_first._FEW_SLOTS", 1)


@pytest.fixture
def make(trials: tuple[Trial, ...]) -> Callable[[str], list[Trial]]:
    """Make a trial of each letter, the letter being its arm."""
    return lambda arms: [replace(trials[0], trial_id=f"{i}", arm_id=arm) for i, arm in enumerate(arms)]


def lengths(group_id: str, **seconds: float) -> TrialDurations:
    known = TrialDurations()
    for arm, length in seconds.items():
        known.add(group_id, Role.ARM, length, arm)
    return known


def arms(trials: Sequence[Trial]) -> str:
    return "".join(trial.arm_id for trial in trials)


def test_the_order_is_kept_as_long_as_no_trial_takes_as_long_as_all_the_rest(
    make: Callable[[str], list[Trial]],
) -> None:
    waiting = make("sls" * 10)
    urgency = LongestFirst(lengths(waiting[0].group_id, s=1, l=10), clock=lambda: 0.0)
    # 120 s of work on 2 slots: 60 s to come, of which the longest trial takes a sixth.
    assert urgency.sorted(waiting, running=[], num_slots=lambda: 2) is waiting
    # On 20 slots 6 s are to come, and each of the ten long ones takes longer than that.
    assert arms(urgency.sorted(waiting, running=[], num_slots=lambda: 20)) == "l" * 10 + "s" * 20


def test_urgent_trials_of_about_the_same_length_keep_their_order_the_longer_go_first(
    make: Callable[[str], list[Trial]],
) -> None:
    waiting = make("abcd")
    urgency = LongestFirst(lengths(waiting[0].group_id, a=1, b=10, c=20, d=11), clock=lambda: 0.0)
    assert arms(urgency.sorted(waiting, running=[], num_slots=lambda: 4)) == "cbda"


def test_nothing_is_sorted_nor_asked_of_the_slots_while_a_length_is_unknown(
    make: Callable[[str], list[Trial]],
) -> None:
    def never() -> int:
        raise AssertionError

    waiting = make("ab")
    urgency = LongestFirst(TrialDurations(), clock=lambda: 0.0)
    assert urgency.sorted(waiting, running=[], num_slots=never) is waiting
    assert urgency.is_due


def test_a_trial_that_runs_tells_that_its_like_take_at_least_so_long(make: Callable[[str], list[Trial]]) -> None:
    first, *waiting = make("asss" + "a")
    known = lengths(first.group_id, s=2)  # of the arm "a" is guessed what its group takes
    urgency = LongestFirst(known, clock=lambda: 0.0)
    assert arms(urgency.sorted(waiting, running=[(first, 1.0)], num_slots=lambda: 2)) == "sssa"
    assert arms(urgency.sorted(waiting, running=[(first, 30.0)], num_slots=lambda: 2)) == "asss"


def test_it_is_time_to_look_again_after_a_part_of_the_time_that_is_left(make: Callable[[str], list[Trial]]) -> None:
    now_s = 0.0
    waiting = make("s" * 100)
    urgency = LongestFirst(lengths(waiting[0].group_id, s=1), clock=lambda: now_s)
    assert urgency.is_due
    urgency.sorted(waiting, running=[], num_slots=lambda: 2)
    assert not urgency.is_due
    now_s = 50 / 2  # of 50 s to come
    assert urgency.is_due


def test_under_a_budget_seeds_that_have_begun_are_sorted_and_no_trial_is_forgotten_or_run_twice(
    trials: tuple[Trial, ...],
) -> None:
    def of_seed(seed: int, arm: str) -> Trial:
        config = replace(trials[0].config, seed=seed)
        return replace(trials[0], trial_id=f"{arm}{seed}", arm_id=arm, seed=seed, config=config)

    run = [of_seed(seed, arm) for seed in (0, 1) for arm in "abcl"]
    again = of_seed(0, "x")  # a failed trial of the first seed, which a user wants to be tried again: it comes last
    seconds = {"a": 2.0, "b": 2.0, "c": 2.0, "x": 2.0, "l": 9.0}
    executor = SimulatedExecutor(
        {t.trial_id: seconds[t.arm_id] for t in [*run, again]}, draw=random.Random(0), num_slots=2
    )
    record, recorder = InMemoryLedger(t.trial_id for t in [*run, again]), _Recorder(executor.clock)
    orders: Iterator[Sequence[Command]] = iter([[Retry((again.trial_id,))]])
    Scheduler(
        ledger=record,
        judge=Judge(NoPruning(), higher_is_better=True, records=()),
        executor=executor,
        callbacks=[recorder],
        allocator=Allocator(Resources()),
        budget=Budget(Limits(time_budget_h=1), clock=executor.clock),
        durations=lengths(run[0].group_id, **seconds),
        trials_by_id={t.trial_id: t for t in [*run, again]},
        commands=lambda: next(orders, ()),
        clock=executor.clock,
    ).run(run)
    # Nothing is sorted before the first seed has begun; then its long trial goes first, ahead of the next seed's.
    assert recorder.started[:3] == ["a0", "b0", "l0"]
    assert sorted(recorder.started) == sorted(t.trial_id for t in [*run, again])
    assert recorder.started.index("l1") > recorder.started.index("a1")


def test_on_few_slots_the_order_is_kept_to_the_last_trial(
    make: Callable[[str], list[Trial]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.scheduling.longest_first._FEW_SLOTS", 8)
    waiting = make("sl")
    urgency = LongestFirst(lengths(waiting[0].group_id, s=1, l=100), clock=lambda: 0.0)
    assert urgency.sorted(waiting, running=[], num_slots=lambda: 7) is waiting
    assert arms(urgency.sorted(waiting, running=[], num_slots=lambda: 8)) == "ls"
