"""Runs to their end: what they print and write, and the code they end with."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specvit.config import TrialConfig
from specvit.errors import DivergenceError
from specvit.trial import TrialResult

from ...made_up import made_up_trial
from .commands import Ended, FinishedSweep, read_table


def test_a_whole_run_prints_and_writes_its_tables_and_exits_0(finished: FinishedSweep) -> None:
    assert (finished.ended.code, finished.ended.err) == (0, "")
    lines = finished.ended.out.splitlines()
    classes = "8 classes in labels, 9 classes in masks, 8 classes in boxes"
    assert lines[0].startswith(f"data: scenes, 64 images to train on, 32 to report on, {classes}, 32 px, loaded in ")
    assert lines[1] == "8 trials to run, one by one in this process"
    assert sum(line.startswith("done     ") for line in lines) == 8
    assert any(line.startswith("norm@all ") for line in lines)
    names = ("table.md", "table.csv", "curves.csv", "curves.png", "trials.csv", "metrics.csv", "report.html")
    assert lines[-1] == f"written: {', '.join(f'results/tiny/{name}' for name in names)}"
    assert finished.table()["done"].tolist() == [2, 2, 2, 2]
    assert (finished.results / "tiny" / "table.md").read_text()


def test_output_into_a_pipe_has_no_control_characters(finished: FinishedSweep) -> None:
    assert "\x1b" not in finished.ended.out + finished.ended.err


def test_the_same_command_again_runs_nothing_and_shows_the_same_table(
    finished: FinishedSweep, cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.folder)
    monkeypatch.setattr("orchestrator.run.load_datasets", pytest.fail)
    again = cli("run", "tiny.yaml", "--executor", "local")
    assert again.code == 0
    first_line, _, table = again.out.partition("\n")
    assert first_line == "nothing to run: every trial of this sweep has a result"
    assert finished.ended.out.endswith(table)


def test_trials_that_fail_exit_1_and_are_shown_with_their_errors(
    cli: Callable[..., Ended], tmp_path: Path, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(config: TrialConfig, *others: Any, **named: Any) -> TrialResult:
        if config.treatment.is_trained:
            raise DivergenceError("the loss is nan")
        return made_up_trial(config, *others, **named)

    monkeypatch.setattr("specvit.trial.run_trial", diverge)
    write_sweep(tmp_path, seeds=1, max_retries=0)
    ended = cli("run", "tiny.yaml", "--executor", "local")
    assert ended.code == 1
    failed = [line for line in ended.out.splitlines() if line.startswith("failed   ")]
    assert [line.split(":")[:2] for line in failed] == [
        ["failed   nano none seed 0", " DivergenceError"],
        ["failed   nano norm@all seed 0", " DivergenceError"],
    ]
    assert read_table(tmp_path / "results" / "tiny").set_index("arm")["failed"].to_dict() == {
        "none": 1,
        "norm@all": 1,
        "random init": 0,
        "raw pixels": 0,
    }
    status = cli("status", "tiny.yaml").out
    assert "nano norm@all seed 0 (attempt 1, diverged): DivergenceError: " in status


def test_with_pdb_a_trial_that_raises_is_debugged_where_it_did(
    cli: Callable[..., Ended], tmp_path: Path, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(config: TrialConfig, *others: Any, **named: Any) -> TrialResult:
        if config.treatment.is_trained:
            raise ArithmeticError("here")
        return made_up_trial(config, *others, **named)

    places: list[str] = []
    monkeypatch.setattr("specvit.trial.run_trial", stumble)
    monkeypatch.setattr("pdb.post_mortem", lambda trace: places.append(traceback.extract_tb(trace)[-1].name))
    write_sweep(tmp_path, seeds=1, max_retries=0, ablate={"components": ["none"]})
    assert cli("run", "tiny.yaml", "--executor", "local", "--pdb").code == 1
    assert places == ["stumble"]


def test_what_set_changes_goes_to_a_folder_of_its_own(
    cli: Callable[..., Ended], tmp_path: Path, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specvit.trial.run_trial", made_up_trial)
    write_sweep(tmp_path, floors=[], seeds=1)
    set_ = ("--set", "objective.lr=1e-3")
    assert cli("run", "tiny.yaml", "--executor", "local").code == 0
    tables = {path: path.read_text() for path in (tmp_path / "results" / "tiny").glob("table.*")}
    assert cli("run", "tiny.yaml", "--executor", "local", *set_).code == 0
    assert {path: path.read_text() for path in tables} == tables
    other = tmp_path / "results" / "tiny-objective.lr-1e-3"
    assert "lr: 0.001" in (other / "sweep.yaml").read_text()
    assert cli("table", "tiny.yaml", *set_).code == cli("status", "tiny.yaml", *set_).code == 0
    assert cli("run", "tiny.yaml", "--executor", "local", *set_, "--name", "mine").code == 0
    assert (tmp_path / "results" / "mine" / "table.md").exists()


def test_publish_puts_a_finished_sweep_beside_the_runs(
    cli: Callable[..., Ended], finished: FinishedSweep, tmp_path: Path
) -> None:
    shutil.copytree(finished.results, tmp_path / "results")
    ended = cli("publish", "tiny")
    assert ended.code == 0
    study = tmp_path / "results" / "studies" / "tiny"
    assert (study / "table.csv").read_text() == (tmp_path / "results" / "tiny" / "table.csv").read_text()
    assert ended.out.startswith("published: results/studies/tiny/curves.csv, ")
    assert cli("publish", "tiny", "--to", "elsewhere").code == 0
    assert {path.name for path in Path("elsewhere").iterdir()} == {path.name for path in study.iterdir()}
