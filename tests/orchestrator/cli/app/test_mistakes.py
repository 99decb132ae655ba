"""What is refused, with one message and exit code 2 or 3."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.run import LEDGER_NAME
from orchestrator.storage.folder_lock import hold_lock

from .commands import Ended, FinishedSweep


def test_a_malformed_file_exits_2_with_one_line_a_problem_and_no_traceback(
    cli: Callable[..., Ended], tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    write_sweep(tmp_path, seeds=-1, prune={"pruner": "median"}, floors=["ceiling"])
    ended = cli("run", "tiny.yaml")
    assert (ended.code, ended.out) == (2, "")
    lines = ended.err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("tiny.yaml:")
    assert all("tiny.yaml:" in line for line in lines)
    assert all(any(field in line for line in lines) for field in ("seeds", "prune", "floors"))
    assert "Traceback" not in ended.err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_missing_file_exits_2_and_is_named(command: str, cli: Callable[..., Ended]) -> None:
    ended = cli(command, "absent.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("absent.yaml: ")
    assert "absent.yaml" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_missing_data_folder_exits_2_and_leaves_no_results(
    cli: Callable[..., Ended], tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    write_sweep(tmp_path, data={"source": "image_folder", "root": "nowhere"})
    ended = cli("run", "tiny.yaml", "--executor", "local")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("specsweep: ")
    assert "nowhere" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("command", ["status", "table"])
def test_an_unknown_target_exits_2_and_is_named(command: str, cli: Callable[..., Ended]) -> None:
    ended = cli(command, "unknown")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "specsweep: unknown: no such sweep file or results folder\n"


@pytest.mark.parametrize("command", ["status", "table"])
def test_a_sweep_that_was_never_run_exits_2_and_says_so(
    command: str, cli: Callable[..., Ended], tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    write_sweep(tmp_path)
    ended = cli(command, "tiny.yaml")
    assert ended.code == 2
    assert "results/tiny/ledger.sqlite: no ledger here" in ended.err


def test_a_folder_that_another_run_holds_exits_3_and_names_its_process(
    cli: Callable[..., Ended], tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    write_sweep(tmp_path)
    with hold_lock(tmp_path / "results" / "tiny"):
        ended = cli("run", "tiny.yaml", "--executor", "local")
    assert ended.code == 3
    assert f"results/tiny is in use by process {os.getpid()} on " in ended.err
    assert not (tmp_path / "results" / "tiny" / LEDGER_NAME).exists()


def test_a_results_folder_that_cannot_be_made_exits_2(
    cli: Callable[..., Ended], tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    write_sweep(tmp_path)
    (tmp_path / "results").write_text("a file")
    ended = cli("run", "tiny.yaml", "--executor", "local")
    assert ended.code == 2
    assert ended.err.startswith("specsweep: ")
    assert "results" in ended.err


def test_several_processes_for_a_trial_need_ray_and_are_refused_before_anything_is_done(
    cli: Callable[..., Ended], tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    write_sweep(tmp_path, resources={"processes": 2})
    ended = cli("run", "tiny.yaml", "--executor", "local")
    assert (ended.code, ended.out) == (2, "")
    message = "resources.processes: must be 1 where trials run in this process, not 2; use Ray"
    assert ended.err == f"specsweep: {message}\n"
    assert not (tmp_path / "results").exists()


def test_an_override_that_breaks_a_rule_exits_2_and_is_quoted(
    cli: Callable[..., Ended], tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    write_sweep(tmp_path)
    ended = cli("plan", "tiny.yaml", "--set", "objective.stepz=4")
    assert ended.code == 2
    assert ended.err.startswith("--set objective.stepz=4: ")
    assert "did you mean 'steps'?" in ended.err


def test_an_unknown_option_exits_2(cli: Callable[..., Ended]) -> None:
    assert cli("run", "--no-such-option").code == 2


def test_only_the_local_executor_debugs(cli: Callable[..., Ended]) -> None:
    ended = cli("run", "tiny.yaml", "--pdb")
    assert (ended.code, ended.err) == (
        2, "specsweep: --pdb: needs --executor local; workers of a cluster have no terminal\n"
    )


def test_wrong_targets_say_what_to_give(cli: Callable[..., Ended], finished: FinishedSweep, tmp_path: Path) -> None:
    shutil.copytree(finished.results, tmp_path / "results")
    folder = "results/tiny"
    assert cli("table", f"{folder}/ledger.sqlite").out == cli("table", folder).out
    ended = cli("table", f"{folder}/table.md")
    assert ended.code == 2
    assert "must be a sweep file (.yaml), the folder of a sweep's results, or its name" in ended.err
