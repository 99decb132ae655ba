from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.forecast import Forecast, forecast, format_seconds, mean_seconds, trial_seconds
from orchestrator.records import State, TrialRecord
from orchestrator.trials import Trial


@pytest.fixture
def records(trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]) -> list[TrialRecord]:
    """Seed 0 is measured: baseline 10 s, floors 1 s and 3 s, arm 14 s; of seed 1 one trial was pruned after 2 s."""
    seconds = {"none": 10.0, "random init": 1.0, "raw pixels": 3.0, "norm@all": 14.0}
    measured = [record_of(t, State.DONE, seconds=seconds[t.arm]) for t in trials if t.seed == 0]
    pruned = [record_of(t, State.PRUNED, seconds=2.0) for t in trials if t.seed == 1 and t.arm == "norm@all"]
    return measured + pruned


def test_lengths_are_means_over_done_trials_with_the_floors_apart(records: list[TrialRecord]) -> None:
    group = records[0].group_id
    assert mean_seconds(records) == {(group, False): 12.0, (group, True): 2.0}


@pytest.mark.parametrize(
    ("measured", "floor", "expected"),
    [
        ({("a", False): 10.0, ("b", False): 30.0, ("a", True): 1.0}, False, 10.0),
        ({("b", False): 30.0, ("c", False): 10.0, ("a", True): 1.0}, False, 20.0),
        ({("b", False): 30.0}, True, 30.0),
        ({("a", True): 1.0}, False, None),
        ({}, False, None),
        ({}, True, None),
    ],
)
def test_a_trial_takes_as_long_as_its_like_and_a_floor_says_nothing_of_a_training(
    measured: dict[tuple[str, bool], float], floor: bool, expected: float | None
) -> None:
    assert trial_seconds(measured, "a", floor=floor) == expected


def test_forecast_adds_the_lengths_and_shares_them_among_the_slots(records: list[TrialRecord]) -> None:
    group = records[0].group_id
    pending = [(group, "baseline"), (group, "arm"), (group, "floor"), (group, "floor")]
    made = forecast(pending, records, num_slots=2)
    assert made == Forecast(num_pending=4, num_measured=4, work_s=12 + 12 + 2 + 2, num_slots=2)
    assert made.seconds == 14.0


def test_slots_without_a_trial_do_not_shorten_the_forecast(records: list[TrialRecord]) -> None:
    assert forecast([(records[0].group_id, "arm")], records, num_slots=8).seconds == 12.0


def test_forecast_is_unknown_if_the_length_of_any_trial_is(records: list[TrialRecord]) -> None:
    floors = [record for record in records if record.role == "floor"]
    group = records[0].group_id
    assert forecast([(group, "arm"), (group, "floor")], floors, num_slots=1).seconds is None
    assert forecast([(group, "floor")], floors, num_slots=1).seconds == 2.0


def test_forecast_of_nothing_is_no_time() -> None:
    assert forecast([], [], num_slots=4).seconds == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0.0, "0 s"),
        (89.4, "89 s"),
        (90.0, "2 min"),
        (12 * 60.0, "12 min"),
        (89 * 60.0, "89 min"),
        (90 * 60.0, "1 h 30 min"),
        (3 * 3600 + 5 * 60.0, "3 h 05 min"),
    ],
)
def test_durations_are_written_in_the_unit_that_people_would_use(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text
