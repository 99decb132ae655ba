"""Readings on their way: into the ledger, out of it, and into a CSV."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli.app import main
from orchestrator.execution.local import LocalExecutor
from orchestrator.ledger.ledger import Ledger
from orchestrator.reports.diagnostics.csv_file import CSV_NAME, render_measurements, write_diagnostics
from orchestrator.run import run_sweep
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Failed, Finished, Started
from orchestrator.trials.records import State
from orchestrator.trials.trial import Trial
from specvit.diagnostics.measurement import Measurement

READINGS = (
    Measurement(0, "attention", "cls_to_patches", 0.1),
    Measurement(0, "norm1.in", "cls_norm", math.inf),
    Measurement(2, "final_norm.in", "cls_norm", 2.5),
)


def _finished(trial: Trial, attempt: int, readings: tuple[Measurement, ...] = READINGS) -> Finished:
    return Finished(trial.trial_id, attempt, {"knn_top1": 1.0}, seconds=1.0, core_seconds=1.0, diagnostics=readings)


def test_readings_are_read_back_as_they_were_recorded(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    for trial, readings in ((trials[1], READINGS), (trials[0], READINGS[:1]), (trials[2], ())):
        assert ledger.record(_finished(trial, ledger.begin_attempt(trial.trial_id), readings))
    found = ledger.diagnostics()
    assert found == {trials[0].trial_id: READINGS[:1], trials[1].trial_id: READINGS}
    assert list(found) == [trials[0].trial_id, trials[1].trial_id]  # in the order of the sweep


def test_what_is_not_a_number_stays_so(ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path) -> None:
    reading = Measurement(0, "norm1.in", "patch_norm", math.nan)
    ledger.record(_finished(trials[0], ledger.begin_attempt(trials[0].trial_id), (reading,)))
    ((found,),) = ledger.diagnostics().values()
    assert math.isnan(found.value)
    assert render_measurements([found]) == "block,site,quantity,value\n0,norm1.in,patch_norm,\n"


def test_an_attempt_that_was_given_up_leaves_no_readings(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    trial = trials[0]
    first, second = (ledger.begin_attempt(trial.trial_id) for _ in range(2))
    assert not ledger.record(_finished(trial, first))
    assert ledger.diagnostics() == {}
    assert ledger.record(_finished(trial, second, READINGS[:1]))
    assert not ledger.record(_finished(trial, second))
    assert ledger.diagnostics() == {trial.trial_id: READINGS[:1]}


def test_readings_that_cannot_be_recorded_leave_the_trial_running(ledger: Ledger, trials: tuple[Trial, ...]) -> None:
    trial = trials[0]
    attempt = ledger.begin_attempt(trial.trial_id)
    ledger.record(Started(trial.trial_id, attempt, worker="node:1"))
    with pytest.raises(Exception, match="UNIQUE"):
        ledger.record(_finished(trial, attempt, READINGS[:1] * 2))
    assert ledger.records()[0].state is State.RUNNING
    assert ledger.diagnostics() == {}
    assert ledger.record(Failed(trial.trial_id, attempt, "x", "x"))


def test_no_readings_make_no_file(ledger: Ledger, tmp_path: Path) -> None:
    assert write_diagnostics(tmp_path, ledger.records(), ledger.diagnostics()) == ()
    assert not (tmp_path / CSV_NAME).exists()


def test_table_writes_nothing_and_curves_writes_the_readings_beside_the_ledger(
    ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.record(_finished(trials[0], ledger.begin_attempt(trials[0].trial_id)))
    for command in ("table", "curves"):
        assert not (tmp_path / CSV_NAME).exists()
        monkeypatch.setattr(sys, "argv", ["specsweep", command, str(tmp_path)])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
    start = f",none,baseline,0,{trials[0].trial_id}"
    assert (tmp_path / CSV_NAME).read_text().splitlines() == [
        "group,arm,role,seed,trial_id,block,site,quantity,value",
        f"{start},0,attention,cls_to_patches,0.1",
        f"{start},0,norm1.in,cls_norm,inf",
        f"{start},2,final_norm.in,cls_norm,2.5",
    ]


def test_ids_differ_with_diagnostics_and_are_as_before_without(make_sweep: Callable[..., Sweep]) -> None:
    plain, off, on = (expand(make_sweep(**given)) for given in ({}, {"diagnostics": False}, {"diagnostics": True}))
    assert [trial.trial_id for trial in plain] == [trial.trial_id for trial in off]
    assert not {trial.trial_id for trial in plain} & {trial.trial_id for trial in on}
    assert all(trial.config.diagnostics for trial in on)


@pytest.mark.long
def test_a_sweep_with_diagnostics_writes_a_row_per_trial_block_site_and_quantity(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    sweep = make_sweep(diagnostics=True, seeds=1)
    outcome = run_sweep(
        sweep,
        folder=tmp_path / "results",
        make_executor=lambda datasets, _: LocalExecutor(datasets),
    )
    written = {path.name: path for path in outcome.written}
    assert written[CSV_NAME] == tmp_path / "results" / CSV_NAME
    with written[CSV_NAME].open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["group", "arm", "role", "seed", "trial_id", "block", "site", "quantity", "value"]
    assert len({(row["trial_id"], row["block"], row["site"], row["quantity"]) for row in rows}) == len(rows)
    # All trials with a backbone: the pixels have none. nano has 6 blocks of 4 sides of norms (6 quantities
    # each) and 4 shares of attention; 2 sides of the final norm; 2 RankMe.
    assert {(row["arm"], row["role"]) for row in rows} == {
        ("none", "baseline"), ("norm@all", "arm"), ("random init", "floor")
    }
    assert len(rows) == 3 * (6 * (4 * 6 + 4) + 2 * 6 + 2)
    assert all(math.isfinite(float(row["value"])) for row in rows)
