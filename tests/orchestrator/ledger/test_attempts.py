from __future__ import annotations

import math

import pytest

from orchestrator.ledger.attempts import (
    FailedTrial,
    LogLine,
    TrialName,
    find_trial,
    select_attempts,
    select_failed,
    select_names,
)
from orchestrator.ledger.ledger import Ledger
from orchestrator.trials.events import Failed, Finished, Logged, Reported, Started
from orchestrator.trials.records import Cause
from orchestrator.trials.trial import Trial
from specvit.errors import SpecsweepError

NAMES = (
    TrialName("abcd" + "0" * 60, "nano none seed 1"),
    TrialName("abce" + "0" * 60, "nano norm@all seed 1"),
    TrialName("beef" + "0" * 60, "nano norm@all+mlp@all seed 1"),
    TrialName("f00d" + "0" * 60, "nano none seed 1", in_sweep=False),
)


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("nano norm@all seed 1", 1),
        ("none", 0),
        ("mlp", 2),
        ("abcd", 0),
        ("abce0000", 1),
        ("f00d", 3),
        ("nano none seed 1", 0),
    ],
)
def test_a_trial_is_found_by_its_label_a_part_of_it_and_the_beginning_of_its_id(text: str, index: int) -> None:
    assert find_trial(NAMES, text) is NAMES[index]


def test_an_arm_that_is_named_whole_is_found_although_other_arms_contain_its_name() -> None:
    assert find_trial(NAMES, "norm@all").label == "nano norm@all seed 1"
    assert find_trial(NAMES, "norm@all seed 1").label == "nano norm@all seed 1"


def test_a_text_that_fits_several_trials_is_refused_and_they_are_listed() -> None:
    with pytest.raises(SpecsweepError) as caught:
        find_trial(NAMES, "norm@")
    assert str(caught.value).splitlines() == [
        "'norm@' fits 2 trials; give one of these labels or ids:",
        "  abce00000000  nano norm@all seed 1",
        "  beef00000000  nano norm@all+mlp@all seed 1",
    ]


def test_of_many_candidates_ten_are_listed_and_the_others_counted() -> None:
    names = [TrialName(f"{number:064x}", f"arm seed {number}") for number in range(13)]
    with pytest.raises(SpecsweepError) as caught:
        find_trial(names, "arm")
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  and 3 more"


@pytest.mark.parametrize("text", ["qkv", "", "abc", "ABCD", "f00d1"])
def test_a_text_that_fits_no_trial_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(SpecsweepError, match=f"^{text!r}: no trial has"):
        find_trial(NAMES, text)


def test_names_come_in_the_sweeps_order_and_trials_that_left_it_last(
    ledger: Ledger, trials: tuple[Trial, ...]
) -> None:
    ledger.register(ledger.sweep(), trials[1:], ledger.provenance()[0])
    with ledger.snapshot() as connection:
        names = select_names(connection)
    assert [name.trial_id for name in names] == [trial.trial_id for trial in (*trials[1:], trials[0])]
    assert [name.in_sweep for name in names] == [*[True] * 7, False]


def test_every_attempt_comes_back_with_its_own_rungs_log_and_end(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    key = trials[0].trial_id
    first = ledger.begin_attempt(key)
    ledger.record(Started(key, first, "node:1"))
    ledger.record(Reported(key, first, 2, {"knn_top1": math.nan}))
    ledger.record(Logged(key, first, "WARNING", "one"))
    ledger.record(Logged(key, first, "INFO", "two\nlines"))
    ledger.record(Failed(key, first, "boom", "Traceback\nboom", 3.0, Cause.GPU_MEMORY))
    second = ledger.begin_attempt(key)
    ledger.record(Reported(key, second, 2, {"knn_top1": 1.0}))
    ledger.record(Finished(key, second, {"knn_top1": 2.0}, 4.0, 5.0))
    with ledger.snapshot() as connection:
        one, two = select_attempts(connection, key)
    assert (one.number, one.state, one.cause, one.worker) == (1, "failed", Cause.GPU_MEMORY, "node:1")
    assert (one.error, one.traceback, one.seconds, one.metrics) == ("boom", "Traceback\nboom", 3.0, {})
    assert one.submitted_at <= (one.started_at or "") <= (one.ended_at or "")
    assert [math.isnan(report.metrics["knn_top1"]) for report in one.reports] == [True]
    assert [(line.level, line.text) for line in one.logs] == [("WARNING", "one"), ("INFO", "two\nlines")]
    assert all(isinstance(line, LogLine) and line.logged_at.endswith("+00:00") for line in one.logs)
    assert (two.number, two.state, two.cause, two.started_at, two.logs) == (2, "done", None, None, ())
    assert (two.metrics, two.reports[0].metrics, two.traceback) == ({"knn_top1": 2.0}, {"knn_top1": 1.0}, None)


def test_a_trial_that_was_never_attempted_has_no_attempts(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    with ledger.snapshot() as connection:
        assert select_attempts(connection, trials[0].trial_id) == ()


def test_the_last_failure_of_every_trial_comes_with_what_became_of_it(
    ledger: Ledger, trials: tuple[Trial, ...]
) -> None:
    back, gone = trials[2], trials[1]
    for trial, errors in ((back, ["one", "two"]), (gone, ["three"])):
        for error in errors:
            attempt = ledger.begin_attempt(trial.trial_id)
            ledger.record(Failed(trial.trial_id, attempt, error, "", 1.0, Cause.WORKER))
    ledger.record(Finished(back.trial_id, ledger.begin_attempt(back.trial_id), {}, 1.0, 1.0))
    ledger.begin_attempt(trials[0].trial_id)
    with ledger.snapshot() as connection:
        failed = select_failed(connection)
    assert failed == (
        FailedTrial(gone.trial_id, gone.label, "failed", 1, 1, 1, Cause.WORKER, "three"),
        FailedTrial(back.trial_id, back.label, "done", 3, 2, 2, Cause.WORKER, "two"),
    )
