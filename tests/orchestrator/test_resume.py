"""Sweeps that are interrupted in the middle of a trial, and go on there."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.execution.local import LocalExecutor
from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.run import LEDGER_NAME, Outcome, run_sweep
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Event, Failed, Finished
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Trial
from specvit.errors import DivergenceError

from ..long_run import IS_LONG
from ..measured_columns import MEASURED
from ..waiting import wait_for
from .saved_steps import sections_of
from .watcher import Watcher, rung_of

pytestmark = pytest.mark.usefixtures("no_figures")

STEPS = 18 if IS_LONG else 6
REPOSITORY = Path(__file__).parents[2]

HELD_DRIVER = f"""
import time

import specvit.trial
from orchestrator.cli.app import main
from orchestrator.execution.worker import RunningJob

progress = RunningJob.progress

def hold(running, *, step, **others):
    progress(running, step=step, **others)
    while "norm@all" in running.job.label and step > {STEPS // 3}:
        time.sleep(1.0)

RunningJob.progress = hold
main()
"""
"""The command, whose last trial comes no further than the step behind its first rung."""


def run(
    sweep: Sweep, folder: Path, stop_after: Callable[[Event], bool] = lambda _: False
) -> tuple[Outcome, Watcher]:
    watcher = Watcher(stop_after)
    outcome = run_sweep(
        sweep,
        folder=folder,
        make_executor=lambda datasets, _: LocalExecutor(datasets),
        callbacks=[watcher],
        should_stop=lambda: watcher.wants_to_stop,
    )
    return outcome, watcher


def table(folder: Path) -> str:
    return pd.read_csv(folder / "table.csv", dtype=str).drop(columns=MEASURED).to_csv()


def state_of(trial: Trial, folder: Path) -> Path:
    return folder / "checkpoints" / f"{trial.trial_id}.safetensors"


def is_finished(event: Event) -> bool:
    return isinstance(event, Finished)


def record_of(trial: Trial, folder: Path) -> TrialRecord | None:
    try:
        with Ledger.read(folder / LEDGER_NAME) as ledger:
            return next((record for record in ledger.records() if record.trial.trial_id == trial.trial_id), None)
    except LedgerError:
        return None


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, write_sweep: Callable[..., Path]) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"), **sections_of(steps=STEPS))


@pytest.fixture(scope="module")
def sweep(file: Path) -> Sweep:
    return load_sweep(file)


@pytest.fixture(scope="module")
def trials(sweep: Sweep) -> tuple[Trial, ...]:
    return expand(sweep)


@pytest.fixture(scope="module")
def whole(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Run the sweep without an interruption, and without saving a state."""
    folder = tmp_path_factory.mktemp("whole") / "tiny"
    outcome, _ = run(load_sweep(sweep.path, ["checkpoint_every_s=0"]), folder)
    assert not (folder / "checkpoints").exists()
    return outcome


@pytest.fixture(scope="module")
def whole_table(whole: Outcome) -> str:
    return table(whole.written[0].parent)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / "tiny"


@pytest.fixture
def driver(file: Path, folder: Path, trials: tuple[Trial, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command, and return when the last trial is held behind its first rung."""
    arguments = ["run", str(file), "--executor", "local", "--results", str(folder.parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", HELD_DRIVER, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)

    def is_held() -> bool:
        assert process.poll() is None
        record = record_of(trials[-1], folder)
        return record is not None and len(record.reports) == 1 and state_of(trials[-1], folder).exists()

    try:
        wait_for(is_held)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
def test_a_killed_driver_goes_on_in_the_middle_of_its_trial_to_the_same_table(
    driver: subprocess.Popen[bytes],
    sweep: Sweep,
    trials: tuple[Trial, ...],
    folder: Path,
    whole: Outcome,
    whole_table: str,
) -> None:
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    assert state_of(trials[-1], folder).exists()
    assert not state_of(trials[0], folder).exists()
    outcome, watcher = run(sweep, folder)
    # A rung is told of before the step's state is saved.
    assert watcher.first_step(trials[-1]) >= STEPS // 3 - 1
    assert table(folder) == whole_table
    assert [(record.state, record.num_attempts) for record in outcome.records] == [(State.DONE, 1), (State.DONE, 2)]
    assert [record.reports for record in outcome.records] == [record.reports for record in whole.records]
    assert [report.step for report in outcome.records[-1].reports] == [STEPS // 3, 2 * STEPS // 3]
    assert not (folder / "checkpoints").exists()


@pytest.mark.long
def test_ctrl_c_saves_the_state_first(
    file: Path, trials: tuple[Trial, ...], folder: Path, whole_table: str
) -> None:
    seldom = load_sweep(file, ["checkpoint_every_s=60"])
    stopped, _ = run(seldom, folder, stop_after=rung_of(trials[0]))
    assert not stopped.finished
    assert state_of(trials[0], folder).exists()
    _, watcher = run(seldom, folder)
    assert watcher.first_step(trials[0]) >= STEPS // 3
    assert table(folder) == whole_table
    assert not (folder / "checkpoints").exists()


class Touch:
    """Make a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture(scope="module")
def interrupted(sweep: Sweep, trials: tuple[Trial, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stop the sweep at the first rung of its first trial."""
    folder = tmp_path_factory.mktemp("interrupted") / "tiny"
    run(sweep, folder, stop_after=rung_of(trials[0]))
    return folder


@pytest.mark.parametrize("damage", ["cut", "bits", "pickle"])
def test_a_state_that_must_not_be_used_is_refused_and_training_begins_anew(
    damage: str,
    sweep: Sweep,
    trials: tuple[Trial, ...],
    interrupted: Path,
    folder: Path,
    tmp_path: Path,
    whole: Outcome,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(interrupted, folder)
    path = state_of(trials[0], folder)
    data = path.read_bytes()
    mark = tmp_path / "executed"
    match damage:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "bits":
            path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        case _:
            path.write_bytes(pickle.dumps(Touch(mark)))
            pickle.loads(path.read_bytes())  # noqa: S301
            assert mark.exists()  # it would be executed, if it were unpickled
            mark.unlink()
    outcome, watcher = run(sweep, folder, stop_after=is_finished)
    assert watcher.first_step(trials[0]) == 1
    assert "; training begins anew" in caplog.text
    assert outcome.records[0].metrics == whole.records[0].metrics
    assert outcome.records[0].num_attempts == 2
    assert not mark.exists()
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("torch.__version__", "other"), ("orchestrator.trials.computation.package_digest", lambda _: "other")],
    ids=["another version", "other code"],
)
def test_a_state_of_other_software_is_refused(
    name: str,
    value: object,
    sweep: Sweep,
    trials: tuple[Trial, ...],
    interrupted: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(interrupted, folder)
    monkeypatch.setattr(name, value)
    _, watcher = run(sweep, folder, stop_after=rung_of(trials[0]))
    assert "on other software or data; training begins anew" in caplog.text
    assert watcher.first_step(trials[0]) == 1


def test_a_trial_that_failed_goes_on_from_its_state_in_the_next_run(
    file: Path, trials: tuple[Trial, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load_sweep(file)

    def fail(*_: object, **__: object) -> None:
        raise DivergenceError("the loss is nan")

    with monkeypatch.context() as patch:
        patch.setattr("specvit.trial.Probing.backbone", fail)  # at the end, so that there is a state
        outcome, _ = run(sweep, folder, stop_after=lambda event: isinstance(event, Failed))
    assert outcome.num_failed == 1
    assert outcome.records[0].num_attempts == 1
    assert state_of(trials[0], folder).exists()
    _, watcher = run(sweep, folder, stop_after=rung_of(trials[1]))
    assert watcher.first_step(trials[0]) == STEPS


def test_states_of_trials_that_left_the_sweep_go_at_the_end_of_a_finished_run(
    file: Path, trials: tuple[Trial, ...], interrupted: Path, folder: Path
) -> None:
    shutil.copytree(interrupted, folder)
    other = load_sweep(file, ["name=tiny", "ablate.components=[none]", "seeds=[1]"])
    (added,) = expand(other)
    run(other, folder, stop_after=rung_of(added))
    assert state_of(trials[0], folder).exists()
    assert state_of(added, folder).exists()
    assert run(other, folder)[0].finished
    assert not (folder / "checkpoints").exists()


def test_where_the_states_cannot_be_written_the_sweep_runs_without(
    sweep: Sweep, folder: Path, whole: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(parents=True)
    (folder / "checkpoints").write_text("a file")
    outcome, _ = run(sweep, folder, stop_after=is_finished)
    assert "training goes on without a checkpoint of step 1" in caplog.text
    assert outcome.records[0].metrics == whole.records[0].metrics


def test_settings_of_states_and_processes_take_no_part_in_identity(sweep: Sweep, trials: tuple[Trial, ...]) -> None:
    other = load_sweep(sweep.path, ["checkpoint_every_s=7", "resources.processes=2"])
    assert (other.file.checkpoint_every_s, other.file.resources.processes) == (7, 2)
    assert [trial.trial_id for trial in expand(other)] == [trial.trial_id for trial in trials]
