"""Whole sweeps whose results are at a URL; stand-ins compute their trials (``tests/faults/harness/stand_ins``)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing import Process, get_context
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from orchestrator import load
from orchestrator.cli.app import EXIT_BAD_INPUT, EXIT_LOCKED, app, main
from orchestrator.cli.console import make_console
from orchestrator.cli.run import _print_outcome
from orchestrator.execution.local import LocalExecutor
from orchestrator.ledger.ledger import Ledger
from orchestrator.run import LEDGER_NAME
from orchestrator.scheduling.jobs import weights_name
from orchestrator.storage.folder_lock import LockedError
from orchestrator.storage.remote_folder import RemoteError, RemoteFolder
from orchestrator.storage.remote_lock import LOCK_NAME, read_holder
from orchestrator.storage.results_folder import results_folder
from orchestrator.storage.views import driver_of_view, folder_names, local_view
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Event, Finished, Reported
from orchestrator.trials.records import State
from orchestrator.trials.trial import Trial
from specvit.errors import SpecsweepError

from ...waiting import wait_for
from ..watcher import rung_of
from .mirrored_runs import STEPS, drive, results, run

pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


@pytest.fixture
def store(url: str) -> RemoteFolder:
    return RemoteFolder(url) / "tiny"


def test_a_sweep_leaves_ledger_tables_and_nothing_else_at_its_url(
    sweep: Sweep,
    url: str,
    store: RemoteFolder,
    whole: list[dict[str, float]],
    machine: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome, _ = run(sweep, url)
    assert outcome.finished
    assert results(outcome) == whole
    names = [name for name in store.names() if not name.endswith(".sqlite")]
    assert names == [
        *("curves.csv", "curves.png", "environment.json", "ledger.json", "metrics.csv", "report.html", "sweep.json"),
        *("sweep.yaml", "table.csv", "table.md", "trials.csv"),
    ]
    assert (store / "checkpoints").names() == ()
    with results_folder(url, "tiny") as folder:
        _print_outcome(make_console(), outcome, folder)
    assert f"written: {url}/tiny/table.md, {url}/tiny/table.csv, {url}/tiny/curves.csv, " in capsys.readouterr().out
    machine("elsewhere")
    with Ledger.read(local_view(f"{url}/tiny") / LEDGER_NAME) as ledger:
        assert ledger.records() == outcome.records
    assert load(f"{url}/tiny").trials["trial_id"].tolist() == [each.trial.trial_id for each in outcome.records]
    again, watcher = run(sweep, url)
    assert again.num_run == 0
    assert watcher.events == []
    assert results(again) == whole


def test_a_store_in_memory_serves_as_well(sweep: Sweep, whole: list[dict[str, float]]) -> None:
    url = f"memory://{uuid4().hex}"
    outcome, _ = run(sweep, url)
    assert results(outcome) == whole
    assert "table.md" in (RemoteFolder(url) / "tiny").names()


def test_a_path_is_no_url_and_is_worked_in_directly(tmp_path: Path) -> None:
    with results_folder(tmp_path, "tiny") as folder:
        assert (folder.local, folder.remote, folder.is_taken_over()) == (tmp_path / "tiny", None, False)
    assert local_view(tmp_path) == tmp_path
    assert driver_of_view(tmp_path) is None


@pytest.fixture
def driver(
    sweep: Sweep, url: str, store: RemoteFolder, trials: tuple[Trial, ...], tmp_path: Path
) -> Iterator[Process]:
    """Start a driver in a process of its own; return when a rung and a state of the last trial are at the URL."""
    last = trials[-1].trial_id
    process = get_context("fork").Process(target=drive, args=(sweep, url, last, tmp_path))
    process.start()
    try:
        wait_for(
            lambda: _has_reported(trials[-1], url) and f"{last}.safetensors" in (store / "checkpoints").names(),
            making_progress=lambda: (store.names(), process.exitcode),
        )
        yield process
    finally:
        process.kill()
        process.join()


def _has_reported(trial: Trial, url: str) -> bool:
    path = local_view(f"{url}/tiny") / LEDGER_NAME
    if not path.exists():
        return False
    with Ledger.read(path) as ledger:
        return any(record.reports for record in ledger.records() if record.trial.trial_id == trial.trial_id)


def said(arguments: list[str]) -> str:
    """Return what a command prints on a terminal that is wide enough to fold nothing."""
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "300"}).output


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_killed_driver_is_followed_by_one_that_goes_on_in_the_middle_of_its_trial(
    where: str,
    driver: Process,
    sweep: Sweep,
    trials: tuple[Trial, ...],
    url: str,
    store: RemoteFolder,
    whole: list[dict[str, float]],
    machine: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver.kill()
    driver.join()
    assert read_holder(store) is not None
    machine(where)
    if where == "elsewhere":
        path = Path(store.url.removeprefix("file://"), LOCK_NAME)
        os.utime(path, (path.stat().st_mtime - 720.0,) * 2)
    told = json.loads(CliRunner().invoke(app, ["status", str(store), "--json"]).output)
    assert (told["is_running"], told["has_ended"]) == (False, True)
    assert told["driver"]["name"].startswith(f"process {driver.pid} on ")
    assert told["driver"]["is_certain"] is (where == "here")
    shown = said(["status", str(store)])
    silent = "last heard of 12 min ago: it was killed, or cannot reach these results"
    assert (silent in shown, ", on this machine: it was killed" in shown) == (where != "here", where == "here")
    known = "no run holds the results folder" if where == "here" else "as far as is known here"
    assert f"interrupted{':' if where == 'here' else ','} {known}; run the sweep again to go on" in shown
    listed = said(["list", url])
    assert ("silent for 12 min" in listed, "stopped" in listed) == (where != "here", where == "here")
    outcome, watcher = run(sweep, url)
    # The own dead lock is known as such; that of another machine has to be watched.
    assert ("watching for up to" in caplog.text) is (where == "elsewhere")
    assert watcher.first_step(trials[-1]) > 1
    assert results(outcome) == whole
    assert [(record.state, record.num_attempts) for record in outcome.records] == [(State.DONE, 1), (State.DONE, 2)]
    assert (store / "checkpoints").names() == ()
    assert read_holder(store) is None


def test_a_stopped_sweep_goes_on_from_its_state_on_another_machine(
    file: Path, trials: tuple[Trial, ...], url: str, whole: list[dict[str, float]], machine: Callable[[str], Path]
) -> None:
    seldom = load_sweep(file, ["checkpoint_every_s=60"])
    stopped, _ = run(seldom, url, stop_after=rung_of(trials[0]))
    assert not stopped.finished
    machine("elsewhere")
    outcome, watcher = run(seldom, url)
    assert watcher.first_step(trials[0]) >= STEPS // 3
    assert results(outcome) == whole


def test_a_second_driver_is_refused_on_this_machine_and_on_others(
    sweep: Sweep, url: str, machine: Callable[[str], Path]
) -> None:
    run(sweep, url, stop_after=lambda _: True)
    assert driver_of_view(local_view(f"{url}/tiny")) is None
    with results_folder(url, "tiny", period_s=1.0):
        with pytest.raises(LockedError, match=rf"^{url}/tiny: .* is in use by process {os.getpid()} on "):
            run(sweep, url)
        machine("elsewhere")
        with pytest.raises(LockedError, match=rf"^{url}/tiny is in use by process {os.getpid()} on "):
            run(sweep, url)
        held_by = driver_of_view(local_view(f"{url}/tiny"))
        assert held_by is not None
        assert held_by.name.startswith(f"process {os.getpid()} on ")
        shown = said(["status", f"{url}/tiny"])
        assert f"driver: process {os.getpid()} on " in shown
        assert "s ago" in shown
        assert "running" in said(["list", url])


def test_a_driver_that_was_taken_over_stops_mirrors_nothing_more_and_says_so(
    sweep: Sweep, url: str, store: RemoteFolder
) -> None:
    def take_over(event: Event) -> bool:
        if isinstance(event, Reported):
            other = {"token": "other", "host": "elsewhere", "pid": 7, "since": "noon"}
            store.put_bytes(LOCK_NAME, json.dumps(other).encode())
        return False

    with pytest.raises(LockedError, match=rf"{url}/tiny was taken over by process 7 on elsewhere \(since noon\)"):
        run(sweep, url, stop_after=take_over)
    assert "table.md" not in store.names()
    assert LOCK_NAME in store.names()


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["specsweep", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_store_that_cannot_be_reached_at_the_start_is_bad_input(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").write_text("no folder")
    url = (tmp_path / "store").as_uri()
    assert command(monkeypatch, "run", str(file), "--executor", "local", "--results", url) == EXIT_BAD_INPUT
    assert f"specsweep: {url}/tiny/lock.json: cannot be read (" in capsys.readouterr().err


def test_a_locked_url_has_the_exit_code_of_a_locked_folder(
    file: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with results_folder(url, "tiny"):
        assert command(monkeypatch, "run", str(file), "--executor", "local", "--results", url) == EXIT_LOCKED
    assert f"specsweep: {url}/tiny: " in capsys.readouterr().err


def test_a_store_that_fails_in_the_middle_stops_nothing_and_is_made_up_for_by_the_next_run(
    sweep: Sweep,
    trials: tuple[Trial, ...],
    url: str,
    store: RemoteFolder,
    whole: list[dict[str, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("orchestrator.storage.ledger_mirror._LAST_TRIES_AFTER_S", (0.0, 0.0))
    monkeypatch.setattr("orchestrator.execution.worker_files._TRIES_AFTER_S", (0.0, 0.0))

    (tmp_path / "working").mkdir()
    (tmp_path / "broken").write_text("no folder")

    def be(state: str) -> None:  # from one moment to the next, whatever other threads do with it
        (tmp_path / "link").symlink_to(state)
        (tmp_path / "link").replace(tmp_path / "store")

    def break_down(event: Event) -> bool:
        if rung_of(trials[0])(event):
            be("broken")
        return False

    be("working")
    outcome, _ = run(sweep, url, stop_after=break_down)
    assert outcome.finished
    assert results(outcome) == whole
    assert "; training goes on, and the next state is tried" in caplog.text
    assert f"but not at {url}/tiny: running the same command again uploads them" in caplog.text
    be("working")
    caplog.clear()
    again, _ = run(sweep, url)
    assert again.num_run == 0
    assert "but not at" not in caplog.text
    assert "table.md" in store.names()
    assert (store / "checkpoints").names() == ()
    with Ledger.read(local_view(f"{url}/tiny") / LEDGER_NAME) as ledger:
        assert ledger.records() == outcome.records


def test_kept_weights_are_at_the_url(file: Path, url: str, store: RemoteFolder) -> None:
    keeping = load_sweep(file, ["name=tiny", "keep_weights=true", "objective.steps=2", "rungs.count=1"])
    outcome, _ = run(keeping, url, stop_after=lambda event: isinstance(event, Finished), executor=LocalExecutor)
    name = weights_name(outcome.records[0].trial)
    assert (store / "weights").names(folders=True) == (name,)
    assert (store / "weights").names() == ("index.csv",)
    names = (store / "weights" / name).names()
    assert names
    assert all(name.endswith(".safetensors") for name in names)


def test_the_commands_that_read_take_a_url(
    file: Path, sweep: Sweep, url: str, machine: Callable[[str], Path]
) -> None:
    outcome, _ = run(sweep, url)
    machine("elsewhere")
    for target in (f"{url}/tiny", str(file), "tiny"):
        for name in ("status", "table"):
            result = CliRunner().invoke(app, [name, target, "--results", url])
            assert result.exit_code == 0, result.output
            assert outcome.records[0].trial.group in result.output
    assert CliRunner().invoke(app, ["curves", f"{url}/tiny"]).exit_code == 0
    result = CliRunner().invoke(app, ["plan", str(file), "--results", url, "--json"])
    assert json.loads(result.output)["pending"] == 0


def test_where_nothing_is_mirrored_there_is_no_ledger(url: str, tmp_path: Path) -> None:
    view = local_view(url)
    assert list(view.iterdir()) == []
    result = CliRunner().invoke(app, ["status", f"{url}/tiny"])
    assert isinstance(result.exception, SpecsweepError)
    assert f"{url}/tiny" in str(result.exception)
    for name in ("..", f"{tmp_path}/absent"):
        local_view(url, name=name)
    assert not (tmp_path / "absent").exists()


def test_the_view_of_a_sweep_below_a_root_is_fetched_once(
    sweep: Sweep, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(sweep, url, stop_after=lambda _: True)
    assert folder_names(url) == ["tiny"]
    view = local_view(url, name="tiny")
    assert (view / "tiny" / LEDGER_NAME).is_file()

    def fail(*_: object) -> bool:
        raise RemoteError("fetched again")

    monkeypatch.setattr(RemoteFolder, "get", fail)
    assert local_view(url, name="tiny") == view
