"""Runs that stop before their end, by order, by a budget or by death, and what the next does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.execution.local import LocalExecutor
from orchestrator.ledger.ledger import Ledger
from orchestrator.run import LEDGER_NAME
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Event, Finished, Started
from orchestrator.trials.records import State

from ..made_up import waiting_trial
from .driver import Driver, results


@pytest.mark.usefixtures("made_up")
def test_a_run_that_is_stopped_and_continued_finds_what_an_uninterrupted_one_does(
    tmp_path: Path, make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(seeds=1, floors=["random_init"])
    whole = Driver(tmp_path / "whole").run(sweep)
    driver = Driver(tmp_path / "stopped")
    last = expand(sweep)[-1]

    def in_the_middle_of_the_last(event: Event) -> bool:
        return isinstance(event, Started) and event.trial_id == last.trial_id

    with monkeypatch.context() as patch:
        patch.setattr("specvit.trial.run_trial", waiting_trial)
        stopped = driver.run(sweep, stop_after=in_the_middle_of_the_last)
    assert not stopped.finished
    assert [record.state for record in stopped.records] == [State.DONE, State.DONE, State.WAITING]
    assert (driver.folder / "table.csv").exists()
    continued = driver.run(sweep)
    assert driver.submitted == [last.label]
    assert continued.finished
    assert results(continued) == results(whole)
    assert all(metrics["knn_top1"] >= 0 for metrics in results(whole).values())
    assert [record.num_attempts for record in continued.records] == [1, 1, 2]


@pytest.mark.usefixtures("made_up")
def test_a_driver_that_died_leaves_nothing_that_has_to_be_cleaned_up(driver: Driver, sweep: Sweep) -> None:
    driver.run(sweep, stop_after=lambda event: isinstance(event, Finished))
    with Ledger.open(driver.folder / LEDGER_NAME) as ledger:
        ledger.begin_attempt(ledger.records()[-1].trial.trial_id)
    outcome = driver.run(sweep)
    assert len(driver.submitted) == 7
    assert [record.state for record in outcome.records] == [State.DONE] * 8
    assert outcome.records[-1].num_attempts == 2


@pytest.mark.usefixtures("made_up")
def test_the_executor_is_closed_also_if_the_view_breaks(
    driver: Driver, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[LocalExecutor] = []
    monkeypatch.setattr(LocalExecutor, "close", lambda executor: closed.append(executor))

    def broken(event: Event) -> bool:
        raise OSError("no more room on the terminal")

    with pytest.raises(OSError, match="no more room"):
        driver.run(sweep, stop_after=broken)
    assert closed == driver.executors


@pytest.mark.usefixtures("made_up")
def test_what_a_budget_has_no_room_for_is_left_out_and_a_run_with_more_takes_it_in(
    driver: Driver, make_sweep: Callable[..., Sweep]
) -> None:
    outcome = driver.run(make_sweep(time_budget_h=1e-9))
    assert outcome.finished
    assert {record.state for record in outcome.records} == {State.SKIPPED}
    assert {record.skip_reason for record in outcome.records} == {"the time budget of 1e-09 h"}
    outcome = driver.run(make_sweep())
    assert (outcome.num_run, {record.state for record in outcome.records}) == (8, {State.DONE})
