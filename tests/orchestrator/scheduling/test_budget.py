from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scheduling.budget import Budget, Work
from orchestrator.sweep.resolved import Limits


def at(now_s: float) -> Callable[[], float]:
    """Return a clock that shows 0 at first and ``now_s`` from then on."""
    times = iter([0.0])
    return lambda: next(times, now_s)


def budget_of(*, now_s: float = 0.0, used_h: float = 0.0, **limits: float) -> Budget:
    return Budget(Limits(**limits), clock=at(now_s), gpu_hours_used=used_h)  # type: ignore[arg-type]


def reason_of(budget: Budget, more: list[Work], *, left: list[Work], running: list[Work], slots: int) -> str:
    """Ask whether a seed fits where as many trials run at once as there are slots."""
    to_do = [*more, *left]
    least_s = sum(work.seconds for work in to_do) / slots
    return budget.too_small_for(to_do, running=running, least_s=least_s)


def test_without_limits_nothing_is_bounded_nor_ever_spent() -> None:
    budget = budget_of(now_s=1e9, used_h=1e9)
    assert not budget.is_bounded
    assert budget.spent([Work(1e9, 8.0)]) == ""
    assert budget.too_small_for([Work(1e9, 8.0)], running=[], least_s=1e9) == ""


@pytest.mark.parametrize("limits", [{"time_budget_h": 1.0}, {"max_gpu_hours": 1.0}])
def test_any_limit_is_a_bound(limits: dict[str, float]) -> None:
    assert budget_of(**limits).is_bounded


@pytest.mark.parametrize(("now_s", "expected"), [(3599.0, ""), (3600.0, "the time budget of 1 h")])
def test_time_is_spent_by_the_clock(now_s: float, expected: str) -> None:
    assert budget_of(now_s=now_s, time_budget_h=1.0).spent([]) == expected


@pytest.mark.parametrize(
    ("used_h", "ended", "running", "expected"),
    [
        (0.0, [], [], ""),
        (2.0, [], [], "the budget of 2 GPU hours"),
        (1.0, [Work(1800.0, 2.0)], [], "the budget of 2 GPU hours"),
        (1.0, [Work(1799.0, 2.0)], [], ""),
        (1.0, [Work(900.0, 2.0)], [Work(450.0, 4.0)], "the budget of 2 GPU hours"),
        (1.9, [Work(1e6, 0.0)], [], ""),
    ],
)
def test_gpu_hours_are_those_of_earlier_runs_of_what_has_ended_and_of_what_runs(
    used_h: float, ended: list[Work], running: list[Work], expected: str
) -> None:
    budget = budget_of(used_h=used_h, max_gpu_hours=2.0)
    for work in ended:
        budget.spend(work)
    assert budget.spent(running) == expected


@pytest.mark.parametrize(
    ("more", "left", "slots", "fits"),
    [
        ([900.0, 900.0], [], 1, True),  # 1800 s are left of the hour
        ([900.0, 901.0], [], 1, False),
        ([900.0] * 4, [], 2, True),
        ([900.0] * 4, [100.0], 2, False),
        ([1801.0], [], 8, False),  # it does not get shorter by more slots
        ([100.0], [1801.0], 8, False),
        ([], [], 1, True),
    ],
)
def test_a_seed_fits_if_the_slots_can_do_it_in_the_time_that_is_left(
    more: list[float], left: list[float], slots: int, fits: bool
) -> None:
    budget = budget_of(now_s=1800.0, time_budget_h=1.0)
    reason = reason_of(
        budget,
        [Work(seconds, 0.0) for seconds in more],
        running=[],
        left=[Work(seconds, 0.0) for seconds in left],
        slots=slots,
    )
    assert reason == ("" if fits else "the time budget of 1 h")


@pytest.mark.parametrize(("seconds", "fits"), [(900.0, True), (901.0, False)])
def test_a_seed_fits_if_its_gpu_hours_do(seconds: float, fits: bool) -> None:
    # Of 2 hours, 1 was used before, a quarter has been taken and another is to come: half an hour is left.
    budget = budget_of(used_h=1.0, max_gpu_hours=2.0)
    reason = reason_of(
        budget, [Work(seconds, 1.0)] * 2, running=[Work(450.0, 2.0)], left=[Work(450.0, 2.0)], slots=1
    )
    assert reason == ("" if fits else "the budget of 2 GPU hours")


def test_of_two_bounds_each_counts() -> None:
    budget = budget_of(time_budget_h=1.0, max_gpu_hours=1.0)
    assert budget.too_small_for([Work(1800.0, 3.0)], running=[], least_s=1800.0) == "the budget of 1 GPU hours"
    assert budget.too_small_for([Work(3601.0, 0.5)], running=[], least_s=3601.0) == "the time budget of 1 h"
    assert budget.too_small_for([Work(1800.0, 1.0)], running=[], least_s=1800.0) == ""
    assert budget.too_small_for([Work(1800.0, 1.0)], running=[], least_s=3601.0) == "the time budget of 1 h"


_WORK = st.builds(Work, seconds=st.floats(0.0, 1e6), gpus=st.floats(0.0, 8.0))


@given(st.lists(_WORK, max_size=6), st.lists(_WORK, max_size=4), st.integers(1, 8))
def test_what_fits_fits_with_more_slots_too_and_without_some_of_it(
    more: list[Work], left: list[Work], slots: int
) -> None:
    def fits(more: list[Work], slots: int) -> bool:
        budget = budget_of(now_s=100.0, time_budget_h=50.0, max_gpu_hours=500.0)
        return not reason_of(budget, more, running=left, left=left, slots=slots)

    if fits(more, slots):
        assert fits(more, slots + 1)
        assert fits(more[1:], slots)
