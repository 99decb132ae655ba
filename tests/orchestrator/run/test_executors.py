"""The making of data and executor: for which shares, and what is left where it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator.execution.capacity import ClusterError
from orchestrator.execution.executor import Executor
from orchestrator.ledger.ledger import Ledger
from orchestrator.run import LEDGER_NAME, Datasets
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Finished
from orchestrator.trials.records import State
from orchestrator.trials.resources import ResourceFloor, ResourceRequest
from specvit.errors import DataError

from ..made_up import made_up_trial
from .driver import Driver


def test_data_that_cannot_be_read_on_a_first_run_leave_no_results_folder(
    driver: Driver, make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    sweep = make_sweep(data={"source": "image_folder", "root": str(tmp_path / "absent")})
    with pytest.raises(DataError, match="absent"):
        driver.run(sweep)
    assert not driver.folder.exists()
    assert driver.executors == []


def test_an_executor_that_cannot_be_made_leaves_a_sweep_that_can_be_run(
    driver: Driver, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoClusterError(Exception):
        pass

    def refuse(datasets: Datasets, shares: Sequence[ResourceRequest]) -> Executor:
        raise NoClusterError

    with monkeypatch.context() as patch:
        patch.setattr(driver, "_make_executor", refuse)
        with pytest.raises(NoClusterError):
            driver.run(sweep)
    monkeypatch.setattr("specvit.trial.run_trial", made_up_trial)
    assert driver.run(sweep).num_run == 8


@pytest.mark.usefixtures("made_up")
def test_the_executor_is_made_for_the_shares_of_what_is_to_run(
    driver: Driver, make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Sequence[ResourceRequest]] = []
    make = driver._make_executor

    def record(datasets: Datasets, shares: Sequence[ResourceRequest]) -> Executor:
        given.append(shares)
        return make(datasets, shares)

    monkeypatch.setattr(driver, "_make_executor", record)
    driver.run(make_sweep(seeds=1))
    resources = {"cpus": 2, "nano": {"gpus": 0.5}, "micro": {"gpus": 1}}
    driver.run(make_sweep(resources=resources))
    assert [list(shares) for shares in given] == [[ResourceRequest()] * 4, [ResourceRequest(cpus=2.0, gpus=0.5)] * 4]


@pytest.mark.usefixtures("made_up")
def test_larger_shares_that_this_cluster_has_no_room_for_are_left_aside(
    driver: Driver, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.run(sweep, stop_after=lambda event: isinstance(event, Finished))
    with Ledger.open(driver.folder / LEDGER_NAME) as ledger:
        ledger.write_resource_floor("nano", ResourceFloor(memory_gib=64.0))
    make, tried = driver._make_executor, []

    def make_small(datasets: Datasets, shares: Sequence[ResourceRequest]) -> Executor:
        tried.append(shares[0].memory_gib)
        if shares[0].memory_gib > 8:
            raise ClusterError("a trial takes 64 GiB of memory, but the cluster has 8")
        return make(datasets, shares)

    monkeypatch.setattr(driver, "_make_executor", make_small)
    outcome = driver.run(sweep)
    assert tried == [64.0, 0.0]
    assert {record.state for record in outcome.records} == {State.DONE}


@pytest.mark.usefixtures("made_up")
def test_a_cluster_without_room_for_what_the_file_says_is_refused(
    driver: Driver, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(datasets: Datasets, shares: Sequence[ResourceRequest]) -> Executor:
        raise ClusterError("no room")

    monkeypatch.setattr(driver, "_make_executor", refuse)
    with pytest.raises(ClusterError, match="no room"):
        driver.run(sweep)
