"""Runs whose lengths are given in epochs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import State
from specvit.errors import ConfigError

from .driver import Driver

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
def test_an_epoch_of_a_supervised_run_is_of_the_images_that_rungs_do_not_score(
    driver: Driver, make_sweep: Callable[..., Sweep]
) -> None:
    supervised = {"recipe": "deit3_cpu", "epochs": 1.0, "batch_size": 8}
    rungs = {"count": 7, "num_images": 32}
    with pytest.raises(ConfigError, match=r"epochs, 7 \(1 epochs of 56 images in batches of 8\), not 7"):
        driver.run(make_sweep(objective=supervised, rungs=rungs))
    assert driver.run(make_sweep(objective=supervised, rungs={**rungs, "held_out": False})).finished


@pytest.mark.usefixtures("made_up")
def test_epochs_are_checked_too_when_a_sweep_goes_on(driver: Driver, make_sweep: Callable[..., Sweep]) -> None:
    driver.run(make_sweep())
    with pytest.raises(ConfigError, match="must be less than the steps of objective"):
        driver.run(make_sweep(objective=EPOCHS, rungs={"count": 4, "num_images": 32}))
