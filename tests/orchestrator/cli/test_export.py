from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.trials.events import Finished, Reported, Started
from orchestrator.trials.trial import Trial

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def sweep_folder(ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path) -> Path:
    """Return the results of a sweep whose baseline and one floor are done, and an arm is running."""
    for trial in (trial for trial in trials if trial.arm in ("none", "raw pixels")):
        key = trial.trial_id
        attempt = ledger.begin_attempt(key)
        ledger.record(Reported(key, attempt, 2, {"knn_top1": 12.0, "loss": 9.0}))
        ledger.record(Finished(key, attempt, {"knn_top1": 34.0 + 2 * trial.seed, "loss": 8.0}, 1.0, 1.0))
    running = next(trial.trial_id for trial in trials if trial.role == "arm")
    ledger.record(Started(running, ledger.begin_attempt(running), worker="node:1"))
    return tmp_path


def test_a_sweep_becomes_a_file_that_optuna_loads(command: Command, sweep_folder: Path) -> None:
    ended = command("export", "optuna", str(sweep_folder), "out.db")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "written: out.db, 4 trials in 1 study:\n  tiny\n"
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{sweep_folder}/out.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "RUNNING", "COMPLETE", "WAITING"]
    assert (study.best_value, study.trials[0].intermediate_values) == (35.0, {2: 12.0})  # (34 + 36) / 2
    assert [trial.params for trial in study.trials] == [{"norm": "none"}, {"norm": "all"}] * 2
    assert (study.user_attrs["floor:raw pixels"]["mean"], "floor:random init" in study.user_attrs) == (35.0, True)
    assert not [entry for entry in sweep_folder.iterdir() if entry.name.startswith(".out.db")]


def test_a_file_that_is_there_is_kept_without_force_and_replaced_with_it(
    command: Command, sweep_folder: Path
) -> None:
    command("export", "optuna", str(sweep_folder), "out.db")
    before = (sweep_folder / "out.db").read_bytes()
    refused = command("export", "optuna", str(sweep_folder), "out.db")
    assert (refused.returncode, refused.stderr) == (2, "specsweep: out.db: is there already; --force replaces it\n")
    assert (sweep_folder / "out.db").read_bytes() == before
    assert command("export", "optuna", str(sweep_folder), "out.db", "--force", "--metric", "loss").returncode == 2
    assert (sweep_folder / "out.db").read_bytes() == before
    ended = command("export", "optuna", str(sweep_folder), "out.db", "--force")
    assert ended.returncode == 0


def test_the_ledger_itself_is_never_replaced(command: Command, sweep_folder: Path) -> None:
    ended = command("export", "optuna", str(sweep_folder), "ledger.sqlite", "--force")
    assert ended.returncode == 2
    assert "is no file of Optuna's" in ended.stderr


def test_a_metric_that_is_not_there_is_refused_and_nothing_is_written(command: Command, sweep_folder: Path) -> None:
    ended = command("export", "optuna", str(sweep_folder), "out.db", "--metric", "miou")
    assert ended.returncode == 2
    assert ended.stderr.startswith("specsweep: --metric: no probe of this sweep reports 'miou'; they report knn_top1")
    assert not (sweep_folder / "out.db").exists()
