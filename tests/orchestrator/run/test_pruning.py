"""Arms that are pruned, and one that is run to its end for all that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pandas as pd
import pytest

from orchestrator.storage.command_inbox import Retry
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Progressed, Pruned
from orchestrator.trials.records import State
from specvit.config import TrialConfig
from specvit.data import Dataset
from specvit.trial import Observer, TrialResult

from ...waiting import wait_for
from .driver import Driver, order_once


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
