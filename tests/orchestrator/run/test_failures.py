"""Trials that fail or run out of memory, in this run and the next."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import State
from specvit.config import TrialConfig
from specvit.data import Dataset
from specvit.trial import Observer, TrialResult

from ..made_up import made_up_trial
from .driver import Driver


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
