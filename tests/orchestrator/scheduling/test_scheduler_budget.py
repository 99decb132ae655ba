"""Which trials a sweep's budget leaves out; played by script on a made-up clock, a letter a second."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.sweep.resolved import Limits
from orchestrator.trials.events import Started
from orchestrator.trials.records import State
from orchestrator.trials.trial import Trial

Trials = tuple[Trial, ...]
TEN = "s" + 8 * "p" + "F"
"""Takes ten seconds, of which it is pending in the first, and says that it took nine."""


def by_seed(trials: Trials) -> tuple[list[Trial], list[Trial]]:
    """Return the trained trials of seeds 0 and 1: a baseline and an arm each."""
    trained = [trial for trial in trials if trial.role != "floor"]
    return [t for t in trained if t.seed == 0], [t for t in trained if t.seed == 1]


@pytest.fixture
def seeds(trials: Trials) -> tuple[list[Trial], list[Trial]]:
    return by_seed(trials)


def hours(seconds: float) -> float:
    return seconds / 3600


def run(stage: Any, trials: list[Trial], limits: Limits, **settings: Any) -> bool:
    finished: bool = stage.run({trial: [TEN] for trial in trials}, trials=trials, limits=limits, **settings)
    return finished


def test_without_a_bound_nothing_is_left_out(stage: Any, seeds: tuple[list[Trial], list[Trial]]) -> None:
    assert run(stage, [*seeds[0], *seeds[1]], Limits())
    assert stage.left == []


def test_a_seed_that_does_not_fit_the_time_is_left_out_and_the_run_is_finished(
    stage: Any, seeds: tuple[list[Trial], list[Trial]]
) -> None:
    first, second = seeds
    # The first seed takes 20 s; of 30 s, 10 are left for two trials of about 9.
    assert run(stage, [*first, *second], Limits(time_budget_h=hours(30)))
    assert stage.left == [([trial.trial_id for trial in second], f"the time budget of {hours(30):g} h")]
    assert stage.states_of(*first, *second) == [State.DONE] * 2 + [State.SKIPPED] * 2
    assert {r.skip_reason for r in stage.ledger.records() if r.state is State.SKIPPED} == {stage.left[0][1]}


def test_a_seed_that_fits_is_run(stage: Any, seeds: tuple[list[Trial], list[Trial]]) -> None:
    assert run(stage, [*seeds[0], *seeds[1]], Limits(time_budget_h=hours(45)))
    assert stage.left == []


def test_with_more_slots_more_fits(stage: Any, seeds: tuple[list[Trial], list[Trial]]) -> None:
    assert run(stage, [*seeds[0], *seeds[1]], Limits(time_budget_h=hours(25)), num_slots=2)
    assert stage.left == []
    assert stage.clock.now_s - 1000.0 == 20.0


def test_once_a_seed_does_not_fit_all_that_follow_are_left_out(
    stage: Any, trials: Trials, seeds: tuple[list[Trial], list[Trial]]
) -> None:
    floors = [trial for trial in trials if trial.role == "floor" and trial.seed == 1]
    order = [*seeds[0], seeds[1][0], *floors, seeds[1][1]]
    assert run(stage, order, Limits(time_budget_h=hours(30)))
    assert [set(ids) for ids, _ in stage.left] == [{trial.trial_id for trial in order[2:]}]


def test_the_first_seed_is_begun_however_long_it_takes_and_ends_with_the_time(
    stage: Any, seeds: tuple[list[Trial], list[Trial]]
) -> None:
    # It is known from the other seed that a trial takes longer than there is time.
    assert run(stage, seeds[1], Limits())
    assert run(stage, seeds[0], Limits(time_budget_h=hours(15)))
    assert stage.states_of(*seeds[0]) == [State.DONE, State.RUNNING]
    stage.ledger.release_running()
    assert stage.states_of(*seeds[0]) == [State.DONE, State.SKIPPED]


def test_when_the_time_is_over_in_mid_run_what_runs_and_what_waits_is_left_out(
    stage: Any, seeds: tuple[list[Trial], list[Trial]]
) -> None:
    first, second = seeds
    assert run(stage, [*first, *second], Limits(time_budget_h=hours(5)))
    ((ids, _),) = stage.left
    assert set(ids) == {trial.trial_id for trial in (*first, *second)}
    stage.ledger.release_running()
    assert stage.states_of(*first, *second) == [State.SKIPPED] * 4
    # A run that has more time takes them in again.
    stage.ledger.clear_skipped()
    assert stage.states_of(*first, *second) == [State.WAITING] * 4
    assert run(stage, [*first, *second], Limits())
    assert stage.states_of(*first, *second) == [State.DONE] * 4


def test_gpu_hours_are_those_of_all_gpus_of_a_trial(stage: Any, seeds: tuple[list[Trial], list[Trial]]) -> None:
    first, second = seeds
    # Two trials of 2 processes with a GPU each take 36 GPU seconds, and two more would take as many.
    resources = {"gpus": 1.0, "processes": 2}
    limits = Limits(max_gpu_hours=hours(70))
    assert run(stage, [*first, *second], limits, resources=resources, gpus=2.0)
    assert stage.left == [([trial.trial_id for trial in second], f"the budget of {hours(70):g} GPU hours")]
    assert stage.ledger.gpu_hours() == pytest.approx(hours(36))


def test_gpu_hours_of_earlier_runs_count(
    stage: Any, seeds: tuple[list[Trial], list[Trial]]
) -> None:
    first, second = seeds
    limits = Limits(max_gpu_hours=hours(25))
    assert run(stage, first, limits, resources={"gpus": 1.0}, gpus=1.0)
    assert stage.states_of(*first) == [State.DONE] * 2
    assert run(stage, second, limits, resources={"gpus": 1.0}, gpus=1.0)
    # 18 GPU seconds were taken before; the second seed is the first of this run, but has to stop at 25.
    stage.ledger.release_running()
    assert stage.states_of(*second) == [State.SKIPPED] * 2


def test_trials_without_gpus_cost_no_gpu_hours(stage: Any, seeds: tuple[list[Trial], list[Trial]]) -> None:
    assert run(stage, [*seeds[0], *seeds[1]], Limits(max_gpu_hours=hours(1)))
    assert stage.left == []
    assert stage.ledger.gpu_hours() == 0.0


def test_gpu_hours_of_attempts_that_failed_count(stage: Any, seeds: tuple[list[Trial], list[Trial]]) -> None:
    first, second = seeds
    limits = Limits(max_gpu_hours=hours(49), max_retries=1)
    scripts = {first[0]: ["s" + 13 * "p" + "X", TEN], first[1]: [TEN]}
    assert stage.run(scripts, trials=[*first, *second], limits=limits, resources={"gpus": 1.0}, gpus=1.0)
    assert stage.states_of(*first, *second) == [State.DONE] * 2 + [State.SKIPPED] * 2
    assert stage.ledger.gpu_hours() == pytest.approx(hours(14 + 9 + 9))


def test_gpu_hours_of_an_attempt_that_was_interrupted_count_to_its_end(
    stage: Any, seeds: tuple[list[Trial], list[Trial]]
) -> None:
    scripts = {seeds[0][0]: ["s" + 100 * "."]}
    limits = Limits(max_gpu_hours=hours(30))
    assert stage.run(scripts, trials=seeds[0], limits=limits, resources={"gpus": 1.0}, gpus=1.0)
    stage.ledger.release_running()
    assert stage.ledger.gpu_hours() == pytest.approx(hours(30))


def test_a_spent_budget_lets_nothing_start(stage: Any, seeds: tuple[list[Trial], list[Trial]]) -> None:
    gpu_second = {"gpus": 1.0}
    assert run(stage, seeds[0], Limits(), resources=gpu_second, gpus=1.0)
    assert run(stage, seeds[1], Limits(max_gpu_hours=hours(18)), resources=gpu_second, gpus=1.0)
    assert stage.executor.jobs == []
    assert stage.states_of(*seeds[1]) == [State.SKIPPED] * 2


def test_a_trial_of_a_seed_that_has_begun_is_tried_again_whatever_fits(
    stage: Any, seeds: tuple[list[Trial], list[Trial]]
) -> None:
    first, second = seeds
    scripts = {first[0]: [TEN], first[1]: ["spX", TEN]}
    assert stage.run(scripts, trials=[*first, *second], limits=Limits(time_budget_h=hours(35)))
    assert stage.states_of(*first, *second) == [State.DONE] * 2 + [State.SKIPPED] * 2


def test_the_view_hears_of_nothing_more_of_what_was_left_out(
    stage: Any, seeds: tuple[list[Trial], list[Trial]]
) -> None:
    run(stage, [*seeds[0], *seeds[1]], Limits(time_budget_h=hours(30)))
    begun = {event.trial_id for event in stage.heard if isinstance(event, Started)}
    assert begun == {trial.trial_id for trial in seeds[0]} == set(stage.submissions)
