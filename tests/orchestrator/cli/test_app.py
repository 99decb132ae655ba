from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from orchestrator.cli.app import main
from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.run import LEDGER_NAME
from orchestrator.storage.folder_lock import hold_lock
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.resources import ResourceFloor
from orchestrator.trials.trial import Role
from specvit.config import TrialConfig
from specvit.errors import DivergenceError
from specvit.trial import TrialResult

from ...waiting import run_to_end, wait_for, wait_for_end
from ..made_up import made_up_trial

PROGRAM = str(Path(sys.executable).with_name("specsweep"))
REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Ended:
    """Hold how a command ended and what it printed."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS")}
    return kept | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), kept.get("PYTHONPATH", "")])}


def in_a_process(folder: Path, *command: str) -> Ended:
    """Run a command as a user does, its output going into pipes."""
    done = run_to_end(command, cwd=folder, env=environment())
    return Ended(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(folder: Path, *command: str, runs: Role) -> Iterator[subprocess.Popen[str]]:
    """Start a run of ``tiny.yaml`` in ``folder``; give it when a trial is done and one of a role runs."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment(), **pipes) as process:

        def is_under_way() -> bool:
            assert process.poll() is None, process.communicate()
            states = {(record.state, record.trial.role) for record in records_in(folder / "results" / "tiny")}
            return {(State.DONE, Role.BASELINE), (State.RUNNING, runs)} <= states

        try:
            wait_for(is_under_way)
            yield process
        finally:
            process.kill()


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Run a command in this process, in ``tmp_path``: faster, where no process is at stake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["specsweep", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    return run


@dataclass(frozen=True)
class FinishedSweep:
    """Hold a sweep that one command has run to its end."""

    folder: Path
    file: Path
    ended: Ended

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def table(self) -> pd.DataFrame:
        return read_table(self.results / "tiny")


def read_table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "table.csv").drop(columns=["seconds", "core_seconds"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, write_sweep: Callable[..., Path]) -> FinishedSweep:
    """Run the tiny sweep to its end, with made-up trials in place of training."""
    folder = tmp_path_factory.mktemp("finished")
    file = write_sweep(folder)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("specvit.trial.run_trial", made_up_trial)
        patch.delenv("COLUMNS", raising=False)
        patch.delenv("FORCE_COLOR", raising=False)
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["specsweep", "run", "tiny.yaml", "--executor", "local"])
        with pytest.raises(SystemExit) as end:
            main()
    assert isinstance(end.value.code, int)
    return FinishedSweep(folder, file, Ended(end.value.code, out.getvalue(), err.getvalue()))


def records_in(folder: Path) -> tuple[TrialRecord, ...]:
    try:
        with Ledger.read(folder / LEDGER_NAME) as ledger:
            return ledger.records()
    except LedgerError:
        return ()


def test_a_whole_run_prints_and_writes_its_tables_and_exits_0(finished: FinishedSweep) -> None:
    assert (finished.ended.code, finished.ended.err) == (0, "")
    lines = finished.ended.out.splitlines()
    classes = "8 classes in labels, 9 classes in masks, 8 classes in boxes"
    assert lines[0].startswith(f"data: scenes, 64 images to train on, 32 to report on, {classes}, 32 px, loaded in ")
    assert lines[1] == "8 trials to run, one by one in this process"
    assert sum(line.startswith("done     ") for line in lines) == 8
    assert any(line.startswith("norm@all ") for line in lines)
    names = ("table.md", "table.csv", "curves.csv", "curves.png")
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


@pytest.mark.slow
def test_ray_is_the_default_and_says_where_its_dashboard_is_and_sigterm_stops_it_as_ctrl_c_does(
    tmp_path: Path, write_sweep: Callable[..., Path], cli: Callable[..., Ended]
) -> None:
    few = {"seeds": 1, "ablate": {"components": ["none"]}, "floors": []}
    # More steps than there is time for: the second trial runs when the signal comes.
    write_sweep(tmp_path, vary={"objective.steps": [4, 1_000_000]}, **few)
    with started(tmp_path, PROGRAM, "run", "tiny.yaml", "--slots", "1", runs=Role.BASELINE) as process:
        process.send_signal(signal.SIGTERM)
        out, err = wait_for_end(process)
    assert process.returncode == 130, err
    assert "2 trials to run, 1 at once" in out
    assert "Ray dashboard: http://127.0.0.1:" in out
    assert "get-auth-token' prints it" in out
    assert "\x1b" not in out
    assert "SIGTERM" not in err
    assert out.splitlines()[-1] == "Stopped. To go on, run the same command again: specsweep run tiny.yaml --slots 1"
    done, waiting = records_in(tmp_path / "results" / "tiny")
    assert (done.state, waiting.state) == (State.DONE, State.WAITING)
    write_sweep(tmp_path, name="alone", **few)
    assert cli("run", "alone.yaml", "--executor", "local").code == 0
    (local,) = records_in(tmp_path / "results" / "alone")
    assert (local.trial.trial_id, local.metrics) == (done.trial.trial_id, done.metrics)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.long)], ids=["ctrl-c", "hangup"]
)
def test_ctrl_c_and_a_lost_terminal_exit_130_say_how_to_go_on_and_the_same_command_does_what_is_left(
    number: signal.Signals,
    finished: FinishedSweep,
    tmp_path: Path,
    write_sweep: Callable[..., Path],
    cli: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_sweep(tmp_path)
    command = [sys.executable, "-m", "tests.orchestrator.made_up", "run", "tiny.yaml", "--executor", "local"]
    with started(tmp_path, *command, runs=Role.ARM) as process:
        process.send_signal(number)
        out, err = wait_for_end(process)
    assert process.returncode == 130
    assert err == "\nspecsweep: stopping; running trials save their states (once more: stop at once)\n"
    assert out.splitlines()[-1] == (
        "Stopped. To go on, run the same command again: specsweep run tiny.yaml --executor local"
    )
    counts = Counter(record.state for record in records_in(tmp_path / "results" / "tiny"))
    assert set(counts) == {State.DONE, State.WAITING}
    planned = json.loads(cli("plan", "tiny.yaml", "--json").out)
    assert planned["pending"] == counts[State.WAITING]
    monkeypatch.setattr("specvit.trial.run_trial", made_up_trial)
    ended = cli("run", "tiny.yaml", "--executor", "local")
    assert ended.code == 0, ended.err
    assert f"{counts[State.WAITING]} trials to run" in ended.out
    assert_frame_equal(read_table(tmp_path / "results" / "tiny"), finished.table(), check_exact=True)
    records = records_in(tmp_path / "results" / "tiny")
    assert [record.state for record in records] == [State.DONE] * 8
    assert sorted(record.num_attempts for record in records) == [*[1] * 7, 2]


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


def test_characters_that_the_terminal_lacks_are_printed_as_their_codes(
    write_sweep: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    path = write_sweep(tmp_path, question="é or 画?")
    ended = in_a_process(tmp_path, PROGRAM, "plan", str(path))
    assert (ended.code, ended.err) == (0, "")
    assert "\\xe9 or \\u753b?" in ended.out


def test_an_override_takes_the_place_of_the_file(
    cli: Callable[..., Ended], tmp_path: Path, write_sweep: Callable[..., Path]
) -> None:
    write_sweep(tmp_path)
    planned = json.loads(cli("plan", "tiny.yaml", "--json", "--set", "seeds=[7]", "--set", "floors=[]").out)
    assert planned["seeds"] == [7]
    assert [arm["arm"] for arm in planned["arms"]] == ["none", "norm@all"]


def test_a_plan_of_a_finished_sweep_has_nothing_to_run(finished: FinishedSweep, cli: Callable[..., Ended]) -> None:
    ended = cli("plan", str(finished.file), "--results", str(finished.results), "--slots", "4")
    assert ended.code == 0
    assert "8 trials, 0 to run" in ended.out
    assert "nothing to run" in ended.out
    planned = json.loads(
        cli("plan", str(finished.file), "--results", str(finished.results), "--slots", "4", "--json").out
    )
    assert (planned["pending"], planned["slots"], planned["forecast_seconds"]) == (0, 4, 0.0)


@pytest.mark.parametrize("by", ["file", "name", "folder"])
def test_a_sweep_is_found_by_its_file_its_name_and_its_folder(
    by: str, finished: FinishedSweep, cli: Callable[..., Ended]
) -> None:
    target = {"file": str(finished.file), "name": "tiny", "folder": str(finished.results / "tiny")}[by]
    ended = cli("status", target, "--results", str(finished.results))
    assert ended.code == 0
    header, counts = ended.out.splitlines()[2:4]
    # Where nothing is to be counted, the cell is empty: 8 done of 8 trials.
    assert header.split() == ["group", "waiting", "running", "done", "pruned", "failed", "trials"]
    assert counts.split() == ["all", "8", "8"]


def test_the_table_comes_in_every_format(finished: FinishedSweep, cli: Callable[..., Ended]) -> None:
    def table(*options: str) -> str:
        ended = cli("table", "tiny", "--results", str(finished.results), *options)
        assert (ended.code, ended.err) == (0, "")
        assert "\x1b" not in ended.out
        return ended.out

    csv = pd.read_csv(io.StringIO(table("--format", "csv"))).drop(columns=["seconds", "core_seconds"])
    assert_frame_equal(csv, finished.table(), check_exact=True)
    assert table("--format", "md").strip() == (finished.results / "tiny" / "table.md").read_text().strip()
    assert "norm@all" in json.dumps(json.loads(table("--format", "json")))
    assert table("--format", "text") == table()
    assert "norm@all" in table()


def test_the_schema_is_json(cli: Callable[..., Ended]) -> None:
    ended = cli("schema")
    assert ended.code == 0
    schema = json.loads(ended.out)
    assert {"objective", "probes", "seeds", "ablate", "vary"} <= schema["properties"].keys()


def test_an_unknown_option_exits_2(cli: Callable[..., Ended]) -> None:
    assert cli("run", "--no-such-option").code == 2


def test_the_version_is_printed_without_importing_anything_heavy(tmp_path: Path) -> None:
    program = """
import atexit, sys
heavy = ("torch", "ray", "optuna", "pandas", "matplotlib", "timm")
atexit.register(lambda: print([name for name in heavy if name in sys.modules]))
from orchestrator.cli.app import main
main()
"""
    ended = in_a_process(tmp_path, sys.executable, "-c", program, "--version")
    assert (ended.code, ended.out, ended.err) == (0, "specsweep 0.1.0\n[]\n", "")


def test_only_the_local_executor_debugs(cli: Callable[..., Ended]) -> None:
    ended = cli("run", "tiny.yaml", "--pdb")
    assert (ended.code, ended.err) == (
        2, "specsweep: --pdb: needs --executor local; workers of a cluster have no terminal\n"
    )


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


def test_a_file_that_has_changed_or_is_broken_still_leads_to_its_results(
    cli: Callable[..., Ended], finished: FinishedSweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(finished.results, tmp_path / "results")
    file = tmp_path / "tiny.yaml"
    text = finished.file.read_text()
    file.write_text(text)
    assert cli("table", "tiny.yaml").err == ""
    for changed in (text + "\n", "objective: ["):
        file.write_text(changed)
        for command in ("table", "status"):
            ended = cli(command, "tiny.yaml")
            assert (ended.code, ended.err.count("\n")) == (0, 1)
            assert ended.err.startswith("specsweep: results/tiny: was run with another text than tiny.yaml has now")


def test_wrong_targets_say_what_to_give(cli: Callable[..., Ended], finished: FinishedSweep, tmp_path: Path) -> None:
    shutil.copytree(finished.results, tmp_path / "results")
    folder = "results/tiny"
    assert cli("table", f"{folder}/ledger.sqlite").out == cli("table", folder).out
    ended = cli("table", f"{folder}/table.md")
    assert ended.code == 2
    assert "must be a sweep file (.yaml), the folder of a sweep's results, or its name" in ended.err


def test_what_was_learned_of_shares_is_shown_and_forgotten_on_demand_while_no_run_holds_the_folder(
    cli: Callable[..., Ended], finished: FinishedSweep, tmp_path: Path
) -> None:
    shutil.copytree(finished.results, tmp_path / "results")
    shutil.copy(finished.file, tmp_path)
    folder = tmp_path / "results" / "tiny"
    assert cli("shares", "tiny").out == "no trial has been given more than the file says\n"
    with Ledger.open(folder / LEDGER_NAME) as ledger:
        ledger.write_resource_floor("nano", ResourceFloor(0.5, 0.0, 4))
    learned = "nano: at least 0.5 GPUs a process, micro-batches of at most 4, since memory ran out\n"
    assert cli("shares", "tiny").out == learned
    assert cli("shares", "tiny.yaml").out == f"nano: 1 core, by the file\n{learned}"
    with hold_lock(folder):
        assert cli("shares", "tiny", "--reset").code == 3
    ended = cli("shares", "tiny", "--reset")
    assert (ended.code, ended.out.splitlines()[0]) == (0, learned.rstrip())
    assert cli("shares", "tiny").out == "no trial has been given more than the file says\n"
    assert cli("shares", "s3://bucket/tiny", "--reset").code == 2


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


@pytest.mark.parametrize(
    "arguments", [("table", "tiny.yaml"), ("table", "tiny.yaml", "--format", "csv"), ("plan", "tiny.yaml"), ("schema",)]
)
def test_a_command_whose_reader_has_had_enough_ends_quietly(
    arguments: tuple[str, ...], finished: FinishedSweep
) -> None:
    ended = ended_without_a_reader(finished.folder, PROGRAM, *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.long
def test_a_run_goes_on_when_nobody_reads_what_it_prints(tmp_path: Path, write_sweep: Callable[..., Path]) -> None:
    write_sweep(tmp_path, seeds=1, ablate={}, floors=["raw_pixels"])
    ended = ended_without_a_reader(tmp_path, PROGRAM, "run", "tiny.yaml", "--executor", "local")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [record.state for record in records_in(tmp_path / "results" / "tiny")] == [State.DONE] * 2
    assert (tmp_path / "results" / "tiny" / "table.md").exists()


def ended_without_a_reader(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose output is a pipe that is closed at its other end."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            command, cwd=folder, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writer)
