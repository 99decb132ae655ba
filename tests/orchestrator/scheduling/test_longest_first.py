from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.execution.capacity import Node
from orchestrator.execution.simulated import SimulatedExecutor
from orchestrator.ledger.in_memory import InMemoryLedger
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.budget import Budget
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.longest_first import LongestFirst
from orchestrator.scheduling.pruning import Judge
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.scheduling.simulation import Simulated, _Recorder, simulate
from orchestrator.storage.command_inbox import Command, Retry
from orchestrator.sweep.pruning_settings import NoPruning
from orchestrator.sweep.resolved import Limits
from orchestrator.sweep.resource_settings import Resources
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Role, Trial

CORE = ResourceRequest()
NODE = Node("a", {"CPU": 64.0, "GPU": 16.0})


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


def on(slots: int) -> dict[str, Any]:
    """Return what ``sorted`` is told where all trials are alike and so many run at once."""
    return {"share_of": lambda _: CORE, "least_s": lambda work: sum(work.values()) / slots}


def arms(trials: Sequence[Trial]) -> str:
    return "".join(trial.arm_id for trial in trials)


def test_the_order_is_kept_as_long_as_no_trial_takes_as_long_as_all_the_rest(
    make: Callable[[str], list[Trial]],
) -> None:
    waiting = make("sls" * 10)
    urgency = LongestFirst(lengths(waiting[0].group_id, s=1, l=10), clock=lambda: 0.0)
    # 120 s of work on 2 slots: 60 s to come, of which the longest trial takes a sixth.
    assert urgency.sorted(waiting, running=[], **on(2)) is waiting
    # On 20 slots 6 s are to come, and each of the ten long ones takes longer than that.
    assert arms(urgency.sorted(waiting, running=[], **on(20))) == "l" * 10 + "s" * 20


def test_urgent_trials_of_about_the_same_length_keep_their_order_the_longer_go_first(
    make: Callable[[str], list[Trial]],
) -> None:
    waiting = make("abcd")
    urgency = LongestFirst(lengths(waiting[0].group_id, a=1, b=10, c=20, d=11), clock=lambda: 0.0)
    assert arms(urgency.sorted(waiting, running=[], **on(4))) == "cbda"


def test_nothing_is_sorted_nor_asked_of_the_slots_while_a_length_is_unknown(
    make: Callable[[str], list[Trial]],
) -> None:
    def never(_: object) -> float:
        raise AssertionError

    waiting = make("ab")
    urgency = LongestFirst(TrialDurations(), clock=lambda: 0.0)
    assert urgency.sorted(waiting, running=[], share_of=lambda _: CORE, least_s=never) is waiting
    assert urgency.is_due


def test_a_trial_that_runs_tells_that_its_like_take_at_least_so_long(make: Callable[[str], list[Trial]]) -> None:
    first, *waiting = make("asss" + "a")
    known = lengths(first.group_id, s=2)  # of the arm "a" is guessed what its group takes
    urgency = LongestFirst(known, clock=lambda: 0.0)
    assert arms(urgency.sorted(waiting, running=[(first, 1.0)], **on(2))) == "sssa"
    assert arms(urgency.sorted(waiting, running=[(first, 30.0)], **on(2))) == "asss"


def test_it_is_time_to_look_again_after_a_part_of_the_time_that_is_left(make: Callable[[str], list[Trial]]) -> None:
    now_s = 0.0
    waiting = make("s" * 100)
    urgency = LongestFirst(lengths(waiting[0].group_id, s=1), clock=lambda: now_s)
    assert urgency.is_due
    urgency.sorted(waiting, running=[], **on(2))
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
    assert urgency.sorted(waiting, running=[], **on(7)) is waiting
    assert arms(urgency.sorted(waiting, running=[], **on(8))) == "ls"


def simulate_mixture(
    first: Trial, arms: Sequence[tuple[str, float]], by_scale: dict[str, dict[str, float]], *, num_seeds: int = 1
) -> tuple[Simulated, list[Trial]]:
    """Run arms, each of a scale and a length in seconds that are known, seed after seed on one node of 16 GPUs."""
    trials, seconds, known = [], {}, TrialDurations()
    for seed in range(num_seeds):
        for arm, (scale, length_s) in enumerate(arms):
            config = replace(first.config, seed=seed, model=replace(first.config.model, scale=scale))
            ids = {"trial_id": f"{arm} of {seed}", "group_id": scale, "arm_id": f"{arm}"}
            trials.append(replace(first, **ids, role=Role.ARM, seed=seed, config=config))
            seconds[trials[-1].trial_id] = length_s
            known.add(scale, Role.ARM, length_s, f"{arm}")
    allocator = Allocator(Resources(by_scale=by_scale))  # type: ignore[arg-type]
    return simulate(trials, seconds, allocator=allocator, nodes=[NODE], known=known), trials


def test_where_the_first_trial_takes_little_large_ones_are_not_taken_for_urgent_and_seeds_keep_their_order(
    trials: tuple[Trial, ...],
) -> None:
    # 64 of the first kind run at once, of the others four: a seed takes 100 + 200 s, and four of them 1200.
    arms = [("nano", 60.0), *[("micro", 100.0)] * 4, *[("micro", 200.0)] * 4]
    ran, drawn = simulate_mixture(trials[0], arms, {"nano": {"cpus": 1}, "micro": {"gpus": 4}}, num_seeds=4)
    assert ran.makespan_s == pytest.approx(1200.0)
    assert ran.seed_complete_s(drawn) == pytest.approx(300.0)
    ends_s = [max(ran.ended_s[t.trial_id] for t in drawn if t.seed == seed) for seed in range(4)]
    assert ends_s == pytest.approx([300.0, 600.0, 900.0, 1200.0])


def test_where_the_first_trial_takes_much_a_long_small_one_does_not_wait_until_all_others_have_started(
    trials: tuple[Trial, ...],
) -> None:
    # (8 x 60 + 32 x 100 + 600) / 16 = 267.5 s of all GPUs; in its place the last one would start after 200 s.
    arms = [("micro", 60.0), *[("nano", 100.0)] * 32, ("nano", 600.0)]
    ran, drawn = simulate_mixture(trials[0], arms, {"nano": {"gpus": 1}, "micro": {"gpus": 8}})
    assert ran.started[0] == drawn[-1].trial_id
    assert ran.makespan_s == pytest.approx(600.0)
