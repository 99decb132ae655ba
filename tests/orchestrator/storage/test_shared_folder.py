"""Whole sweeps whose results lie on a network file system: here a folder, of which the table of mounts says so."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from multiprocessing import Process, get_context
from pathlib import Path

import pytest

from orchestrator import control
from orchestrator.cli.app import EXIT_BAD_INPUT, EXIT_LOCKED
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.plan import make_plan
from orchestrator.storage import local_disk
from orchestrator.storage.driver import is_in_use
from orchestrator.storage.folder_lock import LockedError, hold_lock
from orchestrator.storage.remote_folder import RemoteFolder
from orchestrator.storage.remote_lock import read_holder
from orchestrator.storage.results_folder import local_copy, results_folder
from orchestrator.storage.views import folder_of_view, local_view, sweep_view
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Event
from orchestrator.trials.records import State
from orchestrator.trials.trial import Trial
from specvit.errors import SpecsweepError

from ...waiting import wait_for
from ..watcher import rung_of
from .mirrored_runs import drive, results, run

Command = Callable[..., subprocess.CompletedProcess[str]]
Machine = Callable[[str], Path]

pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder on which NFS is mounted, as far as anybody can see."""
    monkeypatch.delenv("SPECSWEEP_LEDGER", raising=False)
    monkeypatch.setattr(local_disk, "_MOUNTS", tmp_path / "mountinfo")
    root = tmp_path / "nfs"
    (tmp_path / "mountinfo").write_text(
        f"27 1 254:0 / / rw - ext4 /dev/vda rw\n99 27 0:50 / {root} rw,relatime shared:7 - nfs4 server:/export rw\n"
    )
    root.mkdir()
    return root


def files(folder: Path) -> list[str]:
    """Return what lies there, but for snapshots, and patches, which are there if this checkout is changed."""
    names = (path.name for path in folder.iterdir() if not path.match("ledger.*.*.sqlite"))
    return sorted(name for name in names if name != "uncommitted")


def test_the_ledger_is_on_the_drivers_disk_and_snapshots_of_it_in_the_folder(
    sweep: Sweep, shared: Path, whole: list[dict[str, float]], machine: Machine
) -> None:
    outcome, _ = run(sweep, str(shared))
    assert results(outcome) == whole
    assert files(shared / "tiny") == [
        *("curves.csv", "curves.png", "environment.json", "ledger.json", "lock", "metrics.csv", "report.html"),
        *("sweep.json", "sweep.yaml", "table.csv", "table.md", "trials.csv"),
    ]
    copy = local_copy(RemoteFolder(f"file://{shared}/tiny"))
    assert copy.is_relative_to(machine("here"))
    assert (copy / LEDGER_NAME).is_file()
    machine("elsewhere")
    for place, name in ((shared / "tiny", None), (shared, "tiny")):
        view = local_view(place, name=name) / (name or "")
        assert folder_of_view(view) == shared / "tiny"
        with Ledger.read(view / LEDGER_NAME) as ledger:
            assert ledger.records() == outcome.records
    assert make_plan(sweep, results_root=shared, num_slots=1).forecast.num_pending == 0
    again, _ = run(sweep, str(shared))
    assert (again.num_run, results(again)) == (0, whole)


@pytest.mark.long
def test_the_environment_forces_the_ledger_to_either_place(
    sweep: Sweep, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECSWEEP_LEDGER", "in-place")
    run(sweep, str(shared))
    assert (shared / "tiny" / LEDGER_NAME).is_file()
    monkeypatch.setenv("SPECSWEEP_LEDGER", "mirror")
    run(sweep, str(tmp_path / "disk"))
    assert not (tmp_path / "disk" / "tiny" / LEDGER_NAME).exists()
    monkeypatch.setenv("SPECSWEEP_LEDGER", "in-place")
    with pytest.raises(SpecsweepError, match=r"disk/tiny: SPECSWEEP_LEDGER is 'in-place', but the ledger here is a mi"):
        run(sweep, str(tmp_path / "disk"))


@pytest.mark.long
def test_a_mirrored_folder_that_was_copied_to_a_disk_is_read_and_gone_on_with(
    sweep: Sweep, trials: tuple[Trial, ...], shared: Path, tmp_path: Path, whole: list[dict[str, float]]
) -> None:
    run(sweep, str(shared), stop_after=rung_of(trials[0]))
    shutil.copytree(shared, tmp_path / "disk")
    with Ledger.read(local_view(tmp_path / "disk" / "tiny") / LEDGER_NAME) as ledger:
        assert len(ledger.records()) == len(trials)
    outcome, _ = run(sweep, str(tmp_path / "disk"))
    assert results(outcome) == whole


@pytest.fixture
def driver(sweep: Sweep, shared: Path, trials: tuple[Trial, ...], tmp_path: Path) -> Iterator[Process]:
    """Start a driver in a process of its own; return when a rung and a state of the last trial are in the folder."""
    last = trials[-1].trial_id
    process = get_context("fork").Process(target=drive, args=(sweep, str(shared), last, tmp_path))
    process.start()
    try:
        wait_for(
            lambda: _has_reported(last, shared) and (shared / "tiny" / "checkpoints" / f"{last}.safetensors").exists(),
            making_progress=lambda: (sorted(map(str, shared.rglob("*"))), process.exitcode),
        )
        yield process
    finally:
        process.kill()
        process.join()


def _has_reported(trial_id: str, shared: Path) -> bool:
    path = local_view(shared / "tiny") / LEDGER_NAME
    if not path.is_relative_to(shared) and path.exists():
        with Ledger.read(path) as ledger:
            return any(record.reports for record in ledger.records() if record.trial.trial_id == trial_id)
    return False


@pytest.mark.parametrize("where", [pytest.param("here", marks=pytest.mark.long), "elsewhere"])
def test_a_killed_driver_is_followed_by_one_that_goes_on_in_the_middle_of_its_trial(
    where: str,
    driver: Process,
    sweep: Sweep,
    trials: tuple[Trial, ...],
    shared: Path,
    whole: list[dict[str, float]],
    machine: Machine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver.kill()
    driver.join()
    # What it leaves: its lock, a state of the trial, and a snapshot in which that trial has begun.
    assert read_holder(RemoteFolder(f"file://{shared}/tiny")) is not None
    assert not is_in_use(shared / "tiny")
    machine(where)
    outcome, watcher = run(sweep, str(shared))
    assert ("watching for up to" in caplog.text) is (where == "elsewhere")
    assert watcher.first_step(trials[-1]) > 1
    assert results(outcome) == whole
    assert [record.num_attempts for record in outcome.records] == [1, 2]
    assert not is_in_use(shared / "tiny")
    assert "checkpoints" not in files(shared / "tiny")


@pytest.mark.parametrize("has_locks", [pytest.param(True, marks=pytest.mark.long), False])
def test_a_second_driver_is_refused_on_this_machine_and_on_others(
    has_locks: bool, sweep: Sweep, shared: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_locks:
        _take_locks_from(shared, monkeypatch)
    run(sweep, str(shared), stop_after=lambda _: True)
    assert not is_in_use(shared / "tiny")
    with results_folder(shared, "tiny", period_s=1.0):
        assert is_in_use(shared / "tiny")
        with pytest.raises(LockedError, match=f"tiny: .* is in use by process {os.getpid()} on "):
            run(sweep, str(shared))
        machine("elsewhere")
        with pytest.raises(LockedError, match=f"{shared}/tiny is in use by process {os.getpid()} on "):
            run(sweep, str(shared))


def test_a_driver_that_works_in_the_folder_itself_is_not_joined(sweep: Sweep, shared: Path) -> None:
    with hold_lock(shared / "tiny"), pytest.raises(LockedError, match=f"{shared}/tiny is in use by process"):
        run(sweep, str(shared))
    assert read_holder(RemoteFolder(f"file://{shared}/tiny")) is None


def _take_locks_from(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no file below ``shared`` locked, as on Lustre without ``flock``."""
    flock = fcntl.flock

    def refuse(descriptor: int, kind: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(shared):
            raise OSError(errno.ENOLCK, "No locks available")
        flock(descriptor, kind)

    monkeypatch.setattr("orchestrator.storage.folder_lock.fcntl.flock", refuse)


@pytest.mark.parametrize("is_killed", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_ledger_in_the_folder_itself_is_taken_from_there_with_all_it_has(
    is_killed: bool,
    sweep: Sweep,
    trials: tuple[Trial, ...],
    shared: Path,
    whole: list[dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    machine: Machine,
) -> None:
    monkeypatch.setenv("SPECSWEEP_LEDGER", "in-place")
    run(sweep, str(shared), stop_after=rung_of(trials[1]))
    folder = shared / "tiny"
    if is_killed:  # as kill -9 leaves it: what was recorded last is in SQLite's log alone
        with Ledger.open(folder / LEDGER_NAME) as ledger:
            attempt = ledger.begin_attempt(trials[1].trial_id)
            for name in (LEDGER_NAME, f"{LEDGER_NAME}-wal"):
                shutil.copyfile(folder / name, shared / name)
        for name in (LEDGER_NAME, f"{LEDGER_NAME}-wal"):
            (shared / name).replace(folder / name)
        assert (attempt, (folder / f"{LEDGER_NAME}-wal").stat().st_size > 0) == (2, True)
    monkeypatch.delenv("SPECSWEEP_LEDGER")
    outcome, _ = run(sweep, str(shared))
    assert results(outcome) == whole
    assert [record.num_attempts for record in outcome.records] == [1, 3 if is_killed else 2]
    assert {LEDGER_NAME, f"{LEDGER_NAME}-wal"}.isdisjoint(files(folder))
    with Ledger.read(folder / "ledger.moved.sqlite") as ledger:
        assert [record.num_attempts for record in ledger.records()] == [1, 2 if is_killed else 1]
    machine("elsewhere")
    again, _ = run(sweep, str(shared))
    assert (again.num_run, results(again)) == (0, whole)


@pytest.mark.parametrize("name", ["checkpoints", "weights"])
def test_a_link_in_place_of_states_or_weights_is_refused(name: str, sweep: Sweep, shared: Path, tmp_path: Path) -> None:
    (shared / "tiny").mkdir()
    (shared / "tiny" / name).symlink_to(tmp_path)
    with pytest.raises(SpecsweepError, match=f"{name}: must not be a link"):
        run(sweep, str(shared))


def commanded(give: Callable[[], object], shared: Path, stop_at: Callable[[Event], bool]) -> Callable[[Event], bool]:
    """Return an observer that lets a command come from another process's thread in the middle of a run."""
    threads: list[threading.Thread] = []

    def on_event(event: Event) -> bool:
        if not threads and stop_at(event):
            threads.append(threading.Thread(target=give))
            threads[0].start()
            commands = shared / "tiny" / "commands"
            wait_for(lambda: list(commands.glob("*.json")), making_progress=lambda: threads[0].is_alive())
        return False

    return on_event


def test_a_run_takes_commands_that_are_given_in_the_folder(
    sweep: Sweep, trials: tuple[Trial, ...], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.storage.command_inbox._PERIOD_S", 0.0)
    folder = shared / "tiny"
    outcome, _ = run(sweep, str(shared), commanded(lambda: control.cancel(folder), shared, rung_of(trials[0])))
    assert not outcome.finished
    with Ledger.read(local_view(folder) / LEDGER_NAME) as ledger:
        records, info = ledger.records(), ledger.sweep()
    arm = trials[1].arm
    prune = commanded(lambda: control.prune(folder, records, info, arm=arm), shared, rung_of(trials[0]))
    outcome, _ = run(sweep, str(shared), prune)
    assert [record.state for record in outcome.records] == [State.DONE, State.PRUNED]


@pytest.mark.long
def test_an_arm_is_pruned_while_no_run_is_there_from_any_machine(
    sweep: Sweep, trials: tuple[Trial, ...], shared: Path, machine: Machine, command: Command
) -> None:
    run(sweep, str(shared), stop_after=rung_of(trials[0]))
    machine("elsewhere")
    assert "1 trials of" in command("prune", f"{shared}/tiny", trials[1].arm).stdout
    machine("here")
    outcome, _ = run(sweep, str(shared))
    assert [record.state for record in outcome.records] == [State.DONE, State.PRUNED]


@pytest.mark.long
def test_the_commands_take_such_a_folder(
    file: Path, sweep: Sweep, shared: Path, command: Command, machine: Machine, trials: tuple[Trial, ...]
) -> None:
    outcome, _ = run(sweep, str(shared))
    machine("elsewhere")
    for target in (f"{shared}/tiny", str(file), "tiny"):
        for name in ("status", "table", "logs", "events"):
            assert command(name, target, "--results", str(shared)).returncode == 0
    ran = command("run", str(file), "--executor", "local", "--results", str(shared))
    copy = local_copy(RemoteFolder(f"file://{shared}/tiny"))
    assert f"ledger: in {copy}, mirrored to {shared}/tiny every 30 s\n" in ran.stdout
    assert f"written: {shared}/tiny/table.md, {shared}/tiny/table.csv, {shared}/tiny/curves.csv" in ran.stdout
    assert command("status", "tiny", "--results", str(shared), "--follow").returncode == 0
    refused = command("events", "tiny", "--results", str(shared), "--follow")
    assert (refused.returncode, "events of a mirrored ledger come in lumps" in refused.stderr) == (EXIT_BAD_INPUT, True)
    (shared / "tiny" / "curves.csv").unlink()
    assert command("curves", "tiny", "--results", str(shared)).returncode == 0
    assert (shared / "tiny" / "curves.csv").is_file()
    (shared / "mine").mkdir()
    listed = json.loads(command("list", str(shared), "--json").stdout)
    assert [(each["name"], each["state"], each["trials"]) for each in listed] == [("tiny", "complete", len(trials))]
    assert (view := sweep_view(shared, "tiny")) is not None
    assert folder_of_view(view) == shared / "tiny"
    with results_folder(shared, "tiny"):
        for arguments in (("delete", "--yes", f"{shared}/tiny"), ("redo", str(file), "--results", str(shared))):
            assert command(*arguments).returncode == EXIT_LOCKED
    assert command("delete", "--yes", f"{shared}/tiny").returncode == 0
    assert not (shared / "tiny").exists()
    assert not copy.exists()
    assert len(outcome.records) == len(trials)
