"""Numbers of different code do not come to stand side by side in silence, and trials that are done are done again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import orchestrator
import specvit
from orchestrator.ledger.attempts import find_trial, select_attempts, select_names
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.storage.folder_lock import hold_lock
from orchestrator.trials.events import Pruned
from orchestrator.trials.records import State
from specvit.trial import TrialResult

from ...waiting import run_to_end
from ..made_up import made_up_trial

Command = Callable[..., subprocess.CompletedProcess[str]]
MORE = {"ablate": {"components": ["none", "norm", "qkv"]}}


@pytest.fixture
def with_code(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have trials be computed, in a way that is made up, by code that adds something to their metrics."""

    def use(digest: str, *, adds: float = 0.0) -> None:
        def run(*arguments: Any, **named: Any) -> TrialResult:
            result = made_up_trial(*arguments, **named)
            return replace(result, metrics={**result.metrics, "knn_top1": result.metrics["knn_top1"] + adds})

        monkeypatch.setattr("orchestrator.trials.computation.package_digest", lambda package: f"{package} {digest}")
        monkeypatch.setattr("specvit.trial.run_trial", run)

    return use


def attempts(folder: Path, label: str) -> list[tuple[str, float | None]]:
    """Return state and kNN top-1 of every attempt at a trial."""
    with Ledger.read(folder / "results" / "tiny" / LEDGER_NAME) as ledger, ledger.snapshot() as connection:
        trial_id = find_trial(select_names(connection), label).trial_id
        return [(each.state, each.metrics.get("knn_top1")) for each in select_attempts(connection, trial_id)]


def difference(folder: Path, arm: str) -> float:
    table = pd.read_csv(folder / "results" / "tiny" / "table.csv").set_index("arm")
    return float(table.loc[arm, "knn_top1_diff"])


def test_an_arm_that_other_code_would_compute_is_refused_or_marked_and_redo_makes_it_comparable(
    tmp_path: Path, write_sweep: Callable[..., Path], command: Command, with_code: Callable[..., None]
) -> None:
    with_code("old")
    write_sweep(tmp_path)
    assert command("run", "tiny.yaml", "--executor", "local").returncode == 0
    with_code("new", adds=50.0)
    assert command("run", "tiny.yaml", "--executor", "local").returncode == 0  # nothing is left to compare
    write_sweep(tmp_path, **MORE)
    refused = command("run", "tiny.yaml", "--executor", "local")
    assert (refused.returncode, refused.stdout) == (2, "")
    what = "8 of 8 trials that are done were computed with different code (specvit) than others would be now"
    assert what in refused.stderr
    assert all(way in refused.stderr for way in ("specsweep redo", "--accept-mixed", "--name NAME"))
    assert "qkv" not in command("table", "tiny").stdout
    mixed = command("run", "tiny.yaml", "--executor", "local", "--accept-mixed")
    assert mixed.returncode == 0
    assert "Differences marked ‡ are between trials that were computed with different code (specvit)" in mixed.stdout
    assert difference(tmp_path, "qkv@all") == 50 + len("qkv@all") - len("none")
    assert "‡" in (tmp_path / "results" / "tiny" / "table.md").read_text()
    assert command("publish", "tiny.yaml").returncode == 2
    again = command("redo", "tiny.yaml", "--executor", "local", "--arm", "none", "--accept-mixed")
    assert again.stdout.count("done     ") == 2
    assert attempts(tmp_path, "nano none seed 1") == [("superseded", 14.0), ("done", 64.0)]
    assert difference(tmp_path, "qkv@all") == len("qkv@all") - len("none")
    rest = command("redo", "tiny.yaml", "--executor", "local")
    assert (rest.returncode, rest.stdout.count("done     ")) == (0, 10)
    assert "‡" not in rest.stdout
    assert command("publish", "tiny.yaml").returncode == 0
    history = command("logs", "tiny", "nano none seed 1").stdout
    assert [f"attempt {number}: {state} on" in history for number, state in ((2, "superseded"), (3, "done"))]


def test_redo_takes_trials_that_are_done_alone_and_says_what_is_wrong_with_others(
    tmp_path: Path, write_sweep: Callable[..., Path], command: Command, with_code: Callable[..., None]
) -> None:
    with_code("same")
    write_sweep(tmp_path)
    assert command("redo", "tiny.yaml").returncode == 2  # there are no results
    assert command("run", "tiny.yaml", "--executor", "local").returncode == 0
    folder = tmp_path / "results" / "tiny"
    with Ledger.open(folder / LEDGER_NAME) as ledger:
        waiting = next(record.trial for record in ledger.records() if record.trial.label == "nano norm@all seed 0")
        ledger.supersede([waiting.trial_id])
    for arguments, message in (
        (["nano norm@all seed 0"], "nano norm@all seed 0: is waiting, not done; 'specsweep run' runs what has no"),
        (["--arm", "nrm@all"], "no arm 'nrm@all'; known: 'none', 'random init', 'raw pixels', 'norm@all'"),
        (["absent"], "'absent': no trial has this label"),
    ):
        refused = command("redo", "tiny.yaml", *arguments)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert message in refused.stderr
    with hold_lock(folder):
        assert command("redo", "tiny.yaml").returncode == 3
    one = command("redo", "tiny.yaml", "nano norm@all seed 1", "--executor", "local")
    assert one.stdout.count("done     ") == 1
    assert attempts(tmp_path, "nano norm@all seed 1") == [("superseded", 18.0), ("done", 18.0)]
    assert attempts(tmp_path, "nano norm@all seed 0") == [("superseded", 8.0)]  # that is for the next run
    assert command("run", "tiny.yaml", "--executor", "local").stdout.count("done     ") == 1
    with Ledger.read(folder / LEDGER_NAME) as ledger:
        assert {record.state for record in ledger.records()} == {State.DONE}


@pytest.mark.long
def test_a_change_of_a_probe_between_two_runs_is_noticed(tmp_path: Path, write_sweep: Callable[..., Path]) -> None:
    site = tmp_path / "site"
    for package in (specvit, orchestrator):
        assert package.__file__ is not None
        folder = Path(package.__file__).parent
        shutil.copytree(folder, site / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    program = [sys.executable, "-c", "from orchestrator.cli.app import main; main()"]
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS")}
    environment = {**kept, "PYTHONPATH": str(site)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*program, "run", "tiny.yaml", "--executor", "local", *arguments]
        return run_to_end(command, cwd=tmp_path, env=environment)

    few = {"seeds": 1, "floors": []}
    write_sweep(tmp_path, **few)
    assert run().returncode == 0
    probe = site / "specvit" / "probes" / "knn.py"
    text = probe.read_text()
    assert text.count("top1(predictions[k], truth)") == 1
    probe.write_text(text.replace("top1(predictions[k], truth)", "top1(predictions[k], truth) + 50"))
    write_sweep(tmp_path, **few, **MORE)
    refused = run()
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "different code (specvit)" in refused.stderr
    assert "‡" in run("--accept-mixed").stdout
    assert difference(tmp_path, "qkv@all") > 25


def test_pruned_trials_are_told_of_and_a_sweep_without_an_arm_left_is_no_success(
    tmp_path: Path, write_sweep: Callable[..., Path], command: Command, with_code: Callable[..., None]
) -> None:
    with_code("same")
    write_sweep(tmp_path, floors=[])
    assert command("run", "tiny.yaml", "--executor", "local").returncode == 0
    write_sweep(tmp_path, floors=[], **MORE)
    assert command("run", "tiny.yaml", "--dry-run").returncode == 0
    folder = tmp_path / "results" / "tiny"
    with Ledger.open(folder / LEDGER_NAME) as ledger:
        arm = [record.trial.trial_id for record in ledger.records() if record.trial.arm == "norm@all"]
        ledger.supersede(arm)
        for trial_id in arm:
            ledger.record(Pruned(trial_id, ledger.begin_attempt(trial_id), step=1, seconds=1.0))
    write_sweep(tmp_path, floors=[], pruning={"pruner": "none"})
    ended = command("run", "tiny.yaml", "--executor", "local")
    assert ended.returncode == 1
    assert ended.stdout.startswith("nothing to run: 2 of 4 trials were pruned, the others have a result; ")
    assert "no arm was run to its end: all their trials were pruned" in ended.stderr
    again = command("retry", "tiny.yaml", "--pruned", "--executor", "local")
    assert (again.returncode, again.stdout.count("done     "), again.stderr) == (0, 2, "")
