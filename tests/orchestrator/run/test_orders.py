"""Orders to a run: obeyed from its start on, and by no other run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import pytest

from orchestrator import control
from orchestrator.execution.executor import Executor
from orchestrator.run import Datasets, describe
from orchestrator.storage.command_inbox import FOLDER_NAME, Cancel, Prune, send
from orchestrator.storage.folder_lock import is_held
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.resources import ResourceRequest
from specvit.errors import SpecsweepError

from ..made_up import made_up_trial, waiting_trial
from .driver import Driver, order_once


@pytest.mark.usefixtures("made_up")
def test_an_order_given_while_a_run_starts_is_obeyed(
    driver: Driver, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_executor = driver._make_executor

    def give_and_make(datasets: Datasets, shares: int) -> Executor:
        assert is_held(driver.folder)
        send(driver.folder, Cancel())
        return make_executor(datasets, shares)

    monkeypatch.setattr("orchestrator.storage.command_inbox._PERIOD_S", 0.0)
    monkeypatch.setattr(driver, "_make_executor", give_and_make)
    outcome = driver.run(sweep)
    assert not outcome.finished
    assert {record.state for record in outcome.records} == {State.WAITING}


def test_an_order_to_cancel_stops_the_run_and_the_next_one_goes_on(
    driver: Driver, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("specvit.trial.run_trial", waiting_trial)
        outcome = driver.run(sweep, stop_after=order_once(driver.folder, Cancel()))
    assert not outcome.finished
    states = {record.trial.label: record.state for record in outcome.records}
    assert states["nano none seed 0"] is State.DONE
    assert states["nano norm@all seed 0"] is State.WAITING
    assert list((driver.folder / FOLDER_NAME).iterdir()) == []
    monkeypatch.setattr("specvit.trial.run_trial", made_up_trial)
    assert driver.run(sweep).finished


def test_an_order_to_prune_ends_the_trial_that_runs_and_the_table_says_so(
    driver: Driver, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = tuple(trial.trial_id for trial in expand(sweep) if trial.role == "arm")
    monkeypatch.setattr("specvit.trial.run_trial", waiting_trial)
    outcome = driver.run(sweep, stop_after=order_once(driver.folder, Prune(arms)))
    assert outcome.finished
    assert {record.trial.arm: record.state for record in outcome.records if record.trial.role == "arm"} == {
        "norm@all": State.PRUNED
    }
    table = pd.read_csv(driver.folder / "table.csv").set_index("arm")
    assert table["pruned"]["norm@all"] == 2
    assert driver.run(sweep).num_run == 0


@pytest.mark.usefixtures("made_up")
def test_commands_to_an_earlier_run_are_not_obeyed(driver: Driver, sweep: Sweep) -> None:
    driver.folder.mkdir(parents=True)
    send(driver.folder, Cancel())
    outcome = driver.run(sweep)
    assert outcome.finished
    assert not (driver.folder / FOLDER_NAME).exists()


@pytest.mark.usefixtures("made_up")
def test_an_order_given_while_the_executor_starts_is_obeyed(
    driver: Driver, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = driver._make_executor

    def make_slowly(datasets: Datasets, shares: Sequence[ResourceRequest]) -> Executor:
        send(driver.folder, Cancel())  # a cluster takes seconds to start
        return make(datasets, shares)

    monkeypatch.setattr(driver, "_make_executor", make_slowly)
    monkeypatch.setattr("orchestrator.storage.command_inbox._PERIOD_S", 0.0)
    assert not driver.run(sweep).finished


@pytest.mark.parametrize(("arm", "why"), [("none", "is the baseline"), ("repeat", "is a control")])
def test_neither_the_baseline_nor_a_control_is_pruned_by_order(
    arm: str, why: str, driver: Driver, make_sweep: Callable[..., Sweep]
) -> None:
    sweep = make_sweep(controls=["repeat"])
    trials = expand(sweep)
    records = [TrialRecord(trial, State.WAITING) for trial in trials]
    with pytest.raises(SpecsweepError, match=f"'{arm}' {why}.*it is not pruned"):
        control.prune(driver.folder, records, describe(sweep, trials, {}), arm=arm)
