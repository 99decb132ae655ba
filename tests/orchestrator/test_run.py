from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.execution.capacity import ClusterError
from orchestrator.execution.executor import Executor, Job, Place
from orchestrator.execution.local import LocalExecutor
from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.run import LEDGER_NAME, Datasets, Outcome, load_datasets, run_sweep
from orchestrator.storage.command_inbox import FOLDER_NAME, Cancel, Prune, Retry, send
from orchestrator.storage.folder_lock import is_held
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Event, Finished, Progressed, Pruned, Started
from orchestrator.trials.records import State
from orchestrator.trials.resources import ResourceFloor, ResourceRequest
from orchestrator.trials.trial import Trial
from specvit.config import TrialConfig
from specvit.data import Dataset
from specvit.errors import ConfigError, DataError
from specvit.trial import Observer, TrialResult

from ..waiting import wait_for
from .made_up import made_up_trial, waiting_trial
from .watcher import Watcher


def never(event: Event) -> bool:
    return False


class Driver:
    """Run sweeps into one folder in this process; keep what was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loads: list[int] = []
        self.submitted: list[str] = []
        self.executors: list[LocalExecutor] = []
        self.watcher = Watcher(never)

    def run(self, sweep: Sweep, *, stop_after: Callable[[Event], bool] = never) -> Outcome:
        self.loads, self.submitted, self.executors = [], [], []
        self.watcher = Watcher(stop_after)
        return run_sweep(
            sweep,
            folder=self.folder,
            make_executor=self._make_executor,
            callbacks=[self.watcher],
            load_data=self._load_data,
            should_stop=lambda: self.watcher.wants_to_stop,
        )

    def _make_executor(self, datasets: Datasets, _: Sequence[ResourceRequest]) -> Executor:
        driver = self

        class Recording(LocalExecutor):
            def submit(self, job: Job) -> Place:
                driver.submitted.append(job.label)
                return super().submit(job)

        self.executors.append(Recording(datasets))
        return self.executors[-1]

    def _load_data(self, trials: Sequence[Trial]) -> Datasets:
        self.loads.append(len(trials))
        return load_datasets(trials)


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time of a run of stand-ins."""
    monkeypatch.setattr("orchestrator.reports.curves.draw_curves", lambda *_: None)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path / "results" / "tiny")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specvit.trial.run_trial", made_up_trial)


def results(outcome: Outcome) -> dict[str, dict[str, float]]:
    return {record.trial.label: dict(record.metrics) for record in outcome.records}


@pytest.mark.usefixtures("made_up")
def test_a_first_run_does_every_trial_in_order_and_writes_the_tables(driver: Driver, sweep: Sweep) -> None:
    outcome = driver.run(sweep)
    wanted = [trial.label for trial in expand(sweep)]
    assert driver.submitted == [record.trial.label for record in outcome.records] == wanted
    assert (outcome.num_run, outcome.finished, outcome.num_failed) == (8, True, 0)
    assert driver.loads == [8]
    assert [record.state for record in outcome.records] == [State.DONE] * 8
    assert outcome.records[0].metrics == {"knn_top1": 4.0, "loss": 1.0}
    table = pd.read_csv(driver.folder / "table.csv")
    # "none" has 4 letters, "norm@all" 8; the seeds add 0 and 10.
    assert table.set_index("arm")["knn_top1_mean"][["none", "norm@all"]].tolist() == [9.0, 13.0]
    assert "norm@all" in (driver.folder / "table.md").read_text()


EPOCHS = {"recipe": "dinov2_cpu", "epochs": 0.5, "batch_size": 8}
"""4 steps, since the tiny sweep trains on 64 images."""


def test_a_sweep_whose_runs_are_given_in_epochs_reports_its_steps(
    driver: Driver, make_sweep: Callable[..., Sweep]
) -> None:
    outcome = driver.run(make_sweep(objective=EPOCHS, seeds=1, ablate={"components": ["none"]}, floors=[]))
    (record,) = outcome.records
    assert (record.state, record.step, record.steps) == (State.DONE, 4, 4)
    assert [report.step for report in record.reports] == [1, 3]  # 4/3 and 8/3


@pytest.mark.usefixtures("made_up")
def test_epochs_that_are_no_more_steps_than_rungs_are_refused_before_anything_is_written(
    driver: Driver, make_sweep: Callable[..., Sweep]
) -> None:
    rungs = {"count": 4, "num_images": 32}
    with pytest.raises(ConfigError, match=r"rungs.count: must be less than .*epochs, 4 \(0.5 epochs of 64 .* not 4"):
        driver.run(make_sweep(objective=EPOCHS, rungs=rungs))
    assert not driver.folder.exists()
    assert driver.executors == []
    assert driver.run(make_sweep(objective=EPOCHS)).finished


@pytest.mark.usefixtures("made_up")
def test_epochs_are_checked_too_when_a_sweep_goes_on(driver: Driver, make_sweep: Callable[..., Sweep]) -> None:
    driver.run(make_sweep())
    with pytest.raises(ConfigError, match="must be less than the steps of objective"):
        driver.run(make_sweep(objective=EPOCHS, rungs={"count": 4, "num_images": 32}))


@pytest.mark.usefixtures("made_up")
def test_a_second_run_does_nothing_and_finds_the_same(driver: Driver, sweep: Sweep) -> None:
    first = driver.run(sweep)
    table = (driver.folder / "table.csv").read_bytes()
    second = driver.run(sweep)
    assert (driver.loads, driver.executors) == ([], [])
    assert (second.num_run, second.finished) == (0, True)
    assert second.records == first.records
    assert (driver.folder / "table.csv").read_bytes() == table


@pytest.mark.usefixtures("made_up")
def test_an_arm_that_is_added_runs_alone(
    driver: Driver, sweep: Sweep, make_sweep: Callable[..., Sweep]
) -> None:
    before = results(driver.run(sweep))
    outcome = driver.run(make_sweep(ablate={"components": ["none", "norm", "qkv"]}))
    assert driver.submitted == ["nano qkv@all seed 0", "nano qkv@all seed 1"]
    after = results(outcome)
    assert len(after) == 10
    assert {label: after[label] for label in before} == before


@pytest.mark.usefixtures("made_up")
def test_a_seed_that_is_added_runs_alone(
    driver: Driver, sweep: Sweep, make_sweep: Callable[..., Sweep]
) -> None:
    driver.run(sweep)
    driver.run(make_sweep(seeds=3))
    assert len(driver.submitted) == 4
    assert all(label.endswith("seed 2") for label in driver.submitted)


@pytest.mark.usefixtures("made_up")
def test_an_arm_that_is_removed_leaves_the_table_but_its_results_are_kept(
    driver: Driver, sweep: Sweep, make_sweep: Callable[..., Sweep]
) -> None:
    full = driver.run(sweep)
    smaller = driver.run(make_sweep(ablate={"components": ["none"]}))
    assert driver.executors == []
    assert {record.trial.arm for record in smaller.records} == {"none", "random init", "raw pixels"}
    assert "norm@all" not in pd.read_csv(driver.folder / "table.csv")["arm"].tolist()
    again = driver.run(sweep)
    assert driver.executors == []
    assert again.records == full.records


def test_a_trial_that_fails_is_recorded_the_others_go_on_and_a_later_run_tries_it_again(
    driver: Driver, make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(max_retries=0)

    def failing(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
        if config.seed == 0 and config.treatment.specialize == "norm@all":
            raise RuntimeError("out of luck")
        return made_up_trial(config, dataset, observer)

    monkeypatch.setattr("specvit.trial.run_trial", failing)
    outcome = driver.run(sweep)
    assert (outcome.num_failed, outcome.finished, len(driver.submitted)) == (1, True, 8)
    failed = next(record for record in outcome.records if record.state is State.FAILED)
    assert (failed.trial.label, failed.error) == ("nano norm@all seed 0", "RuntimeError: out of luck")
    assert "in failing" in (failed.traceback or "")
    assert pd.read_csv(driver.folder / "table.csv").set_index("arm")["failed"]["norm@all"] == 1

    monkeypatch.setattr("specvit.trial.run_trial", made_up_trial)
    outcome = driver.run(sweep)
    assert driver.submitted == ["nano norm@all seed 0"]
    assert driver.loads == [1]
    assert outcome.num_failed == 0
    record = next(record for record in outcome.records if record.trial.label == "nano norm@all seed 0")
    assert (record.state, record.num_attempts, record.error) == (State.DONE, 2, None)


def test_a_hopeless_arm_is_pruned_shown_as_such_and_not_run_again(
    driver: Driver, make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
        if config.treatment.specialize != "none":
            observer.rung(step=1, metrics={"knn_top1": 1.0})
            wait_for(observer.should_stop)
            return TrialResult({}, stopped_at=1)
        for step in (1, 2, 3):
            observer.rung(step=step, metrics={"knn_top1": 50.0})
        return TrialResult({"knn_top1": 50.0})

    monkeypatch.setattr("specvit.trial.run_trial", body)
    sweep = make_sweep(
        pruning={"pruner": "median", "n_startup_trials": 1, "n_warmup_steps": 0}, floors=[], seeds=1
    )
    outcome = driver.run(sweep)
    assert [(record.trial.arm, record.state) for record in outcome.records] == [
        ("none", State.DONE),
        ("norm@all", State.PRUNED),
    ]
    table = pd.read_csv(driver.folder / "table.csv").set_index("arm")
    assert table["pruned"].to_dict() == {"none": 0, "norm@all": 1}
    assert driver.run(sweep).num_run == 0


def test_of_a_metric_that_should_be_low_the_arm_with_the_higher_value_is_pruned(
    driver: Driver, make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    rmse = {"none": 1.0, "norm@all": 2.0, "qkv@all": 0.5}

    def body(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
        value = rmse[config.treatment.specialize]
        for step in (1, 2, 3):
            # Other metrics of the probe, in which the good arm looks bad, do not decide.
            observer.rung(step=step, metrics={"depth_delta1": value, "depth_rmse": value})
            if value > 1:
                wait_for(observer.should_stop)
                return TrialResult({}, stopped_at=step)
        return TrialResult({"depth_rmse": value})

    monkeypatch.setattr("specvit.trial.run_trial", body)
    sweep = make_sweep(
        probes={"depth": {}},
        rungs={"count": 3, "num_images": 32},
        pruning={"pruner": "median", "n_startup_trials": 1},
        ablate={"components": ["none", "norm", "qkv"]},
        floors=[],
        seeds=1,
    )
    assert sweep.pruning_metric == "depth_rmse"
    states = {record.trial.arm: record.state for record in driver.run(sweep).records}
    assert states == {"none": State.DONE, "norm@all": State.PRUNED, "qkv@all": State.DONE}


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


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("name", ["sweep.yaml", "environment.json", "table.md"])
def test_a_run_that_finds_all_done_writes_what_one_that_died_at_its_end_did_not(
    name: str, driver: Driver, sweep: Sweep
) -> None:
    driver.run(sweep)
    before = (driver.folder / name).read_bytes()
    (driver.folder / name).unlink()
    assert driver.run(sweep).num_run == 0
    assert (driver.folder / name).read_bytes() == before


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
def test_data_that_changed_since_the_first_run_are_refused(
    driver: Driver, sweep: Sweep, make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.run(sweep)

    def changed(trials: Sequence[Trial]) -> Datasets:
        return {source: replace(data, fingerprint="other") for source, data in load_datasets(trials).items()}

    monkeypatch.setattr(driver, "_load_data", changed)
    with pytest.raises(LedgerError, match="data have changed"):
        driver.run(make_sweep(seeds=3))


def test_weights_are_kept_beside_the_tables_where_the_file_asks_for_them(
    driver: Driver, make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path | None] = []

    def body(config: TrialConfig, dataset: Dataset, observer: Observer, **others: Any) -> TrialResult:
        folders.append(others["weights"])
        return made_up_trial(config, dataset, observer)

    monkeypatch.setattr("specvit.trial.run_trial", body)
    sweep = make_sweep(floors=[], seeds=1, ablate={"components": ["none"]}, keep_weights=True)
    (record,) = driver.run(sweep).records
    assert folders == [driver.folder.resolve() / "weights" / record.trial.trial_id]
    # Whether weights are kept is no part of what a trial is.
    assert driver.run(make_sweep(floors=[], seeds=1, ablate={"components": ["none"]})).num_run == 0


def test_a_trial_that_fails_once_is_tried_again_in_the_same_run(
    driver: Driver, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([RuntimeError("out of luck")])

    def body(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
        if (error := next(failures, None)) is not None:
            raise error
        return made_up_trial(config, dataset, observer)

    monkeypatch.setattr("specvit.trial.run_trial", body)
    outcome = driver.run(sweep)
    assert (outcome.num_failed, outcome.finished) == (0, True)
    assert driver.submitted.count(outcome.records[0].trial.label) == 2
    assert [record.num_attempts for record in outcome.records] == [2, *[1] * 7]


def test_memory_that_runs_out_makes_the_micro_batch_smaller_in_this_run_and_the_next(
    driver: Driver, make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int | None] = []

    def body(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
        sizes.append(config.objective.micro_batch)
        if (config.objective.micro_batch or config.objective.batch_size) > 4:
            raise MemoryError
        return made_up_trial(config, dataset, observer)

    monkeypatch.setattr("specvit.trial.run_trial", body)
    few = {"ablate": {"components": ["none"]}, "floors": []}
    assert driver.run(make_sweep(**few)).num_failed == 0
    assert sizes == [None, 4, 4]
    outcome = driver.run(make_sweep(**few, seeds=3))
    assert sizes == [None, 4, 4, 4]
    # How a trial was computed is no part of what it is.
    assert [record.state for record in outcome.records] == [State.DONE] * 3


def order_once(folder: Path, order: Cancel | Prune | Retry, kind: type[Event] = Finished) -> Callable[[Event], bool]:
    """Give an order at the first event of a kind."""
    orders = [order]

    def give_it(event: Event) -> bool:
        if isinstance(event, kind) and orders:
            send(folder, orders.pop())
        return False

    return give_it


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
def test_what_a_budget_has_no_room_for_is_left_out_and_a_run_with_more_takes_it_in(
    driver: Driver, make_sweep: Callable[..., Sweep]
) -> None:
    outcome = driver.run(make_sweep(time_budget_h=1e-9))
    assert outcome.finished
    assert {record.state for record in outcome.records} == {State.SKIPPED}
    assert {record.skip_reason for record in outcome.records} == {"the time budget of 1e-09 h"}
    outcome = driver.run(make_sweep())
    assert (outcome.num_run, {record.state for record in outcome.records}) == (8, {State.DONE})


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


def test_an_order_to_retry_a_trial_that_the_judge_pruned_runs_it_to_its_end(
    driver: Driver, make_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: Counter[str] = Counter()

    def body(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
        arm = config.treatment.specialize
        attempts[arm] += 1
        for step in (1, 2, 3):
            observer.rung(step=step, metrics={"knn_top1": 1.0 if arm == "norm@all" else 50.0})
            if arm == "norm@all" and attempts[arm] == 1:
                wait_for(observer.should_stop)
                return TrialResult({}, stopped_at=step)
        if arm == "norm@all":
            observer.progress(step=4, steps=4, images_per_s=1.0)
            # By the time that it is on record, the judge has had all rungs.
            wait_for(lambda: any(isinstance(event, Progressed) for event in driver.watcher.events))
            assert not observer.should_stop()
        return TrialResult({"knn_top1": 1.0})

    monkeypatch.setattr("specvit.trial.run_trial", body)
    monkeypatch.setattr("orchestrator.storage.command_inbox._PERIOD_S", 0.0)
    sweep = make_sweep(
        ablate={"components": ["none", "norm", "qkv"]},
        pruning={"pruner": "median", "n_startup_trials": 1, "n_warmup_steps": 0},
        rungs={"count": 3, "num_images": 32},
        floors=[],
        seeds=1,
        priority=["norm@all"],
    )
    (arm,) = (trial.trial_id for trial in expand(sweep) if trial.arm == "norm@all")
    outcome = driver.run(sweep, stop_after=order_once(driver.folder, Retry((arm,)), kind=Pruned))
    states = {record.trial.arm: (record.state, record.num_attempts) for record in outcome.records}
    assert states["norm@all"] == (State.DONE, 2)


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
